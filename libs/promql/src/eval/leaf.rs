//! Leaves: compute the column of a series from its samples.

use std::sync::Arc;

use model::{CounterResetHint, FloatHistogram, Labels, Sample, Timestamp, is_stale_nan};
use series::Samples;

use crate::error::QueryError;
use crate::functions::range::{self, RangeFunction};
use crate::output::MatrixSeries;
use crate::plan::node::{Leaf, LeafKind};
use crate::syntax::ast::Boundary;
use crate::value::column::{Column, Histogram, Points, drop_stale};
use crate::value::notes::Notes;
use crate::value::scalar::Scalar;
use crate::value::steps::{Steps, Window};

/// Evaluates a leaf for one series. It may remove the staleness markers from `samples`.
pub(crate) fn evaluate(
    leaf: &Leaf,
    steps: &Steps,
    scalars: &[Scalar],
    labels: &Labels,
    samples: &mut Samples,
    out: &mut Column,
    notes: &mut Notes,
) -> Result<(), QueryError> {
    match &leaf.kind {
        LeafKind::Range(call) => {
            drop_stale(samples);
            let function = RangeFunction { call, window: &leaf.window, steps, scalars };
            range::evaluate(&function, labels, points(samples), out, notes)
        }
        LeafKind::Instant if leaf.window.boundary == Boundary::Smoothed => {
            drop_stale(samples);
            range::smoothed(&leaf.window, steps, labels, points(samples), leaf.span, out, notes);
            Ok(())
        }
        LeafKind::Instant => {
            instant(&leaf.window, steps, samples, out, |column, step, sample| match sample {
                NewestSample::Float(at) => column.floats[step] = samples.values[at],
                NewestSample::Histogram(at) => {
                    column.set_histogram(step, Arc::clone(&samples.histograms[at].1))
                }
            });
            Ok(())
        }
        LeafKind::Timestamp | LeafKind::InfoTimestamp => {
            let mut any_histogram = false;
            instant(&leaf.window, steps, samples, out, |column, step, sample| {
                let time = match sample {
                    NewestSample::Float(at) => samples.timestamps[at],
                    NewestSample::Histogram(at) => {
                        any_histogram = true;
                        samples.histograms[at].0
                    }
                };
                column.floats[step] = time as f64 / 1000.0;
            });
            if any_histogram && matches!(leaf.kind, LeafKind::InfoTimestamp) {
                let what = "this should be an info metric, with float samples";
                return Err(QueryError::execution(format!("{what}: {labels}")));
            }
            Ok(())
        }
        LeafKind::StartTimestamp => {
            instant(&leaf.window, steps, samples, out, |column, step, sample| {
                let start = match sample {
                    NewestSample::Float(at) => samples.starts.get(at),
                    NewestSample::Histogram(at) => samples.histogram_starts.get(at),
                };
                column.floats[step] = start.copied().unwrap_or(0) as f64 / 1000.0;
            });
            Ok(())
        }
        // The pipeline passes raw samples on without a column.
        LeafKind::Raw => Ok(()),
    }
}

/// The samples of the window of an instant query for a range.
pub(crate) fn raw(
    leaf: &Leaf,
    steps: &Steps,
    labels: &Labels,
    samples: &mut Samples,
) -> Result<Option<MatrixSeries>, QueryError> {
    drop_stale(samples);
    let (start, end) = (leaf.window.start(steps.start), leaf.window.end(steps.start));
    let (before, after) = leaf.window.margins();
    let inside = |time: i64| time > start.saturating_sub(before) && time <= end.saturating_add(after);
    let floats = samples.timestamps.iter().zip(&samples.values).filter(|(t, _)| inside(**t));
    let mut list = Vec::with_capacity(samples.timestamps.len());
    list.extend(floats.map(|(t, v)| Sample::new(*t, *v)));
    let mut floats = list;
    let inner = samples.histograms.iter().filter(|(t, _)| inside(*t));
    let mut histograms = Vec::with_capacity(samples.histograms.len());
    histograms.extend(inner.map(|(t, h)| (Timestamp::from_millis(*t), h.clone())));
    let modifier = match leaf.window.boundary {
        Boundary::Plain => None,
        Boundary::Anchored => Some("anchored"),
        Boundary::Smoothed => Some("smoothed"),
    };
    if let Some(modifier) = modifier {
        if !histograms.is_empty() {
            return Err(QueryError::execution(format!(
                "{modifier} modifier is not supported with histograms"
            )));
        }
        floats = range::extend(&floats, start, end, leaf.window.boundary);
    }
    if floats.is_empty() && histograms.is_empty() {
        return Ok(None);
    }
    Ok(Some(MatrixSeries { labels: labels.clone(), floats, histograms }))
}

/// Reduces histograms to their count and sum. Counter resets are detected by the buckets, so each histogram gets a hint whether
/// there was a reset before it.
pub(crate) fn keep_statistics(samples: &mut Samples) {
    let mut previous: Option<Histogram> = None;
    for (_, histogram) in &mut samples.histograms {
        let hint = match (&previous, histogram.counter_reset_hint) {
            (Some(previous), CounterResetHint::Unknown) if !histogram.is_stale() => {
                if histogram.detect_reset(previous) {
                    CounterResetHint::Reset
                } else {
                    CounterResetHint::NotReset
                }
            }
            (_, hint) => hint,
        };
        let reduced = FloatHistogram {
            counter_reset_hint: hint,
            schema: histogram.schema,
            count: histogram.count,
            sum: histogram.sum,
            ..FloatHistogram::default()
        };
        let whole = std::mem::replace(histogram, Arc::new(reduced));
        if !whole.is_stale() {
            previous = Some(whole);
        }
    }
}

fn points(samples: &Samples) -> Points<'_> {
    Points {
        timestamps: &samples.timestamps,
        values: &samples.values,
        starts: &samples.starts,
        histograms: &samples.histograms,
        histogram_starts: &samples.histogram_starts,
    }
}

/// The last sample of a window, by its index.
enum NewestSample {
    Float(usize),
    Histogram(usize),
}

/// Finds the last sample of each window and passes it to `set`, unless it is a staleness marker.
#[inline(always)]
fn instant(
    window: &Window,
    steps: &Steps,
    samples: &Samples,
    out: &mut Column,
    mut set: impl FnMut(&mut Column, usize, NewestSample),
) {
    out.reset(steps.count);
    let (times, histograms) = (&samples.timestamps, &samples.histograms);
    // The number of samples that are not after the window.
    let (mut floats, mut others) = (0, 0);
    for step in 0..steps.count {
        let end = window.end(steps.time(step));
        let start = end.saturating_sub(window.range);
        while floats < times.len() && times[floats] <= end {
            floats += 1;
        }
        while others < histograms.len() && histograms[others].0 <= end {
            others += 1;
        }
        let float = floats.checked_sub(1).map(|at| (times[at], at)).filter(|(time, _)| *time > start);
        let histogram =
            others.checked_sub(1).map(|at| (histograms[at].0, at)).filter(|(time, _)| *time > start);
        match (float, histogram) {
            (None, None) => {}
            (Some((float, at)), other) if other.is_none_or(|(time, _)| float >= time) => {
                if !is_stale_nan(samples.values[at]) {
                    set(out, step, NewestSample::Float(at));
                }
            }
            (_, Some((_, at))) => {
                if !histograms[at].1.is_stale() {
                    set(out, step, NewestSample::Histogram(at));
                }
            }
            (Some(_), None) => {}
        }
    }
}
