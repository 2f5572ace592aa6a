//! Parses scripts into commands. The whole script is parsed before any command runs.

use std::collections::BTreeMap;
use std::str::FromStr;

use model::{Labels, Regex, TimeRange, Timestamp};

use crate::promqltest::sequence::{SequenceValue, parse_series};
use crate::promqltest::starts::{Starts, parse_starts};
use crate::syntax::{ParseOptions, parse, parse_duration, parse_labels_prefix, parse_number, unquote};

/// The error for a line of start timestamps that no sample line follows.
const NO_SAMPLES: &str = "@st line has no following sample line";

/// A script is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct ScriptError {
    /// The line number, from 1.
    pub line: usize,
    /// What is wrong with the line.
    pub message: String,
}

/// A parsed script. [`run`](Script::run) runs it.
#[derive(Clone, Debug)]
pub struct Script {
    pub(super) commands: Vec<ScriptCommand>,
}

#[derive(Clone, Debug)]
pub(super) enum ScriptCommand {
    Clear,
    /// `store`, in Thanos' scripts: the following loads go to a new store.
    Store(Labels, TimeRange),
    Load(Load),
    Eval(Box<Eval>),
}

/// `load` and `load_with_nhcb`.
#[derive(Clone, Debug)]
pub(super) struct Load {
    pub(super) line: usize,
    /// Milliseconds between two values.
    pub(super) step: i64,
    /// Whether classic histograms are also stored as native ones.
    pub(super) with_nhcb: bool,
    /// Each label set occurs once: a later line replaces an earlier one.
    pub(super) series: Vec<(Labels, Vec<SequenceValue>)>,
    /// The start timestamps of the series that have any.
    pub(super) starts: BTreeMap<Labels, Starts>,
}

/// Instants in milliseconds. `step` is 0 for a single instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instants {
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) step: i64,
}

/// `eval instant` and `eval range`.
#[derive(Clone, Debug)]
pub(super) struct Eval {
    pub(super) line: usize,
    pub(super) query: String,
    pub(super) is_range: bool,
    /// When the query is evaluated.
    pub(super) at: Instants,
    /// The instants of the expected samples, if an instant query returns a range vector.
    pub(super) range_vector: Option<Instants>,
    pub(super) expectations: Vec<Expectation>,
    pub(super) value: Expected,
}

/// The expected result of an evaluation.
#[derive(Clone, Debug)]
pub(super) enum Expected {
    Scalar(f64),
    String(String),
    /// In the order of the script; may be empty.
    Series(Vec<ExpectedSeries>),
}

#[derive(Clone, Debug)]
pub(super) struct ExpectedSeries {
    pub(super) labels: Labels,
    pub(super) values: Vec<SequenceValue>,
}

/// A line `expect <kind> [msg:|regex:] <text>`.
#[derive(Clone, Debug)]
pub(super) struct Expectation {
    pub(super) kind: ExpectationKind,
    pub(super) text: TextPattern,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExpectationKind {
    Ordered,
    Fail,
    Warn,
    NoWarn,
    Info,
    NoInfo,
}

impl FromStr for ExpectationKind {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        Ok(match text {
            "ordered" => Self::Ordered,
            "fail" => Self::Fail,
            "warn" => Self::Warn,
            "no_warn" => Self::NoWarn,
            "info" => Self::Info,
            "no_info" => Self::NoInfo,
            _ => return Err(()),
        })
    }
}

/// The text that an error or annotation must have.
#[derive(Clone, Debug)]
pub(super) enum TextPattern {
    /// Any text. In the older form `eval_warn`, other annotations are allowed, too.
    Any,
    Exactly(String),
    /// The pattern must match somewhere in the text.
    Matching(Regex),
}

impl TextPattern {
    /// A pattern that must match somewhere in the text.
    fn matching(pattern: &str) -> Result<Self, String> {
        let regex = Regex::new(&format!(".*(?:{pattern}).*"));
        regex.map(TextPattern::Matching).map_err(|error| format!("invalid regex {pattern}: {error}"))
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(expected) => expected == text,
            Self::Matching(regex) => regex.is_match(text),
        }
    }
}

impl Eval {
    pub(super) fn expects(&self, kind: ExpectationKind) -> bool {
        self.expectations.iter().any(|e| e.kind == kind)
    }
}

impl Script {
    /// Parses a script.
    ///
    /// # Errors
    /// If a line is invalid; the error names the first one. A query that is expected to fail must also be a
    /// valid expression.
    pub fn parse(text: &str) -> Result<Self, ScriptError> {
        let lines: Vec<&str> = text
            .split('\n')
            .map(str::trim)
            // A comment ends a block, like an empty line.
            .map(|line| if line.starts_with('#') { "" } else { line })
            .collect();
        let mut reader = LineReader { lines: &lines, at: 0 };
        let mut commands = Vec::new();
        while let Some(line) = reader.next_line() {
            if line.is_empty() {
                continue;
            }
            let command = reader.command(line).map_err(|message| ScriptError { line: reader.at, message })?;
            commands.push(command);
        }
        Ok(Self { commands })
    }
}

/// The lines of a script. `at` is the number of lines that were read, and so the number of the last one.
struct LineReader<'a> {
    lines: &'a [&'a str],
    at: usize,
}

impl<'a> LineReader<'a> {
    fn next_line(&mut self) -> Option<&'a str> {
        let line = self.lines.get(self.at).copied()?;
        self.at += 1;
        Some(line)
    }

    /// The next line of the block, or `None` at its end.
    fn block_line(&mut self) -> Option<&'a str> {
        self.lines.get(self.at).filter(|line| !line.is_empty())?;
        self.next_line()
    }

    fn command(&mut self, line: &str) -> Result<ScriptCommand, String> {
        let (word, rest) = split_word(line);
        match word.to_ascii_lowercase() {
            word if word == "clear" => Ok(ScriptCommand::Clear),
            word if word == "store" => store(rest),
            word if word.starts_with("load") => self.load(&word, rest).map(ScriptCommand::Load),
            word if word.starts_with("eval") => {
                self.eval(&word, rest).map(|eval| ScriptCommand::Eval(Box::new(eval)))
            }
            _ => Err(format!("invalid command {line:?}")),
        }
    }

    fn load(&mut self, word: &str, step: &str) -> Result<Load, String> {
        let with_nhcb = match word {
            "load" => false,
            "load_with_nhcb" => true,
            _ => return Err("invalid load command. (load[_with_nhcb] <step:duration>)".to_owned()),
        };
        let line = self.at;
        let step = parse_duration(step).map_err(|why| format!("invalid step definition {step:?}: {why}"))?;
        let mut series: Vec<(Labels, Vec<SequenceValue>)> = Vec::new();
        let mut starts = BTreeMap::new();
        let mut pending: Option<(Labels, Starts)> = None;
        while let Some(line) = self.block_line() {
            if let Some(parsed) = parse_starts(line) {
                if pending.replace(parsed?).is_some() {
                    return Err(NO_SAMPLES.to_owned());
                }
                continue;
            }
            let (labels, values) = parse_series(line)?;
            starts.remove(&labels);
            if let Some((series_labels, offsets)) = pending.take() {
                if series_labels != labels {
                    return Err("@st metric does not match the following sample line metric".to_owned());
                }
                if offsets.len() != values.len() {
                    let (offsets, samples) = (offsets.len(), values.len());
                    return Err(format!("@st line has {offsets} values but sample line has {samples}"));
                }
                starts.insert(series_labels, offsets);
            }
            match series.iter_mut().find(|(known, _)| *known == labels) {
                Some(known) => known.1 = values,
                None => series.push((labels, values)),
            }
        }
        if pending.is_some() {
            return Err(NO_SAMPLES.to_owned());
        }
        Ok(Load { line, step, with_nhcb, series, starts })
    }

    fn eval(&mut self, word: &str, rest: &str) -> Result<Eval, String> {
        const MALFORMED: &str = "invalid evaluation command. Must be 'eval instant at <time> <query>' or 'eval range \
                                 from <time> to <time> step <duration> <query>'";
        let (how, rest) = split_word(rest);
        let (is_range, at, query) = match how {
            "instant" => {
                let rest = rest.strip_prefix("at").ok_or(MALFORMED)?.trim_start();
                let (at, query) = split_word(rest);
                let at = parse_duration(at)
                    .map_err(|why| format!("invalid timestamp definition {at:?}: {why}"))?;
                (false, Instants { start: at, end: at, step: 0 }, query)
            }
            "range" => {
                let (at, rest) = instants(rest).ok_or(MALFORMED)??;
                (true, at, rest)
            }
            _ => return Err(MALFORMED.to_owned()),
        };
        parse(query, &ParseOptions::ALL).map_err(|error| format!("{query}: {error}"))?;
        let mut eval = Eval {
            line: self.at,
            query: query.to_owned(),
            is_range,
            at,
            range_vector: None,
            expectations: Vec::new(),
            value: Expected::Series(Vec::new()),
        };
        if let Some(kind) = word.strip_prefix("eval_") {
            let kind = kind.parse().map_err(|()| MALFORMED)?;
            eval.expectations.push(Expectation { kind, text: TextPattern::Any });
        }
        while let Some(line) = self.block_line() {
            if eval.result_line(line)? {
                break;
            }
        }
        let fails = eval.expectations.iter().filter(|e| e.kind == ExpectationKind::Fail).count();
        if word != "eval_fail" && fails > 1 {
            return Err("invalid expect lines, multiple expect fail lines are not allowed".to_owned());
        }
        eval.check_expectations()?;
        Ok(eval)
    }
}

impl Eval {
    /// Parses one line of the expected result. Returns whether it is the last one.
    fn result_line(&mut self, line: &str) -> Result<bool, String> {
        for (prefix, is_pattern) in [("expected_fail_message", false), ("expected_fail_regexp", true)] {
            if let Some(text) = line.strip_prefix(prefix).filter(|_| self.expects(ExpectationKind::Fail)) {
                let text = text.trim();
                let text = if is_pattern {
                    TextPattern::matching(text)?
                } else {
                    TextPattern::Exactly(text.to_owned())
                };
                self.expectations.push(Expectation { kind: ExpectationKind::Fail, text });
                return Ok(true);
            }
        }
        if let Some(rest) = line.strip_prefix("expect range vector") {
            let (at, rest) = instants(&format!("{} .", rest.trim_start()))
                .ok_or_else(|| format!("invalid range vector definition {line:?}"))?
                .map(|(at, rest)| (at, rest.to_owned()))?;
            if rest != "." {
                return Err(format!("invalid range vector definition {line:?}"));
            }
            self.range_vector = Some(at);
            self.at = Instants { start: at.end, end: at.end, step: 0 };
        } else if let Some(literal) = line.strip_prefix("expect string") {
            let text = unquote(literal.trim_start())
                .ok_or("expected string literal not valid - check that the string is correctly quoted")?;
            self.value = Expected::String(text);
        } else if line.split(' ').next() == Some("expect") {
            self.expectations.push(expectation(line)?);
        } else if let Some(number) = bare_number(line) {
            self.value = Expected::Scalar(number);
            return Ok(true);
        } else {
            let (labels, values) = parse_series(line)?;
            if values.len() > 1 && !self.is_range && self.range_vector.is_none() {
                return Err(
                    "expecting multiple values in instant evaluation not allowed. consider using 'expect \
                            range vector' directive to enable a range vector result for an instant query"
                        .to_owned(),
                );
            }
            self.expect_series(ExpectedSeries { labels, values });
        }
        Ok(false)
    }

    fn expect_series(&mut self, expected: ExpectedSeries) {
        let Expected::Series(series) = &mut self.value else {
            self.value = Expected::Series(vec![expected]);
            return;
        };
        match series.iter_mut().find(|known| known.labels == expected.labels) {
            Some(known) => *known = expected,
            None => series.push(expected),
        }
    }

    fn check_expectations(&self) -> Result<(), String> {
        for (one, other) in [
            (ExpectationKind::Info, ExpectationKind::NoInfo),
            (ExpectationKind::Warn, ExpectationKind::NoWarn),
        ] {
            if self.expects(one) && self.expects(other) {
                return Err("invalid expect lines, an annotation cannot be expected and excluded".to_owned());
            }
        }
        Ok(())
    }
}

/// Parses `<external labels> <min time> <max time>`. The store contains no samples at or after the max time.
fn store(text: &str) -> Result<ScriptCommand, String> {
    let malformed = "invalid store command. (store <labels> <min:duration> <max:duration>)";
    let (labels, end) = parse_labels_prefix(text).map_err(|error| error.to_string())?;
    let (min, max) = text[end..].trim().split_once([' ', '\t']).ok_or(malformed)?;
    let [min, max] = [min, max.trim()].map(parse_duration);
    let range = TimeRange::new(Timestamp::from_millis(min?), Timestamp::from_millis(max? - 1));
    Ok(ScriptCommand::Store(labels, range))
}

/// Splits off the first word.
fn split_word(text: &str) -> (&str, &str) {
    match text.split_once([' ', '\t']) {
        Some((word, rest)) => (word, rest.trim_start()),
        None => (text, ""),
    }
}

/// Parses `from <time> to <time> step <duration> <rest>`. Returns `None` if these words are missing.
fn instants(text: &str) -> Option<Result<(Instants, &str), String>> {
    let text = text.strip_prefix("from")?.trim_start();
    // The query may contain the same words as names. The last occurrences count, as in Prometheus.
    let (times, rest) = text.rsplit_once(" step ")?;
    let (start, end) = times.rsplit_once(" to ")?;
    let (step, rest) = split_word(rest.trim_start());
    let parse = |text: &str| {
        let text = text.trim();
        parse_duration(text).map_err(|why| format!("invalid time {text:?}: {why}"))
    };
    Some(parse(start).and_then(|start| {
        let (end, step) = (parse(end)?, parse(step)?);
        if end < start {
            return Err("invalid test definition, end timestamp is before start timestamp".to_owned());
        }
        Ok((Instants { start, end, step }, rest))
    }))
}

fn expectation(line: &str) -> Result<Expectation, String> {
    let malformed = "invalid expect statement, must match `expect <type> <match_type>: <string>` format";
    let (_, rest) = split_word(line);
    let (kind, rest) = split_word(rest);
    let kind = kind.parse().map_err(|()| malformed)?;
    let text = match (rest, rest.split_once(':')) {
        ("", _) => TextPattern::Any,
        (_, Some(("msg", text))) => TextPattern::Exactly(text.trim().to_owned()),
        (_, Some(("regex", pattern))) => TextPattern::matching(pattern.trim())?,
        _ => return Err(malformed.to_owned()),
    };
    Ok(Expectation { kind, text })
}

/// The number, if it is the whole line.
fn bare_number(line: &str) -> Option<f64> {
    let (negative, digits) = match line.as_bytes().first()? {
        b'-' => (true, &line[1..]),
        b'+' => (false, &line[1..]),
        _ => (false, line),
    };
    let starts_well = digits.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '.');
    let value = parse_number(digits).ok().filter(|_| starts_well)?;
    Some(if negative { -value } else { value })
}
