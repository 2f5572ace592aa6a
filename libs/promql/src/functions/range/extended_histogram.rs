//! `rate`, `increase` and `delta` of native histograms over `anchored` and `smoothed` ranges.
//!
//! Behaviour: `extendedHistogramRate` in Prometheus 3.14's `promql/functions.go`.

use model::{CounterResetHint, FloatHistogram};

use crate::functions::range::extended::bounds;
use crate::functions::range::histogram::reconcile;
use crate::functions::range::window::{Notebook, WindowView};
use crate::syntax::ast::Boundary;
use crate::value::column::Histogram;
use crate::value::note::{HistogramOperation, Note};

type TimedHistogram = (i64, Histogram);

fn is_gauge(histogram: &FloatHistogram) -> bool {
    histogram.counter_reset_hint == CounterResetHint::Gauge
}

/// The histogram at `time`, interpolated between two. If a counter was reset between them, it starts from
/// zero.
fn between(
    from: &TimedHistogram,
    to: &TimedHistogram,
    time: i64,
    counter: bool,
    notes: &mut Notebook<'_>,
) -> Option<FloatHistogram> {
    if time == from.0 {
        return Some((*from.1).clone());
    }
    let mut result = (*to.1).clone();
    if time == to.0 {
        return Some(result);
    }
    let fraction = (time - from.0) as f64 / (to.0 - from.0) as f64;
    if counter && to.1.detect_reset(&from.1) {
        result.mul(fraction);
        return Some(result);
    }
    let combined = result.sub(&from.1);
    reconcile(combined, HistogramOperation::Subtraction, notes)?;
    result.mul(fraction);
    let combined = result.add(&from.1);
    reconcile(combined, HistogramOperation::Addition, notes)?;
    Some(result)
}

/// The value of a smoothed instant selector at `time`: interpolated between its neighbours, or the last
/// value.
pub(super) fn smoothed_value(
    points: &[TimedHistogram],
    time: i64,
    notes: &mut Notebook<'_>,
) -> Option<FloatHistogram> {
    let next = points.partition_point(|(t, _)| *t < time);
    match (next.checked_sub(1).map(|at| &points[at]), points.get(next)) {
        (_, Some(exact)) if exact.0 == time => Some((*exact.1).clone()),
        (Some(previous), Some(next)) => {
            if previous.1.uses_custom_buckets() != next.1.uses_custom_buckets() {
                notes.add(Note::MixedExponentialCustom(notes.metric));
                return None;
            }
            let counter = !is_gauge(&previous.1) || !is_gauge(&next.1);
            between(previous, next, time, counter, notes)
        }
        (Some((_, previous)), None) => {
            Some(FloatHistogram { counter_reset_hint: CounterResetHint::Unknown, ..(**previous).clone() })
        }
        (None, _) => None,
    }
}

/// The change of the histograms in a window.
pub(super) fn rate(
    view: &WindowView<'_>,
    counter: bool,
    per_second: bool,
    notes: &mut Notebook<'_>,
) -> Option<FloatHistogram> {
    let points = view.points.histograms;
    let (first, last) = bounds(view, points.len(), |at| points[at].0)?;
    let smoothed = view.boundary == Boundary::Smoothed;
    let custom = points[first].1.uses_custom_buckets();
    for (_, histogram) in &points[first..=last.max(first)] {
        if histogram.uses_custom_buckets() != custom {
            notes.add(Note::MixedExponentialCustom(notes.metric));
            return None;
        }
        if counter && is_gauge(histogram) {
            notes.add(Note::NotCounter(notes.metric));
        }
    }
    let left = if smoothed && points[first].0 < view.start && first + 1 < points.len() {
        between(&points[first], &points[first + 1], view.start, counter, notes)?
    } else {
        (*points[first].1).clone()
    };
    let right = if smoothed && last > 0 && points[last].0 > view.end {
        between(&points[last - 1], &points[last], view.end, counter, notes)?
    } else {
        (*points[last].1).clone()
    };
    let gauges = is_gauge(&left) && is_gauge(&right);
    if !counter && !gauges {
        notes.add(Note::NotGauge(notes.metric));
    }
    let mut change = right.clone();
    let combined = change.sub(&left);
    reconcile(combined, HistogramOperation::Subtraction, notes)?;
    if counter && let Some(lost) = lost_in_resets(view, (first, last), &left, &right, notes)? {
        let combined = change.add(&lost);
        reconcile(combined, HistogramOperation::Addition, notes)?;
    }
    if per_second {
        change.div(view.range_seconds());
    }
    change.counter_reset_hint = CounterResetHint::Gauge;
    change.compact();
    Some(change)
}

/// The sum of the counter's values before each reset between the boundaries. The outer `None` means that the
/// histograms cannot be combined.
fn lost_in_resets(
    view: &WindowView<'_>,
    (first, last): (usize, usize),
    left: &FloatHistogram,
    right: &FloatHistogram,
    notes: &mut Notebook<'_>,
) -> Option<Option<FloatHistogram>> {
    let points = view.points.histograms;
    let (mut from, mut previous) = (first + 1, left);
    if view.boundary == Boundary::Smoothed
        && points[first].0 < view.start
        && points.get(first + 1).is_some_and(|(_, next)| next.detect_reset(&points[first].1))
    {
        // The interpolation at the left boundary already accounts for this reset.
        previous = &points[first + 1].1;
        from += 1;
    }
    // `right` replaces the last sample, including its reset hint.
    if from > last {
        return Some(None);
    }
    let mut lost: Option<FloatHistogram> = None;
    let between = points[from..last].iter().map(|(_, histogram)| &**histogram);
    for current in between.chain(std::iter::once(right)) {
        if current.detect_reset(previous) {
            match &mut lost {
                None => lost = Some(previous.clone()),
                Some(lost) => {
                    let combined = lost.add(previous);
                    reconcile(combined, HistogramOperation::Addition, notes)?;
                }
            }
        }
        previous = current;
    }
    Some(lost)
}
