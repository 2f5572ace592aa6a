//! Compares two results.

use promql::{QueryOutput, QueryValue, SampleValue};

use crate::data::{LabelMap, Value};
use crate::histogram::Histogram;
use crate::oracle::Answer;

/// Relative difference that is tolerated, because the order of additions may differ.
const TOLERANCE: f64 = 1e-9;

/// Whether two numbers are equal except for rounding. The sign of zero is compared, the sign of NaN is not.
pub(crate) fn same(a: f64, b: f64) -> bool {
    same_number(a, b) && (a != 0.0 || b != 0.0 || a.is_sign_negative() == b.is_sign_negative())
}

/// Like [`same`], but ignores the sign of zero.
pub(crate) fn same_number(a: f64, b: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= TOLERANCE * a.abs().max(b.abs())
}

fn same_value(a: &Value, b: &Value, same: fn(f64, f64) -> bool) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => same(*a, *b),
        (Value::Histogram(a), Value::Histogram(b)) => a.is_like(b, same_number),
        _ => false,
    }
}

/// A description of the first difference, or `None`. `same` compares floats.
pub(crate) fn difference(expected: &Answer, found: &Answer, same: fn(f64, f64) -> bool) -> Option<String> {
    for (labels, points) in expected {
        let Some(others) = found.get(labels) else { return Some(format!("{labels:?} is missing")) };
        for (at, value) in points {
            match others.get(at) {
                Some(other) if same_value(value, other, same) => {}
                other => return Some(format!("{labels:?} at {at} ms: expected {value:?}, found {other:?}")),
            }
        }
        if let Some((at, value)) = others.iter().find(|(at, _)| !points.contains_key(*at)) {
            return Some(format!("{labels:?} at {at} ms: expected nothing, found {value:?}"));
        }
    }
    let unexpected = found.keys().find(|labels| !expected.contains_key(*labels));
    unexpected.map(|labels| format!("{labels:?} is unexpected: {:?}", found[labels]))
}

/// Converts the engine's result to the form of the slow evaluator.
///
/// # Panics
/// If a series has two samples at the same time.
pub(crate) fn answer(output: &QueryOutput) -> Answer {
    let mut answer = Answer::new();
    let mut put = |labels: &model::Labels, at: model::Timestamp, value: Value| {
        let labels: LabelMap = labels.iter().map(|l| (l.name.to_owned(), l.value.to_owned())).collect();
        let before = answer.entry(labels).or_default().insert(at.as_millis(), value);
        assert!(before.is_none(), "two points at {at} ms");
    };
    match &output.value {
        QueryValue::Scalar(sample) => {
            put(&model::Labels::empty(), sample.timestamp, Value::Float(sample.value))
        }
        QueryValue::String { .. } => unreachable!("these tests do not evaluate strings"),
        QueryValue::Vector(samples) => {
            for sample in samples {
                let value = match &sample.value {
                    SampleValue::Float(value) => Value::Float(*value),
                    SampleValue::Histogram(histogram) => Value::Histogram(Histogram::from_model(histogram)),
                };
                put(&sample.labels, sample.timestamp, value);
            }
        }
        QueryValue::Matrix(matrix) => {
            for series in matrix {
                for sample in &series.floats {
                    put(&series.labels, sample.timestamp, Value::Float(sample.value));
                }
                for (at, histogram) in &series.histograms {
                    put(&series.labels, *at, Value::Histogram(Histogram::from_model(histogram)));
                }
            }
        }
    }
    answer
}
