//! Histogram literals: `{{schema:0 sum:5 count:4 buckets:[1 2 1]}}`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use model::{BucketSpan, CounterResetHint, FloatHistogram};

use crate::promqltest::scanner::LineScanner;
use crate::syntax::parse_number;

/// Parses the literal that is next in the line. Also returns whether it contains a counter reset hint.
///
/// Does not check whether the histogram is well formed, because scripts also test malformed ones.
pub(super) fn parse_histogram(scanner: &mut LineScanner<'_>) -> Result<(FloatHistogram, bool), String> {
    if !scanner.accept("{{") {
        return Err(scanner.unexpected("series values, expected a histogram"));
    }
    let mut literal = Literal::default();
    let mut keys = BTreeSet::new();
    if scanner.rest().trim_start().starts_with("}}") {
        scanner.skip_spaces();
    }
    while !scanner.accept("}}") {
        let key = scanner.take_while(|c| c.is_ascii_alphabetic() || c == '_').to_ascii_lowercase();
        if !scanner.accept(":") {
            return Err(scanner.unexpected("histogram description, expected a key and \":\""));
        }
        literal.field(&key, scanner)?;
        if !keys.insert(key.clone()) {
            return Err(format!("duplicate key {key:?} in histogram"));
        }
        if !scanner.skip_spaces() && !scanner.rest().starts_with("}}") {
            return Err(scanner.unexpected("histogram description"));
        }
    }
    Ok((literal.build(), keys.contains("counter_reset_hint")))
}

#[derive(Default)]
struct Literal {
    histogram: FloatHistogram,
    offset: i32,
    negative_offset: i32,
}

impl Literal {
    fn field(&mut self, key: &str, scanner: &mut LineScanner<'_>) -> Result<(), String> {
        let h = &mut self.histogram;
        match key {
            "schema" => h.schema = integer(scanner)?,
            "offset" => self.offset = integer(scanner)?,
            "n_offset" => self.negative_offset = integer(scanner)?,
            "sum" => h.sum = number(scanner)?,
            "count" => h.count = number(scanner)?,
            "z_bucket" => h.zero_count = number(scanner)?,
            "z_bucket_w" => h.zero_threshold = number(scanner)?,
            "buckets" => h.positive_buckets = numbers(scanner)?,
            "n_buckets" => h.negative_buckets = numbers(scanner)?,
            "custom_values" => h.custom_values = numbers(scanner)?,
            "counter_reset_hint" => h.counter_reset_hint = hint(scanner)?,
            _ => return Err(format!("bad histogram descriptor found: {key:?}")),
        }
        Ok(())
    }

    fn build(self) -> FloatHistogram {
        let spans = |offset, buckets: &[f64]| match buckets.len() {
            0 => Vec::new(),
            length => vec![BucketSpan { offset, length: length as u32 }],
        };
        FloatHistogram {
            positive_spans: spans(self.offset, &self.histogram.positive_buckets),
            negative_spans: spans(self.negative_offset, &self.histogram.negative_buckets),
            ..self.histogram
        }
    }
}

fn integer(scanner: &mut LineScanner<'_>) -> Result<i32, String> {
    let start = scanner.at;
    let _ = scanner.accept("-");
    scanner.take_while(|c| c.is_ascii_digit());
    let text = &scanner.text[start..scanner.at];
    text.parse().map_err(|_| format!("error parsing number {text:?} in histogram"))
}

fn number(scanner: &mut LineScanner<'_>) -> Result<f64, String> {
    let text = scanner.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '+' | '-'));
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let value = parse_number(digits).map_err(|why| format!("error parsing number in histogram: {why}"))?;
    Ok(if negative { -value } else { value })
}

fn numbers(scanner: &mut LineScanner<'_>) -> Result<Vec<f64>, String> {
    if !scanner.accept("[") {
        return Err(scanner.unexpected("histogram description, expected \"[\""));
    }
    let mut numbers = vec![number(scanner)?];
    while scanner.skip_spaces() && !scanner.rest().starts_with(']') {
        numbers.push(number(scanner)?);
    }
    if !scanner.accept("]") {
        return Err(scanner.unexpected("histogram description, expected \"]\""));
    }
    Ok(numbers)
}

fn hint(scanner: &mut LineScanner<'_>) -> Result<CounterResetHint, String> {
    let word = scanner.take_while(|c| c.is_ascii_alphabetic() || c == '_').to_ascii_lowercase();
    Ok(match word.as_str() {
        "unknown" => CounterResetHint::Unknown,
        "reset" => CounterResetHint::Reset,
        "not_reset" => CounterResetHint::NotReset,
        "gauge" => CounterResetHint::Gauge,
        _ => return Err(format!("bad counter reset hint in histogram: {word:?}")),
    })
}

/// Formats a histogram as a literal, for messages. Gaps between spans are omitted.
pub(super) fn literal(histogram: &FloatHistogram) -> String {
    let h = histogram;
    let mut text = format!("{{{{schema:{} count:{} sum:{}", h.schema, h.count, h.sum);
    // Writing to a string cannot fail.
    if h.zero_count != 0.0 || h.zero_threshold != 0.0 {
        let _ = write!(text, " z_bucket:{} z_bucket_w:{}", h.zero_count, h.zero_threshold);
    }
    let hint = match h.counter_reset_hint {
        CounterResetHint::Unknown => "",
        CounterResetHint::Reset => " counter_reset_hint:reset",
        CounterResetHint::NotReset => " counter_reset_hint:not_reset",
        CounterResetHint::Gauge => " counter_reset_hint:gauge",
    };
    text.push_str(hint);
    let mut list = |name: &str, values: &[f64]| {
        if !values.is_empty() {
            let values: Vec<String> = values.iter().map(ToString::to_string).collect();
            let _ = write!(text, " {name}:[{}]", values.join(" "));
        }
    };
    list("custom_values", &h.custom_values);
    list("buckets", &h.positive_buckets);
    list("n_buckets", &h.negative_buckets);
    for (name, spans) in [("offset", &h.positive_spans), ("n_offset", &h.negative_spans)] {
        if let Some(span) = spans.first().filter(|span| span.offset != 0) {
            let _ = write!(text, " {name}:{}", span.offset);
        }
    }
    text.push_str("}}");
    text
}

/// Spans and counts of numbered buckets, one span for each run of consecutive numbers.
pub(super) fn spans(buckets: &BTreeMap<i32, f64>) -> (Vec<BucketSpan>, Vec<f64>) {
    let mut spans: Vec<BucketSpan> = Vec::new();
    let mut end = 0i32;
    for (i, &at) in buckets.keys().enumerate() {
        match spans.last_mut() {
            Some(span) if at == end => span.length += 1,
            _ => spans.push(BucketSpan { offset: at - if i == 0 { 0 } else { end }, length: 1 }),
        }
        end = at.saturating_add(1);
    }
    (spans, buckets.values().copied().collect())
}

/// `base + step`, or `base - step`. The resolution of `step` must not be coarser than that of `base`.
pub(super) fn stepped(
    base: &FloatHistogram,
    step: &FloatHistogram,
    subtract: bool,
) -> Result<FloatHistogram, String> {
    if base.schema > step.schema {
        let (base, step) = (base.schema, step.schema);
        return Err(format!("error combining histograms: cannot merge from schema {step} to {base}"));
    }
    let mut result = base.clone();
    if subtract { result.sub(step) } else { result.add(step) }.map_err(|error| error.to_string())?;
    Ok(result)
}
