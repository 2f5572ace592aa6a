//! `changes` and `resets`: counting what happens from sample to sample.
//!
//! Behaviour: `funcChanges`, `funcResets` and `pickFirstSampleIndices` in Prometheus 3.14's `promql/functions.go`.

use crate::functions::range::View;
use crate::functions::range::starts::Reading;
use crate::syntax::ast::Boundary;
use crate::value::column::{Histogram, Points};

#[derive(Clone, Copy)]
enum Value<'a> {
    Float(f64),
    Histogram(&'a Histogram),
}

/// A value, and when it was read.
type Sample<'a> = (Reading, Value<'a>);

/// The samples that count: of an anchored window, the last one before it and those inside.
fn counted<'a>(view: &View<'a>) -> Option<Points<'a>> {
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
    // Whichever comes last is the anchor. With neither, both are zero and nothing changes.
    let (floats, histograms) = if last_float >= last_histogram {
        (floats.saturating_sub(1), histograms)
    } else {
        (floats, histograms.saturating_sub(1))
    };
    Some(points.slice(floats..points.timestamps.len(), histograms..points.histograms.len()))
}

/// Counts the pairs of neighbours, previous first, that `differ`.
fn count(view: &View<'_>, differ: impl Fn(Sample<'_>, Sample<'_>) -> bool) -> Option<f64> {
    let points = counted(view)?;
    let floats = points.timestamps.iter().zip(points.values).enumerate();
    let mut floats =
        floats.map(|(at, (t, v))| (Reading::of(points.starts, *t, at), Value::Float(*v))).peekable();
    let histograms = points.histograms.iter().enumerate();
    let mut histograms = histograms
        .map(|(at, (t, h))| (Reading::of(points.histogram_starts, *t, at), Value::Histogram(h)))
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

/// How often the value changed.
pub(super) fn changes(view: &View<'_>) -> Option<f64> {
    count(view, |(_, previous), (_, current)| match (previous, current) {
        (Value::Float(previous), Value::Float(current)) => changed(previous, current),
        (Value::Histogram(previous), Value::Histogram(current)) => !current.equals(previous),
        _ => true,
    })
}

/// How often a counter was reset.
pub(super) fn resets(view: &View<'_>) -> Option<f64> {
    count(view, |(before, previous), (now, current)| match (previous, current) {
        (Value::Float(previous), Value::Float(current)) => current < previous || now.is_reset_since(before),
        (Value::Histogram(previous), Value::Histogram(current)) => {
            now.is_reset_since(before) || current.detect_reset(previous)
        }
        _ => true,
    })
}

/// Whether a float is another one than before; NaN is the same as NaN.
pub(super) fn changed(previous: f64, current: f64) -> bool {
    current != previous && !(current.is_nan() && previous.is_nan())
}
