//! Native histograms in messages.

use model::{BucketSpan, CounterResetHint, FloatHistogram};
use proto::prometheus as v1;
use proto::prometheus::write_v2 as v2;

/// A histogram in a message of version 1.0. Integer counts are sent as differences.
pub(crate) fn to_v1(histogram: &FloatHistogram, integer: bool, time: i64) -> v1::Histogram {
    use v1::histogram::{Count, ResetHint, ZeroCount};
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
    v1::Histogram {
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

/// A histogram in a message of version 2.0, with the start of its counter.
pub(crate) fn to_v2(histogram: &FloatHistogram, integer: bool, time: i64, start: i64) -> v2::Histogram {
    let first = to_v1(histogram, integer, time);
    let spans = |spans: Vec<v1::BucketSpan>| {
        spans.into_iter().map(|span| v2::BucketSpan { offset: span.offset, length: span.length }).collect()
    };
    v2::Histogram {
        sum: first.sum,
        schema: first.schema,
        zero_threshold: first.zero_threshold,
        negative_spans: spans(first.negative_spans),
        negative_deltas: first.negative_deltas,
        negative_counts: first.negative_counts,
        positive_spans: spans(first.positive_spans),
        positive_deltas: first.positive_deltas,
        positive_counts: first.positive_counts,
        // The numbers are the same.
        reset_hint: first.reset_hint,
        timestamp: first.timestamp,
        custom_values: first.custom_values,
        start_timestamp: start,
        count: first.count.map(|count| match count {
            v1::histogram::Count::CountInt(count) => v2::histogram::Count::CountInt(count),
            v1::histogram::Count::CountFloat(count) => v2::histogram::Count::CountFloat(count),
        }),
        zero_count: first.zero_count.map(|count| match count {
            v1::histogram::ZeroCount::ZeroCountInt(count) => v2::histogram::ZeroCount::ZeroCountInt(count),
            v1::histogram::ZeroCount::ZeroCountFloat(count) => {
                v2::histogram::ZeroCount::ZeroCountFloat(count)
            }
        }),
    }
}

fn spans(spans: &[BucketSpan]) -> Vec<v1::BucketSpan> {
    spans.iter().map(|span| v1::BucketSpan { offset: span.offset, length: span.length }).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_sent_as_differences_and_floats_as_they_are() {
        let histogram = FloatHistogram {
            counter_reset_hint: CounterResetHint::Gauge,
            schema: 1,
            zero_threshold: 0.5,
            zero_count: 2.0,
            count: 12.0,
            sum: 18.5,
            positive_spans: vec![BucketSpan { offset: -1, length: 2 }],
            positive_buckets: vec![4.0, 1.0],
            negative_spans: vec![BucketSpan { offset: 3, length: 1 }],
            negative_buckets: vec![5.0],
            custom_values: Vec::new(),
        };
        let integer = to_v1(&histogram, true, 7);
        assert_eq!((&integer.positive_deltas[..], &integer.negative_deltas[..]), (&[4, -3][..], &[5][..]));
        assert!(integer.positive_counts.is_empty() && integer.negative_counts.is_empty());
        assert_eq!(integer.count, Some(v1::histogram::Count::CountInt(12)));
        assert_eq!((integer.reset_hint, integer.timestamp, integer.positive_spans[0].offset), (3, 7, -1));
        let float = to_v2(&histogram, false, 7, 3);
        assert_eq!((&float.positive_counts[..], &float.negative_counts[..]), (&[4.0, 1.0][..], &[5.0][..]));
        assert!(float.positive_deltas.is_empty());
        assert_eq!(float.zero_count, Some(v2::histogram::ZeroCount::ZeroCountFloat(2.0)));
        assert_eq!((float.reset_hint, float.timestamp, float.start_timestamp), (3, 7, 3));
    }
}
