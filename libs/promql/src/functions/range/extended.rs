//! `rate`, `increase` and `delta` of floats over `anchored` and `smoothed` ranges.
//!
//! Behaviour: `extendedRate` in Prometheus 3.14's `promql/functions.go`.

use model::Sample;

use crate::functions::range::window::WindowView;
use crate::syntax::ast::Boundary;

/// The first index in `0..limit` for whose time `after` returns true, or `limit`. Times ascend.
pub(super) fn search(limit: usize, after: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, limit);
    while low < high {
        let middle = low + (high - low) / 2;
        if after(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

/// The first and last sample that a window with margins uses. `None` if the window is empty.
pub(super) fn bounds(
    view: &WindowView<'_>,
    len: usize,
    time: impl Fn(usize) -> i64,
) -> Option<(usize, usize)> {
    let mut last = len.checked_sub(1)?;
    let first = search(last, |at| time(at) > view.start).saturating_sub(1);
    let smoothed = view.boundary == Boundary::Smoothed;
    if smoothed {
        last = search(last, |at| time(at) >= view.end);
    }
    if time(last) <= view.start || (smoothed && time(first) > view.end) {
        return None;
    }
    Some((first, last))
}

/// The value at `time`, interpolated between two samples. If a counter was reset between them, it starts from
/// zero.
fn between(from: (i64, f64), to: (i64, f64), time: i64, counter: bool) -> f64 {
    let start = if counter && to.1 < from.1 { 0.0 } else { from.1 };
    start + (to.1 - start) * (time - from.0) as f64 / (to.0 - from.0) as f64
}

/// The value of a smoothed instant selector at `time`: interpolated between its neighbours, or the last
/// value.
pub(crate) fn smoothed_value(times: &[i64], values: &[f64], time: i64) -> Option<f64> {
    let next = times.partition_point(|t| *t < time);
    match (next.checked_sub(1), times.get(next)) {
        (_, Some(at)) if *at == time => Some(values[next]),
        (Some(previous), Some(at)) => {
            Some(between((times[previous], values[previous]), (*at, values[next]), time, false))
        }
        (Some(previous), None) => Some(values[previous]),
        (None, _) => None,
    }
}

/// The samples of an anchored or smoothed range, with one at each boundary.
pub(crate) fn extend(samples: &[Sample], start: i64, end: i64, boundary: Boundary) -> Vec<Sample> {
    let time = |at: usize| samples[at].timestamp.as_millis();
    let Some(mut last) = samples.len().checked_sub(1) else { return Vec::new() };
    let smoothed = boundary == Boundary::Smoothed;
    let first = search(last, |at| time(at) > start).saturating_sub(1);
    if smoothed {
        last = search(last, |at| time(at) >= end);
    }
    if time(last) <= start {
        return Vec::new();
    }
    let pair = |at: usize| (time(at), samples[at].value);
    let left = if smoothed && time(first) < start && first + 1 < samples.len() {
        between(pair(first), pair(first + 1), start, false)
    } else {
        samples[first].value
    };
    let right = if smoothed && last > 0 && time(last) > end {
        between(pair(last - 1), pair(last), end, false)
    } else {
        samples[last].value
    };
    let from = first + usize::from(time(first) <= start);
    let to = (last + 1) - usize::from(time(last) >= end);
    let inside = samples.get(from..to).unwrap_or(&[]);
    let ends = [Sample::new(start, left), Sample::new(end, right)];
    ends[..1].iter().chain(inside).chain(&ends[1..]).copied().collect()
}

/// The change of the floats in a window.
pub(super) fn floats(view: &WindowView<'_>, counter: bool, per_second: bool) -> Option<f64> {
    let (times, values) = (view.points.timestamps, view.points.values);
    let (first, last) = bounds(view, times.len(), |at| times[at])?;
    let smoothed = view.boundary == Boundary::Smoothed;
    let sample = |at: usize| (times[at], values[at]);
    let left = if smoothed && times[first] < view.start && first + 1 < times.len() {
        between(sample(first), sample(first + 1), view.start, counter)
    } else {
        values[first]
    };
    let right = if smoothed && last > 0 && times[last] > view.end {
        between(sample(last - 1), sample(last), view.end, counter)
    } else {
        values[last]
    };
    let mut change = right - left;
    if counter {
        // The values at the boundaries replace the samples there, so only the samples between them remain.
        let from = first + usize::from(times[first] <= view.start);
        let to = (last + 1) - usize::from(times[last] >= view.end);
        let (mut previous, mut lost) = (left, 0.0);
        for &value in values.get(from..to).unwrap_or(&[]) {
            if value < previous {
                lost += previous;
            }
            previous = value;
        }
        if right < previous {
            lost += previous;
        }
        change += lost;
    }
    Some(if per_second { change / view.range_seconds() } else { change })
}
