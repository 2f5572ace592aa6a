//! Scripts as text and as commands. A script is parsed whole before any of it runs.

use std::collections::BTreeMap;
use std::str::FromStr;

use model::{Labels, Regex, TimeRange, Timestamp};

use crate::promqltest::sequence::{SequenceValue, parse_series};
use crate::promqltest::starts::{Starts, parse_starts};
use crate::syntax::{ParseOptions, parse, parse_duration, parse_labels_prefix, parse_number, unquote};

/// What is wrong with a line of start timestamps that stands alone.
const NO_SAMPLES: &str = "@st line has no following sample line";

/// A script that is none, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct ScriptError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub message: String,
}

/// A parsed script; [`run`](Script::run) runs it.
#[derive(Clone, Debug)]
pub struct Script {
    pub(super) commands: Vec<Command>,
}

#[derive(Clone, Debug)]
pub(super) enum Command {
    Clear,
    /// `store`, which Thanos' scripts have: what is loaded from here on belongs to a store of its own.
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
    /// Whether classic histograms are stored as native ones as well.
    pub(super) with_nhcb: bool,
    /// Each label set once: a later line replaces an earlier.
    pub(super) series: Vec<(Labels, Vec<SequenceValue>)>,
    /// The start timestamps of those series that have any.
    pub(super) starts: BTreeMap<Labels, Starts>,
}

/// Instants in milliseconds; `step` is 0 for a single one.
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
    /// The instants of the expected points of an instant query whose value is a range.
    pub(super) range_vector: Option<Instants>,
    pub(super) expectations: Vec<Expectation>,
    pub(super) value: Expected,
}

/// What an evaluation has to give.
#[derive(Clone, Debug)]
pub(super) enum Expected {
    Scalar(f64),
    String(String),
    /// Possibly none. In the order of the script.
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
    pub(super) text: Text,
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

/// What an error or annotation has to say.
#[derive(Clone, Debug)]
pub(super) enum Text {
    /// Anything; in the older form `eval_warn` other annotations may be there, too.
    Any,
    Exactly(String),
    /// Has to match somewhere.
    Matching(Regex),
}

impl Text {
    /// A pattern that has to match somewhere in a text.
    fn matching(pattern: &str) -> Result<Self, String> {
        let regex = Regex::new(&format!(".*(?:{pattern}).*"));
        regex.map(Text::Matching).map_err(|error| format!("invalid regex {pattern}: {error}"))
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
    /// Names the first line that is wrong. A query that is meant to fail still has to be an expression.
    pub fn parse(text: &str) -> Result<Self, ScriptError> {
        let lines: Vec<&str> = text
            .split('\n')
            .map(str::trim)
            // A comment ends a block as an empty line does.
            .map(|line| if line.starts_with('#') { "" } else { line })
            .collect();
        let mut reader = Reader { lines: &lines, at: 0 };
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

/// Lines, and how many of them were read: the number of the last one.
struct Reader<'a> {
    lines: &'a [&'a str],
    at: usize,
}

impl<'a> Reader<'a> {
    fn next_line(&mut self) -> Option<&'a str> {
        let line = self.lines.get(self.at).copied()?;
        self.at += 1;
        Some(line)
    }

    /// The next line of the block; `None` at its end.
    fn block_line(&mut self) -> Option<&'a str> {
        self.lines.get(self.at).filter(|line| !line.is_empty())?;
        self.next_line()
    }

    fn command(&mut self, line: &str) -> Result<Command, String> {
        let (word, rest) = split_word(line);
        match word.to_ascii_lowercase() {
            word if word == "clear" => Ok(Command::Clear),
            word if word == "store" => store(rest),
            word if word.starts_with("load") => self.load(&word, rest).map(Command::Load),
            word if word.starts_with("eval") => {
                self.eval(&word, rest).map(|eval| Command::Eval(Box::new(eval)))
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
            if let Some((of, told)) = pending.take() {
                if of != labels {
                    return Err("@st metric does not match the following sample line metric".to_owned());
                }
                if told.len() != values.len() {
                    let (told, samples) = (told.len(), values.len());
                    return Err(format!("@st line has {told} values but sample line has {samples}"));
                }
                starts.insert(of, told);
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
            eval.expectations.push(Expectation { kind, text: Text::Any });
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
    /// Reads one line of the expected result; tells whether it is the last one.
    fn result_line(&mut self, line: &str) -> Result<bool, String> {
        for (prefix, is_pattern) in [("expected_fail_message", false), ("expected_fail_regexp", true)] {
            if let Some(text) = line.strip_prefix(prefix).filter(|_| self.expects(ExpectationKind::Fail)) {
                let text = text.trim();
                let text = if is_pattern { Text::matching(text)? } else { Text::Exactly(text.to_owned()) };
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

/// Parses `<external labels> <min time> <max time>`; the max time does not belong to the store.
fn store(text: &str) -> Result<Command, String> {
    let malformed = "invalid store command. (store <labels> <min:duration> <max:duration>)";
    let (labels, end) = parse_labels_prefix(text).map_err(|error| error.to_string())?;
    let (min, max) = text[end..].trim().split_once([' ', '\t']).ok_or(malformed)?;
    let [min, max] = [min, max.trim()].map(parse_duration);
    let range = TimeRange::new(Timestamp::from_millis(min?), Timestamp::from_millis(max? - 1));
    Ok(Command::Store(labels, range))
}

/// Splits the first word off.
fn split_word(text: &str) -> (&str, &str) {
    match text.split_once([' ', '\t']) {
        Some((word, rest)) => (word, rest.trim_start()),
        None => (text, ""),
    }
}

/// Parses `from <time> to <time> step <duration> <rest>`; `None` where the words are missing.
fn instants(text: &str) -> Option<Result<(Instants, &str), String>> {
    let text = text.strip_prefix("from")?.trim_start();
    // Names of labels or metrics in the query may repeat the words; as in Prometheus the last ones count.
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
        ("", _) => Text::Any,
        (_, Some(("msg", text))) => Text::Exactly(text.trim().to_owned()),
        (_, Some(("regex", pattern))) => Text::matching(pattern.trim())?,
        _ => return Err(malformed.to_owned()),
    };
    Ok(Expectation { kind, text })
}

/// The number that is all of a line.
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
