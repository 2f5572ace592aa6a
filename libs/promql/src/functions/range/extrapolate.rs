//! `rate`, `increase` and `delta` of floats.
//!
//! Behaviour: `extrapolatedRate` in Prometheus 3.14's `promql/functions.go`.

use crate::functions::range::starts::{self, CounterReading};
use crate::functions::range::window::{Notebook, WindowView};
use crate::value::note::Note;

/// The change over a window, which is extrapolated to the window's boundaries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    /// Times of the first and last sample.
    pub(super) times: (i64, i64),
    /// Number of samples, at least 2.
    pub(super) samples: usize,
    /// For a counter, the first value and the total change. They show when the counter was zero.
    pub(super) zero: Option<(f64, f64)>,
}

impl Change {
    /// The factor by which the change is multiplied so that it covers the window from `start` to `end`.
    ///
    /// If the distance to a boundary is less than 1.1 times the average distance of the samples, the change
    /// is extended to the boundary. Otherwise the series is assumed to start or end half an average distance
    /// beyond its samples. A counter is not extended to a time before it was zero.
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

    /// The factor as two lengths in milliseconds, whose ratio it is: the covered part of the window, and the
    /// distance from the first to the last sample.
    ///
    /// This needs no division, which matters because it runs for each step. Integers decide on which side of
    /// the threshold a distance lies. Only for equal integers does Prometheus' result depend on the rounding
    /// errors of floats; this function then computes with floats in the same way.
    #[inline(always)]
    pub(super) fn extent(&self, start: i64, end: i64) -> (f64, f64) {
        let sampled = self.times.1 - self.times.0;
        let gaps = self.samples as i64 - 1;
        let (before, after) = (self.times.0 - start, end - self.times.1);
        let threshold = i128::from(sampled) * 11;
        let near = |length: i64| i128::from(length) * i128::from(gaps) * 10;
        let (near_start, near_end) = (near(before), near(after));
        if near_start == threshold || near_end == threshold || sampled == 0 {
            let factor = self.factor(start, end);
            return (factor, 1.0);
        }
        let interval = sampled as f64;
        let half = || interval / gaps as f64 / 2.0;
        let mut to_start = if near_start > threshold { half() } else { before as f64 };
        if let Some((first, change)) = self.zero
            && change > 0.0
            && first >= 0.0
            && interval * first < to_start * change
        {
            to_start = interval * (first / change);
        }
        let to_end = if near_end > threshold { half() } else { after as f64 };
        (interval + to_start + to_end, interval)
    }
}

/// The change of the floats in a window. `None` if there are fewer than two, unless the start timestamp of a
/// single one is known.
pub(super) fn floats(
    view: &WindowView<'_>,
    counter: bool,
    per_second: bool,
    notes: &mut Notebook<'_>,
) -> Option<f64> {
    let (times, values) = (view.points.timestamps, view.points.values);
    let (&[first, ..], &[.., last]) = (values, values) else { return None };
    let starts = if counter { view.points.starts } else { &[] };
    let mut change = last - first;
    if counter {
        let mut overlap = false;
        for at in 1..values.len() {
            let [previous, current] = [at - 1, at].map(|at| CounterReading::of(starts, times[at], at));
            if values[at] < values[at - 1] || current.is_reset_since(previous) {
                change += values[at - 1];
            }
            overlap |= current.overlaps(previous);
        }
        if overlap {
            notes.add(Note::StartOverlap(notes.metric));
        }
    }
    let span = (times[0], times[times.len() - 1]);
    let mut factor = if let Some(start) = starts::inside(starts, times[0], view.start) {
        change += first;
        starts::factor(start, span, values.len(), view.end)
    } else if values.len() < 2 {
        return None;
    } else {
        let zero = if counter { Some((first, change)) } else { None };
        Change { times: span, samples: values.len(), zero }.factor(view.start, view.end)
    };
    if per_second {
        factor /= view.range_seconds();
    }
    Some(change * factor)
}
