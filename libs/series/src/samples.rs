//! Decoded samples of one series.

use std::sync::Arc;

use model::FloatHistogram;

/// The samples of one series in time order, as parallel lists; reused from one series to the next.
///
/// Floats and histograms are kept apart, because nearly every series has only floats and the engine's inner loops
/// run over plain slices. A series that changed its kind has both; no timestamp occurs twice, in one list or across
/// the two. Staleness markers are samples like any other (a float or histogram with the stale NaN).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples {
    /// Times of the floats in milliseconds since the epoch, strictly ascending; as many as `values`.
    pub timestamps: Vec<i64>,
    /// The floats.
    pub values: Vec<f64>,
    /// Histograms with their times in milliseconds since the epoch, strictly ascending.
    pub histograms: Vec<(i64, Arc<FloatHistogram>)>,
}

impl Samples {
    /// No samples.
    pub fn new() -> Self {
        Samples::default()
    }

    /// Removes all samples and keeps the memory for the next series.
    pub fn clear(&mut self) {
        self.timestamps.clear();
        self.values.clear();
        self.histograms.clear();
    }

    /// Number of samples of both kinds.
    pub fn len(&self) -> usize {
        self.timestamps.len() + self.histograms.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory of the samples in bytes, histograms included.
    pub fn size_bytes(&self) -> usize {
        let histograms =
            self.histograms.iter().map(|(_, h)| size_of::<(i64, Arc<FloatHistogram>)>() + h.size_bytes());
        self.timestamps.len() * 16 + histograms.sum::<usize>()
    }
}
