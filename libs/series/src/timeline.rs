//! Samples of both kinds in one order of time, for deduplication.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use model::{CounterResetHint, FloatHistogram, STALE_NAN_BITS, is_stale_nan};

use crate::Samples;

/// The samples of a replica by index. It has two implementations, so that the common case, only floats, compiles to loops
/// over plain slices.
pub(crate) trait Timeline {
    /// Number of samples.
    fn len(&self) -> usize;
    /// Time of a sample in milliseconds; strictly ascending.
    fn time(&self, index: usize) -> i64;
    /// The times of all samples.
    fn times(&self) -> Cow<'_, [i64]>;
    /// The indices of the staleness markers, ascending.
    fn markers(&self) -> Vec<usize>;
    /// Value of a sample that is a float.
    fn float(&self, index: usize) -> Option<f64>;
    /// When the counter of a float began; 0 where that is unknown.
    fn start(&self, index: usize) -> i64;
    /// Appends a sample to `out`: a float, raised by `adjust`, or a histogram. After a change of replica (`switched`), a
    /// histogram loses its reset hint, because it follows another histogram than in its replica. A float that is raised loses
    /// its start, because it is no longer the count since then.
    fn emit(&self, index: usize, adjust: f64, switched: bool, out: &mut Samples);
    /// Appends consecutive samples to `out` unchanged.
    fn emit_run(&self, run: Range<usize>, out: &mut Samples) {
        self.emit_raised(run, 0.0, out);
    }
    /// Appends consecutive samples to `out`, floats raised by `adjust`.
    fn emit_raised(&self, run: Range<usize>, adjust: f64, out: &mut Samples) {
        run.for_each(|index| self.emit(index, adjust, false, out));
    }
}

/// Samples without histograms.
pub(crate) struct FloatTimeline<'a> {
    timestamps: &'a [i64],
    values: &'a [f64],
    samples: &'a Samples,
}

impl<'a> FloatTimeline<'a> {
    /// The floats of `samples`.
    pub(crate) fn new(samples: &'a Samples) -> Self {
        let len = samples.timestamps.len().min(samples.values.len());
        FloatTimeline { timestamps: &samples.timestamps[..len], values: &samples.values[..len], samples }
    }
}

impl Timeline for FloatTimeline<'_> {
    #[inline]
    fn len(&self) -> usize {
        self.timestamps.len()
    }

    #[inline]
    fn time(&self, index: usize) -> i64 {
        self.timestamps[index]
    }

    fn times(&self) -> Cow<'_, [i64]> {
        Cow::Borrowed(self.timestamps)
    }

    fn markers(&self) -> Vec<usize> {
        if !holds_markers(self.values) {
            return Vec::new();
        }
        let places = self.values.iter().enumerate().filter(|(_, value)| is_stale_nan(**value));
        places.map(|(place, _)| place).collect()
    }

    #[inline]
    fn float(&self, index: usize) -> Option<f64> {
        Some(self.values[index])
    }

    #[inline]
    fn start(&self, index: usize) -> i64 {
        self.samples.float_start(index)
    }

    #[inline]
    fn emit(&self, index: usize, adjust: f64, _switched: bool, out: &mut Samples) {
        let start = if adjust == 0.0 { self.start(index) } else { 0 };
        out.push_float(self.timestamps[index], raised(self.values[index], adjust), start);
    }

    fn emit_raised(&self, run: Range<usize>, adjust: f64, out: &mut Samples) {
        if !self.samples.starts.is_empty() || !out.starts.is_empty() {
            return run.for_each(|index| self.emit(index, adjust, false, out));
        }
        out.timestamps.extend_from_slice(&self.timestamps[run.clone()]);
        if adjust == 0.0 {
            out.values.extend_from_slice(&self.values[run]);
        } else {
            out.values.extend(self.values[run].iter().map(|value| raised(*value, adjust)));
        }
    }
}

/// Floats and histograms.
pub(crate) struct MixedTimeline<'a> {
    samples: &'a Samples,
    order: Vec<SamplePlace>,
}

/// The index of a sample in the list of its kind.
#[derive(Clone, Copy)]
enum SamplePlace {
    Float(usize),
    Histogram(usize),
}

impl<'a> MixedTimeline<'a> {
    /// All of `samples`. Where a float and a histogram have the same time, the float is taken.
    pub(crate) fn new(samples: &'a Samples) -> Self {
        let mut order = Vec::with_capacity(samples.len());
        let (mut floats, mut histograms) = (0..samples.timestamps.len(), 0..samples.histograms.len());
        loop {
            let float = samples.timestamps.get(floats.start).copied();
            let histogram = samples.histograms.get(histograms.start).map(|(t, _)| *t);
            match (float, histogram) {
                (None, None) => break,
                (Some(f), Some(h)) if f == h => drop(histograms.next()),
                (Some(f), h) if h.is_none_or(|h| f < h) => {
                    order.extend(floats.next().map(SamplePlace::Float))
                }
                _ => order.extend(histograms.next().map(SamplePlace::Histogram)),
            }
        }
        MixedTimeline { samples, order }
    }
}

impl Timeline for MixedTimeline<'_> {
    fn len(&self) -> usize {
        self.order.len()
    }

    fn time(&self, index: usize) -> i64 {
        match self.order[index] {
            SamplePlace::Float(at) => self.samples.timestamps[at],
            SamplePlace::Histogram(at) => self.samples.histograms[at].0,
        }
    }

    fn times(&self) -> Cow<'_, [i64]> {
        (0..self.len()).map(|index| self.time(index)).collect()
    }

    fn markers(&self) -> Vec<usize> {
        let is_marker = |index: &usize| match self.order[*index] {
            SamplePlace::Float(at) => is_stale_nan(self.samples.values[at]),
            SamplePlace::Histogram(at) => self.samples.histograms[at].1.is_stale(),
        };
        (0..self.len()).filter(is_marker).collect()
    }

    fn float(&self, index: usize) -> Option<f64> {
        match self.order[index] {
            SamplePlace::Float(at) => Some(self.samples.values[at]),
            SamplePlace::Histogram(_) => None,
        }
    }

    fn start(&self, index: usize) -> i64 {
        match self.order[index] {
            SamplePlace::Float(at) => self.samples.float_start(at),
            SamplePlace::Histogram(_) => 0,
        }
    }

    fn emit(&self, index: usize, adjust: f64, switched: bool, out: &mut Samples) {
        match self.order[index] {
            SamplePlace::Float(at) => {
                let start = if adjust == 0.0 { self.samples.float_start(at) } else { 0 };
                let value = raised(self.samples.values[at], adjust);
                out.push_float(self.samples.timestamps[at], value, start);
            }
            SamplePlace::Histogram(at) => {
                let (t, mut histogram) = self.samples.histograms[at].clone();
                if switched {
                    forget_reset_hint(&mut histogram);
                }
                let start = self.samples.histogram_starts.get(at).copied().unwrap_or(0);
                out.push_histogram(t, histogram, start);
            }
        }
    }
}

/// Whether one of the values is a staleness marker. Without branches, so that it runs over several values at a time.
pub(crate) fn holds_markers(values: &[f64]) -> bool {
    values
        .chunks(64)
        .any(|part| part.iter().fold(false, |any, value| any | (value.to_bits() == STALE_NAN_BITS)))
}

/// `value + adjust`. The bits of `value` do not change when `adjust` is 0 or `value` is NaN.
#[inline]
fn raised(value: f64, adjust: f64) -> f64 {
    if adjust == 0.0 || value.is_nan() { value } else { value + adjust }
}

/// Removes the hint of a counter about the sample before it, because that sample is now another one.
pub(crate) fn forget_reset_hint(histogram: &mut Arc<FloatHistogram>) {
    if matches!(histogram.counter_reset_hint, CounterResetHint::Reset | CounterResetHint::NotReset) {
        Arc::make_mut(histogram).counter_reset_hint = CounterResetHint::Unknown;
    }
}
