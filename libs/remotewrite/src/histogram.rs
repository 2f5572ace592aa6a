//! Native histograms in messages of version 2.0.

use model::FloatHistogram;
use promapi::histogram_message;
use proto::prometheus as v1;
use proto::prometheus::write_v2 as v2;

/// A histogram in a message of version 2.0, with the start of its counter.
pub(crate) fn to_v2(histogram: &FloatHistogram, integer: bool, time: i64, start: i64) -> v2::Histogram {
    let first = histogram_message(histogram, integer, time);
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

#[cfg(test)]
mod tests {
    use model::{BucketSpan, CounterResetHint};

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
        let integer = histogram_message(&histogram, true, 7);
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
