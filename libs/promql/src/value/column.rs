//! The value of one series at all steps.

use std::ops::Range;
use std::sync::Arc;

use model::{FloatHistogram, Labels, STALE_NAN_BITS, is_stale_nan, stale_nan};

/// A native histogram that may be shared by several columns.
pub(crate) type Histogram = Arc<FloatHistogram>;

/// The entry of a column that means "no float at this step".
///
/// It is the staleness marker, which is never a value: selectors drop it, and arithmetic on NaN gives quiet NaNs, while the
/// marker is a signalling one. So a column does not need a second list for the steps that have values.
pub(crate) const ABSENT: f64 = stale_nan();

/// Whether an entry of a column means that there is no float.
#[inline(always)]
pub(crate) fn is_absent(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}

/// The value of a column at one step.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cell<'a> {
    /// Nothing.
    Absent,
    /// A float.
    Float(f64),
    /// A histogram.
    Histogram(&'a Histogram),
}

/// The value of one series at each step: a float, a histogram or nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Column {
    /// One float for each step; [`ABSENT`] if there is none.
    pub(crate) floats: Vec<f64>,
    /// One entry for each step; empty while the column has no histogram at all. At a step with a histogram, the float is absent.
    pub(crate) histograms: Vec<Option<Histogram>>,
}

impl Column {
    /// A column of `steps` steps without values.
    pub(crate) fn absent(steps: usize) -> Self {
        Self { floats: vec![ABSENT; steps], histograms: Vec::new() }
    }

    /// The same float at each step.
    pub(crate) fn constant(value: f64, steps: usize) -> Self {
        Self { floats: vec![value; steps], histograms: Vec::new() }
    }

    /// Makes this a column of `steps` steps without values and keeps its memory.
    pub(crate) fn reset(&mut self, steps: usize) {
        self.floats.clear();
        self.floats.resize(steps, ABSENT);
        self.histograms.clear();
    }

    /// Number of steps.
    pub(crate) fn len(&self) -> usize {
        self.floats.len()
    }

    /// The value at `step`.
    pub(crate) fn get(&self, step: usize) -> Cell<'_> {
        match self.histograms.get(step) {
            Some(Some(histogram)) => Cell::Histogram(histogram),
            _ if is_absent(self.floats[step]) => Cell::Absent,
            _ => Cell::Float(self.floats[step]),
        }
    }

    /// Whether it has a value at `step`.
    pub(crate) fn has(&self, step: usize) -> bool {
        !matches!(self.get(step), Cell::Absent)
    }

    /// Sets `step` to a histogram.
    pub(crate) fn set_histogram(&mut self, step: usize, histogram: Histogram) {
        if self.histograms.is_empty() {
            self.histograms.resize(self.floats.len(), None);
        }
        self.floats[step] = ABSENT;
        self.histograms[step] = Some(histogram);
    }

    /// Sets `step` to a value of another column.
    pub(crate) fn set(&mut self, step: usize, cell: Cell<'_>) {
        match cell {
            Cell::Absent => self.clear(step),
            Cell::Float(value) => {
                self.clear(step);
                self.floats[step] = value;
            }
            Cell::Histogram(histogram) => self.set_histogram(step, histogram.clone()),
        }
    }

    /// Removes the value at `step`.
    pub(crate) fn clear(&mut self, step: usize) {
        self.floats[step] = ABSENT;
        if let Some(slot) = self.histograms.get_mut(step) {
            *slot = None;
        }
    }

    /// Whether some step has a histogram.
    pub(crate) fn has_histograms(&self) -> bool {
        self.histograms.iter().any(Option::is_some)
    }

    /// Whether some step has a float.
    pub(crate) fn has_floats(&self) -> bool {
        self.floats.iter().any(|v| !is_absent(*v))
    }

    /// Whether no step has a value.
    pub(crate) fn is_empty(&self) -> bool {
        !self.has_floats() && !self.has_histograms()
    }

    /// Removes the histograms and keeps the floats.
    pub(crate) fn drop_histograms(&mut self) {
        self.histograms.clear();
    }

    /// Memory in bytes. A histogram that consecutive steps share counts once; one that other columns share counts in each.
    pub(crate) fn size_bytes(&self) -> u64 {
        let mut bytes = self.floats.len() * 8 + self.histograms.len() * 8;
        let mut last: Option<&Histogram> = None;
        for histogram in self.histograms.iter().flatten() {
            if last.is_none_or(|last| !Arc::ptr_eq(last, histogram)) {
                bytes += histogram.size_bytes();
            }
            last = Some(histogram);
        }
        bytes as u64
    }

    /// Memory of its histograms in bytes if no steps share one, as after an operator that changed them.
    pub(crate) fn unshared_bytes(&self) -> u64 {
        self.histograms.iter().flatten().map(|histogram| histogram.size_bytes() as u64).sum()
    }
}

/// A series on its way through the operators.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// What identifies it, including a metric name that is dropped at the end of the query.
    pub(crate) labels: Labels,
    /// Whether the metric name is dropped at the end of the query. Until then, operators can still use it.
    pub(crate) drop_name: bool,
    /// Its values.
    pub(crate) column: Column,
}

impl Row {
    /// A series that keeps its name.
    pub(crate) fn new(labels: Labels, column: Column) -> Self {
        Self { labels, drop_name: false, column }
    }

    /// Memory in bytes.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.column.size_bytes() + self.labels.size_bytes() as u64 + size_of::<Self>() as u64
    }
}

/// Samples of one series in time order, without staleness markers: the input of a range function.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Points<'a> {
    /// Times of the floats.
    pub(crate) timestamps: &'a [i64],
    /// The floats; as many as `timestamps`.
    pub(crate) values: &'a [f64],
    /// Start timestamps of the floats, 0 if one is not known; as many as floats, or empty if none is known.
    pub(crate) starts: &'a [i64],
    /// The histograms.
    pub(crate) histograms: &'a [(i64, Histogram)],
    /// Start timestamps of the histograms, likewise.
    pub(crate) histogram_starts: &'a [i64],
}

impl<'a> Points<'a> {
    /// The floats and the histograms at these indexes.
    #[inline]
    pub(crate) fn slice(&self, floats: Range<usize>, histograms: Range<usize>) -> Self {
        Points {
            timestamps: &self.timestamps[floats.clone()],
            values: &self.values[floats.clone()],
            starts: self.starts.get(floats).unwrap_or(&[]),
            histograms: &self.histograms[histograms.clone()],
            histogram_starts: self.histogram_starts.get(histograms).unwrap_or(&[]),
        }
    }
}

/// Removes staleness markers, which range functions do not see.
pub(crate) fn drop_stale(samples: &mut series::Samples) {
    if samples.values.iter().any(|v| is_stale_nan(*v)) {
        let mut kept = 0;
        for at in 0..samples.values.len() {
            if !is_stale_nan(samples.values[at]) {
                samples.values[kept] = samples.values[at];
                samples.timestamps[kept] = samples.timestamps[at];
                if let Some(start) = samples.starts.get(at).copied() {
                    samples.starts[kept] = start;
                }
                kept += 1;
            }
        }
        samples.values.truncate(kept);
        samples.timestamps.truncate(kept);
        samples.starts.truncate(kept);
    }
    if !samples.histogram_starts.is_empty() {
        let mut stale = samples.histograms.iter().map(|(_, h)| h.is_stale());
        samples.histogram_starts.retain(|_| !stale.next().unwrap_or(false));
    }
    samples.histograms.retain(|(_, h)| !h.is_stale());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_never_yields_the_marker_of_absence() {
        let quiet = [ABSENT + 1.0, ABSENT * 2.0, ABSENT - ABSENT, -f64::NAN, f64::NAN.sqrt()];
        assert!(quiet.iter().all(|v| v.is_nan() && !is_absent(*v)));
    }

    #[test]
    fn a_step_has_a_float_or_a_histogram_but_not_both() {
        let mut column = Column::constant(1.0, 2);
        column.set_histogram(1, Histogram::default());
        assert!(matches!(column.get(0), Cell::Float(1.0)));
        assert!(matches!(column.get(1), Cell::Histogram(_)));
        column.set(1, Cell::Float(2.0));
        assert!(matches!(column.get(1), Cell::Float(2.0)));
        column.clear(1);
        assert!(!column.has(1));
    }
}
