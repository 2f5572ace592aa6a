//! Single buckets: their numbers, bounds and counts.

use crate::histogram::{BucketSpan, CUSTOM_BUCKETS_SCHEMA, FloatHistogram};

/// A bucket with its bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BoundedBucket {
    /// Lower bound; minus infinity for the first custom bucket.
    pub lower: f64,
    /// Upper bound; plus infinity for the last custom bucket.
    pub upper: f64,
    /// Whether the lower bound belongs to the bucket.
    pub lower_inclusive: bool,
    /// Whether the upper bound belongs to the bucket.
    pub upper_inclusive: bool,
    /// Number of observations in the bucket.
    pub count: f64,
}

impl BoundedBucket {
    /// The fraction of the bucket's observations at or below `value`, which must be strictly between its
    /// finite bounds.
    ///
    /// If `linear`, observations are assumed to be evenly distributed over the bucket, otherwise over the
    /// logarithm of its values, which suits exponential buckets.
    pub fn fraction_below(&self, value: f64, linear: bool) -> f64 {
        if linear {
            return (value - self.lower) / (self.upper - self.lower);
        }
        let (lower, upper) = (self.lower.abs().log2(), self.upper.abs().log2());
        let at = value.abs().log2();
        if value > 0.0 { (at - lower) / (upper - lower) } else { 1.0 - (at - upper) / (lower - upper) }
    }
}

/// `2^exponent * fraction`, even if the power alone is out of range.
fn scaled(fraction: f64, exponent: i64) -> f64 {
    // With an exponent outside of this range the result is zero or infinite in any case.
    let exponent = exponent.clamp(-2200, 2200) as i32;
    let half = exponent / 2;
    fraction * 2f64.powi(half) * 2f64.powi(exponent - half)
}

/// 2^(1/2), 2^(1/4), 2^(1/8) and so on: the factor by which the new bounds of schema 1, 2, 3 and so on differ
/// from those of the schema before.
const ROOTS: [f64; 8] = [
    std::f64::consts::SQRT_2,
    1.189_207_115_002_721,
    1.090_507_732_665_257_7,
    1.044_273_782_427_413_8,
    1.021_897_148_654_116_6,
    1.010_889_286_051_700_5,
    1.005_429_901_112_802_7,
    1.002_711_275_050_202_5,
];

/// `2^(part / 2^bits) / 2`, for schemas `bits` from 1 to 8.
///
/// The last bit of a float matters, because bounds are printed. Prometheus' bounds are those of the next
/// coarser schema times a root of two; the first of them, `sqrt(2) / 2`, is rounded down. This function
/// computes the same bits.
fn fraction(part: i64, bits: i32) -> f64 {
    let mut fraction = 0.5;
    for (level, root) in (1..=bits).zip(ROOTS) {
        if part >> (bits - level) & 1 == 1 {
            fraction = if level == 1 { std::f64::consts::FRAC_1_SQRT_2.next_down() } else { fraction * root };
        }
    }
    fraction
}

/// Upper bound of bucket `index`. Custom bucket -1 ends at minus infinity.
pub(super) fn bound(index: i64, schema: i32, custom_values: &[f64]) -> f64 {
    if schema == CUSTOM_BUCKETS_SCHEMA {
        return match usize::try_from(index) {
            Err(_) => f64::NEG_INFINITY,
            Ok(index) => custom_values.get(index).copied().unwrap_or(f64::INFINITY),
        };
    }
    if schema <= 0 {
        let exponent = index.saturating_mul(1 << schema.unsigned_abs().min(31));
        // The bucket that contains the greatest float would end at infinity.
        return if exponent == 1024 { f64::MAX } else { scaled(1.0, exponent) };
    }
    let bits = schema.min(8);
    let part = index & ((1 << bits) - 1);
    let exponent = index >> bits;
    if part == 0 && exponent == 1024 {
        return f64::MAX;
    }
    scaled(fraction(part, bits), exponent + 1)
}

/// The number and count of each bucket that spans describe, in ascending order of number.
pub fn numbered_buckets<'a>(
    spans: &'a [BucketSpan],
    buckets: &'a [f64],
) -> impl Iterator<Item = (i64, f64)> + 'a {
    let mut next = 0i64;
    let indices = spans.iter().flat_map(move |span| {
        let start = next + i64::from(span.offset);
        next = start + i64::from(span.length);
        start..next
    });
    indices.zip(buckets.iter().copied())
}

/// Spans and counts of numbered buckets, which must be in ascending order.
pub fn packed_buckets(cells: impl Iterator<Item = (i64, f64)>) -> (Vec<BucketSpan>, Vec<f64>) {
    let (mut spans, mut buckets): (Vec<BucketSpan>, Vec<f64>) = (Vec::new(), Vec::new());
    let mut next = 0i64;
    for (index, count) in cells {
        match spans.last_mut() {
            Some(span) if index == next => span.length += 1,
            _ => {
                let gap = (index - next).clamp(i64::from(i32::MIN), i64::from(i32::MAX));
                spans.push(BucketSpan { offset: gap as i32, length: 1 });
            }
        }
        buckets.push(count);
        next = index + 1;
    }
    (spans, buckets)
}

impl FloatHistogram {
    fn bucket(&self, index: i64, count: f64, positive: bool) -> BoundedBucket {
        let custom = self.uses_custom_buckets();
        let (near, far) = (
            bound(index - 1, self.schema, &self.custom_values),
            bound(index, self.schema, &self.custom_values),
        );
        let (lower, upper) = if positive { (near, far) } else { (-far, -near) };
        BoundedBucket {
            lower,
            upper,
            lower_inclusive: if custom { index == 0 } else { lower < 0.0 },
            upper_inclusive: custom || upper > 0.0,
            count,
        }
    }

    /// The buckets of the positive side in ascending order, including empty ones.
    pub fn positive(&self) -> impl Iterator<Item = BoundedBucket> + '_ {
        numbered_buckets(&self.positive_spans, &self.positive_buckets)
            .map(|(index, count)| self.bucket(index, count, true))
    }

    /// The buckets of the negative side, starting next to zero, including empty ones.
    pub fn negative(&self) -> impl Iterator<Item = BoundedBucket> + '_ {
        numbered_buckets(&self.negative_spans, &self.negative_buckets)
            .map(|(index, count)| self.bucket(index, count, false))
    }

    /// The zero bucket.
    pub fn zero_bucket(&self) -> BoundedBucket {
        BoundedBucket {
            lower: -self.zero_threshold,
            upper: self.zero_threshold,
            lower_inclusive: true,
            upper_inclusive: true,
            count: self.zero_count,
        }
    }

    /// All buckets in ascending order of value. The zero bucket is included only if it has observations.
    /// Buckets that reach into the zero bucket are cut at its bounds.
    pub fn buckets(&self) -> Vec<BoundedBucket> {
        let threshold = self.zero_threshold;
        let cut = |mut bucket: BoundedBucket| {
            if bucket.upper < 0.0 && bucket.upper > -threshold {
                bucket.upper = -threshold;
            } else if bucket.lower > 0.0 && bucket.lower < threshold {
                bucket.lower = threshold;
            }
            bucket
        };
        let mut all: Vec<BoundedBucket> = self.negative().map(cut).collect();
        all.reverse();
        if self.zero_count > 0.0 {
            all.push(self.zero_bucket());
        }
        all.extend(self.positive().map(cut));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_grow_by_the_base_of_the_schema() {
        assert_eq!(bound(0, 0, &[]), 1.0);
        assert_eq!(bound(3, 0, &[]), 8.0);
        assert_eq!(bound(-1, 0, &[]), 0.5);
        assert_eq!(bound(1, 1, &[]), std::f64::consts::SQRT_2.next_down());
        assert_eq!(bound(2, 1, &[]), 2.0);
        assert_eq!(bound(1, -2, &[]), 16.0);
        assert_eq!(bound(1024, 0, &[]), f64::MAX);
        assert_eq!(bound(-1074, 0, &[]), f64::from_bits(1));
        assert_eq!(bound(i64::from(i32::MAX), 0, &[]), f64::INFINITY);
        assert_eq!(bound(1, CUSTOM_BUCKETS_SCHEMA, &[1.0]), f64::INFINITY);
        assert_eq!(bound(-1, CUSTOM_BUCKETS_SCHEMA, &[1.0]), f64::NEG_INFINITY);
    }

    #[test]
    fn bounds_are_those_of_prometheus_to_the_last_digit() {
        let bounds = |schema: i32| (0..1 << schema).map(move |index| bound(index, schema, &[]) / 2.0);
        assert_eq!(
            bounds(3).collect::<Vec<_>>(),
            [
                0.5,
                0.5452538663326288,
                0.5946035575013605,
                0.6484197773255048,
                0.7071067811865475,
                0.7711054127039704,
                0.8408964152537144,
                0.9170040432046711
            ]
        );
        for schema in 1..=8 {
            assert!(
                bounds(schema).step_by(2).eq(bounds(schema - 1)),
                "each schema halves the buckets of the last"
            );
        }
        assert_eq!(bounds(8).next_back(), Some(0.9972960560854698));
    }

    #[test]
    fn packing_undoes_numbering() {
        let spans = vec![BucketSpan { offset: -2, length: 2 }, BucketSpan { offset: 3, length: 1 }];
        let buckets = vec![1.0, 2.0, 3.0];
        let cells: Vec<_> = numbered_buckets(&spans, &buckets).collect();
        assert_eq!(cells, [(-2, 1.0), (-1, 2.0), (3, 3.0)]);
        assert_eq!(packed_buckets(cells.into_iter()), (spans, buckets));
    }
}
