//! A series with its chunks, as StoreAPI sends it.

use model::{Labels, Sample, TimeRange, Timestamp};
use tsdb::{Aggregate, AppendError, Chunk, ChunkBuilder, ChunkError, Encoding};

use crate::Producer;

/// The samples of a series in one range of time: raw samples, or the aggregates of a downsampled block.
///
/// Raw data is in `raw` only. Downsampled data is in the aggregates that were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AggrChunk {
    /// The samples as they were scraped.
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
    /// Where the samples come from; none if the store does not say.
    pub producer: Option<Producer>,
}

impl AggrChunk {
    /// A chunk of raw samples.
    pub fn raw(chunk: Chunk) -> Self {
        Self { raw: Some(chunk), ..Self::default() }
    }

    /// Chunks of floats, encoded as XOR and cut where Prometheus cuts.
    ///
    /// # Errors
    /// When the samples do not ascend in time.
    pub fn from_floats(samples: &[Sample]) -> Result<Vec<Self>, AppendError> {
        let mut builder = ChunkBuilder::new();
        samples
            .iter()
            .try_for_each(|sample| builder.append_float(Encoding::Xor, *sample, Timestamp::EPOCH))?;
        Ok(builder.finish()?.into_iter().map(Self::raw).collect())
    }

    /// A chunk of a block as a store sends it: raw samples as they are, and of aggregates those that are `wanted`. An
    /// aggregate that the chunk lacks is left out; histograms have neither minimum nor maximum.
    ///
    /// # Errors
    /// When a chunk of aggregates is damaged. The samples themselves are not decoded.
    pub fn from_block(chunk: Chunk, wanted: &[Aggregate]) -> Result<Self, ChunkError> {
        if chunk.encoding != Encoding::Aggregates {
            return Ok(Self::raw(chunk));
        }
        let stored = chunk.aggregates()?;
        let part = |aggregate, part: Option<Chunk>| part.filter(|_| wanted.contains(&aggregate));
        Ok(Self {
            raw: None,
            count: part(Aggregate::Count, stored.count),
            sum: part(Aggregate::Sum, stored.sum),
            min: part(Aggregate::Min, stored.min),
            max: part(Aggregate::Max, stored.max),
            counter: part(Aggregate::Counter, stored.counter),
            producer: None,
        })
    }

    /// The chunk with the producer of its samples.
    pub fn from_producer(self, producer: Option<Producer>) -> Self {
        Self { producer, ..self }
    }

    /// One of the chunks; none where it is absent.
    pub fn part(&self, aggregate: Aggregate) -> Option<&Chunk> {
        match aggregate {
            Aggregate::Raw => self.raw.as_ref(),
            Aggregate::Count => self.count.as_ref(),
            Aggregate::Sum => self.sum.as_ref(),
            Aggregate::Min => self.min.as_ref(),
            Aggregate::Max => self.max.as_ref(),
            Aggregate::Counter => self.counter.as_ref(),
        }
    }

    /// The chunks that are present: raw, count, sum, min, max, counter.
    pub fn parts(&self) -> impl Iterator<Item = &Chunk> {
        [&self.raw, &self.count, &self.sum, &self.min, &self.max, &self.counter].into_iter().flatten()
    }

    /// The same chunks, mutable.
    pub fn parts_mut(&mut self) -> impl Iterator<Item = &mut Chunk> {
        [&mut self.raw, &mut self.count, &mut self.sum, &mut self.min, &mut self.max, &mut self.counter]
            .into_iter()
            .flatten()
    }

    /// The range of the first chunk that is present, as it claims; empty where there is none.
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
/// Chunks are in the order in which the store sent them: usually by min time. They may overlap, and may begin before or end
/// after the range of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// The labels, which identify the series.
    pub labels: Labels,
    /// Its samples, still encoded; empty where only labels were asked for.
    pub chunks: Vec<AggrChunk>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::chunk;

    #[test]
    fn a_chunk_of_a_block_gives_the_wanted_aggregates_or_its_raw_samples() {
        let raw = chunk(&[(1, 1.0), (2, 2.0)]);
        let sent = AggrChunk::from_block(raw.clone(), &[Aggregate::Max]).unwrap();
        assert_eq!(sent, AggrChunk::raw(raw.clone()));

        let part = |value| Some(chunk(&[(1, value), (2, value)]));
        let stored = tsdb::Aggregates { count: part(2.0), sum: part(5.0), ..tsdb::Aggregates::default() };
        let stored = stored.encode(raw.range);
        let wanted = [Aggregate::Raw, Aggregate::Sum, Aggregate::Max];
        let sent = AggrChunk::from_block(stored.clone(), &wanted).unwrap();
        assert_eq!(sent, AggrChunk { sum: part(5.0), ..AggrChunk::default() });
        assert_eq!(sent.part(Aggregate::Sum), part(5.0).as_ref());
        assert_eq!(AggrChunk::from_block(stored.clone(), &[]).unwrap(), AggrChunk::default());

        let damaged = Chunk { data: stored.data.slice(..3), ..stored };
        assert!(AggrChunk::from_block(damaged, &wanted).is_err());
    }
}
