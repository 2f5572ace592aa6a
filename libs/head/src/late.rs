//! Samples that are out of order: earlier than the last sample of their series.

use model::{TimeRange, Timestamp};
use tsdb::{AppendError, Chunk};

use crate::chunk_format::StoredChunk;
use crate::value::{TimedValue, encoded};

/// Samples of a series that wait for a chunk, as in Prometheus (`OutOfOrderCapMax`).
const MOST_OPEN: usize = 32;

/// The samples of a series that are out of order.
///
/// Chunks in files may overlap each other and the chunks of the samples that are in order.
#[derive(Default)]
pub(crate) struct LateSamples {
    /// Those that are in no chunk, in order of time.
    open: Vec<TimedValue>,
    /// Chunks in files, in the order in which they were written.
    pub(crate) stored: Vec<StoredChunk>,
}

impl LateSamples {
    /// Adds a sample. Returns false if there is one with its time. Those in chunks are not compared, as in Prometheus.
    pub(crate) fn insert(&mut self, sample: TimedValue) -> bool {
        match self.open.binary_search_by_key(&sample.time, |other| other.time) {
            Ok(_) => false,
            Err(at) => {
                self.open.insert(at, sample);
                true
            }
        }
    }

    /// Whether a sample with this time waits for a chunk.
    pub(crate) fn has_open(&self, time: i64) -> bool {
        self.open.binary_search_by_key(&time, |sample| sample.time).is_ok()
    }

    /// Whether it is time to write the samples to a chunk.
    pub(crate) fn is_full(&self) -> bool {
        self.open.len() >= MOST_OPEN
    }

    /// Chunks of the samples that are in none.
    ///
    /// # Errors
    /// When a histogram cannot be encoded.
    pub(crate) fn open_chunks(&self) -> Result<Vec<Chunk>, AppendError> {
        encoded(&self.open)
    }

    /// Forgets the samples that are in no chunk, because they are in one now.
    pub(crate) fn clear_open(&mut self) {
        self.open = Vec::new();
    }

    /// The times of the first and the last sample.
    pub(crate) fn range(&self) -> Option<TimeRange> {
        let open = self.open.first().zip(self.open.last()).map(|(first, last)| {
            TimeRange::new(Timestamp::from_millis(first.time), Timestamp::from_millis(last.time))
        });
        let ranges = self.stored.iter().map(|chunk| chunk.range).chain(open);
        ranges.reduce(|a, b| TimeRange::new(a.min.min(b.min), a.max.max(b.max)))
    }
}
