//! Compares results of the engine and a peer ([`crate::peer`]), except for known differences: see "Where it
//! differs from Prometheus" in the library's README.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::FloatHistogram;
use promql::syntax::ast::Expr;
use promql::syntax::functions::FunctionId;
use promql::{
    MatrixSeries, ParseOptions, QueryError, QueryOutput, QueryParams, QueryValue, SampleValue, VectorSample,
    parse,
};

use crate::compare::same;
use crate::data::LabelMap;
use crate::peer::{PeerAnswer, PeerSeries, PeerValue};

/// A query and its options.
pub(crate) struct PeerQuestion<'a> {
    pub(crate) text: &'a str,
    pub(crate) params: &'a QueryParams,
    /// Whether the removal of names is delayed.
    pub(crate) delayed: bool,
    /// Whether start timestamps are used.
    pub(crate) starts: bool,
}

/// A description of the difference, or `None`.
pub(crate) fn disagreement(
    question: &PeerQuestion<'_>,
    expected: &Result<PeerAnswer, String>,
    found: &Result<QueryOutput, QueryError>,
) -> Option<String> {
    match (expected, found) {
        (Ok(expected), Ok(found)) => values(question, expected, &found.value)
            .or_else(|| notes("warnings", expected, &expected.warnings, &found.annotations.warnings))
            .or_else(|| notes("infos", expected, &expected.infos, &found.annotations.infos)),
        (Err(error), Err(other)) => {
            let other = other.to_string();
            // If an expression has several errors, either may be reported.
            let alike = *error == other || [error, &other].iter().all(|error| is_of_data(error));
            (!alike).then(|| format!("words: expected the error\n  {error}\n  {other}"))
        }
        (Err(error), Ok(_)) => Some(format!("missing error: {error}")),
        (Ok(_), Err(error)) => {
            (!is_mixed_up(question, &error.to_string())).then(|| format!("unexpected error: {error}"))
        }
    }
}

/// Whether the result depends on an order that Prometheus leaves open, or on the last digit of a large
/// number.
pub(crate) fn is_open(question: &PeerQuestion<'_>) -> bool {
    let has = |word: &str| question.text.contains(word);
    let any = |words: &[&str]| words.iter().any(|word| has(word));
    // In a range query, series come from an unordered map.
    let picks = any(&["topk", "bottomk", "limitk"]) && question.params.step.is_some();
    // The sine of a large number, the remainder of a division, and differences of nearly equal numbers depend
    // on the last digit.
    let waves = any(&["sin(", "cos(", "tan("]) && any(&["^", "exp(", "sinh(", "cosh("]);
    let means = any(&["rate(", "increase(", "delta(", "deriv(", "predict_", "avg", "std", "quantile"]);
    let steps = any(&["=", "<", ">", "floor", "ceil", "round", "count_values"]);
    let digits = has("%") || has("smoothing") || (means && steps);
    // Go's logarithms of the smallest positive numbers are wrong.
    let tiny = any(&["ln(", "log2(", "log10("]) && has("1e-320");
    // Prometheus omits the sum of two histograms with contradicting hints. If only counts are needed, the
    // hints that it assumes depend on the samples that its iterator has read.
    let hints = any(&["histogram_count(", "histogram_sum(", "histogram_avg("]);
    // For a histogram whose sum is NaN, Prometheus computes the quantile from the last bucket.
    let nans = has("histogram_quantile") && any(&["spread", "latency", "__name__"]);
    // Prometheus ignores the offset here, and evaluates a pinned subquery at instants that are not needed.
    let pinned = has("@") && any(&["timestamp(", "predict_linear("]);
    // Prometheus puts values whose name will be dropped and values whose name stays into one series.
    let names = question.delayed && has(" or ");
    picks || waves || digits || tiny || hints || nans || pinned || names || has("extreme")
}

/// Whether the error can only occur during evaluation.
fn is_of_data(error: &str) -> bool {
    const PARTS: [&str; 9] = [
        "same labelset",
        "duplicate series for",
        "multiple matches",
        "conflicting label",
        "is NaN",
        "flows int64",
        "must be greater than 0",
        "invalid label name",
        "modifier can only be used with",
    ];
    PARTS.iter().any(|part| error.contains(part))
}

/// Whether series with different names became equal. Prometheus accepts this if one has floats and the other
/// histograms.
fn is_mixed_up(question: &PeerQuestion<'_>, error: &str) -> bool {
    let several = ["__name__", "mixed"].iter().any(|name| question.text.contains(name));
    several && error.contains("same labelset")
}

/// How warnings or infos differ, or `None`.
fn notes(kind: &str, answer: &PeerAnswer, expected: &BTreeSet<String>, found: &[String]) -> Option<String> {
    let found: BTreeSet<String> = found.iter().cloned().collect();
    let told = |line: &str, lines: &BTreeSet<String>| {
        lines.iter().any(|other| {
            let ((text, place), (other, other_place)) = (split(line), split(other));
            // Prometheus gives the start of the query as the position of notes about subqueries.
            text == other && (place == other_place || [place, other_place].contains(&"(1:1)"))
        })
    };
    let missing: Vec<_> = expected.iter().filter(|line| !told(line, &found)).collect();
    let unexpected: Vec<_> = found
        .iter()
        .filter(|line| !told(line, expected))
        .filter(|line| !answer.warnings.iter().chain(&answer.infos).any(|other| hides(other, line)))
        .collect();
    (!missing.is_empty() || !unexpected.is_empty())
        .then(|| format!("{kind}: missing {missing:#?}, unexpected {unexpected:#?}"))
}

/// The text of a note without its numbers of occurrences, some of which Prometheus counts several times, and
/// its position.
fn split(line: &str) -> (String, &str) {
    let (text, place) = line.rsplit_once(' ').expect("a place");
    let mut words: Vec<&str> = text.split(' ').collect();
    if let Some(at) = words.iter().position(|word| *word == "samples" || *word == "occurrences)") {
        words[at - 1] = "";
        words.retain(|word| *word != "occurrences)");
    }
    words.retain(|word| !word.is_empty());
    (words.join(" "), place)
}

/// Whether one of Prometheus' notes prevents it from giving another.
fn hides(note: &str, other: &str) -> bool {
    let ((text, place), (other, other_place)) = (split(note), split(other));
    // Of all pairs of values at a step, Prometheus reports only the last one for a binary operator. After a
    // mix of floats and histograms it checks nothing else.
    let of_operator = |text: &str| {
        text.contains("for binary operator")
            || text.contains("during histogram")
            || text.contains("reconciled during")
    };
    let of_fold =
        |text: &str| text.contains("exponential and custom buckets") || text.contains("reconciled during");
    place == other_place
        && ((of_operator(&text) && of_operator(&other))
            || (text.contains("mix of histograms and floats for aggregation") && of_fold(&other)))
}

/// How values, labels or order differ, or `None`.
fn values(question: &PeerQuestion<'_>, expected: &PeerAnswer, found: &QueryValue) -> Option<String> {
    let (kind, found) = match found {
        QueryValue::Scalar(sample) => (
            "scalar",
            vec![(LabelMap::new(), vec![(sample.timestamp.as_millis(), PeerValue::Float(sample.value))])],
        ),
        QueryValue::String { value, .. } => {
            let is_same = expected.kind == "string" && expected.text.as_ref() == Some(value);
            return (!is_same).then(|| format!("expected {:?}, found {value:?}", expected.text));
        }
        QueryValue::Vector(samples) => ("vector", samples.iter().map(of_sample).collect()),
        QueryValue::Matrix(matrix) => ("matrix", matrix.iter().map(of_series).collect::<Vec<_>>()),
    };
    if kind != expected.kind {
        return Some(format!("expected a {}, found a {kind}", expected.kind));
    }
    let (left, right) = (by_labels(question, &expected.series), by_labels(question, &found));
    if left.values().chain(right.values()).any(|all| all.len() > 1) && left.len() != right.len() {
        return Some("a series occurs twice".to_owned());
    }
    for (labels, points) in &left {
        let Some(others) = right.get(labels) else {
            return Some(format!("labels: {labels:?} is missing: {points:?}"));
        };
        let (points, others) = (&points[0], &others[0]);
        let times = |points: &[(i64, PeerValue)]| points.iter().map(|(at, _)| *at).collect::<Vec<_>>();
        if times(points) != times(others) {
            return Some(format!("times: {labels:?}: expected {points:?}\n  found {others:?}"));
        }
        let alike = |a: &PeerValue, b: &PeerValue| match (a, b) {
            // If zeros have different signs, either may be in the middle.
            (PeerValue::Float(a), PeerValue::Float(b)) if question.text.contains("quantile") && a == b => {
                true
            }
            // Subnormal numbers have few digits.
            (PeerValue::Float(a), PeerValue::Float(b)) if a.is_subnormal() && b.is_subnormal() => true,
            _ => same_value(a, b),
        };
        let pair = points.iter().zip(*others).find(|((_, a), (_, b))| !alike(a, b));
        if let Some(((at, value), (_, other))) = pair {
            return Some(format!("value: {labels:?} at {at}:\n  expected {value:?}\n  found    {other:?}"));
        }
    }
    if let Some((labels, points)) = right.iter().find(|(labels, _)| !left.contains_key(*labels)) {
        return Some(format!("labels: {labels:?} is unexpected: {points:?}"));
    }
    order(question, &expected.series, &found)
}

/// The samples of all series by labels.
fn by_labels<'a>(
    question: &PeerQuestion<'_>,
    series: &'a [PeerSeries],
) -> BTreeMap<LabelMap, Vec<&'a Vec<(i64, PeerValue)>>> {
    let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (labels, points) in series {
        all.entry(known(question, labels)).or_default().push(points);
    }
    all
}

/// Labels without those that are known to differ.
fn known(question: &PeerQuestion<'_>, labels: &LabelMap) -> LabelMap {
    let mut labels = labels.clone();
    if question.delayed && ["==", "!=", "<", ">", "group_"].iter().any(|op| question.text.contains(op)) {
        // After a comparison, and in labels that a join includes, Prometheus keeps names that should be
        // dropped at the end.
        labels.remove("__name__");
    }
    if question.text.contains("count_values") {
        for value in labels.values_mut() {
            if let Ok(number) = value.parse::<f64>() {
                *value = format!("{number:.9e}");
            }
        }
    }
    labels
}

/// How the order of series differs, or `None`. Only checked if the query defines an order.
fn order(question: &PeerQuestion<'_>, expected: &[PeerSeries], found: &[PeerSeries]) -> Option<String> {
    let labels =
        |series: &[PeerSeries]| series.iter().map(|(labels, _)| known(question, labels)).collect::<Vec<_>>();
    let sorts = match parse(question.text, &ParseOptions::ALL) {
        Ok(Expr::Call(call)) => Some(call.function.id),
        _ => None,
    };
    let differ = match sorts {
        _ if question.params.step.is_some() => labels(expected) != labels(found),
        // Prometheus does not order a missing label and a present one.
        Some(FunctionId::SortByLabel | FunctionId::SortByLabelDesc) => {
            let named = |labels: &LabelMap| {
                labels.len() == 2 && ["job", "instance"].iter().all(|name| labels.contains_key(*name))
            };
            labels(expected).iter().all(named) && labels(expected) != labels(found)
        }
        // The order of equal values is undefined.
        Some(FunctionId::Sort | FunctionId::SortDesc) => {
            let values = |series: &[PeerSeries]| -> Vec<PeerValue> {
                series.iter().flat_map(|(_, points)| points).map(|(_, value)| value.clone()).collect()
            };
            let (expected, found) = (values(expected), values(found));
            let same = |a: &PeerValue, b: &PeerValue| match (a, b) {
                (PeerValue::Float(a), PeerValue::Float(b)) => close(*a, *b),
                _ => same_value(a, b),
            };
            expected.iter().zip(&found).any(|(a, b)| !same(a, b))
        }
        _ => false,
    };
    differ.then(|| format!("order: expected {:?}\n  found {:?}", labels(expected), labels(found)))
}

fn label_map(labels: &model::Labels) -> LabelMap {
    labels.iter().map(|label| (label.name.to_owned(), label.value.to_owned())).collect()
}

fn of_sample(sample: &VectorSample) -> PeerSeries {
    let value = match &sample.value {
        SampleValue::Float(value) => PeerValue::Float(*value),
        SampleValue::Histogram(histogram) => PeerValue::Histogram(Arc::clone(histogram)),
    };
    (label_map(&sample.labels), vec![(sample.timestamp.as_millis(), value)])
}

fn of_series(series: &MatrixSeries) -> PeerSeries {
    let floats = series.floats.iter();
    let floats = floats.map(|sample| (sample.timestamp.as_millis(), PeerValue::Float(sample.value)));
    let histograms = series.histograms.iter();
    let histograms = histograms.map(|(at, value)| (at.as_millis(), PeerValue::Histogram(Arc::clone(value))));
    let mut points: Vec<_> = floats.chain(histograms).collect();
    points.sort_by_key(|(at, _)| *at);
    (label_map(&series.labels), points)
}

fn same_value(a: &PeerValue, b: &PeerValue) -> bool {
    match (a, b) {
        (PeerValue::Float(a), PeerValue::Float(b)) => same(*a, *b),
        (PeerValue::Histogram(a), PeerValue::Histogram(b)) => same_histogram(a, b),
        _ => false,
    }
}

/// Whether histograms are equal except for rounding and empty buckets.
fn same_histogram(a: &FloatHistogram, b: &FloatHistogram) -> bool {
    let side = |histogram: &FloatHistogram, positive: bool| {
        let (spans, counts) = if positive {
            (&histogram.positive_spans, &histogram.positive_buckets)
        } else {
            (&histogram.negative_spans, &histogram.negative_buckets)
        };
        crate::histogram::numbered(spans, counts)
    };
    let like = |positive: bool| {
        let (a, b) = (side(a, positive), side(b, positive));
        let count = |side: &BTreeMap<i32, f64>, index: &i32| side.get(index).copied().unwrap_or(0.0);
        a.keys().chain(b.keys()).all(|index| close(count(&a, index), count(&b, index)))
    };
    let bounds = |h: &FloatHistogram| h.custom_values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    a.schema == b.schema
        && a.counter_reset_hint == b.counter_reset_hint
        && bounds(a) == bounds(b)
        && a.zero_threshold == b.zero_threshold
        && close(a.count, b.count)
        && close(a.sum, b.sum)
        && close(a.zero_count, b.zero_count)
        && like(true)
        && like(false)
}

/// Like [`same`], but ignores the sign of zero.
fn close(a: f64, b: f64) -> bool {
    same(a, b) || (a == 0.0 && b == 0.0)
}
