//! Limits on the buckets of native histograms.

use std::borrow::Cow;

use model::FloatHistogram;

/// The least and the greatest resolution of exponential buckets.
const MIN_SCHEMA: i32 = -4;
const MAX_SCHEMA: i32 = 8;

/// The greatest resolution whose buckets grow by at least this factor.
pub(crate) fn max_schema(min_factor: f64) -> i32 {
    if min_factor <= 1.0 {
        return MAX_SCHEMA;
    }
    let schema = (-min_factor.log2().log2()).floor();
    // It is between -4 and 8.
    schema.clamp(f64::from(MIN_SCHEMA), f64::from(MAX_SCHEMA)) as i32
}

/// A histogram with at most `limit` buckets, 0 for any number, and at most this resolution; `None` if that is not possible.
pub(super) fn limited(
    histogram: &FloatHistogram,
    limit: usize,
    max_schema: i32,
) -> Option<Cow<'_, FloatHistogram>> {
    let mut limited = Cow::Borrowed(histogram);
    let is_exponential = !histogram.uses_custom_buckets();
    if is_exponential && histogram.schema > max_schema {
        limited = Cow::Owned(histogram.to_schema(max_schema));
    }
    let count =
        |histogram: &FloatHistogram| histogram.positive_buckets.len() + histogram.negative_buckets.len();
    while limit > 0 && count(&limited) > limit {
        if !is_exponential || limited.schema <= MIN_SCHEMA {
            return None;
        }
        limited = Cow::Owned(limited.to_schema(limited.schema - 1));
    }
    Some(limited)
}

#[cfg(test)]
mod tests {
    use model::BucketSpan;

    use super::*;

    #[test]
    fn factors_give_the_resolution_of_prometheus() {
        for (factor, schema) in
            [(0.0, 8), (1.0, 8), (1.00271, 8), (1.1, 2), (2.0, 0), (4.0, -1), (65_536.0, -4), (1e300, -4)]
        {
            assert_eq!(max_schema(factor), schema, "{factor}");
        }
    }

    #[test]
    fn histograms_are_reduced_until_they_fit() {
        let histogram = FloatHistogram {
            schema: 2,
            count: 8.0,
            positive_spans: vec![BucketSpan { offset: 0, length: 8 }],
            positive_buckets: vec![1.0; 8],
            ..FloatHistogram::default()
        };
        let schema = |limit, max| limited(&histogram, limit, max).map(|limited| limited.schema);
        assert_eq!(schema(0, 8), Some(2));
        assert_eq!(schema(8, 8), Some(2));
        assert_eq!(schema(0, 1), Some(1));
        assert!(schema(4, 8).is_some_and(|schema| schema < 2));
        let limited = limited(&histogram, 4, 8).unwrap();
        assert!(limited.positive_buckets.len() <= 4 && limited.positive_buckets.iter().sum::<f64>() == 8.0);
        let custom = FloatHistogram { schema: -53, ..histogram.clone() };
        assert!(super::limited(&custom, 4, 8).is_none());
    }
}
