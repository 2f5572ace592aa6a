//! A series with its chunks, as StoreAPI sends it.

use std::time::Duration;

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
    /// Time between the windows of aggregates; zero for raw samples, and if the store does not say.
    pub resolution: Duration,
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
            resolution: Duration::ZERO,
        })
    }

    /// The chunk with the producer of its samples.
    pub fn from_producer(self, producer: Option<Producer>) -> Self {
        Self { producer, ..self }
    }

    /// The chunk with the time between its windows, unless it has raw samples.
    pub fn with_resolution(self, resolution: Duration) -> Self {
        let resolution = if self.raw.is_some() { Duration::ZERO } else { resolution };
        Self { resolution, ..self }
    }

    /// Time between the windows of aggregates; zero for raw samples. If the store does not say it, such as one of Thanos, it is
    /// estimated: 1 hour where windows are at least half an hour apart on average, otherwise 5 minutes.
    pub fn estimated_resolution(&self) -> Duration {
        const HALF_AN_HOUR: i64 = 1_800_000;
        if self.raw.is_some() || !self.resolution.is_zero() {
            return self.resolution;
        }
        let windows = self.parts().next().map_or(0, Chunk::sample_count) as i64;
        let length = self.range().max.millis_since(self.range().min);
        match length.checked_div(windows - 1) {
            Some(distance) if windows > 1 && distance >= HALF_AN_HOUR => Duration::from_secs(3600),
            _ => Duration::from_secs(300),
        }
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
        // The most frequent case.
        if let Some(raw) = &self.raw {
            return raw.range;
        }
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

    #[test]
    fn a_resolution_that_no_store_says_is_estimated() {
        let sums = |times: &[i64]| AggrChunk {
            sum: Some(chunk(&times.iter().map(|t| (*t, 1.0)).collect::<Vec<_>>())),
            ..AggrChunk::default()
        };
        let [five_minutes, hour] = [300, 3600].map(Duration::from_secs);
        let estimated = |times: &[i64]| sums(times).estimated_resolution();
        assert_eq!(estimated(&[299_999, 599_999, 1_199_999]), five_minutes);
        assert_eq!(estimated(&[3_599_999, 7_199_999, 9_000_000]), hour);
        assert_eq!(
            (estimated(&[299_999]), AggrChunk::default().estimated_resolution()),
            (five_minutes, five_minutes)
        );
        assert_eq!(sums(&[299_999]).with_resolution(hour).estimated_resolution(), hour);
        let raw = AggrChunk::raw(chunk(&[(1, 1.0)])).with_resolution(hour);
        assert_eq!((raw.resolution, raw.estimated_resolution()), (Duration::ZERO, Duration::ZERO));
    }
}
