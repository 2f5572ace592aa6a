//! What all functions over a range share: the call, its windows and their results.

use budget::Budget;
use model::FloatHistogram;

use crate::syntax::ast::{Boundary, Span};
use crate::syntax::functions::FunctionId;
use crate::value::column::Points;
use crate::value::note::Note;
use crate::value::notes::Notes;
use crate::value::scalar::Scalar;
use crate::value::steps::{Steps, Window};

/// A function over a range in a query.
#[derive(Clone, Debug)]
pub(crate) struct RangeCall {
    /// Which function.
    pub(crate) function: FunctionId,
    /// The position of its first argument.
    pub(crate) span: Span,
    /// The budget of the query. It is checked while windows are evaluated, and memory for histograms is reserved from it:
    /// a single series can take long, and much memory.
    pub(crate) budget: Budget,
}

impl RangeCall {
    /// Whether the result is still the metric of its argument.
    pub(crate) fn keeps_name(&self) -> bool {
        matches!(self.function, FunctionId::LastOverTime | FunctionId::FirstOverTime)
    }
}

/// A function, its arguments and its windows.
#[derive(Debug)]
pub(crate) struct RangeFunction<'a> {
    /// The function.
    pub(crate) call: &'a RangeCall,
    /// The window of samples for each step.
    pub(crate) window: &'a Window,
    /// The steps.
    pub(crate) steps: &'a Steps,
    /// The scalar arguments, in order.
    pub(crate) scalars: &'a [Scalar],
}

/// The result of a function for one window.
#[derive(Debug)]
pub(super) enum WindowValue {
    None,
    Float(f64),
    Histogram(Box<FloatHistogram>),
}

impl From<Option<f64>> for WindowValue {
    fn from(value: Option<f64>) -> Self {
        value.map_or(Self::None, WindowValue::Float)
    }
}

impl From<Option<FloatHistogram>> for WindowValue {
    fn from(value: Option<FloatHistogram>) -> Self {
        value.map_or(Self::None, |histogram| Self::Histogram(Box::new(histogram)))
    }
}

/// One window: the samples for one step.
#[derive(Clone, Copy, Debug)]
pub(super) struct WindowView<'a> {
    /// The samples, including those in the margins.
    pub(super) points: Points<'a>,
    /// Start of the window, exclusive, in milliseconds.
    pub(super) start: i64,
    /// End of the window, inclusive, in milliseconds.
    pub(super) end: i64,
    /// Length of the window in milliseconds.
    pub(super) range: i64,
    /// Time of the step in milliseconds.
    pub(super) time: i64,
    /// How samples at the boundaries are treated.
    pub(super) boundary: Boundary,
    /// Time of the first float of the series.
    pub(super) appeared: i64,
    /// For each histogram of the window, whether its buckets show a reset since its predecessor in the
    /// series. Empty if the function does not need it.
    pub(super) resets: &'a [bool],
}

impl WindowView<'_> {
    pub(super) fn is_mixed(&self) -> bool {
        !self.points.values.is_empty() && !self.points.histograms.is_empty()
    }

    pub(super) fn range_seconds(&self) -> f64 {
        self.range as f64 / 1000.0
    }
}

/// Collects notes about one metric at one position of the query.
pub(super) struct Notebook<'a> {
    pub(super) notes: &'a mut Notes,
    pub(super) metric: &'a str,
    pub(super) span: Span,
}

impl Notebook<'_> {
    pub(super) fn add(&mut self, note: Note<'_>) {
        self.notes.add(note, self.span);
    }

    /// Adds a note that applies to `times` windows.
    pub(super) fn add_times(&mut self, note: Note<'_>, times: u64) {
        self.notes.add_times(note, self.span, times);
    }

    pub(super) fn mixed(&mut self) {
        self.add(Note::MixedFloatsHistograms(self.metric));
    }

    pub(super) fn ignored_histograms(&mut self, view: &WindowView<'_>) {
        if view.is_mixed() {
            self.add(Note::IgnoredInMixedRange(self.metric));
        }
    }
}

/// The samples of a sorted list that are inside a window, which only moves forward.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SampleCursor {
    pub(super) low: usize,
    pub(super) high: usize,
}

impl SampleCursor {
    /// Moves to the samples with times after `first` and up to and including `last`.
    #[inline]
    pub(super) fn slide(&mut self, len: usize, first: i64, last: i64, time: impl Fn(usize) -> i64) {
        while self.high < len && time(self.high) <= last {
            self.high += 1;
        }
        while self.low < self.high && time(self.low) <= first {
            self.low += 1;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.low == self.high
    }

    pub(super) fn range(&self) -> std::ops::Range<usize> {
        self.low..self.high
    }
}
