//! `changes` and `resets`: counting what happens from sample to sample.
//!
//! Behaviour: `funcChanges`, `funcResets` and `pickFirstSampleIndices` in Prometheus 3.14's `promql/functions.go`.

use super::View;
use crate::eval::column::{Histogram, Points};
use crate::syntax::ast::Boundary;

#[derive(Clone, Copy)]
enum Sample<'a> {
    Float(f64),
    Histogram(&'a Histogram),
}

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
    Some(Points {
        timestamps: &points.timestamps[floats..],
        values: &points.values[floats..],
        histograms: &points.histograms[histograms..],
    })
}

/// Counts the pairs of neighbours, previous first, that `differ`.
fn count(view: &View<'_>, differ: impl Fn(Sample<'_>, Sample<'_>) -> bool) -> Option<f64> {
    let points = counted(view)?;
    let mut floats = points.timestamps.iter().zip(points.values).peekable();
    let mut histograms = points.histograms.iter().peekable();
    let mut previous = None;
    let mut found = 0u64;
    loop {
        let float_first = match (floats.peek(), histograms.peek()) {
            (None, None) => return Some(found as f64),
            (Some((float, _)), Some((histogram, _))) => *float < histogram,
            (float, _) => float.is_some(),
        };
        let current = if float_first {
            floats.next().map(|(_, value)| Sample::Float(*value))
        } else {
            histograms.next().map(|(_, histogram)| Sample::Histogram(histogram))
        };
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
    count(view, |previous, current| match (previous, current) {
        (Sample::Float(previous), Sample::Float(current)) => changed(previous, current),
        (Sample::Histogram(previous), Sample::Histogram(current)) => !current.equals(previous),
        _ => true,
    })
}

/// How often a counter was reset.
pub(super) fn resets(view: &View<'_>) -> Option<f64> {
    count(view, |previous, current| match (previous, current) {
        (Sample::Float(previous), Sample::Float(current)) => current < previous,
        (Sample::Histogram(previous), Sample::Histogram(current)) => current.detect_reset(previous),
        _ => true,
    })
}

/// Whether a float is another one than before; NaN is the same as NaN.
pub(super) fn changed(previous: f64, current: f64) -> bool {
    current != previous && !(current.is_nan() && previous.is_nan())
}
