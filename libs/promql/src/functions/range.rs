//! Functions over a range of samples, evaluated for one series at all steps at once.
//!
//! A window slides over the samples. Its ends only move forward, so each sample enters and leaves once. The
//! common functions of float series also update their result as the window slides ([`slide`]) instead of
//! reading the whole window again. All other functions, and all series with histograms, are evaluated window
//! by window ([`window_value`]). Tests compare the sliding functions with this form.

mod edges;
mod extended;
mod extended_histogram;
mod extrapolate;
mod histogram;
mod last_two;
mod over_time;
mod regression;
mod slide;
mod starts;
mod window;
mod xrate;

use std::sync::Arc;

use budget::Reservation;
use model::Labels;

use crate::error::QueryError;
pub(crate) use crate::functions::range::extended::extend;
use crate::functions::range::window::{Notebook, SampleCursor, WindowValue, WindowView};
pub(crate) use crate::functions::range::window::{RangeCall, RangeFunction};
use crate::syntax::ast::{Boundary, Span};
use crate::syntax::functions::FunctionId;
use crate::value::column::{Column, Points};
use crate::value::note::Note;
use crate::value::notes::Notes;
use crate::value::steps::{Steps, Window};

/// Evaluates `function` for the series `labels`. `points` are its samples without staleness markers. `out` is
/// resized to the number of steps.
pub(crate) fn evaluate(
    function: &RangeFunction<'_>,
    labels: &Labels,
    points: Points<'_>,
    out: &mut Column,
    notes: &mut Notes,
) -> Result<(), QueryError> {
    out.reset(function.steps.count);
    let mut notebook = Notebook { notes, metric: labels.metric_name(), span: function.call.span };
    if !(points.histograms.is_empty() && slide::evaluate(function, points, out, &mut notebook)?) {
        evaluate_windows(function, points, out, &mut notebook)?;
    }
    if matches!(function.call.function, FunctionId::Rate | FunctionId::Increase) {
        let metric = notebook.metric;
        let counter = ["_total", "_sum", "_count", "_bucket"].iter().any(|suffix| metric.ends_with(suffix));
        if !metric.is_empty() && !counter && out.has_floats() {
            notebook.add(Note::PossibleNonCounter(metric));
        }
    }
    Ok(())
}

/// Evaluates a smoothed instant selector: at each step, the value interpolated between the samples before and
/// after it.
pub(crate) fn smoothed(
    window: &Window,
    steps: &Steps,
    labels: &Labels,
    points: Points<'_>,
    span: Span,
    out: &mut Column,
    notes: &mut Notes,
) {
    out.reset(steps.count);
    let mut notebook = Notebook { notes, metric: labels.metric_name(), span };
    let mut floats = SampleCursor::default();
    let mut histograms = SampleCursor::default();
    for step in 0..steps.count {
        let at = window.end(steps.time(step));
        let (first, last) = (at.saturating_sub(window.range), at.saturating_add(window.range));
        floats.slide(points.timestamps.len(), first, last, |at| points.timestamps[at]);
        histograms.slide(points.histograms.len(), first, last, |at| points.histograms[at].0);
        match (floats.is_empty(), histograms.is_empty()) {
            (true, true) => {}
            (false, false) => notebook.mixed(),
            (false, true) => {
                let (times, values) = (&points.timestamps[floats.range()], &points.values[floats.range()]);
                if let Some(value) = extended::smoothed_value(times, values, at) {
                    out.floats[step] = value;
                }
            }
            (true, false) => {
                let inside = &points.histograms[histograms.range()];
                if let Some(histogram) = extended_histogram::smoothed_value(inside, at, &mut notebook) {
                    out.set_histogram(step, Arc::new(histogram));
                }
            }
        }
    }
}

/// Evaluates window by window.
fn evaluate_windows(
    function: &RangeFunction<'_>,
    points: Points<'_>,
    out: &mut Column,
    notebook: &mut Notebook<'_>,
) -> Result<(), QueryError> {
    let (window, steps) = (function.window, function.steps);
    let (before, after) = window.margins();
    let mut floats = SampleCursor::default();
    let mut histograms = SampleCursor::default();
    let mut making = Reservation::new(&function.call.budget);
    let counts_resets = matches!(function.call.function, FunctionId::Rate | FunctionId::Increase);
    let resets = if counts_resets { histogram::resets(points.histograms) } else { Vec::new() };
    for step in 0..steps.count {
        let time = steps.time(step);
        let (start, end) = (window.start(time), window.end(time));
        let (first, last) = (start.saturating_sub(before), end.saturating_add(after));
        floats.slide(points.timestamps.len(), first, last, |at| points.timestamps[at]);
        histograms.slide(points.histograms.len(), first, last, |at| points.histograms[at].0);
        if floats.is_empty() && histograms.is_empty() {
            continue;
        }
        function.call.budget.check()?;
        let view = WindowView {
            points: points.slice(floats.range(), histograms.range()),
            start,
            end,
            range: window.range,
            time,
            boundary: window.boundary,
            appeared: points.timestamps.first().copied().unwrap_or(i64::MIN),
            resets: resets.get(histograms.range()).unwrap_or(&[]),
        };
        match window_value(function, step, &view, notebook)? {
            WindowValue::None => {}
            WindowValue::Float(value) => out.floats[step] = value,
            WindowValue::Histogram(histogram) => {
                making.add(histogram.size_bytes() as u64)?;
                out.set_histogram(step, Arc::new(*histogram));
            }
        }
    }
    Ok(())
}

/// The value of the function for one window, which contains at least one sample.
fn window_value(
    function: &RangeFunction<'_>,
    step: usize,
    view: &WindowView<'_>,
    notes: &mut Notebook<'_>,
) -> Result<WindowValue, QueryError> {
    use FunctionId as F;
    let scalar = |index: usize| function.scalars.get(index).map_or(f64::NAN, |s| s.at(step));
    Ok(match function.call.function {
        id @ (F::Rate | F::Increase | F::Delta) => {
            let (counter, per_second) = (id != F::Delta, id == F::Rate);
            if view.is_mixed() {
                notes.mixed();
                return Ok(WindowValue::None);
            }
            match (view.boundary == Boundary::Plain, view.points.values.is_empty()) {
                (true, false) => extrapolate::floats(view, counter, per_second, notes).into(),
                (true, true) => histogram::rate(view, counter, per_second, notes).into(),
                (false, false) => extended::floats(view, counter, per_second).into(),
                (false, true) => extended_histogram::rate(view, counter, per_second, notes).into(),
            }
        }
        F::Irate => last_two::evaluate(view, true, notes),
        F::Idelta => last_two::evaluate(view, false, notes),
        id @ (F::Xrate | F::Xincrease | F::Xdelta) => xrate::evaluate(id, view).into(),
        F::Resets => edges::resets(view).into(),
        F::Changes => edges::changes(view).into(),
        F::Deriv => regression::deriv(view, notes).into(),
        F::PredictLinear => regression::predict(view, scalar(0), notes).into(),
        F::DoubleExponentialSmoothing => regression::smooth(view, scalar(0), scalar(1), notes)?.into(),
        F::QuantileOverTime => over_time::quantile(view, scalar(0), notes).into(),
        F::AvgOverTime | F::SumOverTime if view.is_mixed() => {
            notes.mixed();
            WindowValue::None
        }
        F::AvgOverTime if view.points.values.is_empty() => histogram::avg(view, notes).into(),
        F::SumOverTime if view.points.values.is_empty() => histogram::sum(view, notes).into(),
        id => over_time::evaluate(id, view, notes),
    })
}

#[cfg(test)]
mod tests;
