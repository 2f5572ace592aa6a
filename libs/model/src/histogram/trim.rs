//! Removes the observations above or below a value: PromQL's `</` and `>/`.
//!
//! Behaviour: `TrimBuckets` in Prometheus 3.14's `model/histogram/float_histogram.go`.

use crate::histogram::FloatHistogram;
use crate::histogram::buckets::BoundedBucket;

/// Which observations are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrimSide {
    /// Observations at or below the value.
    Below,
    /// Observations above the value.
    Above,
}

impl FloatHistogram {
    /// Removes the observations on one side of `value`. A bucket that contains the value keeps the share that
    /// it would have if its observations were evenly distributed. The sum is estimated from the remaining
    /// buckets.
    pub fn trim(&mut self, value: f64, keep: TrimSide) {
        let custom = self.uses_custom_buckets();
        let (mut count, mut sum, mut trimmed) = (0.0, 0.0, false);
        let mut sides = [Vec::new(), Vec::new()];
        let mut populated = [false, false];
        let buckets = [self.positive().collect::<Vec<_>>(), self.negative().collect()];
        for (side, buckets) in buckets.iter().enumerate() {
            let positive = side == 0;
            for bucket in buckets {
                if bucket.count == 0.0 {
                    sides[side].push(0.0);
                    continue;
                }
                populated[side] = true;
                let (inside, cut) = match keep {
                    TrimSide::Below => (bucket.upper <= value, bucket.lower < value),
                    TrimSide::Above => (bucket.lower >= value, bucket.upper > value),
                };
                let (kept, middle) = if inside {
                    (bucket.count, midpoint(bucket.lower, bucket.upper, positive, custom))
                } else if cut {
                    trim_bucket(bucket, value, keep, positive, custom)
                } else {
                    trimmed = true;
                    sides[side].push(0.0);
                    continue;
                };
                trimmed |= kept != bucket.count;
                count += kept;
                sum += middle * kept;
                sides[side].push(kept);
            }
        }
        let mut zero_count = self.zero_count;
        if zero_count > 0.0 {
            let (kept, middle) = trim_zero(&self.zero_bucket(), value, keep, populated);
            trimmed |= kept != zero_count;
            zero_count = kept;
            sum += middle * kept;
            count += kept;
        }
        if trimmed {
            let [positive, negative] = sides;
            (self.positive_buckets, self.negative_buckets) = (positive, negative);
            (self.zero_count, self.count, self.sum) = (zero_count, count, sum);
            self.compact();
        }
    }
}

/// The remaining count of a bucket that contains the value, and the position of these observations.
fn trim_bucket(
    bucket: &BoundedBucket,
    value: f64,
    keep: TrimSide,
    positive: bool,
    custom: bool,
) -> (f64, f64) {
    if bucket.lower == f64::NEG_INFINITY || bucket.upper == f64::INFINITY {
        return trim_infinite(bucket, value, keep);
    }
    let below = if value <= bucket.lower {
        0.0
    } else if value >= bucket.upper {
        bucket.count
    } else {
        bucket.count * bucket.fraction_below(value, custom)
    };
    match keep {
        TrimSide::Below => (below, midpoint(bucket.lower, value, positive, custom)),
        TrimSide::Above => (bucket.count - below, midpoint(value, bucket.upper, positive, custom)),
    }
}

/// An unbounded bucket does not show where its observations are, so it is kept or dropped whole. The
/// exception is the first custom bucket: if it ends above zero, it is assumed to start at zero.
fn trim_infinite(bucket: &BoundedBucket, value: f64, keep: TrimSide) -> (f64, f64) {
    let finite = |bound: f64| if bound.is_infinite() { 0.0 } else { bound };
    if bucket.lower == f64::NEG_INFINITY {
        let ends = bucket.upper != f64::INFINITY;
        return match keep {
            TrimSide::Below if value >= bucket.upper => (bucket.count, 0.0),
            TrimSide::Below if value > 0.0 && bucket.upper > 0.0 && ends => {
                (bucket.count * value / bucket.upper, value / 2.0)
            }
            TrimSide::Below if bucket.upper <= 0.0 => (bucket.count, value),
            TrimSide::Above if value <= bucket.lower => (bucket.count, 0.0),
            TrimSide::Above if value >= 0.0 && bucket.upper > value && ends => {
                (bucket.count * (1.0 - value / bucket.upper), (value + bucket.upper) / 2.0)
            }
            TrimSide::Below | TrimSide::Above => (0.0, finite(bucket.upper)),
        };
    }
    match keep {
        TrimSide::Above if value >= bucket.lower => (bucket.count, value),
        TrimSide::Below | TrimSide::Above => (0.0, finite(bucket.lower)),
    }
}

/// The remaining count of the zero bucket. `populated` says whether the positive and the negative side have
/// observations: if only one side has, the zero bucket is assumed to extend only from zero to that side.
fn trim_zero(bucket: &BoundedBucket, value: f64, keep: TrimSide, populated: [bool; 2]) -> (f64, f64) {
    let [positive, negative] = populated;
    let upper = if negative && !positive { 0.0 } else { bucket.upper };
    let lower = if positive && !negative { 0.0 } else { bucket.lower };
    let whole = (bucket.count, (lower + upper) / 2.0);
    let share = |from: f64, to: f64| (bucket.count * ((to - from) / (upper - lower)), (from + to) / 2.0);
    match keep {
        TrimSide::Below if value <= lower => (0.0, 0.0),
        TrimSide::Below if value >= upper => whole,
        TrimSide::Below => share(lower, value),
        TrimSide::Above if value <= lower => whole,
        TrimSide::Above if value >= upper => (0.0, 0.0),
        TrimSide::Above => share(value, upper),
    }
}

/// The assumed position of the observations between two bounds: the geometric mean for exponential buckets.
fn midpoint(lower: f64, upper: f64, positive: bool, linear: bool) -> f64 {
    match (lower.is_infinite(), upper.is_infinite()) {
        (true, true) => 0.0,
        (true, false) if upper > 0.0 => upper / 2.0,
        (true, false) => upper,
        (false, true) => lower,
        (false, false) if linear => (lower + upper) / 2.0,
        (false, false) => {
            let mean = (lower * upper).abs().sqrt();
            if positive { mean } else { -mean }
        }
    }
}
