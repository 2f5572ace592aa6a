//! Cutting a histogram's observations off at a value: PromQL's `</` and `>/`.
//!
//! Behaviour: `TrimBuckets` in Prometheus 3.14's `model/histogram/float_histogram.go`.

use crate::histogram::FloatHistogram;
use crate::histogram::buckets::Bucket;

/// Which observations stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Those at or below the value.
    Below,
    /// Those above the value.
    Above,
}

impl FloatHistogram {
    /// Removes the observations on one side of `value`. A bucket that the value cuts keeps the part that it would have
    /// if its observations were spread evenly; the sum is estimated from the buckets that are left.
    pub fn trim(&mut self, value: f64, keep: Keep) {
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
                    Keep::Below => (bucket.upper <= value, bucket.lower < value),
                    Keep::Above => (bucket.lower >= value, bucket.upper > value),
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

/// What is left of a bucket that the value cuts, and where that lies.
fn trim_bucket(bucket: &Bucket, value: f64, keep: Keep, positive: bool, custom: bool) -> (f64, f64) {
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
        Keep::Below => (below, midpoint(bucket.lower, value, positive, custom)),
        Keep::Above => (bucket.count - below, midpoint(value, bucket.upper, positive, custom)),
    }
}

/// A bucket without end says nothing about where its observations are, so that it is kept or dropped whole; only the
/// first of custom buckets is taken to start at zero where it ends above zero.
fn trim_infinite(bucket: &Bucket, value: f64, keep: Keep) -> (f64, f64) {
    let finite = |bound: f64| if bound.is_infinite() { 0.0 } else { bound };
    if bucket.lower == f64::NEG_INFINITY {
        let ends = bucket.upper != f64::INFINITY;
        return match keep {
            Keep::Below if value >= bucket.upper => (bucket.count, 0.0),
            Keep::Below if value > 0.0 && bucket.upper > 0.0 && ends => {
                (bucket.count * value / bucket.upper, value / 2.0)
            }
            Keep::Below if bucket.upper <= 0.0 => (bucket.count, value),
            Keep::Above if value <= bucket.lower => (bucket.count, 0.0),
            Keep::Above if value >= 0.0 && bucket.upper > value && ends => {
                (bucket.count * (1.0 - value / bucket.upper), (value + bucket.upper) / 2.0)
            }
            Keep::Below | Keep::Above => (0.0, finite(bucket.upper)),
        };
    }
    match keep {
        Keep::Above if value >= bucket.lower => (bucket.count, value),
        Keep::Below | Keep::Above => (0.0, finite(bucket.lower)),
    }
}

/// What is left of the zero bucket; `populated` tells whether the positive and the negative side have observations,
/// because a bucket beside only one of them is taken to reach only to zero.
fn trim_zero(bucket: &Bucket, value: f64, keep: Keep, populated: [bool; 2]) -> (f64, f64) {
    let [positive, negative] = populated;
    let upper = if negative && !positive { 0.0 } else { bucket.upper };
    let lower = if positive && !negative { 0.0 } else { bucket.lower };
    let whole = (bucket.count, (lower + upper) / 2.0);
    let share = |from: f64, to: f64| (bucket.count * ((to - from) / (upper - lower)), (from + to) / 2.0);
    match keep {
        Keep::Below if value <= lower => (0.0, 0.0),
        Keep::Below if value >= upper => whole,
        Keep::Below => share(lower, value),
        Keep::Above if value <= lower => whole,
        Keep::Above if value >= upper => (0.0, 0.0),
        Keep::Above => share(value, upper),
    }
}

/// Where the observations between two bounds are taken to be: the geometric mean for exponential buckets.
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
