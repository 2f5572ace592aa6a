//! Goes through an exposition line by line.
//!
//! | | text format 0.0.4 | OpenMetrics 1.0 |
//! |---|---|---|
//! | between parts of a line | spaces and tabs | one space |
//! | timestamps | milliseconds, whole | seconds |
//! | comments, blank lines | yes | no |
//! | exemplars, UNIT | no | yes |
//! | end | the last line | `# EOF` |
//!
//! Specified by `model/textparse` of Prometheus, which accepts more than the documents of the formats.

use std::borrow::Cow;

use model::MetricKind;

use crate::error::{ParseError, ParseProblem};
use crate::format::TextFormat;
use crate::labels::{ScannedLabel, Scanner, is_metric_name, text, unescaped_help};
use crate::number::{parse_float, parse_seconds};

/// What a line says.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry<'a> {
    /// The help text of a metric.
    Help(Cow<'a, str>, Cow<'a, str>),
    /// The type of a metric.
    Type(Cow<'a, str>, MetricKind),
    /// The unit of a metric.
    Unit(Cow<'a, str>, Cow<'a, str>),
    /// A sample.
    Sample(SampleText<'a>),
}

/// A sample and the text of its series.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleText<'a> {
    /// Name and labels as they stand, for [`series_labels`](crate::series_labels).
    pub series: &'a [u8],
    /// The value. Every NaN is that of Prometheus.
    pub value: f64,
    /// When it was observed, in milliseconds since the epoch, if the target says so.
    pub timestamp: Option<i64>,
    /// An exemplar.
    pub exemplar: Option<ExemplarText<'a>>,
}

/// An exemplar and the text of its labels.
#[derive(Clone, Debug, PartialEq)]
pub struct ExemplarText<'a> {
    /// Its labels in braces, as they stand.
    pub labels: &'a [u8],
    /// Its value.
    pub value: f64,
    /// When it was observed, in milliseconds since the epoch.
    pub timestamp: Option<i64>,
}

/// The entries of an exposition. After an error, there are no more.
pub struct TextParser<'a> {
    scanner: Scanner<'a>,
    /// Where the current line begins, and its number.
    line_begin: usize,
    line: u64,
    is_done: bool,
}

impl<'a> TextParser<'a> {
    /// A parser of a whole exposition.
    pub fn new(exposition: &'a [u8], format: TextFormat) -> Self {
        let scanner = Scanner { text: exposition, at: 0, format };
        Self { scanner, line_begin: 0, line: 1, is_done: false }
    }

    fn is_open_metrics(&self) -> bool {
        self.scanner.format == TextFormat::OpenMetrics
    }

    fn parse_entry(&mut self) -> Result<Option<Entry<'a>>, ParseProblem> {
        loop {
            self.scanner.skip_spaces();
            match self.scanner.peek() {
                None if self.is_open_metrics() => return Err(ParseProblem::NoEnd),
                None => return Ok(None),
                Some(b'\n') if !self.is_open_metrics() => self.next_line(),
                Some(b'#') => match self.parse_comment()? {
                    Comment::Entry(entry) => return Ok(Some(entry)),
                    Comment::None => {}
                    Comment::End => return Ok(None),
                },
                Some(_) => return self.parse_sample().map(Entry::Sample).map(Some),
            }
        }
    }

    /// Goes on after the end of a line.
    fn next_line(&mut self) {
        self.scanner.at += 1;
        // A quoted text can have line feeds.
        let passed = &self.scanner.text[self.line_begin..self.scanner.at.min(self.scanner.text.len())];
        self.line += passed.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.line_begin = self.scanner.at;
    }

    /// The rest of the line.
    fn rest(&mut self) -> &'a [u8] {
        let text = &self.scanner.text[self.scanner.at..];
        let length = text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
        self.scanner.at += length;
        &text[..length]
    }

    /// The end of the line, which the last line of the text format need not have.
    fn end_line(&mut self) -> Result<(), ParseProblem> {
        match self.scanner.peek() {
            Some(b'\n') => self.next_line(),
            None if !self.is_open_metrics() => {}
            None => return Err(ParseProblem::NoEnd),
            Some(_) => return Err(self.scanner.unexpected("the end of the line")),
        }
        Ok(())
    }

    fn parse_comment(&mut self) -> Result<Comment<'a>, ParseProblem> {
        let begin = self.scanner.at;
        self.scanner.at += 1;
        let has_space = match self.is_open_metrics() {
            true => self.take(b" "),
            false => {
                let before = self.scanner.at;
                self.scanner.skip_spaces();
                self.scanner.at > before
            }
        };
        if self.is_open_metrics() && has_space && self.take(b"EOF") {
            let is_end = matches!(&self.scanner.text[self.scanner.at..], b"" | b"\n");
            return if is_end { Ok(Comment::End) } else { Err(ParseProblem::AfterEnd) };
        }
        let mut keyword = None;
        for word in [&b"HELP"[..], b"TYPE", b"UNIT"] {
            let is_known = word != b"UNIT" || self.is_open_metrics();
            if keyword.is_none() && has_space && is_known && self.take_word(word) {
                keyword = Some(word);
            }
        }
        let Some(keyword) = keyword else {
            if self.is_open_metrics() {
                self.scanner.at = begin;
                return Err(self.scanner.unexpected("HELP, TYPE, UNIT or EOF"));
            }
            self.rest();
            self.end_line()?;
            return Ok(Comment::None);
        };
        let metric = self.metric_name()?;
        if self.is_open_metrics() && self.scanner.peek() != Some(b' ') {
            return Err(self.scanner.unexpected("a space and a text"));
        }
        // Prometheus takes off one character, whatever it is.
        let rest = self.rest();
        let described = rest.get(1..).unwrap_or_default();
        let entry = match keyword {
            b"HELP" => Entry::Help(metric, unescaped_help(described)?),
            b"TYPE" => Entry::Type(metric, self.kind(described)?),
            _ => Entry::Unit(metric.clone(), unit(&metric, described)?),
        };
        self.end_line()?;
        Ok(Comment::Entry(entry))
    }

    /// Takes these bytes, if they are next.
    fn take(&mut self, bytes: &[u8]) -> bool {
        let is_next = self.scanner.text[self.scanner.at..].starts_with(bytes);
        if is_next {
            self.scanner.at += bytes.len();
        }
        is_next
    }

    /// Takes a word and the space after it.
    fn take_word(&mut self, word: &[u8]) -> bool {
        let before = self.scanner.at;
        if !self.take(word) {
            return false;
        }
        let end = self.scanner.at;
        if self.is_open_metrics() {
            self.take(b" ");
        } else {
            self.scanner.skip_spaces();
        }
        if self.scanner.at == end {
            self.scanner.at = before;
            return false;
        }
        true
    }

    /// The name of a metric after HELP, TYPE or UNIT, with or without quotes.
    fn metric_name(&mut self) -> Result<Cow<'a, str>, ParseProblem> {
        if self.scanner.peek() == Some(b'"') {
            let begin = self.scanner.at + 1;
            let rest = self.scanner.text[begin..].iter();
            let mut is_escaped = false;
            let length = rest.take_while(|byte| {
                let is_end = **byte == b'"' && !is_escaped;
                is_escaped = **byte == b'\\' && !is_escaped;
                !is_end
            });
            let end = begin + length.count();
            if end >= self.scanner.text.len() {
                return Err(self.scanner.unexpected("the name of a metric"));
            }
            self.scanner.at = end + 1;
            return text(&self.scanner.text[begin..end], "the name of a metric");
        }
        let name = self.scanner.plain_name(is_metric_name);
        name.map_or_else(
            || Err(self.scanner.unexpected("the name of a metric")),
            |name| text(name, "the name"),
        )
    }

    fn kind(&self, name: &[u8]) -> Result<MetricKind, ParseProblem> {
        Ok(match (name, self.is_open_metrics()) {
            (b"counter", _) => MetricKind::Counter,
            (b"gauge", _) => MetricKind::Gauge,
            (b"histogram", _) => MetricKind::Histogram,
            (b"summary", _) => MetricKind::Summary,
            (b"untyped", false) | (b"unknown", true) => MetricKind::Unknown,
            (b"gaugehistogram", true) => MetricKind::GaugeHistogram,
            (b"info", true) => MetricKind::Info,
            (b"stateset", true) => MetricKind::StateSet,
            _ => {
                return Err(ParseProblem::Type(
                    String::from_utf8_lossy(&name[..name.len().min(30)]).into_owned(),
                ));
            }
        })
    }

    fn parse_sample(&mut self) -> Result<SampleText<'a>, ParseProblem> {
        let begin = self.scanner.at;
        let mut names = usize::from(self.scanner.plain_name(is_metric_name).is_some());
        let mut end = self.scanner.at;
        self.scanner.skip_spaces();
        if self.scanner.peek() == Some(b'{') {
            self.scanner
                .labels(|label| names += usize::from(matches!(label, ScannedLabel::MetricName(_))))?;
            end = self.scanner.at;
        } else if names == 0 {
            return Err(self.scanner.unexpected("a series"));
        }
        match names {
            0 => return Err(ParseProblem::NoName),
            1 => {}
            _ => return Err(ParseProblem::TwoNames),
        }
        let series = &self.scanner.text[begin..end];
        let value = self.number("a value")?;
        let mut timestamp = None;
        if !matches!(self.peek_part(), None | Some(b'\n' | b'#')) {
            timestamp = Some(self.timestamp()?);
        }
        let exemplar = match self.is_open_metrics() && self.take(b" # ") {
            true => Some(self.parse_exemplar()?),
            false => None,
        };
        self.scanner.skip_spaces();
        self.end_line()?;
        Ok(SampleText { series, value, timestamp, exemplar })
    }

    fn parse_exemplar(&mut self) -> Result<ExemplarText<'a>, ParseProblem> {
        let begin = self.scanner.at;
        if self.scanner.peek() != Some(b'{') {
            return Err(self.scanner.unexpected("the labels of an exemplar"));
        }
        let mut has_name = false;
        self.scanner.labels(|label| has_name |= matches!(label, ScannedLabel::MetricName(_)))?;
        if has_name {
            return Err(ParseProblem::TwoNames);
        }
        let labels = &self.scanner.text[begin..self.scanner.at];
        let value = self.number("the value of an exemplar")?;
        let timestamp = match self.peek_part() {
            None | Some(b'\n') => None,
            Some(_) => Some(self.timestamp()?),
        };
        Ok(ExemplarText { labels, value, timestamp })
    }

    /// The first byte of the next part of the line.
    fn peek_part(&mut self) -> Option<u8> {
        self.scanner.skip_spaces();
        let at = self.scanner.at;
        match (self.is_open_metrics(), self.scanner.peek()) {
            (true, Some(b' ')) => self.scanner.text.get(at + 1).copied(),
            (_, next) => next,
        }
    }

    /// The next part of the line, up to a space or the end.
    fn part(&mut self, expected: &'static str) -> Result<&'a [u8], ParseProblem> {
        self.scanner.skip_spaces();
        if self.is_open_metrics() && !self.take(b" ") {
            return Err(self.scanner.unexpected(expected));
        }
        let begin = self.scanner.at;
        let is_end = |byte: u8| {
            byte == b'\n' || byte == b' ' || byte == b'\t' && self.scanner.format == TextFormat::Prometheus
        };
        let rest = &self.scanner.text[begin..];
        let length = rest.iter().position(|byte| is_end(*byte)).unwrap_or(rest.len());
        if length == 0 {
            return Err(self.scanner.unexpected(expected));
        }
        self.scanner.at += length;
        Ok(&rest[..length])
    }

    fn number(&mut self, expected: &'static str) -> Result<f64, ParseProblem> {
        let part = self.part(expected)?;
        parse_float(part).ok_or_else(|| ParseProblem::Number(shown(part)))
    }

    fn timestamp(&mut self) -> Result<i64, ParseProblem> {
        let part = self.part("a timestamp")?;
        let time = match self.is_open_metrics() {
            true => parse_seconds(part),
            false => std::str::from_utf8(part)
                .ok()
                .filter(|part| !part.starts_with(['+', '-']))
                .and_then(|part| part.parse().ok()),
        };
        time.ok_or_else(|| ParseProblem::Timestamp(shown(part)))
    }
}

/// What a comment is.
enum Comment<'a> {
    Entry(Entry<'a>),
    None,
    End,
}

fn shown(part: &[u8]) -> String {
    String::from_utf8_lossy(&part[..part.len().min(40)]).into_owned()
}

/// The unit of a metric, whose name must end with it.
fn unit<'a>(metric: &str, unit: &'a [u8]) -> Result<Cow<'a, str>, ParseProblem> {
    let unit = text(unit, "a unit")?;
    let is_suffix = metric.strip_suffix(&*unit).is_some_and(|rest| rest.ends_with('_'));
    if !unit.is_empty() && !is_suffix {
        return Err(ParseProblem::Unit { unit: unit.into_owned(), metric: metric.to_owned() });
    }
    Ok(unit)
}

impl<'a> Iterator for TextParser<'a> {
    type Item = Result<Entry<'a>, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done {
            return None;
        }
        match self.parse_entry() {
            Ok(Some(entry)) => Some(Ok(entry)),
            Ok(None) => {
                self.is_done = true;
                None
            }
            Err(problem) => {
                self.is_done = true;
                Some(Err(ParseError { line: self.line, problem }))
            }
        }
    }
}

#[cfg(test)]
mod tests;
