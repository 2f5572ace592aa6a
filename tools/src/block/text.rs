//! Samples as text: in the format of `promtool tsdb dump`, in OpenMetrics, and in JSON.

use std::io::Write;

use model::{BoundedBucket, FloatHistogram, Labels, METRIC_NAME};
use promql::{go_g, go_quoted};
use serde_json::json;
use series::{ChunkSample, ChunkSampleValue};

/// `{__name__="up", job="a"}`, as Prometheus prints label sets.
pub(super) fn labels(labels: &Labels, separator: &str, with_metric: bool) -> String {
    let mut text = String::from("{");
    for label in labels.iter().filter(|label| with_metric || label.name != METRIC_NAME) {
        if text.len() > 1 {
            text.push_str(separator);
        }
        match is_legacy_name(label.name) {
            true => text.push_str(label.name),
            false => text.push_str(&go_quoted(label.name)),
        }
        text.push('=');
        text.push_str(&go_quoted(label.value));
    }
    text.push('}');
    text
}

fn is_legacy_name(name: &str) -> bool {
    !name.as_bytes().first().is_none_or(u8::is_ascii_digit)
        && name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric())
}

/// The value of a sample as Prometheus prints it.
pub(super) fn value(sample: &ChunkSample) -> String {
    match &sample.value {
        ChunkSampleValue::Float(value) => go_g(*value),
        ChunkSampleValue::Histogram(histogram) => {
            histogram_text(histogram, sample.encoding.has_integer_counts())
        }
    }
}

/// A line of `promtool tsdb dump`, without the line break; `labels` comes from [`labels`].
pub(super) fn promtool_line(out: &mut Vec<u8>, labels: &str, sample: &ChunkSample) {
    // Writing to a `Vec` does not fail, here and below.
    let _ = write!(out, "{labels} {} {}", value(sample), sample.at);
}

/// A line of OpenMetrics text, without the line break; `series` is name and labels. OpenMetrics text cannot express native
/// histograms.
pub(super) fn openmetrics_line(out: &mut Vec<u8>, series: &str, millis: i64, value: f64) {
    let sign = if millis < 0 { "-" } else { "" };
    let (seconds, rest) = (millis.unsigned_abs() / 1000, millis.unsigned_abs() % 1000);
    let _ = write!(out, "{series} {} {sign}{seconds}.{rest:03}", go_g(value));
}

/// Name and labels in OpenMetrics text.
pub(super) fn openmetrics_series(set: &Labels) -> String {
    format!("{}{}", set.metric_name(), labels(set, ",", false))
}

/// A series as in the Prometheus API: `{"metric":{},"values":[[seconds,"1"]],"histograms":[[seconds,{}]]}`.
pub(super) fn json_series(set: &Labels, samples: &[ChunkSample]) -> serde_json::Value {
    let metric: serde_json::Map<String, serde_json::Value> =
        set.iter().map(|label| (label.name.to_owned(), label.value.into())).collect();
    let (mut values, mut histograms) = (Vec::new(), Vec::new());
    for sample in samples {
        let millis = sample.at.as_millis();
        let at = match millis % 1000 {
            0 => json!(millis / 1000),
            _ => json!(millis as f64 / 1000.0),
        };
        match &sample.value {
            ChunkSampleValue::Float(value) => values.push(json!([at, promapi_float(*value)])),
            ChunkSampleValue::Histogram(histogram) => histograms.push(json!([at, json_histogram(histogram)])),
        }
    }
    let mut series = json!({ "metric": metric });
    if !values.is_empty() {
        series["values"] = values.into();
    }
    if !histograms.is_empty() {
        series["histograms"] = histograms.into();
    }
    series
}

fn promapi_float(value: f64) -> String {
    promapi::format_float(value)
}

/// Bounds are encoded as in the API: 0 `(]`, 1 `[)`, 2 `()`, 3 `[]`.
fn json_histogram(histogram: &FloatHistogram) -> serde_json::Value {
    let buckets: Vec<serde_json::Value> = buckets(histogram)
        .map(|bucket| {
            let rule = match (bucket.lower_inclusive, bucket.upper_inclusive) {
                (false, true) => 0,
                (true, false) => 1,
                (false, false) => 2,
                (true, true) => 3,
            };
            let texts = [bucket.lower, bucket.upper, bucket.count].map(promapi_float);
            json!([rule, texts[0], texts[1], texts[2]])
        })
        .collect();
    json!({
        "count": promapi_float(histogram.count),
        "sum": promapi_float(histogram.sum),
        "buckets": buckets,
    })
}

/// The buckets with a count other than 0, in ascending order.
fn buckets(histogram: &FloatHistogram) -> impl Iterator<Item = BoundedBucket> {
    let negative: Vec<BoundedBucket> = histogram.negative().collect();
    let zero = (histogram.zero_count != 0.0).then(|| histogram.zero_bucket());
    let positive: Vec<BoundedBucket> = histogram.positive().collect();
    negative.into_iter().rev().chain(zero).chain(positive).filter(|bucket| bucket.count != 0.0)
}

/// A histogram as Prometheus prints it; the counts of an integer histogram have no exponent.
fn histogram_text(histogram: &FloatHistogram, integer: bool) -> String {
    let number = |count: f64| if integer { format!("{count}") } else { go_g(count) };
    let mut text = format!("{{count:{}, sum:{}", number(histogram.count), go_g(histogram.sum));
    for bucket in buckets(histogram) {
        let open = if bucket.lower_inclusive { '[' } else { '(' };
        let close = if bucket.upper_inclusive { ']' } else { ')' };
        let (lower, upper) = (go_g(bucket.lower), go_g(bucket.upper));
        text.push_str(&format!(", {open}{lower},{upper}{close}:{}", number(bucket.count)));
    }
    text.push('}');
    text
}
