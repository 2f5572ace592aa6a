//! Decoded samples of one series.

use std::sync::Arc;

use model::FloatHistogram;
use tsdb::{Chunk, ChunkError};

/// The samples of one series in time order, as parallel lists; reused from one series to the next.
///
/// Floats and histograms are in separate lists, because nearly every series has only floats, and the inner loops of the
/// engine run over plain slices. A series that changed from one kind to the other has both. No timestamp occurs twice, also
/// not in different lists. Staleness markers are ordinary samples: a float or histogram with the stale NaN.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples {
    /// Times of the floats in milliseconds since the epoch, strictly ascending; as many as `values`.
    pub timestamps: Vec<i64>,
    /// The floats.
    pub values: Vec<f64>,
    /// When the counter of each float began, in milliseconds since the epoch; 0 where that is unknown. As many as `values`, or
    /// empty when no start is known or starts were not [asked for](crate::DecodeOptions::starts).
    pub starts: Vec<i64>,
    /// Histograms with their times in milliseconds since the epoch, strictly ascending.
    pub histograms: Vec<(i64, Arc<FloatHistogram>)>,
    /// When each histogram began; like `starts`, for `histograms`.
    pub histogram_starts: Vec<i64>,
}

impl Samples {
    /// No samples.
    pub fn new() -> Self {
        Self::default()
    }

    /// Removes all samples. The memory is kept for the next series.
    pub fn clear(&mut self) {
        self.timestamps.clear();
        self.values.clear();
        self.starts.clear();
        self.histograms.clear();
        self.histogram_starts.clear();
    }

    /// Appends a float whose counter began at `start`; 0 where that is unknown.
    #[inline]
    pub(crate) fn push_float(&mut self, time: i64, value: f64, start: i64) {
        push_start(&mut self.starts, self.timestamps.len(), start);
        self.timestamps.push(time);
        self.values.push(value);
    }

    /// Appends a histogram that began at `start`; 0 where that is unknown.
    pub(crate) fn push_histogram(&mut self, time: i64, histogram: Arc<FloatHistogram>, start: i64) {
        push_start(&mut self.histogram_starts, self.histograms.len(), start);
        self.histograms.push((time, histogram));
    }

    /// The start of the float at `index`; 0 where it is unknown.
    #[inline]
    pub(crate) fn float_start(&self, index: usize) -> i64 {
        self.starts.get(index).copied().unwrap_or(0)
    }

    /// Appends the samples of one chunk unchanged, with their start timestamps if `starts` is set.
    pub(crate) fn append_chunk(&mut self, chunk: &Chunk, starts: bool) -> Result<(), ChunkError> {
        let Self { timestamps, values, histograms, .. } = self;
        match (chunk.encoding.holds_histograms(), starts) {
            (false, true) => chunk.decode_floats_with_starts(timestamps, values, &mut self.starts),
            (false, false) => chunk.decode_floats(timestamps, values),
            (true, true) => chunk.decode_histograms_with_starts(histograms, &mut self.histogram_starts),
            (true, false) => chunk.decode_histograms(histograms),
        }
    }

    /// Removes the floats from index `start` on for which `remove` is true. Only for samples without start timestamps.
    pub(crate) fn remove_floats(&mut self, start: usize, remove: impl Fn(f64) -> bool) {
        let mut kept = start;
        for index in start..self.values.len() {
            if !remove(self.values[index]) {
                self.timestamps[kept] = self.timestamps[index];
                self.values[kept] = self.values[index];
                kept += 1;
            }
        }
        self.timestamps.truncate(kept);
        self.values.truncate(kept);
    }

    /// Appends samples that are later than all samples of their kind.
    pub(crate) fn append(&mut self, later: Self) {
        for (index, (&time, &value)) in later.timestamps.iter().zip(&later.values).enumerate() {
            self.push_float(time, value, later.float_start(index));
        }
        let starts = later.histogram_starts.into_iter().chain(std::iter::repeat(0));
        for ((time, histogram), start) in later.histograms.into_iter().zip(starts) {
            self.push_histogram(time, histogram, start);
        }
    }

    /// Number of samples of both kinds.
    pub fn len(&self) -> usize {
        self.timestamps.len() + self.histograms.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory of the samples in bytes, with the histograms.
    pub fn size_bytes(&self) -> usize {
        let histograms =
            self.histograms.iter().map(|(_, h)| size_of::<(i64, Arc<FloatHistogram>)>() + h.size_bytes());
        let starts = self.starts.len() + self.histogram_starts.len();
        self.timestamps.len() * 16 + starts * 8 + histograms.sum::<usize>()
    }
}

/// Appends a start to a list that is empty as long as no start is known. `samples` is the number of samples before.
#[inline]
fn push_start(starts: &mut Vec<i64>, samples: usize, start: i64) {
    if start != 0 && starts.is_empty() {
        starts.resize(samples, 0);
    }
    if start != 0 || !starts.is_empty() {
        starts.push(start);
    }
}
