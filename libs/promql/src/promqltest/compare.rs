//! Compares results with the expected ones.

use model::{BucketSpan, FloatHistogram, Labels, Timestamp, is_stale_nan};

use crate::promqltest::histogram::literal;
use crate::promqltest::script::{Eval, ExpectationKind, Expected, ExpectedSeries, Instants};
use crate::promqltest::sequence::SequenceValue;
use crate::{Annotations, MatrixSeries, QueryValue, SampleValue, VectorSample};

/// Relative error that is tolerated.
const EPSILON: f64 = 0.000_001;

/// Whether two floats differ by at most a millionth of their sum. Zero equals only zero, a staleness marker
/// only a staleness marker, and any other NaN any other NaN.
pub fn almost_equal(a: f64, b: f64) -> bool {
    if is_stale_nan(a) || is_stale_nan(b) {
        return is_stale_nan(a) && is_stale_nan(b);
    }
    if a == b || (a.is_nan() && b.is_nan()) {
        return true;
    }
    let (sum, difference) = (a.abs() + b.abs(), (a - b).abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < EPSILON * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < EPSILON
}

/// Compares histograms in compacted form. The reset hint is compared only if the script gives it.
fn histograms_match(expected: &FloatHistogram, actual: &FloatHistogram, hint_given: bool) -> bool {
    let (mut expected, mut actual) = (expected.clone(), actual.clone());
    expected.compact();
    actual.compact();
    let counts =
        |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| almost_equal(*a, *b));
    expected.schema == actual.schema
        && almost_equal(expected.count, actual.count)
        && almost_equal(expected.sum, actual.sum)
        && (!expected.uses_custom_buckets() || expected.custom_values == actual.custom_values)
        && expected.zero_threshold == actual.zero_threshold
        && almost_equal(expected.zero_count, actual.zero_count)
        && joined(&expected.negative_spans) == joined(&actual.negative_spans)
        && counts(&expected.negative_buckets, &actual.negative_buckets)
        && joined(&expected.positive_spans) == joined(&actual.positive_spans)
        && counts(&expected.positive_buckets, &actual.positive_buckets)
        && (!hint_given || expected.counter_reset_hint == actual.counter_reset_hint)
}

/// Removes spans of length zero. Their offsets are added to the next span.
fn joined(spans: &[BucketSpan]) -> Vec<BucketSpan> {
    let mut skipped = 0;
    let mut joined = Vec::with_capacity(spans.len());
    for span in spans {
        skipped += span.offset;
        if span.length > 0 {
            joined.push(BucketSpan { offset: std::mem::take(&mut skipped), length: span.length });
        }
    }
    joined
}

fn shown(value: &SampleValue) -> String {
    match value {
        SampleValue::Float(value) => value.to_string(),
        SampleValue::Histogram(histogram) => literal(histogram),
    }
}

/// Compares a result with the one that `eval` expects.
///
/// # Errors
/// The first difference.
pub(super) fn check_value(eval: &Eval, value: &QueryValue) -> Result<(), String> {
    match (value, &eval.value) {
        (QueryValue::String { value, .. }, Expected::String(expected)) if value == expected => Ok(()),
        (QueryValue::String { value, .. }, expected) => {
            Err(format!("expected {expected:?} but got string {value:?}"))
        }
        (QueryValue::Scalar(sample), Expected::Scalar(expected)) => {
            if almost_equal(*expected, sample.value) {
                return Ok(());
            }
            Err(format!("expected scalar {expected} but got {}", sample.value))
        }
        (QueryValue::Scalar(sample), _) => {
            Err(format!("expected vector or matrix result, but got scalar {}", sample.value))
        }
        (QueryValue::Vector(samples), Expected::Series(expected)) => check_vector(eval, expected, samples),
        (QueryValue::Matrix(_), _) if eval.expects(ExpectationKind::Ordered) => {
            Err("expected ordered result, but query returned a matrix".to_owned())
        }
        (QueryValue::Matrix(series), Expected::Series(expected)) => {
            check_matrix(eval.range_vector.unwrap_or(eval.at), expected, series)
        }
        (QueryValue::Vector(_), expected) => Err(format!("expected {expected:?} but got a vector")),
        (QueryValue::Matrix(_), expected) => Err(format!("expected {expected:?} but got a matrix")),
    }
}

fn check_vector(eval: &Eval, expected: &[ExpectedSeries], samples: &[VectorSample]) -> Result<(), String> {
    let ordered = eval.expects(ExpectationKind::Ordered);
    let mut seen = vec![false; expected.len()];
    for (position, sample) in samples.iter().enumerate() {
        let labels = &sample.labels;
        let Some(at) = expected.iter().position(|e| e.labels == *labels) else {
            return Err(format!("unexpected metric {labels} in result, has value {}", shown(&sample.value)));
        };
        if std::mem::replace(&mut seen[at], true) {
            return Err(format!("metric {labels} is twice in the result"));
        }
        if ordered && at != position {
            return Err(format!(
                "expected metric {labels} at position {} but was at {}",
                at + 1,
                position + 1
            ));
        }
        let value = expected[at].values.first().unwrap_or(&SequenceValue::Omitted);
        check_point(labels, value, &sample.value)?;
    }
    match seen.iter().position(|seen| !seen) {
        None => Ok(()),
        Some(missing) => Err(format!("expected metric {} not found", expected[missing].labels)),
    }
}

fn check_point(labels: &Labels, expected: &SequenceValue, actual: &SampleValue) -> Result<(), String> {
    let (matches, wanted) = match (expected, actual) {
        // If a sample is present, an omitted value means 0.
        (SequenceValue::Omitted, SampleValue::Float(actual)) => (almost_equal(0.0, *actual), "0".to_owned()),
        (SequenceValue::Omitted, SampleValue::Histogram(_)) => (false, "0".to_owned()),
        (SequenceValue::Float(expected), SampleValue::Float(actual)) => {
            (almost_equal(*expected, *actual), expected.to_string())
        }
        (SequenceValue::Float(expected), SampleValue::Histogram(_)) => (false, expected.to_string()),
        (SequenceValue::Histogram { histogram, hint_given }, SampleValue::Histogram(actual)) => {
            (histograms_match(histogram, actual, *hint_given), literal(histogram))
        }
        (SequenceValue::Histogram { histogram, .. }, SampleValue::Float(_)) => (false, literal(histogram)),
    };
    if matches { Ok(()) } else { Err(format!("expected {wanted} for {labels} but got {}", shown(actual))) }
}

fn check_matrix(at: Instants, expected: &[ExpectedSeries], series: &[MatrixSeries]) -> Result<(), String> {
    if !series.is_sorted_by(|a, b| a.labels < b.labels) {
        return Err("matrix results should always be sorted by labels, but matrix is not".to_owned());
    }
    for actual in series {
        let labels = &actual.labels;
        let Some(expected) = expected.iter().find(|e| e.labels == *labels) else {
            let (floats, histograms) = (actual.floats.len(), actual.histograms.len());
            return Err(format!(
                "unexpected metric {labels} in result, has {floats} floats and {histograms} histograms"
            ));
        };
        check_points(at, expected, actual)?;
    }
    match expected.iter().find(|e| !series.iter().any(|actual| actual.labels == e.labels)) {
        None => Ok(()),
        Some(missing) => Err(format!("expected metric {} not found", missing.labels)),
    }
}

fn check_points(at: Instants, expected: &ExpectedSeries, actual: &MatrixSeries) -> Result<(), String> {
    let labels = &expected.labels;
    let mut points: Vec<(Timestamp, SampleValue)> = actual
        .floats
        .iter()
        .map(|s| (s.timestamp, SampleValue::Float(s.value)))
        .chain(actual.histograms.iter().map(|(t, h)| (*t, SampleValue::Histogram(h.clone()))))
        .collect();
    points.sort_by_key(|(t, _)| *t);
    let listed = || {
        let points = points.iter().map(|(t, value)| format!("{} @[{t}]", shown(value)));
        points.collect::<Vec<_>>().join(" ")
    };
    let mut rest = points.iter();
    for (i, value) in expected.values.iter().enumerate() {
        let t = at.start + i as i64 * at.step;
        if t > at.end {
            let count = expected.values.len();
            return Err(format!(
                "expected {count} points for {labels}, but query time range cannot return this many points"
            ));
        }
        if *value == SequenceValue::Omitted {
            continue;
        }
        let fail = |why: String| Err(format!("point {i} of {labels}: {why} (result has {})", listed()));
        match rest.next() {
            None => return fail("missing".to_owned()),
            Some((actual, _)) if actual.as_millis() != t => {
                return fail(format!("expected at {t}, but it is at {actual}"));
            }
            Some((_, actual)) => check_point(labels, value, actual).or_else(fail)?,
        }
    }
    if rest.next().is_some() {
        return Err(format!("more points for {labels} than expected (result has {})", listed()));
    }
    Ok(())
}

/// Checks warnings and infos.
///
/// # Errors
/// The annotation that is missing or must not be present.
pub(super) fn check_annotations(eval: &Eval, annotations: &Annotations) -> Result<(), String> {
    for (wanted, unwanted, name, found) in [
        (ExpectationKind::Warn, ExpectationKind::NoWarn, "warn", &annotations.warnings),
        (ExpectationKind::Info, ExpectationKind::NoInfo, "info", &annotations.infos),
    ] {
        if eval.expects(unwanted) && !found.is_empty() {
            return Err(format!("unexpected {name} annotations: {found:?}"));
        }
        let wanted = || eval.expectations.iter().filter(move |e| e.kind == wanted).map(|e| &e.text);
        if let Some(missing) = wanted().find(|text| !found.iter().any(|f| text.matches(f))) {
            return Err(format!("expected {name} annotation matching {missing:?}, found: {found:?}"));
        }
        if let Some(surplus) =
            found.iter().find(|f| wanted().next().is_some() && !wanted().any(|t| t.matches(f)))
        {
            return Err(format!("unexpected {name} annotation {surplus:?}"));
        }
    }
    Ok(())
}

/// Checks the text of an expected error.
///
/// # Errors
/// The text that was expected instead.
pub(super) fn check_failure(eval: &Eval, error: &str) -> Result<(), String> {
    let mut wanted = eval.expectations.iter().filter(|e| e.kind == ExpectationKind::Fail);
    match wanted.find(|e| !e.text.matches(error)) {
        None => Ok(()),
        Some(other) => Err(format!("expected error matching {:?}, but got: {error}", other.text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_equal_within_a_millionth() {
        let check = |a: f64, b: f64, expected: bool| {
            assert_eq!((almost_equal(a, b), almost_equal(b, a)), (expected, expected), "{a} {b}");
        };
        check(1.0, 1.000_001, true);
        check(1.0, 1.000_003, false);
        check(0.0, 1e-300, false);
        check(0.0, -0.0, true);
        check(f64::NAN, -f64::NAN, true);
        check(f64::NAN, model::stale_nan(), false);
        check(model::stale_nan(), model::stale_nan(), true);
        check(f64::INFINITY, f64::INFINITY, true);
        check(f64::INFINITY, f64::MAX, false);
        check(f64::MAX, f64::MAX * (1.0 - 1e-9), true);
    }

    #[test]
    fn spans_of_length_zero_are_ignored() {
        let span = |offset, length| BucketSpan { offset, length };
        assert_eq!(joined(&[span(1, 0), span(2, 3), span(4, 0)]), [span(3, 3)]);
    }
}
