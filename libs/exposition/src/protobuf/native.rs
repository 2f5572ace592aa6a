//! Native histograms of the protobuf format.

use model::{BucketSpan, CounterResetHint, FloatHistogram};

use crate::protobuf::message::{Histogram, Span};

/// Whether a histogram is native, perhaps beside a classic one. A native one without observations has a zero threshold or an
/// empty span.
pub(crate) fn is_native(histogram: &Histogram) -> bool {
    !histogram.positive_span.is_empty()
        || !histogram.negative_span.is_empty()
        || histogram.zero_threshold > 0.0
        || histogram.zero_count > 0
        || histogram.zero_count_float > 0.0
}

/// The histogram, and whether its counts are integers.
pub(crate) fn convert(histogram: &Histogram, is_gauge: bool) -> Result<(bool, FloatHistogram), String> {
    let integer = histogram.sample_count_float <= 0.0 && histogram.zero_count_float <= 0.0;
    let buckets = |deltas: &[i64], counts: &[f64]| match integer {
        true => absolute(deltas),
        false => counts.to_vec(),
    };
    let mut out = FloatHistogram {
        counter_reset_hint: if is_gauge { CounterResetHint::Gauge } else { CounterResetHint::Unknown },
        schema: histogram.schema,
        zero_threshold: histogram.zero_threshold,
        zero_count: if integer { histogram.zero_count as f64 } else { histogram.zero_count_float },
        count: if integer { histogram.sample_count as f64 } else { histogram.sample_count_float },
        sum: histogram.sample_sum,
        positive_spans: spans(&histogram.positive_span),
        positive_buckets: buckets(&histogram.positive_delta, &histogram.positive_count),
        negative_spans: spans(&histogram.negative_span),
        negative_buckets: buckets(&histogram.negative_delta, &histogram.negative_count),
        custom_values: Vec::new(),
    };
    out.validate().map_err(|error| error.to_string())?;
    out.compact();
    Ok((integer, out))
}

fn spans(spans: &[Span]) -> Vec<BucketSpan> {
    spans.iter().map(|span| BucketSpan { offset: span.offset, length: span.length }).collect()
}

/// Counts of which each is the difference to the one before it.
fn absolute(deltas: &[i64]) -> Vec<f64> {
    let mut count = 0i64;
    let sums = deltas.iter().map(|delta| {
        count = count.wrapping_add(*delta);
        count as f64
    });
    sums.collect()
}
