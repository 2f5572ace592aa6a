//! Parses lines that describe a series: labels and a sequence of values, `up{job="api"} 1x3 _ 0+1x10`.

use std::sync::Arc;

use model::{FloatHistogram, Labels, stale_nan};

use crate::promqltest::histogram::{parse_histogram, stepped};
use crate::promqltest::scanner::LineScanner;
use crate::syntax::{parse_labels_prefix, parse_number};

/// Most values in one line.
pub(super) const MAX_VALUES: usize = 1_000_000;

/// One entry of a sequence.
#[derive(Clone, Debug, PartialEq)]
pub enum SequenceValue {
    /// `_`: there is no sample at this time.
    Omitted,
    /// A float or `stale`.
    Float(f64),
    /// A histogram.
    Histogram {
        /// The histogram.
        histogram: Arc<FloatHistogram>,
        /// Whether the literal contains a counter reset hint. The hint is compared only then.
        hint_given: bool,
    },
}

/// Parses a line of labels and values. `promtool test rules` uses the same notation for its input series.
///
/// # Errors
/// If the line is invalid. The message contains the column if it is known.
pub fn parse_series(line: &str) -> Result<(Labels, Vec<SequenceValue>), String> {
    let (labels, end) = parse_labels_prefix(line).map_err(|error| error.to_string())?;
    let mut scanner = LineScanner { text: line, at: end };
    let mut values = Vec::new();
    while !scanner.rest().is_empty() {
        if !scanner.skip_spaces() {
            return Err(scanner.unexpected("series values"));
        }
        if !scanner.rest().is_empty() {
            scanner.item(&mut values)?;
        }
    }
    Ok((labels, values))
}

impl LineScanner<'_> {
    fn item(&mut self, values: &mut Vec<SequenceValue>) -> Result<(), String> {
        let (value, step) = if self.accept("_") {
            let times = if self.accept("x") { self.times()? } else { 1 };
            return repeat(values, times, || SequenceValue::Omitted);
        } else if self.rest().starts_with("{{") {
            return self.histogram_item(values);
        } else {
            (self.signed_number()?, self.optional_step()?)
        };
        match (self.accept("x"), step) {
            (false, None) => repeat(values, 1, || SequenceValue::Float(value)),
            (false, Some(_)) => {
                Err(self.unexpected("series values, expected \"x\" and a number of repetitions"))
            }
            (true, step) => {
                let times = self.times()?.saturating_add(1);
                let mut next = value;
                repeat(values, times, || {
                    let value = next;
                    next += step.unwrap_or(0.0);
                    SequenceValue::Float(value)
                })
            }
        }
    }

    fn histogram_item(&mut self, values: &mut Vec<SequenceValue>) -> Result<(), String> {
        let (first, mut hint_given) = parse_histogram(self)?;
        let subtract = self.rest().starts_with('-');
        let mut step = None;
        if subtract || self.rest().starts_with('+') {
            self.at += 1;
            let (histogram, hint) = parse_histogram(self)?;
            hint_given = hint;
            step = Some(histogram);
        }
        let times = match (self.accept("x"), &step) {
            (true, _) => self.times()?.saturating_add(1),
            (false, None) => 1,
            (false, Some(_)) => {
                return Err(self.unexpected("series values, expected \"x\" and a number of repetitions"));
            }
        };
        let mut histogram = Arc::new(first);
        for i in 0..times {
            if let Some(step) = step.as_ref().filter(|_| i > 0) {
                histogram = Arc::new(stepped(&histogram, step, subtract)?);
            }
            repeat(values, 1, || SequenceValue::Histogram { histogram: Arc::clone(&histogram), hint_given })?;
        }
        Ok(())
    }

    /// Parses the number after an `x`.
    fn times(&mut self) -> Result<usize, String> {
        let digits = self.take_while(|c| c.is_ascii_digit());
        digits.parse().map_err(|_| format!("invalid repetition in series values: {digits:?}"))
    }

    fn optional_step(&mut self) -> Result<Option<f64>, String> {
        if self.rest().starts_with(['+', '-']) { self.signed_number().map(Some) } else { Ok(None) }
    }

    /// Parses a number with an optional sign, or `stale`.
    fn signed_number(&mut self) -> Result<f64, String> {
        let negative = self.accept("-");
        let signed = negative || self.accept("+");
        let value = self.unsigned_number(!signed)?;
        Ok(if negative { -value } else { value })
    }

    fn unsigned_number(&mut self, may_be_stale: bool) -> Result<f64, String> {
        let start = self.at;
        if self.rest().starts_with(|c: char| c.is_ascii_alphabetic() && c != 'x') {
            let word = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':');
            if word == "stale" && may_be_stale {
                return Ok(stale_nan());
            }
            if word.eq_ignore_ascii_case("inf") || word.eq_ignore_ascii_case("nan") {
                return parse_number(word);
            }
            self.at = start;
            return Err(format!(
                "1:{}: parse error: unexpected identifier {word:?} in series values, expected number or \"stale\"",
                start + 1
            ));
        }
        self.take_while(|c| c.is_ascii_digit() || c == '.' || c == '_');
        if self.accept("e") || self.accept("E") {
            let _ = self.accept("+") || self.accept("-");
            self.take_while(|c| c.is_ascii_digit() || c == '_');
        }
        let text = &self.text[start..self.at];
        if text.is_empty() {
            return Err(self.unexpected("series values"));
        }
        parse_number(text).map_err(|why| format!("1:{}: parse error: error parsing number: {why}", start + 1))
    }
}

fn repeat(
    values: &mut Vec<SequenceValue>,
    times: usize,
    mut value: impl FnMut() -> SequenceValue,
) -> Result<(), String> {
    if times > MAX_VALUES - values.len().min(MAX_VALUES) {
        return Err(format!("a series of more than {MAX_VALUES} values"));
    }
    values.extend((0..times).map(|_| value()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_expand_as_described() {
        let check = |line: &str, expected: &str| {
            let shown = match parse_series(line) {
                Err(_) => "error".to_owned(),
                Ok((labels, values)) => {
                    let show = |value: &SequenceValue| match value {
                        SequenceValue::Omitted => "_".to_owned(),
                        SequenceValue::Float(f) if model::is_stale_nan(*f) => "stale".to_owned(),
                        SequenceValue::Float(f) => f.to_string(),
                        SequenceValue::Histogram { histogram, .. } => format!("h{}", histogram.sum),
                    };
                    format!("{labels} {}", values.iter().map(show).collect::<Vec<_>>().join(" "))
                }
            };
            assert_eq!(shown, expected, "{line}");
        };
        check(r#"{a="b"} -1 2 3"#, r#"{a="b"} -1 2 3"#);
        check(r#"my_metric{a="b"} 1 2 3-10x4"#, r#"my_metric{a="b"} 1 2 3 -7 -17 -27 -37"#);
        check("m 1 3 _ 5 _x4", "m 1 3 _ 5 _ _ _ _");
        check("m\t1 -1 -3-10x2   7\t9 +5  ", "m 1 -1 -3 -13 -23 7 9 5");
        check("{} 1x0", "{} 1");
        check("{} 1+1x0", "{} 1");
        check("{} 010 1_000 1e-3x1 .5 Inf -inF NaN", "{} 8 1000 0.001 0.001 0.5 inf -inf NaN");
        check("{} stale", "{} stale");
        check("{} 0x3", "{} 0 0 0 0");
        check(
            r#"{"http.requests", "service.name"="api", l='v'} 1"#,
            r#"{"http.requests", l="v", "service.name"="api"} 1"#,
        );
        check("sum{by='x'} 1", r#"sum{by="x"} 1"#);
        check("{} {{sum:1}}+{{sum:2}}x2 {{sum:9}}x1 {{}}", "{} h1 h3 h5 h9 h9 h0");
        check("{} {{sum:1}}-{{sum:2}}x1", "{} h1 h-1");
        for wrong in [
            "{} 1+1",
            "{} _a4",
            "{} -3-3 -3",
            "{} _-2",
            "{} 3+3x4-4",
            "{} stalex3",
            "{} NaNx3",
            "{} 1xx",
            "{} foo",
        ] {
            check(wrong, "error");
        }
        for wrong in [
            r#"{"a"xx} 1"#,
            r#"{"a"=, x="y"} 1"#,
            r#"{"a} 1"#,
            "{} 1x99999999999",
            "{} {{schema:1 schema:1}}",
        ] {
            check(wrong, "error");
        }
    }
}
