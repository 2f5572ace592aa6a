//! `changes` and `resets`: count how often a value changes or a counter is reset between neighbouring
//! samples.
//!
//! Behaviour: `funcChanges`, `funcResets` and `pickFirstSampleIndices` in Prometheus 3.14's `promql/functions.go`.

use crate::functions::range::starts::CounterReading;
use crate::functions::range::window::WindowView;
use crate::syntax::ast::Boundary;
use crate::value::column::{Histogram, Points};

#[derive(Clone, Copy)]
enum SampleRef<'a> {
    Float(f64),
    Histogram(&'a Histogram),
}

/// A value and its reading.
type TimedSample<'a> = (CounterReading, SampleRef<'a>);

/// The samples that are compared: those of the window and, if it is anchored, the last one before it.
fn counted<'a>(view: &WindowView<'a>) -> Option<Points<'a>> {
    let points = view.points;
    if view.boundary != Boundary::Anchored {
        return Some(points);
    }
    let floats = points.timestamps.partition_point(|t| *t <= view.start);
    let histograms = points.histograms.partition_point(|(t, _)| *t <= view.start);
    if floats == points.timestamps.len() && histograms == points.histograms.len() {
        return None;
    }
    let last_float = floats.checked_sub(1).map(|at| points.timestamps[at]);
    let last_histogram = histograms.checked_sub(1).map(|at| points.histograms[at].0);
    // The later of the two samples is the anchor. If there is neither, both indexes are zero and nothing
    // changes.
    let (floats, histograms) = if last_float >= last_histogram {
        (floats.saturating_sub(1), histograms)
    } else {
        (floats, histograms.saturating_sub(1))
    };
    Some(points.slice(floats..points.timestamps.len(), histograms..points.histograms.len()))
}

/// Counts the pairs of neighbours, the earlier first, for which `differ` returns true.
fn count(view: &WindowView<'_>, differ: impl Fn(TimedSample<'_>, TimedSample<'_>) -> bool) -> Option<f64> {
    let points = counted(view)?;
    let floats = points.timestamps.iter().zip(points.values).enumerate();
    let mut floats = floats
        .map(|(at, (t, v))| (CounterReading::of(points.starts, *t, at), SampleRef::Float(*v)))
        .peekable();
    let histograms = points.histograms.iter().enumerate();
    let mut histograms = histograms
        .map(|(at, (t, h))| (CounterReading::of(points.histogram_starts, *t, at), SampleRef::Histogram(h)))
        .peekable();
    let mut previous = None;
    let mut found = 0u64;
    loop {
        let float_first = match (floats.peek(), histograms.peek()) {
            (None, None) => return Some(found as f64),
            (Some((float, _)), Some((histogram, _))) => float.time < histogram.time,
            (float, _) => float.is_some(),
        };
        let current = if float_first { floats.next() } else { histograms.next() };
        if let (Some(previous), Some(current)) = (previous, current)
            && differ(previous, current)
        {
            found += 1;
        }
        previous = current;
    }
}

/// Number of changes of the value.
pub(super) fn changes(view: &WindowView<'_>) -> Option<f64> {
    count(view, |(_, previous), (_, current)| match (previous, current) {
        (SampleRef::Float(previous), SampleRef::Float(current)) => changed(previous, current),
        (SampleRef::Histogram(previous), SampleRef::Histogram(current)) => !current.equals(previous),
        _ => true,
    })
}

/// Number of resets of the counter.
pub(super) fn resets(view: &WindowView<'_>) -> Option<f64> {
    count(view, |(before, previous), (now, current)| match (previous, current) {
        (SampleRef::Float(previous), SampleRef::Float(current)) => {
            current < previous || now.is_reset_since(before)
        }
        (SampleRef::Histogram(previous), SampleRef::Histogram(current)) => {
            now.is_reset_since(before) || current.detect_reset(previous)
        }
        _ => true,
    })
}

/// Whether a float differs from the one before it. NaN equals NaN.
pub(super) fn changed(previous: f64, current: f64) -> bool {
    current != previous && !(current.is_nan() && previous.is_nan())
}
