//! Compares what a test expects with what came, and says what differs.

use model::{FloatHistogram, Labels};
use promql::promqltest::SequenceValue;
use promql::{SampleValue, VectorSample, go_g, histogram_text};

/// Whether two values are the same; with `fuzzy`, floats may be neighbours.
fn same_float(a: f64, b: f64, fuzzy: bool) -> bool {
    a == b || (a.is_nan() && b.is_nan()) || (fuzzy && (a.next_up() == b || a.next_down() == b))
}

fn same_histogram(a: &FloatHistogram, b: &FloatHistogram) -> bool {
    let (mut a, mut b) = (a.clone(), b.clone());
    a.compact();
    b.compact();
    a.counter_reset_hint == b.counter_reset_hint && a.same_observations(&b)
}

fn same_value(expected: &SequenceValue, found: &SampleValue, fuzzy: bool) -> bool {
    match (expected, found) {
        (SequenceValue::Float(expected), SampleValue::Float(found)) => same_float(*expected, *found, fuzzy),
        (SequenceValue::Histogram { histogram, .. }, SampleValue::Histogram(found)) => {
            same_histogram(histogram, found)
        }
        _ => false,
    }
}

fn expected_text(value: &SequenceValue) -> String {
    match value {
        SequenceValue::Float(value) => go_g(*value),
        SequenceValue::Histogram { histogram, .. } => histogram_text(histogram),
        SequenceValue::Omitted => "nothing".to_owned(),
    }
}

fn found_text(value: &SampleValue) -> String {
    match value {
        SampleValue::Float(value) => go_g(*value),
        SampleValue::Histogram(histogram) => histogram_text(histogram),
    }
}

/// What differs between the expected samples and those that were found: `-` is missing, `+` is too much. Empty if nothing does.
pub(super) fn samples(
    expected: &[(Labels, SequenceValue)],
    found: &[VectorSample],
    fuzzy: bool,
) -> Vec<String> {
    let mut left: Vec<&VectorSample> = found.iter().collect();
    let mut lines = Vec::new();
    for (labels, value) in expected {
        let same = left
            .iter()
            .position(|sample| sample.labels == *labels && same_value(value, &sample.value, fuzzy));
        match same {
            Some(at) => drop(left.remove(at)),
            None => lines.push(format!("- {labels} {}", expected_text(value))),
        }
    }
    lines.extend(left.iter().map(|sample| format!("+ {} {}", sample.labels, found_text(&sample.value))));
    lines
}

/// What differs between the expected alerts and those that fire, by labels and annotations.
pub(super) fn alerts(expected: &[(Labels, Labels)], found: &[(Labels, Labels)]) -> Vec<String> {
    let mut left: Vec<&(Labels, Labels)> = found.iter().collect();
    let mut lines = Vec::new();
    for alert in expected {
        match left.iter().position(|found| *found == alert) {
            Some(at) => drop(left.remove(at)),
            None => lines.extend(alert_lines('-', alert)),
        }
    }
    lines.extend(left.into_iter().flat_map(|alert| alert_lines('+', alert)));
    lines
}

fn alert_lines(sign: char, (labels, annotations): &(Labels, Labels)) -> Vec<String> {
    let mut lines = vec![format!("{sign} {labels}")];
    lines.extend(
        annotations
            .iter()
            .map(|label| format!("{sign}     {}: {}", label.name, promql::go_quoted(label.value))),
    );
    lines
}
