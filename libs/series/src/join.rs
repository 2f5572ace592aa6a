//! Joining the chunks of one series without losing a sample: of series that became equal, or of blocks that overlap.

use model::Timestamp;
use tsdb::{AppendError, Chunk, ChunkError, Encoding};

use crate::stored::{decode_chunk, encode_chunks};

/// Chunks in the order of time that do not overlap.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JoinedChunks {
    /// The chunks.
    pub chunks: Vec<Chunk>,
    /// Samples that were there several times, with equal time and value, and were dropped but for one.
    pub duplicates: u64,
    /// Samples that were dropped because an earlier source has another value at their time.
    pub conflicts: u64,
}

/// Chunks that cannot be joined.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ChunkJoinError {
    /// A chunk that overlaps another one is damaged.
    #[error(transparent)]
    Damaged(#[from] ChunkError),
    /// Two samples have the same time and different values.
    #[error("two samples at {at} have different values")]
    Conflict {
        /// Their time.
        at: Timestamp,
    },
    /// Downsampled chunks overlap. Windows of different aggregates cannot become one.
    #[error("chunks of aggregates overlap")]
    Aggregates,
    /// The joined samples cannot be encoded.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Joins the chunks of one series, which may be in any order. A chunk that overlaps no other one stays as it is, byte for
/// byte; chunks that overlap are decoded, joined sample by sample and [encoded again](encode_chunks).
///
/// # Errors
/// When chunks that overlap are damaged, contain aggregates, or have two values for one time.
pub fn join_chunks(chunks: Vec<Chunk>) -> Result<JoinedChunks, ChunkJoinError> {
    join(vec![chunks], OnConflict::Fail)
}

/// Joins the chunks that several sources have of one series, as [`join_chunks`] does. Where two sources have different values
/// for one time, that of the first source is taken, and the other one is counted.
///
/// # Errors
/// When chunks that overlap are damaged or contain aggregates.
pub fn unite_chunks(sources: Vec<Vec<Chunk>>) -> Result<JoinedChunks, ChunkJoinError> {
    join(sources, OnConflict::TakeFirst)
}

/// What to do about two values for one time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OnConflict {
    Fail,
    TakeFirst,
}

fn join(sources: Vec<Vec<Chunk>>, on_conflict: OnConflict) -> Result<JoinedChunks, ChunkJoinError> {
    let numbered = sources.into_iter().enumerate();
    let mut chunks: Vec<(usize, Chunk)> =
        numbered.flat_map(|(source, chunks)| chunks.into_iter().map(move |chunk| (source, chunk))).collect();
    chunks.sort_by_key(|(_, chunk)| (chunk.range.min, chunk.range.max));
    let mut joined = JoinedChunks { chunks: Vec::with_capacity(chunks.len()), ..JoinedChunks::default() };
    let mut rest = chunks.into_iter().peekable();
    while let Some(first) = rest.next() {
        let mut max = first.1.range.max;
        let mut overlapping = vec![first];
        while let Some(next) = rest.next_if(|(_, next)| next.range.min <= max) {
            // A whole chunk that is there twice, as in blocks that were cut twice.
            if overlapping.last().is_some_and(|(_, last)| *last == next.1) {
                joined.duplicates += next.1.sample_count() as u64;
                continue;
            }
            max = max.max(next.1.range.max);
            overlapping.push(next);
        }
        if overlapping.len() == 1 {
            joined.chunks.extend(overlapping.pop().map(|(_, chunk)| chunk));
        } else {
            joined.add(overlapping, on_conflict)?;
        }
    }
    Ok(joined)
}

impl JoinedChunks {
    /// Adds the samples of chunks that overlap. Of samples at one time, that of the first source is taken.
    fn add(
        &mut self,
        mut overlapping: Vec<(usize, Chunk)>,
        on_conflict: OnConflict,
    ) -> Result<(), ChunkJoinError> {
        overlapping.sort_by_key(|(source, _)| *source);
        let mut samples = Vec::new();
        for (_, chunk) in &overlapping {
            if chunk.encoding == Encoding::Aggregates {
                return Err(ChunkJoinError::Aggregates);
            }
            decode_chunk(chunk, &mut samples)?;
        }
        // The sort is stable, so the samples of the first source stay first.
        samples.sort_by_key(|sample| sample.at);
        let (before, mut conflicts, mut first_conflict) = (samples.len(), 0, None);
        samples.dedup_by(|next, kept| {
            let same_time = next.at == kept.at;
            if same_time && next.value != kept.value {
                conflicts += 1;
                first_conflict.get_or_insert(next.at);
            }
            same_time
        });
        if let Some(at) = first_conflict.filter(|_| on_conflict == OnConflict::Fail) {
            return Err(ChunkJoinError::Conflict { at });
        }
        self.conflicts += conflicts;
        self.duplicates += (before - samples.len()) as u64 - conflicts;
        self.chunks.extend(encode_chunks(&samples)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::chunk;

    fn constant(times: std::ops::Range<i64>, value: f64) -> Chunk {
        chunk(&times.map(|t| (t, value)).collect::<Vec<_>>())
    }

    fn times(chunks: &[Chunk]) -> Vec<i64> {
        let mut samples = Vec::new();
        chunks.iter().for_each(|chunk| decode_chunk(chunk, &mut samples).unwrap());
        samples.iter().map(|sample| sample.at.as_millis()).collect()
    }

    #[test]
    fn chunks_that_do_not_overlap_are_sorted_and_stay_as_they_are() {
        let joined = join_chunks(vec![constant(20..30, 2.0), constant(0..10, 1.0)]).unwrap();
        assert_eq!(joined.chunks, [constant(0..10, 1.0), constant(20..30, 2.0)]);
        assert_eq!(joined.duplicates, 0);
        let damaged = Chunk { data: bytes::Bytes::new(), ..constant(0..10, 1.0) };
        assert_eq!(join_chunks(vec![damaged.clone()]).unwrap().chunks, [damaged]);
    }

    #[test]
    fn chunks_that_overlap_are_joined_without_losing_a_sample() {
        let joined = join_chunks(vec![constant(0..10, 1.0), constant(5..15, 1.0)]).unwrap();
        assert_eq!((times(&joined.chunks), joined.duplicates), ((0..15).collect(), 5));
    }

    #[test]
    fn of_two_values_for_one_time_that_of_the_first_source_is_taken() {
        let (a, b) = (constant(5..15, 1.0), constant(0..10, 2.0));
        let united = unite_chunks(vec![vec![a.clone()], vec![b, a]]).unwrap();
        assert_eq!((times(&united.chunks), united.duplicates, united.conflicts), ((0..15).collect(), 10, 5));
        let mut samples = Vec::new();
        united.chunks.iter().for_each(|chunk| decode_chunk(chunk, &mut samples).unwrap());
        let expected = |at: i64| if at < 5 { 2.0 } else { 1.0 };
        let is_expected = |sample: &crate::ChunkSample| {
            sample.value == crate::ChunkSampleValue::Float(expected(sample.at.as_millis()))
        };
        assert!(samples.iter().all(is_expected), "{samples:?}");
    }

    #[test]
    fn a_chunk_that_is_there_twice_is_taken_once_and_stays_as_it_is() {
        let aggregates = Chunk { encoding: Encoding::Aggregates, ..constant(0..10, 1.0) };
        for chunk in [constant(0..10, 1.0), Chunk { data: bytes::Bytes::new(), ..constant(0..10, 1.0) }] {
            let united = unite_chunks(vec![vec![chunk.clone()], vec![chunk.clone()]]).unwrap();
            assert_eq!(
                (united.chunks, united.duplicates),
                (vec![chunk.clone()], chunk.sample_count() as u64)
            );
        }
        let united = unite_chunks(vec![vec![aggregates.clone()], vec![aggregates.clone()]]).unwrap();
        assert_eq!(united.chunks, [aggregates]);
    }

    #[test]
    fn what_cannot_be_joined_is_an_error() {
        let error = join_chunks(vec![constant(0..10, 1.0), constant(9..15, 2.0)]).unwrap_err();
        assert_eq!(error, ChunkJoinError::Conflict { at: Timestamp::from_millis(9) });
        let damaged = Chunk { data: bytes::Bytes::new(), ..constant(0..10, 1.0) };
        let error = join_chunks(vec![damaged, constant(9..15, 1.0)]).unwrap_err();
        assert!(matches!(error, ChunkJoinError::Damaged(_)), "{error}");
        let aggregates = |times| Chunk { encoding: Encoding::Aggregates, ..constant(times, 1.0) };
        assert_eq!(
            join_chunks(vec![aggregates(0..10), aggregates(5..15)]).unwrap_err(),
            ChunkJoinError::Aggregates
        );
    }
}
