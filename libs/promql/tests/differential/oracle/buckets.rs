//! Quantiles and fractions of histograms, mainly classic ones.

use std::collections::BTreeMap;

use super::call::each_histogram;
use super::{Element, LabelMap, Oracle, without};
use crate::data::Value;

/// A classic bucket: its upper bound, and the number of observations at or below it.
type Classic = (f64, f64);

impl Oracle<'_> {
    pub(super) fn histogram_quantile(&self, q: f64, vector: Vec<Element>) -> Result<Vec<Element>, String> {
        self.of_buckets(vector, |histogram| histogram.quantile(q), |buckets| classic_quantile(q, buckets))
    }

    pub(super) fn histogram_fraction(
        &self,
        lower: f64,
        upper: f64,
        vector: Vec<Element>,
    ) -> Result<Vec<Element>, String> {
        self.of_buckets(
            vector,
            |histogram| histogram.fraction(lower, upper),
            |buckets| classic_fraction(lower, upper, buckets),
        )
    }

    fn of_buckets(
        &self,
        vector: Vec<Element>,
        native: impl Fn(&crate::histogram::Histogram) -> f64,
        classic: impl Fn(Vec<Classic>) -> f64,
    ) -> Result<Vec<Element>, String> {
        let mut groups: BTreeMap<LabelMap, Vec<Classic>> = BTreeMap::new();
        for element in &vector {
            let Some(count) = element.float() else { continue };
            let bound = element.labels.get("le").and_then(|le| le.parse().ok());
            if let Some(bound) = bound {
                groups.entry(without(&element.labels, &["le"])).or_default().push((bound, count));
            }
        }
        // If a series has both kinds at the same time, neither is used.
        let mut natives = Vec::new();
        for element in vector.into_iter().filter(|element| element.float().is_none()) {
            if groups.remove(&element.labels).is_none() {
                natives.push(element);
            }
        }
        let mut answer = each_histogram(natives, native);
        for (labels, mut buckets) in groups {
            buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
            let value = classic(merged(buckets));
            let value = Value::Float(self.rounded(value, value));
            answer.push(Element { labels, drop_name: true, value });
        }
        Ok(answer)
    }
}

/// Merges buckets with equal bounds.
fn merged(buckets: Vec<Classic>) -> Vec<Classic> {
    let mut merged: Vec<Classic> = Vec::new();
    for (bound, count) in buckets {
        match merged.last_mut() {
            Some(last) if last.0 == bound => last.1 += count,
            _ => merged.push((bound, count)),
        }
    }
    merged
}

fn classic_quantile(q: f64, mut buckets: Vec<Classic>) -> f64 {
    if q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    if buckets[buckets.len() - 1].0 != f64::INFINITY {
        return f64::NAN;
    }
    // Counts must not decrease. Differences within the rounding error are ignored.
    let mut before = buckets[0].1;
    for bucket in &mut buckets[1..] {
        let (sum, distance) = (before.abs() + bucket.1.abs(), (before - bucket.1).abs());
        let both_nan = before.is_nan() && bucket.1.is_nan();
        let rounding = before != 0.0 && bucket.1 != 0.0 && distance / sum.min(f64::MAX) < 1e-12;
        if both_nan || rounding || bucket.1 < before {
            bucket.1 = before;
        }
        before = bucket.1;
    }
    let last = buckets.len() - 1;
    let observations = buckets[last].1;
    if last == 0 || observations == 0.0 {
        return f64::NAN;
    }
    let rank = q * observations;
    // Found by binary search, even among NaN counts, as in Prometheus.
    let (mut low, mut high) = (0, last);
    while low < high {
        let middle = (low + high) / 2;
        if buckets[middle].1 >= rank { high = middle } else { low = middle + 1 }
    }
    let (bound, count) = buckets[low];
    if low == last {
        return buckets[last - 1].0;
    }
    if low == 0 {
        return if bound <= 0.0 { bound } else { bound * (rank / count) };
    }
    let (start, passed) = buckets[low - 1];
    start + (bound - start) * ((rank - passed) / (count - passed))
}

fn classic_fraction(lower: f64, upper: f64, buckets: Vec<Classic>) -> f64 {
    let (highest, observations) = buckets[buckets.len() - 1];
    if highest != f64::INFINITY || observations == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    let below = |value: f64| {
        let mut passed = 0.0;
        let mut start = if buckets[0].0 <= 0.0 { f64::NEG_INFINITY } else { 0.0 };
        for (bound, count) in &buckets {
            if start >= value {
                return passed;
            }
            if *bound > value {
                return if start == f64::NEG_INFINITY {
                    *count
                } else {
                    passed + (count - passed) * (value - start) / (bound - start)
                };
            }
            (start, passed) = (*bound, *count);
        }
        observations
    };
    let limited = |rank: f64| if rank > observations { observations } else { rank };
    (limited(below(upper)) - limited(below(lower))) / observations
}
