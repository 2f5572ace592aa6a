//! Native histograms as maps from bucket numbers to counts, with arithmetic that is simple enough to verify
//! by reading it.
//!
//! All exponential histograms of these tests have the same zero threshold and no populated bucket that
//! overlaps the zero bucket. All histograms with custom buckets have the same bounds. Prometheus' own scripts
//! test the other cases.

use std::collections::BTreeMap;

use model::{BucketSpan, CUSTOM_BUCKETS_SCHEMA, FloatHistogram};

/// Half width of the zero bucket of all exponential histograms in these tests.
pub(crate) const ZERO_THRESHOLD: f64 = 0.001;

/// A native histogram. Empty buckets may be present or absent.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    pub(crate) schema: i32,
    pub(crate) count: f64,
    pub(crate) sum: f64,
    pub(crate) zero_count: f64,
    pub(crate) positive: BTreeMap<i32, f64>,
    pub(crate) negative: BTreeMap<i32, f64>,
    pub(crate) bounds: Vec<f64>,
}

/// A bucket: its bounds and count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OracleBucket {
    pub(crate) lower: f64,
    pub(crate) upper: f64,
    pub(crate) count: f64,
}

impl Histogram {
    pub(crate) fn is_custom(&self) -> bool {
        self.schema == CUSTOM_BUCKETS_SCHEMA
    }

    /// The same observations in the wider buckets of a coarser schema.
    pub(crate) fn at_schema(&self, schema: i32) -> Self {
        let shift = self.schema - schema;
        let widen = |side: &BTreeMap<i32, f64>| {
            let mut wide = BTreeMap::new();
            for (index, count) in side {
                // Bucket i ends at 2^(i * 2^-schema). Each coarser schema halves i, rounded up.
                *wide.entry(((index - 1) >> shift) + 1).or_insert(0.0) += count;
            }
            wide
        };
        let (positive, negative) = (widen(&self.positive), widen(&self.negative));
        Self { schema, positive, negative, ..self.clone() }
    }

    /// `self + sign * other`. `None` if one has exponential buckets and the other custom ones.
    pub(crate) fn plus(&self, other: &Self, sign: f64) -> Option<Self> {
        if self.is_custom() != other.is_custom() {
            return None;
        }
        let schema = self.schema.min(other.schema);
        let (mut total, other) = (self.at_schema(schema), other.at_schema(schema));
        total.count += sign * other.count;
        total.sum += sign * other.sum;
        total.zero_count += sign * other.zero_count;
        for (index, count) in &other.positive {
            *total.positive.entry(*index).or_insert(0.0) += sign * count;
        }
        for (index, count) in &other.negative {
            *total.negative.entry(*index).or_insert(0.0) += sign * count;
        }
        Some(total)
    }

    /// Applies `f` to all numbers.
    pub(crate) fn map(&self, f: impl Fn(f64) -> f64) -> Self {
        let side = |side: &BTreeMap<i32, f64>| side.iter().map(|(i, count)| (*i, f(*count))).collect();
        Self {
            count: f(self.count),
            sum: f(self.sum),
            zero_count: f(self.zero_count),
            positive: side(&self.positive),
            negative: side(&self.negative),
            ..self.clone()
        }
    }

    /// Divides by a number. Division by zero removes all buckets.
    pub(crate) fn divided(&self, divisor: f64) -> Self {
        let mut quotient = self.map(|x| x / divisor);
        if divisor == 0.0 {
            quotient.positive.clear();
            quotient.negative.clear();
        }
        quotient
    }

    /// Whether a counter with the previous value `before` must have been reset to reach `self`.
    pub(crate) fn is_reset_from(&self, before: &Self) -> bool {
        if self.count < before.count || (self.is_custom() && !before.is_custom()) {
            return true;
        }
        if self.schema > before.schema {
            return true;
        }
        if before.is_custom() != self.is_custom() {
            return false;
        }
        let before = before.at_schema(self.schema);
        let fell = |now: &BTreeMap<i32, f64>, before: &BTreeMap<i32, f64>| {
            before.iter().any(|(index, count)| now.get(index).copied().unwrap_or(0.0) < *count)
        };
        self.zero_count < before.zero_count
            || fell(&self.positive, &before.positive)
            || fell(&self.negative, &before.negative)
    }

    /// The buckets with observations, in ascending order of value.
    pub(crate) fn buckets(&self) -> Vec<OracleBucket> {
        let mut buckets = Vec::new();
        let populated = |side: &BTreeMap<i32, f64>| -> Vec<(i32, f64)> {
            side.iter().filter(|(_, count)| **count != 0.0).map(|(i, count)| (*i, *count)).collect()
        };
        if self.is_custom() {
            for (index, count) in populated(&self.positive) {
                let bound = |at: i32| self.bounds.get(usize::try_from(at).ok()?).copied();
                let lower = bound(index - 1).unwrap_or(f64::NEG_INFINITY);
                buckets.push(OracleBucket { lower, upper: bound(index).unwrap_or(f64::INFINITY), count });
            }
            return buckets;
        }
        let bound = |index: i32| 2f64.powf(f64::from(index) * 2f64.powi(-self.schema));
        for (index, count) in populated(&self.negative).into_iter().rev() {
            buckets.push(OracleBucket { lower: -bound(index), upper: -bound(index - 1), count });
        }
        if self.zero_count > 0.0 {
            buckets.push(OracleBucket {
                lower: -ZERO_THRESHOLD,
                upper: ZERO_THRESHOLD,
                count: self.zero_count,
            });
        }
        for (index, count) in populated(&self.positive) {
            buckets.push(OracleBucket { lower: bound(index - 1), upper: bound(index), count });
        }
        buckets
    }

    /// If one side has no buckets, the zero bucket ends at zero on that side.
    fn narrowed(&self, bucket: OracleBucket) -> OracleBucket {
        let has = |side: &BTreeMap<i32, f64>| side.values().any(|count| *count != 0.0);
        let mut bucket = bucket;
        if bucket.lower < 0.0 && bucket.upper > 0.0 {
            match (has(&self.negative), has(&self.positive)) {
                (false, true) => bucket.lower = 0.0,
                (true, false) => bucket.upper = 0.0,
                _ => {}
            }
        }
        bucket
    }

    /// `histogram_quantile`.
    pub(crate) fn quantile(&self, q: f64) -> f64 {
        if q < 0.0 {
            return f64::NEG_INFINITY;
        }
        if q > 1.0 {
            return f64::INFINITY;
        }
        let buckets = self.buckets();
        if self.count == 0.0 || q.is_nan() {
            return f64::NAN;
        }
        let from_below = self.sum.is_nan() || q < 0.5;
        let rank = if from_below { q } else { 1.0 - q } * self.count;
        let mut passed = 0.0;
        // Without any buckets, an empty bucket at zero is used.
        let mut bucket = OracleBucket { lower: 0.0, upper: 0.0, count: 0.0 };
        let order: Vec<OracleBucket> = if from_below { buckets } else { buckets.into_iter().rev().collect() };
        for candidate in order {
            bucket = candidate;
            passed += candidate.count;
            if passed >= rank {
                break;
            }
        }
        let count = bucket.count;
        if self.is_custom() {
            if bucket.lower == f64::NEG_INFINITY {
                if bucket.upper <= 0.0 {
                    return bucket.upper;
                }
                bucket.lower = 0.0;
            } else if bucket.upper == f64::INFINITY {
                return bucket.lower;
            }
        } else {
            bucket = self.narrowed(bucket);
        }
        let passed = passed.min(self.count);
        if passed < rank {
            return if self.sum.is_nan() { f64::NAN } else { bucket.upper };
        }
        let into = if from_below { rank - (passed - count) } else { passed - rank };
        let fraction = into / count;
        if self.is_custom() || (bucket.lower <= 0.0 && bucket.upper >= 0.0) {
            return bucket.lower + (bucket.upper - bucket.lower) * fraction;
        }
        let (low, high) = (bucket.lower.abs().log2(), bucket.upper.abs().log2());
        if bucket.lower > 0.0 {
            (low + (high - low) * fraction).exp2()
        } else {
            -(high + (low - high) * (1.0 - fraction)).exp2()
        }
    }

    /// `histogram_fraction`.
    pub(crate) fn fraction(&self, lower: f64, upper: f64) -> f64 {
        if self.count == 0.0 || lower.is_nan() || upper.is_nan() {
            return f64::NAN;
        }
        if lower >= upper {
            return 0.0;
        }
        let buckets: Vec<OracleBucket> =
            self.buckets().into_iter().map(|bucket| self.narrowed(bucket)).collect();
        let all =
            if self.sum.is_nan() { buckets.iter().map(|bucket| bucket.count).sum() } else { self.count };
        let rank = |value: f64| {
            let mut below = 0.0;
            for bucket in &buckets {
                if bucket.lower >= value {
                    return below;
                }
                if bucket.upper > value {
                    return match bucket {
                        // Nothing is known about the distribution inside an unbounded bucket.
                        OracleBucket { lower, .. } if *lower == f64::NEG_INFINITY => bucket.count,
                        OracleBucket { upper, .. } if *upper == f64::INFINITY => below,
                        _ => below + bucket.count * self.part_below(*bucket, value),
                    };
                }
                below += bucket.count;
            }
            all
        };
        let limited = |rank: f64| if rank > all { all } else { rank };
        (limited(rank(upper)) - limited(rank(lower))) / self.count
    }

    /// The part of a bucket that is below a value inside it.
    fn part_below(&self, bucket: OracleBucket, value: f64) -> f64 {
        if self.is_custom() || (bucket.lower <= 0.0 && bucket.upper >= 0.0) {
            return (value - bucket.lower) / (bucket.upper - bucket.lower);
        }
        let [lower, upper, value] = [bucket.lower, bucket.upper, value].map(|x| x.abs().log2());
        (value - lower) / (upper - lower)
    }

    /// `histogram_stdvar`: the observations of a bucket are assumed to be in its middle.
    pub(crate) fn variance(&self) -> f64 {
        let mean = self.sum / self.count;
        let mut variance = 0.0;
        for bucket in self.buckets() {
            let middle = if self.is_custom() {
                (bucket.upper + bucket.lower) / 2.0
            } else if bucket.lower <= 0.0 && bucket.upper >= 0.0 {
                0.0
            } else {
                (bucket.upper * bucket.lower).sqrt().copysign(bucket.upper)
            };
            variance += bucket.count * (middle - mean) * (middle - mean);
        }
        variance / self.count
    }

    /// Whether all numbers of both are equal according to `same`. Empty buckets are ignored.
    pub(crate) fn is_like(&self, other: &Self, same: impl Fn(f64, f64) -> bool) -> bool {
        let side = |a: &BTreeMap<i32, f64>, b: &BTreeMap<i32, f64>| {
            let count = |side: &BTreeMap<i32, f64>, index: &i32| side.get(index).copied().unwrap_or(0.0);
            a.keys().chain(b.keys()).all(|index| same(count(a, index), count(b, index)))
        };
        self.schema == other.schema
            && self.bounds == other.bounds
            && same(self.count, other.count)
            && same(self.sum, other.sum)
            && same(self.zero_count, other.zero_count)
            && side(&self.positive, &other.positive)
            && side(&self.negative, &other.negative)
    }

    /// The engine's form of the histogram.
    pub(crate) fn to_model(&self) -> FloatHistogram {
        let (positive_spans, positive_buckets) = span(&self.positive);
        let (negative_spans, negative_buckets) = span(&self.negative);
        FloatHistogram {
            schema: self.schema,
            zero_threshold: if self.is_custom() { 0.0 } else { ZERO_THRESHOLD },
            zero_count: self.zero_count,
            count: self.count,
            sum: self.sum,
            positive_spans,
            negative_spans,
            positive_buckets,
            negative_buckets,
            custom_values: self.bounds.clone(),
            ..FloatHistogram::default()
        }
    }

    /// Converts from the engine's form.
    pub(crate) fn from_model(model: &FloatHistogram) -> Self {
        Self {
            schema: model.schema,
            count: model.count,
            sum: model.sum,
            zero_count: model.zero_count,
            positive: numbered(&model.positive_spans, &model.positive_buckets),
            negative: numbered(&model.negative_spans, &model.negative_buckets),
            bounds: model.custom_values.clone(),
        }
    }

    /// The literal for test scripts.
    pub(crate) fn notation(&self) -> String {
        let side = |name: &str, side: &BTreeMap<i32, f64>| {
            let (spans, counts) = span(side);
            let Some(span) = spans.first() else { return String::new() };
            let counts: Vec<String> = counts.iter().map(f64::to_string).collect();
            format!(" {name}buckets:[{}] {name}offset:{}", counts.join(" "), span.offset)
        };
        let kind = if self.is_custom() {
            let bounds: Vec<String> = self.bounds.iter().map(f64::to_string).collect();
            format!("custom_values:[{}]", bounds.join(" "))
        } else {
            format!("z_bucket:{} z_bucket_w:{ZERO_THRESHOLD}", self.zero_count)
        };
        let (positive, negative) = (side("", &self.positive), side("n_", &self.negative));
        format!(
            "{{{{schema:{} count:{} sum:{} {kind}{positive}{negative}}}}}",
            self.schema, self.count, self.sum
        )
    }
}

/// One span from the first to the last bucket.
fn span(side: &BTreeMap<i32, f64>) -> (Vec<BucketSpan>, Vec<f64>) {
    let (Some((first, _)), Some((last, _))) = (side.first_key_value(), side.last_key_value()) else {
        return (Vec::new(), Vec::new());
    };
    let counts: Vec<f64> = (*first..=*last).map(|at| side.get(&at).copied().unwrap_or(0.0)).collect();
    (vec![BucketSpan { offset: *first, length: counts.len() as u32 }], counts)
}

/// The counts by bucket number.
pub(crate) fn numbered(spans: &[BucketSpan], counts: &[f64]) -> BTreeMap<i32, f64> {
    let mut counts = counts.iter();
    let mut side = BTreeMap::new();
    let mut index = 0;
    for span in spans {
        index += span.offset;
        for _ in 0..span.length {
            if let Some(count) = counts.next() {
                side.insert(index, *count);
            }
            index += 1;
        }
    }
    side
}
