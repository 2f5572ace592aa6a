//! `rate`, `increase` and `delta` of floats.
//!
//! Behaviour: `extrapolatedRate` in Prometheus 3.14's `promql/functions.go`.

use super::View;

/// The change over a window, extrapolated to its boundaries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    /// Time of the first and last sample.
    pub(super) times: (i64, i64),
    /// Number of samples, at least 2.
    pub(super) samples: usize,
    /// For a counter, the first value and the total change, which say when it was zero.
    pub(super) zero: Option<(f64, f64)>,
}

impl Change {
    /// What the change has to be multiplied with so that it covers the window from `start` to `end`.
    ///
    /// Where the samples come close to a boundary, by less than 1.1 of their distance, the change is extended to it.
    /// Otherwise the series is taken to begin or end there, half a distance beyond its samples. A counter is not
    /// extended to before it was zero.
    #[inline]
    pub(super) fn factor(&self, start: i64, end: i64) -> f64 {
        let seconds = |millis: i64| millis as f64 / 1000.0;
        let mut to_start = seconds(self.times.0 - start);
        let mut to_end = seconds(end - self.times.1);
        let sampled = seconds(self.times.1 - self.times.0);
        let distance = sampled / (self.samples - 1) as f64;
        let threshold = distance * 1.1;
        if to_start >= threshold {
            to_start = distance / 2.0;
        }
        if let Some((first, change)) = self.zero
            && change > 0.0
            && first >= 0.0
        {
            let to_zero = sampled * (first / change);
            if to_zero < to_start {
                to_start = to_zero;
            }
        }
        if to_end >= threshold {
            to_end = distance / 2.0;
        }
        if sampled == 0.0 { 1.0 } else { (sampled + to_start + to_end) / sampled }
    }
}

/// The change of the floats of a window; `None` where there are less than two.
pub(super) fn floats(view: &View<'_>, counter: bool, per_second: bool) -> Option<f64> {
    let (times, values) = (view.points.timestamps, view.points.values);
    let (&[first, ..], &[.., last]) = (values, values) else { return None };
    if values.len() < 2 {
        return None;
    }
    let mut change = last - first;
    if counter {
        for pair in values.windows(2) {
            if pair[1] < pair[0] {
                change += pair[0];
            }
        }
    }
    Some(extrapolated(
        view,
        (times[0], times[times.len() - 1]),
        values.len(),
        first,
        change,
        counter,
        per_second,
    ))
}

/// Extends a change that is already known.
#[inline]
pub(super) fn extrapolated(
    view: &View<'_>,
    times: (i64, i64),
    samples: usize,
    first: f64,
    change: f64,
    counter: bool,
    per_second: bool,
) -> f64 {
    let zero = if counter { Some((first, change)) } else { None };
    let mut factor = Change { times, samples, zero }.factor(view.start, view.end);
    if per_second {
        factor /= view.range_seconds();
    }
    change * factor
}
