//! Quantiles and fractions of native and classic histograms.
//!
//! Behaviour: Prometheus 3.14's `promql/quantile.go`.

use model::{BoundedBucket, FloatHistogram};

use crate::functions::kahan::KahanSum;
use crate::functions::quantile::nan_first;

/// Relative difference up to which the counts of neighbouring classic buckets are considered equal. Sums of
/// the same floats in different orders differ by this much.
const SMALL_DELTA: f64 = 1e-12;

/// NaN observations that were found in a native histogram. They are counted but are not in any bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Oddity {
    /// There are none, as far as it matters.
    None,
    /// The result is NaN because it would be one of the NaN observations.
    NanResult,
    /// There are some, and the result ignores them.
    Nans,
}

/// The `q`-quantile of a native histogram.
pub(crate) fn native_quantile(q: f64, histogram: &FloatHistogram) -> (f64, Oddity) {
    if q < 0.0 {
        return (f64::NEG_INFINITY, Oddity::None);
    }
    if q > 1.0 {
        return (f64::INFINITY, Oddity::None);
    }
    if histogram.count == 0.0 || q.is_nan() {
        return (f64::NAN, Oddity::None);
    }
    let custom = histogram.uses_custom_buckets();
    let mut buckets = histogram.buckets();
    // NaN observations are counted but are not in any bucket, so with them only counting up from the lowest
    // bucket is correct. Otherwise, counting from the nearer end loses less to rounding.
    let upwards = histogram.sum.is_nan() || q < 0.5;
    if !upwards {
        buckets.reverse();
    }
    let mut rank = if upwards { q } else { 1.0 - q } * histogram.count;
    let (mut count, mut seen) = (0.0, buckets.len());
    // Used if there are no buckets, as after a division by zero.
    let mut bucket =
        BoundedBucket { lower: 0.0, upper: 0.0, lower_inclusive: true, upper_inclusive: true, count: 0.0 };
    for (at, candidate) in buckets.iter().enumerate() {
        // If the rank is never reached, the last bucket is used, even if it is empty.
        bucket = *candidate;
        if bucket.count == 0.0 {
            continue;
        }
        count += bucket.count;
        if count >= rank {
            seen = at + 1;
            break;
        }
    }
    if custom {
        if bucket.lower == f64::NEG_INFINITY {
            if bucket.upper <= 0.0 {
                return (bucket.upper, Oddity::None);
            }
            bucket.lower = 0.0;
        } else if bucket.upper == f64::INFINITY {
            return (bucket.lower, Oddity::None);
        }
    } else if bucket.lower < 0.0 && bucket.upper > 0.0 {
        narrow_zero(histogram, &mut bucket);
    }
    count = count.min(histogram.count);
    if count < rank {
        return if histogram.sum.is_nan() {
            (f64::NAN, Oddity::NanResult)
        } else {
            (bucket.upper, Oddity::None)
        };
    }
    rank = if upwards { rank - (count - bucket.count) } else { count - rank };
    let mut oddity = Oddity::None;
    let fraction = rank / bucket.count;
    if histogram.sum.is_nan() {
        // A NaN sum may also come from observations of both infinities. Then the buckets contain all
        // observations.
        let rest: f64 = buckets[seen..].iter().map(|b| b.count).sum();
        if count + rest < histogram.count {
            oddity = Oddity::Nans;
        }
    }
    if custom || (bucket.lower <= 0.0 && bucket.upper >= 0.0) {
        return (bucket.lower + (bucket.upper - bucket.lower) * fraction, oddity);
    }
    let (lower, upper) = (bucket.lower.abs().log2(), bucket.upper.abs().log2());
    let value = if bucket.lower > 0.0 {
        (lower + (upper - lower) * fraction).exp2()
    } else {
        -(upper + (lower - upper) * (1.0 - fraction)).exp2()
    };
    (value, oddity)
}

/// If there are buckets on one side only, the zero bucket is assumed to extend only from zero to that side.
fn narrow_zero(histogram: &FloatHistogram, bucket: &mut model::BoundedBucket) {
    let (negative, positive) = (histogram.negative_buckets.is_empty(), histogram.positive_buckets.is_empty());
    if negative && !positive {
        bucket.lower = 0.0;
    } else if positive && !negative {
        bucket.upper = 0.0;
    }
}

/// Finds the ranks of two bounds while the buckets are visited in ascending order.
#[derive(Debug, Default)]
struct Ranks {
    lower: Option<f64>,
    upper: Option<f64>,
}

impl Ranks {
    /// Visits a bucket that starts at rank `rank`. `inside` returns the rank of a value inside the bucket.
    fn visit(
        &mut self,
        bounds: (f64, f64),
        bucket: (f64, f64),
        rank: f64,
        inside: impl Fn(f64) -> f64,
    ) -> bool {
        for (bound, found) in [(bounds.0, &mut self.lower), (bounds.1, &mut self.upper)] {
            if found.is_none() && bucket.0 >= bound {
                *found = Some(rank);
            }
        }
        if self.lower.is_some() && self.upper.is_some() {
            return true;
        }
        for (bound, found) in [(bounds.0, &mut self.lower), (bounds.1, &mut self.upper)] {
            if found.is_none() && bucket.0 < bound && bucket.1 > bound {
                *found = Some(inside(bound));
            }
        }
        self.lower.is_some() && self.upper.is_some()
    }

    fn between(&self, count: f64) -> f64 {
        let rank = |found: Option<f64>| found.map_or(count, |rank| if rank > count { count } else { rank });
        rank(self.upper) - rank(self.lower)
    }
}

/// The fraction of a native histogram's observations between two values.
pub(crate) fn native_fraction(lower: f64, upper: f64, histogram: &FloatHistogram) -> (f64, Oddity) {
    if histogram.count == 0.0 || lower.is_nan() || upper.is_nan() {
        return (f64::NAN, Oddity::None);
    }
    if lower >= upper {
        return (0.0, Oddity::None);
    }
    let custom = histogram.uses_custom_buckets();
    let buckets = histogram.buckets();
    let (mut ranks, mut rank) = (Ranks::default(), 0.0);
    for bucket in &buckets {
        let mut bucket = *bucket;
        let zero = bucket.lower <= 0.0 && bucket.upper >= 0.0;
        if zero {
            narrow_zero(histogram, &mut bucket);
        }
        let inside = |value: f64| {
            let linear = custom || zero;
            if linear && bucket.lower == f64::NEG_INFINITY {
                // Nothing is known about the distribution inside an unbounded bucket.
                return bucket.count;
            }
            rank + bucket.count * bucket.fraction_below(value, linear)
        };
        if ranks.visit((lower, upper), (bucket.lower, bucket.upper), rank, inside) {
            break;
        }
        rank += bucket.count;
    }
    let (mut count, mut oddity) = (histogram.count, Oddity::None);
    if histogram.sum.is_nan() {
        count = buckets.iter().map(|b| b.count).sum();
        if count < histogram.count {
            oddity = Oddity::Nans;
        }
    }
    (ranks.between(count) / histogram.count, oddity)
}

/// The variance of a native histogram's observations. Each is assumed to be in the middle of its bucket.
pub(crate) fn variance(histogram: &FloatHistogram) -> f64 {
    let mean = histogram.sum / histogram.count;
    let mut total = KahanSum::default();
    for bucket in histogram.buckets().iter().filter(|b| b.count != 0.0) {
        let value = if histogram.uses_custom_buckets() {
            (bucket.upper + bucket.lower) / 2.0
        } else if bucket.lower <= 0.0 && bucket.upper >= 0.0 {
            0.0
        } else {
            let middle = (bucket.upper * bucket.lower).sqrt();
            if bucket.upper < 0.0 { -middle } else { middle }
        };
        let delta = value - mean;
        total = total.add(bucket.count * delta * delta);
    }
    total.value() / histogram.count
}

/// A bucket of a classic histogram.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ClassicBucket {
    /// Upper bound, inclusive.
    pub(crate) upper: f64,
    /// Number of observations at or below the bound.
    pub(crate) count: f64,
}

/// The corrections that made counts ascend: lowest bound, highest bound and largest correction. `None` if
/// there were none.
pub(crate) type Corrected = Option<(f64, f64, f64)>;

/// Sorts buckets by bound and joins those with equal bounds. Returns `false` if the last one is not the
/// bucket `+Inf`.
fn prepare(buckets: &mut Vec<ClassicBucket>) -> bool {
    buckets.sort_by(|a, b| nan_first(&a.upper, &b.upper));
    if buckets.last().is_none_or(|b| b.upper != f64::INFINITY) {
        return false;
    }
    buckets.dedup_by(|later, kept| {
        let same = later.upper == kept.upper;
        if same {
            kept.count += later.count;
        }
        same
    });
    true
}

/// Makes counts ascend. Corrections within the rounding error are not reported.
fn make_monotonic(buckets: &mut [ClassicBucket]) -> Corrected {
    let mut corrected: Corrected = None;
    let (first, rest) = buckets.split_first_mut()?;
    let mut previous = first.count;
    for bucket in rest {
        let count = bucket.count;
        if count == previous {
            continue;
        }
        if almost_equal(previous, count) {
            bucket.count = previous;
        } else if count < previous {
            bucket.count = previous;
            let (low, high, diff) = corrected.unwrap_or((f64::INFINITY, f64::NEG_INFINITY, 0.0));
            corrected = Some((low.min(bucket.upper), high.max(bucket.upper), diff.max(previous - count)));
        } else {
            previous = count;
        }
    }
    corrected
}

/// Whether two floats differ by less than [`SMALL_DELTA`], relative to their size.
fn almost_equal(a: f64, b: f64) -> bool {
    if a.is_nan() && b.is_nan() || a == b {
        return true;
    }
    let sum = a.abs() + b.abs();
    let diff = (a - b).abs();
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return diff < SMALL_DELTA * f64::MIN_POSITIVE;
    }
    diff / sum.min(f64::MAX) < SMALL_DELTA
}

/// The `q`-quantile of a classic histogram.
pub(crate) fn classic_quantile(q: f64, buckets: &mut Vec<ClassicBucket>) -> (f64, Corrected) {
    if q.is_nan() {
        return (f64::NAN, None);
    }
    if q < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if q > 1.0 {
        return (f64::INFINITY, None);
    }
    if !prepare(buckets) {
        return (f64::NAN, None);
    }
    let corrected = make_monotonic(buckets);
    let last = buckets.len() - 1;
    let observations = buckets[last].count;
    if last == 0 || observations == 0.0 {
        return (f64::NAN, corrected);
    }
    let mut rank = q * observations;
    // A binary search, as in Prometheus: if there are NaN counts, the result depends on which buckets are
    // compared.
    let (mut low, mut high) = (0, last);
    while low < high {
        let middle = (low + high) / 2;
        if buckets[middle].count >= rank {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    let value = if low == last {
        buckets[last - 1].upper
    } else if low == 0 && buckets[0].upper <= 0.0 {
        buckets[0].upper
    } else {
        let ClassicBucket { upper, mut count } = buckets[low];
        let mut start = 0.0;
        if low > 0 {
            start = buckets[low - 1].upper;
            count -= buckets[low - 1].count;
            rank -= buckets[low - 1].count;
        }
        start + (upper - start) * (rank / count)
    };
    (value, corrected)
}

/// The fraction of a classic histogram's observations between two values.
pub(crate) fn classic_fraction(lower: f64, upper: f64, buckets: &mut Vec<ClassicBucket>) -> f64 {
    if !prepare(buckets) {
        return f64::NAN;
    }
    let count = buckets[buckets.len() - 1].count;
    if count == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    let mut start = if buckets[0].upper <= 0.0 { f64::NEG_INFINITY } else { 0.0 };
    let (mut ranks, mut rank) = (Ranks::default(), 0.0);
    for bucket in buckets.iter() {
        let inside = |value: f64| {
            if start == f64::NEG_INFINITY {
                return bucket.count;
            }
            rank + (bucket.count - rank) * (value - start) / (bucket.upper - start)
        };
        if ranks.visit((lower, upper), (start, bucket.upper), rank, inside) {
            break;
        }
        rank = bucket.count;
        start = bucket.upper;
    }
    ranks.between(count) / count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classic(counts: &[(f64, f64)]) -> Vec<ClassicBucket> {
        counts.iter().map(|&(upper, count)| ClassicBucket { upper, count }).collect()
    }

    #[test]
    fn classic_quantiles_are_interpolated_inside_their_bucket() {
        let buckets = classic(&[(f64::INFINITY, 10.0), (1.0, 5.0), (2.0, 10.0)]);
        assert_eq!(classic_quantile(0.75, &mut buckets.clone()).0, 1.5);
        assert_eq!(classic_quantile(0.25, &mut buckets.clone()).0, 0.5);
        assert!(classic_quantile(0.5, &mut classic(&[(1.0, 5.0)])).0.is_nan(), "no bucket +Inf");
        assert_eq!(classic_fraction(0.0, 1.5, &mut buckets.clone()), 0.75);
        let far = classic_fraction(0.0, 1.7e308, &mut classic(&[(1.0, 5.0), (f64::INFINITY, 10.0)]));
        assert!(far.is_nan(), "the product of a count and a distance overflows: {far}");
    }

    #[test]
    fn quantiles_of_a_histogram_without_buckets_are_zero() {
        let divided = |count: f64, sum: f64| FloatHistogram { count, sum, ..FloatHistogram::default() };
        assert_eq!(native_quantile(0.5, &divided(f64::INFINITY, 1.0)), (0.0, Oddity::None));
        assert!(native_quantile(1.0, &divided(f64::INFINITY, 1.0)).0.is_nan(), "there is no such rank");
        assert_eq!(native_quantile(0.5, &divided(3.0, f64::NAN)).1, Oddity::NanResult);
    }

    #[test]
    fn decreasing_counts_are_corrected_and_reported() {
        let mut buckets = classic(&[(1.0, 5.0), (2.0, 3.0), (f64::INFINITY, 6.0)]);
        assert_eq!(classic_quantile(0.5, &mut buckets).1, Some((2.0, 2.0, 2.0)));
        let mut rounding = classic(&[(1.0, 5.0), (2.0, 5.0 - 1e-15), (f64::INFINITY, 6.0)]);
        assert_eq!(classic_quantile(0.5, &mut rounding).1, None);
    }
}
