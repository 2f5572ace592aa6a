//! A series with its chunks, as stores send it.

use model::{Labels, TimeRange};
use tsdb::Chunk;

/// One stretch of a series: raw samples, or the aggregates of a downsampled block.
///
/// Raw data fills `raw` alone; downsampled data fills those aggregates that were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AggrChunk {
    /// Samples as they were scraped.
    pub raw: Option<Chunk>,
    /// Number of raw samples in each window.
    pub count: Option<Chunk>,
    /// Sum of the raw samples in each window.
    pub sum: Option<Chunk>,
    /// Least raw sample in each window.
    pub min: Option<Chunk>,
    /// Greatest raw sample in each window.
    pub max: Option<Chunk>,
    /// The counter with resets applied.
    pub counter: Option<Chunk>,
}

impl AggrChunk {
    /// A stretch of raw samples.
    pub fn raw(chunk: Chunk) -> Self {
        Self { raw: Some(chunk), ..Self::default() }
    }

    /// The chunks that are present: raw, count, sum, min, max, counter.
    pub fn parts(&self) -> impl Iterator<Item = &Chunk> {
        [&self.raw, &self.count, &self.sum, &self.min, &self.max, &self.counter].into_iter().flatten()
    }

    /// The same chunks, to be replaced.
    pub fn parts_mut(&mut self) -> impl Iterator<Item = &mut Chunk> {
        [&mut self.raw, &mut self.count, &mut self.sum, &mut self.min, &mut self.max, &mut self.counter]
            .into_iter()
            .flatten()
    }

    /// The claimed range of the first chunk that is present; empty where there is none.
    pub fn range(&self) -> TimeRange {
        self.parts()
            .next()
            .map_or(TimeRange { min: TimeRange::ALL.max, max: TimeRange::ALL.min }, |c| c.range)
    }

    /// Payload bytes of all chunks.
    pub fn size_bytes(&self) -> usize {
        self.parts().map(|c| c.data.len()).sum()
    }
}

/// A label set and the chunks of its samples.
///
/// Chunks are in the order the store sent them: usually by min time, possibly overlapping, possibly reaching
/// beyond what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// What identifies the series.
    pub labels: Labels,
    /// Its samples, still encoded; empty where only labels were asked for.
    pub chunks: Vec<AggrChunk>,
}
