//! Functions over a range of samples, evaluated for one series at all steps at once.
//!
//! A window slides over the samples: its ends only move forward, so each sample enters and leaves once. The common
//! functions of float series go further and keep their result up to date ([`slide`]) instead of looking at the whole
//! window again; everything else, and every series with histograms, goes window by window ([`window_value`]), which
//! also is what the sliding ones are tested against.

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
mod xrate;

use std::sync::Arc;

use budget::{Budget, Reservation};
use model::{FloatHistogram, Labels};

use crate::error::QueryError;
use crate::syntax::ast::{Boundary, Span};
use crate::syntax::functions::FunctionId;
use crate::value::column::{Column, Points};
use crate::value::notes::{Note, Notes};
use crate::value::scalar::Scalar;
use crate::value::steps::{Steps, Window};
pub(crate) use extended::extend;

/// A call of a function over a range, as a query has it.
#[derive(Clone, Debug)]
pub(crate) struct RangeCall {
    /// Which function.
    pub(crate) function: FunctionId,
    /// Where its first argument stands.
    pub(crate) span: Span,
    /// Checked while windows are evaluated, and where their histograms reserve memory: a single series can take long, and
    /// much memory.
    pub(crate) budget: Budget,
}

impl RangeCall {
    /// Whether the result is still the metric of its argument.
    pub(crate) fn keeps_name(&self) -> bool {
        matches!(self.function, FunctionId::LastOverTime | FunctionId::FirstOverTime)
    }
}

/// A function, its arguments and the windows it looks at.
#[derive(Debug)]
pub(crate) struct RangeFunction<'a> {
    /// The function.
    pub(crate) call: &'a RangeCall,
    /// Which samples each step sees.
    pub(crate) window: &'a Window,
    /// The steps.
    pub(crate) steps: &'a Steps,
    /// The scalar arguments in order.
    pub(crate) scalars: &'a [Scalar],
}

/// What a function makes of one window.
#[derive(Debug)]
enum Value {
    None,
    Float(f64),
    Histogram(Box<FloatHistogram>),
}

impl From<Option<f64>> for Value {
    fn from(value: Option<f64>) -> Self {
        value.map_or(Self::None, Value::Float)
    }
}

impl From<Option<FloatHistogram>> for Value {
    fn from(value: Option<FloatHistogram>) -> Self {
        value.map_or(Self::None, |histogram| Self::Histogram(Box::new(histogram)))
    }
}

/// One window: the samples that matter to one step.
#[derive(Clone, Copy, Debug)]
struct View<'a> {
    /// Its samples, those in the margins included.
    points: Points<'a>,
    /// The instant before its first.
    start: i64,
    /// Its last instant.
    end: i64,
    /// Its length in milliseconds.
    range: i64,
    /// The time of the step.
    time: i64,
    /// How its boundaries are treated.
    boundary: Boundary,
    /// The time of the first float of the series.
    appeared: i64,
    /// For each of its histograms, whether its buckets tell a reset since the one before it in the series; empty where the
    /// function does not ask.
    resets: &'a [bool],
}

impl View<'_> {
    fn is_mixed(&self) -> bool {
        !self.points.values.is_empty() && !self.points.histograms.is_empty()
    }

    fn range_seconds(&self) -> f64 {
        self.range as f64 / 1000.0
    }
}

/// Where notes go, and what they are about.
struct Notebook<'a> {
    notes: &'a mut Notes,
    metric: &'a str,
    span: Span,
}

impl Notebook<'_> {
    fn add(&mut self, note: Note<'_>) {
        self.notes.add(note, self.span);
    }

    /// Adds a note that so many windows gave.
    fn add_times(&mut self, note: Note<'_>, times: u64) {
        self.notes.add_times(note, self.span, times);
    }

    fn mixed(&mut self) {
        self.add(Note::MixedFloatsHistograms(self.metric));
    }

    fn ignored_histograms(&mut self, view: &View<'_>) {
        if view.is_mixed() {
            self.add(Note::IgnoredInMixedRange(self.metric));
        }
    }
}

/// Evaluates `function` for the series `labels` with samples `points` (without staleness markers) into `out`, which is
/// made as long as there are steps.
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

/// Evaluates a smoothed instant selector: at each step the value on the line between the samples around it.
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
    let mut floats = Cursor::default();
    let mut histograms = Cursor::default();
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
    let mut floats = Cursor::default();
    let mut histograms = Cursor::default();
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
        let view = View {
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
            Value::None => {}
            Value::Float(value) => out.floats[step] = value,
            Value::Histogram(histogram) => {
                making.add(histogram.size_bytes() as u64)?;
                out.set_histogram(step, Arc::new(*histogram));
            }
        }
    }
    Ok(())
}

/// The samples of a sorted list inside a window that only moves forward.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    low: usize,
    high: usize,
}

impl Cursor {
    /// Moves to the samples after `first` and not after `last`.
    #[inline]
    fn slide(&mut self, len: usize, first: i64, last: i64, time: impl Fn(usize) -> i64) {
        while self.high < len && time(self.high) <= last {
            self.high += 1;
        }
        while self.low < self.high && time(self.low) <= first {
            self.low += 1;
        }
    }

    fn is_empty(&self) -> bool {
        self.low == self.high
    }

    fn range(&self) -> std::ops::Range<usize> {
        self.low..self.high
    }
}

/// The value of the function for one window, which holds at least one sample.
fn window_value(
    function: &RangeFunction<'_>,
    step: usize,
    view: &View<'_>,
    notes: &mut Notebook<'_>,
) -> Result<Value, QueryError> {
    use FunctionId as F;
    let scalar = |index: usize| function.scalars.get(index).map_or(f64::NAN, |s| s.at(step));
    Ok(match function.call.function {
        id @ (F::Rate | F::Increase | F::Delta) => {
            let (counter, per_second) = (id != F::Delta, id == F::Rate);
            if view.is_mixed() {
                notes.mixed();
                return Ok(Value::None);
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
            Value::None
        }
        F::AvgOverTime if view.points.values.is_empty() => histogram::avg(view, notes).into(),
        F::SumOverTime if view.points.values.is_empty() => histogram::sum(view, notes).into(),
        id => over_time::evaluate(id, view, notes),
    })
}

#[cfg(test)]
mod tests;
