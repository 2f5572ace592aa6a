//! Native histograms in messages of remote read and remote write.

use model::{BucketSpan, CounterResetHint, FloatHistogram};
use proto::prometheus as wire;
use wire::histogram::{Count, ResetHint, ZeroCount};

/// A histogram in a message of remote read, or of remote write 1.0. Integer counts are sent as differences.
pub fn histogram_message(histogram: &FloatHistogram, integer: bool, time: i64) -> wire::Histogram {
    let hint = match histogram.counter_reset_hint {
        CounterResetHint::Unknown => ResetHint::Unknown,
        CounterResetHint::Reset => ResetHint::Yes,
        CounterResetHint::NotReset => ResetHint::No,
        CounterResetHint::Gauge => ResetHint::Gauge,
    };
    let deltas = |buckets: &[f64]| if integer { differences(buckets) } else { Vec::new() };
    let counts = |buckets: &[f64]| if integer { Vec::new() } else { buckets.to_vec() };
    let (count, zero_count) = match integer {
        true => {
            (Count::CountInt(histogram.count as u64), ZeroCount::ZeroCountInt(histogram.zero_count as u64))
        }
        false => (Count::CountFloat(histogram.count), ZeroCount::ZeroCountFloat(histogram.zero_count)),
    };
    wire::Histogram {
        sum: histogram.sum,
        schema: histogram.schema,
        zero_threshold: histogram.zero_threshold,
        negative_spans: spans(&histogram.negative_spans),
        negative_deltas: deltas(&histogram.negative_buckets),
        negative_counts: counts(&histogram.negative_buckets),
        positive_spans: spans(&histogram.positive_spans),
        positive_deltas: deltas(&histogram.positive_buckets),
        positive_counts: counts(&histogram.positive_buckets),
        reset_hint: hint.into(),
        timestamp: time,
        custom_values: histogram.custom_values.clone(),
        count: Some(count),
        zero_count: Some(zero_count),
    }
}

fn spans(spans: &[BucketSpan]) -> Vec<wire::BucketSpan> {
    spans.iter().map(|span| wire::BucketSpan { offset: span.offset, length: span.length }).collect()
}

fn differences(buckets: &[f64]) -> Vec<i64> {
    let mut before = 0;
    let difference = |bucket: &f64| {
        let count = *bucket as i64;
        let difference = count.wrapping_sub(before);
        before = count;
        difference
    };
    buckets.iter().map(difference).collect()
}
