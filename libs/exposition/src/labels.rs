//! The labels of a series in an exposition.
//!
//! ```text
//! series   name | name labels | labels with a name
//! labels   "{" [ label { "," label } [ "," ] ] "}"
//! label    name "=" value | quoted name "=" value | quoted name of the metric
//! ```
//!
//! Names without quotes are ASCII; quoted ones may have any character. In the text format spaces and tabs are allowed between
//! all of these, and a comma may be left out; in OpenMetrics neither is.

use std::borrow::Cow;

use model::{Labels, METRIC_NAME};

use crate::error::{ParseError, ParseProblem};
use crate::format::TextFormat;

/// Parses the labels of a series, from its text in an exposition. Labels with empty values are left out.
///
/// # Errors
/// When the text is not one series, a label occurs twice, or a name or value is not UTF-8.
pub fn series_labels(series: &[u8], format: TextFormat) -> Result<Labels, ParseError> {
    let failed = |problem| ParseError { line: 1, problem };
    let mut pairs: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::new();
    let mut scanner = Scanner { text: series, at: 0, format };
    let name = scanner.plain_name(is_metric_name);
    let mut names = usize::from(name.is_some());
    if let Some(name) = name {
        pairs.push((METRIC_NAME.into(), text(name, "the name of a metric").map_err(failed)?));
    }
    scanner.skip_spaces();
    if scanner.peek() == Some(b'{') {
        names += scan_pairs(&mut scanner, &mut pairs).map_err(failed)?;
    }
    if scanner.at < series.len() {
        return Err(failed(scanner.unexpected("the end of the series")));
    }
    match names {
        0 => Err(failed(ParseProblem::NoName)),
        1 => Labels::from_pairs(pairs).map_err(|error| failed(ParseProblem::Labels(error.to_string()))),
        _ => Err(failed(ParseProblem::TwoNames)),
    }
}

/// Parses the labels of an exemplar, from their text in braces. Labels with empty values are left out.
///
/// # Errors
/// As [`series_labels`]; an exemplar has no name.
pub fn exemplar_labels(text: &[u8], format: TextFormat) -> Result<Labels, ParseError> {
    let failed = |problem| ParseError { line: 1, problem };
    let mut pairs = Vec::new();
    let mut scanner = Scanner { text, at: 0, format };
    if scanner.peek() != Some(b'{') {
        return Err(failed(scanner.unexpected("the labels of an exemplar")));
    }
    if scan_pairs(&mut scanner, &mut pairs).map_err(failed)? > 0 {
        return Err(failed(ParseProblem::TwoNames));
    }
    if scanner.at < text.len() {
        return Err(failed(scanner.unexpected("the end of the labels")));
    }
    Labels::from_pairs(pairs).map_err(|error| failed(ParseProblem::Labels(error.to_string())))
}

/// Adds the labels in braces, and returns how many names of metrics are among them.
fn scan_pairs<'a>(
    scanner: &mut Scanner<'a>,
    pairs: &mut Vec<(Cow<'a, str>, Cow<'a, str>)>,
) -> Result<usize, ParseProblem> {
    let (mut names, mut problem) = (0, None);
    scanner.labels(|label| {
        let pair = match label {
            ScannedLabel::MetricName(name) => {
                names += 1;
                unescaped(name, "the name of a metric").map(|name| (METRIC_NAME.into(), name))
            }
            ScannedLabel::Pair(name, value) => unescaped(name, "the name of a label")
                .and_then(|name| Ok((name, unescaped(value, "the value of a label")?))),
        };
        match pair {
            Ok(pair) => pairs.push(pair),
            Err(found) => problem = problem.take().or(Some(found)),
        }
    })?;
    problem.map_or(Ok(names), Err)
}

/// A label as it stands in the text, without its quotes.
pub(crate) enum ScannedLabel<'a> {
    /// The quoted name of the metric.
    MetricName(&'a [u8]),
    /// A label.
    Pair(&'a [u8], &'a [u8]),
}

/// Goes through the text of a line.
pub(crate) struct Scanner<'a> {
    pub(crate) text: &'a [u8],
    pub(crate) at: usize,
    pub(crate) format: TextFormat,
}

impl<'a> Scanner<'a> {
    pub(crate) fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// Skips spaces and tabs, in the text format.
    pub(crate) fn skip_spaces(&mut self) {
        if self.format == TextFormat::Prometheus {
            while matches!(self.peek(), Some(b' ' | b'\t')) {
                self.at += 1;
            }
        }
    }

    /// A name without quotes whose characters are as given; none if there is none.
    pub(crate) fn plain_name(&mut self, is_part: fn(u8) -> bool) -> Option<&'a [u8]> {
        let begin = self.at;
        if self.peek().is_none_or(|byte| byte.is_ascii_digit()) {
            return None;
        }
        while self.peek().is_some_and(is_part) {
            self.at += 1;
        }
        (self.at > begin).then(|| &self.text[begin..self.at])
    }

    /// What is between quotes, which may be escaped; none if there are none.
    fn quoted(&mut self, may_have_lines: bool) -> Option<&'a [u8]> {
        if self.peek() != Some(b'"') {
            return None;
        }
        let begin = self.at + 1;
        let mut at = begin;
        loop {
            match *self.text.get(at)? {
                b'"' => {
                    self.at = at + 1;
                    return Some(&self.text[begin..at]);
                }
                b'\\' if self.text.get(at + 1) == Some(&b'\n') => return None,
                b'\\' => at += 2,
                b'\n' if !may_have_lines => return None,
                _ => at += 1,
            }
        }
    }

    /// Labels in braces, from the opening one on.
    pub(crate) fn labels(&mut self, mut add: impl FnMut(ScannedLabel<'a>)) -> Result<(), ParseProblem> {
        let may_have_lines = self.format == TextFormat::Prometheus;
        self.at += 1;
        self.skip_spaces();
        loop {
            if self.peek() == Some(b'}') {
                self.at += 1;
                return Ok(());
            }
            let is_quoted = self.peek() == Some(b'"');
            let name = match is_quoted {
                true => self.quoted(true),
                false => self.plain_name(is_label_name),
            };
            let Some(name) = name else { return Err(self.unexpected("the name of a label")) };
            self.skip_spaces();
            match self.peek() {
                Some(b'=') => {
                    self.at += 1;
                    self.skip_spaces();
                    let Some(value) = self.quoted(may_have_lines) else {
                        return Err(self.unexpected("a quoted value"));
                    };
                    add(ScannedLabel::Pair(name, value));
                }
                Some(b',' | b'}') if is_quoted => add(ScannedLabel::MetricName(name)),
                _ => return Err(self.unexpected("\"=\"")),
            }
            self.skip_spaces();
            match self.peek() {
                Some(b',') => {
                    self.at += 1;
                    self.skip_spaces();
                }
                Some(b'}') => {}
                _ if self.format == TextFormat::OpenMetrics => return Err(self.unexpected("\",\" or \"}\"")),
                _ => {}
            }
        }
    }

    /// The error that something else is here.
    pub(crate) fn unexpected(&self, expected: &'static str) -> ParseProblem {
        let rest = &self.text[self.at..];
        let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let found = String::from_utf8_lossy(&line[..line.len().min(120)]).chars().take(30).collect();
        ParseProblem::Unexpected { expected, found }
    }
}

pub(crate) fn is_metric_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':'
}

fn is_label_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

pub(crate) fn text<'a>(bytes: &'a [u8], what: &'static str) -> Result<Cow<'a, str>, ParseProblem> {
    std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| ParseProblem::Utf8(what))
}

/// The text with `\"`, `\\` and `\n` replaced. Other backslashes stay, as in Prometheus.
fn unescaped<'a>(bytes: &'a [u8], what: &'static str) -> Result<Cow<'a, str>, ParseProblem> {
    unescape(text(bytes, what)?, true)
}

/// The text of HELP, in which quotes are not escaped.
pub(crate) fn unescaped_help(bytes: &[u8]) -> Result<Cow<'_, str>, ParseProblem> {
    unescape(text(bytes, "a help text")?, false)
}

fn unescape(text: Cow<'_, str>, quotes: bool) -> Result<Cow<'_, str>, ParseProblem> {
    if !text.contains('\\') {
        return Ok(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = &*text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let (replaced, length) = match rest.as_bytes().get(at + 1) {
            Some(b'\\') => ('\\', 2),
            Some(b'n') => ('\n', 2),
            Some(b'"') if quotes => ('"', 2),
            _ => ('\\', 1),
        };
        out.push(replaced);
        rest = &rest[at + length..];
    }
    out.push_str(rest);
    Ok(Cow::Owned(out))
}
