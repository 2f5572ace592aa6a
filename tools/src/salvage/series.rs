//! Reads the chunks of series with equal labels, and puts their samples in order.

use model::{Labels, TimeRange, Timestamp};
use series::{ChunkSample, decode_chunk, encode_chunks};
use tsdb::{BlockPart, BlockSalvage, Chunk, ChunkMeta, ChunkRef, Encoding, SalvagedSeries};

use crate::error::Result;
use crate::salvage::losses::Losses;

/// Reads chunks and knows where each of them ends.
pub(super) struct SeriesReader {
    block: BlockSalvage,
    /// All chunks of the index, sorted.
    references: Vec<ChunkRef>,
}

/// The samples of one series, in order.
#[derive(Default)]
pub(super) struct MergedSamples {
    /// Chunks that do not overlap, in the order of time, with the times of their samples.
    pub(super) chunks: Vec<Chunk>,
    pub(super) read: u64,
    pub(super) deleted: u64,
    /// Samples that have the time and value of another one.
    pub(super) duplicates: u64,
}

/// A chunk that was read, with its samples.
enum ReadChunk {
    /// Aggregates are kept as they are.
    Aggregates(Chunk),
    Samples {
        chunk: Chunk,
        samples: Vec<ChunkSample>,
        /// Whether the chunk can be kept byte for byte.
        is_whole: bool,
    },
}

impl SeriesReader {
    pub(super) fn new(block: BlockSalvage, all: &[SalvagedSeries]) -> Self {
        let mut references: Vec<ChunkRef> =
            all.iter().flat_map(|series| series.chunks.iter().map(|chunk| chunk.reference)).collect();
        references.sort_unstable();
        Self { block, references }
    }

    /// Reads the chunks of all series of `group`, which have these labels, and merges them.
    ///
    /// Of several samples with one time, the first in the order of the index is kept.
    ///
    /// # Errors
    /// The log of losses cannot be written.
    pub(super) fn merge(
        &mut self,
        labels: &Labels,
        group: &[SalvagedSeries],
        losses: &mut Losses,
    ) -> Result<MergedSamples> {
        let (mut merged, mut chunks) = (MergedSamples::default(), Vec::new());
        for series in group {
            series.changes.iter().try_for_each(|change| losses.changed(labels, change))?;
            let deleted = self.block.tombstones().of(series.reference).to_vec();
            for meta in &series.chunks {
                if let Some(read) = self.read(labels, meta, losses)? {
                    merged.read += read.samples();
                    let (left, gone) = read.without(&deleted);
                    merged.deleted += gone.deleted;
                    if gone.lost {
                        let what = "tombstones delete a part of its aggregates, which cannot be split";
                        losses.chunk(labels, meta, &self.bytes(meta), format_args!("{what}"))?;
                    }
                    chunks.extend(left);
                }
            }
        }
        if chunks.is_empty() && merged.deleted == 0 {
            losses.whole_series(labels)?;
        }
        merged.put_in_order(labels, chunks, losses)?;
        Ok(merged)
    }

    /// Reads a chunk; `None` if nothing of it can be read.
    fn read(&mut self, labels: &Labels, meta: &ChunkMeta, losses: &mut Losses) -> Result<Option<ReadChunk>> {
        let mut lost = |reader: &Self, what: std::fmt::Arguments<'_>| {
            losses.chunk(labels, meta, &reader.bytes(meta), what)
        };
        let chunk = match self.block.chunk(meta) {
            Ok(chunk) => chunk,
            Err(error) => return lost(self, format_args!("{}", error.problem)).map(|()| None),
        };
        if chunk.encoding == Encoding::Aggregates {
            return match aggregates(chunk) {
                Ok(read) => Ok(Some(read)),
                Err(what) => lost(self, format_args!("{what}")).map(|()| None),
            };
        }
        let (mut samples, mut is_whole) = (Vec::new(), true);
        if let Err(error) = decode_chunk(&chunk, &mut samples) {
            let part = chunk.readable_part().filter(|part| decode_chunk(part, &mut samples).is_ok());
            let (read, of) = (part.map_or(0, |_| samples.len()), chunk.sample_count());
            lost(self, format_args!("{error}; {read} of {of} samples were read"))?;
            is_whole = false;
        }
        let times = samples.iter().map(|sample| sample.at);
        let Some((first, last)) = times.clone().min().zip(times.max()) else { return Ok(None) };
        let range = TimeRange::new(first, last);
        if !(range.overlaps(&meta.range) || first == meta.range.min || last == meta.range.max) {
            let what =
                format_args!("its samples are from {first} to {last}, so it belongs to another series");
            return lost(self, what).map(|()| None);
        }
        is_whole &= samples.windows(2).all(|pair| pair[0].at < pair[1].at);
        Ok(Some(ReadChunk::Samples { chunk: Chunk { range, ..chunk }, samples, is_whole }))
    }

    /// Where a chunk is: up to the next chunk of the index, or to the end of the segment.
    fn bytes(&self, meta: &ChunkMeta) -> String {
        let (segment, from) = (meta.reference.segment(), meta.reference.offset());
        let next = self.references.partition_point(|other| *other <= meta.reference);
        let next = self.references.get(next).filter(|next| next.segment() == segment);
        let to = next.map_or_else(|| self.block.segment_bytes(segment), |next| next.offset());
        match to > from {
            true => format!("{} bytes {from} to {to}", BlockPart::Segment(segment)),
            false => format!("{} at byte {from}", BlockPart::Segment(segment)),
        }
    }
}

/// Checks a chunk of aggregates: all of its parts must be readable, at the same times.
fn aggregates(mut chunk: Chunk) -> Result<ReadChunk, String> {
    let aggregates = chunk.aggregates().map_err(|error| error.to_string())?;
    let times = |part: &Chunk| -> Result<Vec<Timestamp>, String> {
        let mut samples = Vec::new();
        decode_chunk(part, &mut samples).map_err(|error| error.to_string())?;
        Ok(samples.into_iter().map(|sample| sample.at).collect())
    };
    let Some(count) = &aggregates.count else { return Err("it has no count".to_owned()) };
    let count = times(count)?;
    let (Some(first), Some(last)) = (count.first(), count.last()) else {
        return Err("it has no samples".to_owned());
    };
    for part in [&aggregates.count, &aggregates.sum, &aggregates.min, &aggregates.max].into_iter().flatten() {
        let own = times(part)?;
        let ascends = own.windows(2).all(|pair| pair[0] < pair[1]);
        if !ascends || own.first() != Some(first) || own.last() != Some(last) {
            return Err("its aggregates have different times, or times that do not ascend".to_owned());
        }
    }
    if let Some(counter) = &aggregates.counter {
        times(counter)?;
    }
    let range = TimeRange::new(*first, *last);
    if !range.overlaps(&chunk.range) {
        return Err(format!("its samples are from {first} to {last}, so it belongs to another series"));
    }
    chunk.range = range;
    Ok(ReadChunk::Aggregates(chunk))
}

/// What tombstones have done to a chunk.
#[derive(Default)]
struct Deletion {
    deleted: u64,
    /// Whether samples that are not deleted had to be dropped too.
    lost: bool,
}

impl ReadChunk {
    fn samples(&self) -> u64 {
        match self {
            Self::Aggregates(chunk) => chunk.sample_count() as u64,
            Self::Samples { samples, .. } => samples.len() as u64,
        }
    }

    fn chunk(&self) -> &Chunk {
        match self {
            Self::Aggregates(chunk) | Self::Samples { chunk, .. } => chunk,
        }
    }

    /// Removes the samples in the intervals. `None` if none is left.
    fn without(mut self, intervals: &[TimeRange]) -> (Option<Self>, Deletion) {
        let (range, all) = (self.chunk().range, self.samples());
        if !intervals.iter().any(|interval| interval.overlaps(&range)) {
            return (Some(self), Deletion::default());
        }
        match &mut self {
            Self::Aggregates(_) => {
                let covers = |gone: &TimeRange| gone.contains(range.min) && gone.contains(range.max);
                let lost = !intervals.iter().any(covers);
                (None, Deletion { deleted: all, lost })
            }
            Self::Samples { samples, is_whole, .. } => {
                samples.retain(|sample| !intervals.iter().any(|gone| gone.contains(sample.at)));
                let left = samples.len() as u64;
                *is_whole &= left == all;
                ((left > 0).then_some(self), Deletion { deleted: all - left, lost: false })
            }
        }
    }
}

impl MergedSamples {
    /// Puts the chunks of a series, which are in the order of the index, in the order of time.
    fn put_in_order(&mut self, labels: &Labels, chunks: Vec<ReadChunk>, losses: &mut Losses) -> Result<()> {
        let are_in_order =
            chunks.windows(2).all(|pair| pair[0].chunk().range.max < pair[1].chunk().range.min);
        let is_whole = |chunk: &ReadChunk| !matches!(chunk, ReadChunk::Samples { is_whole: false, .. });
        if are_in_order && chunks.iter().all(is_whole) {
            self.chunks = chunks.into_iter().map(|chunk| chunk.chunk().clone()).collect();
            return Ok(());
        }
        if chunks.iter().any(|chunk| matches!(chunk, ReadChunk::Aggregates(_))) {
            return self.put_aggregates_in_order(labels, chunks, losses);
        }
        let mut samples: Vec<ChunkSample> = Vec::new();
        for chunk in chunks {
            if let ReadChunk::Samples { samples: own, .. } = chunk {
                samples.extend(own);
            }
        }
        // The sort is stable: of samples with one time, the first in the order of the index is kept.
        samples.sort_by_key(|sample| sample.at);
        let (mut conflicts, mut first_conflict) = (0, None);
        samples.dedup_by(|later, kept| {
            if later.at != kept.at {
                return false;
            }
            if later.value == kept.value {
                self.duplicates += 1;
            } else {
                conflicts += 1;
                first_conflict.get_or_insert(later.at);
            }
            true
        });
        if let Some(first) = first_conflict {
            losses.conflicts(labels, conflicts, first)?;
        }
        match encode_chunks(&samples) {
            Ok(chunks) => self.chunks = chunks,
            Err(error) => losses.unwritable(labels, samples.len() as u64, &error)?,
        }
        Ok(())
    }

    /// Aggregates cannot be joined: of those that overlap, the first in time is kept.
    fn put_aggregates_in_order(
        &mut self,
        labels: &Labels,
        mut chunks: Vec<ReadChunk>,
        losses: &mut Losses,
    ) -> Result<()> {
        chunks.sort_by_key(|chunk| chunk.chunk().range.min);
        for read in chunks {
            let (samples, chunk) = (read.samples(), read.chunk());
            match self.chunks.last() {
                Some(last) if last == chunk => self.duplicates += samples,
                Some(last) if last.range.max >= chunk.range.min => {
                    losses.conflicts(labels, samples, chunk.range.min)?;
                }
                _ if matches!(read, ReadChunk::Aggregates(_)) => self.chunks.push(chunk.clone()),
                _ => losses.conflicts(labels, samples, chunk.range.min)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use series::ChunkSampleValue;

    use super::*;

    fn read(times: impl IntoIterator<Item = i64>, value: f64) -> ReadChunk {
        let sample = |millis| ChunkSample {
            at: Timestamp::from_millis(millis),
            start: Timestamp::EPOCH,
            value: ChunkSampleValue::Float(value),
            encoding: Encoding::Xor,
        };
        let samples: Vec<ChunkSample> = times.into_iter().map(sample).collect();
        let chunk = encode_chunks(&samples).unwrap().remove(0);
        ReadChunk::Samples { chunk, samples, is_whole: true }
    }

    fn merge(chunks: Vec<ReadChunk>) -> (MergedSamples, Losses, Vec<(i64, ChunkSampleValue)>) {
        let (mut merged, mut losses) = (MergedSamples::default(), Losses::new(10, None));
        merged.put_in_order(&Labels::empty(), chunks, &mut losses).unwrap();
        let mut samples = Vec::new();
        merged.chunks.iter().for_each(|chunk| decode_chunk(chunk, &mut samples).unwrap());
        let samples = samples.into_iter().map(|sample| (sample.at.as_millis(), sample.value)).collect();
        (merged, losses, samples)
    }

    #[test]
    fn the_first_of_two_samples_with_one_time_is_kept_and_the_other_reported() {
        let (merged, losses, samples) = merge(vec![read(10..20, 1.0), read(0..15, 2.0)]);
        let expected = (0..20).map(|at| (at, ChunkSampleValue::Float(if at < 10 { 2.0 } else { 1.0 })));
        assert_eq!(samples, expected.collect::<Vec<_>>());
        assert_eq!((merged.duplicates, losses.samples), (0, 5));
        let lines: Vec<String> = losses.lines().collect();
        assert_eq!(
            lines,
            [
                "lost: series {}: 5 samples from 1970-01-01T00:00:00.01Z on with the time of another sample and another value"
            ]
        );
    }

    #[test]
    fn equal_samples_are_duplicates_and_ordered_chunks_are_not_encoded_again() {
        let (merged, losses, samples) = merge(vec![read(0..10, 1.0), read(5..15, 1.0)]);
        assert_eq!((samples.len(), merged.duplicates, losses.is_any()), (15, 5, false));
        let chunks = [read(0..10, 1.0), read(10..20, 1.0)];
        let before: Vec<Chunk> = chunks.iter().map(|chunk| chunk.chunk().clone()).collect();
        assert_eq!(merge(chunks.into()).0.chunks, before);
    }

    #[test]
    fn aggregates_that_overlap_are_lost_and_equal_ones_are_duplicates() {
        let aggregates = |times: std::ops::Range<i64>| {
            let ReadChunk::Samples { chunk, .. } = read(times, 1.0) else { unreachable!() };
            ReadChunk::Aggregates(chunk)
        };
        let chunks = vec![aggregates(10..20), aggregates(0..10), aggregates(0..10), aggregates(5..12)];
        let (merged, losses, samples) = merge(chunks);
        assert_eq!((samples.len(), merged.duplicates, losses.samples), (20, 10, 7));
    }
}
