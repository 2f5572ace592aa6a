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
pub fn join_chunks(mut chunks: Vec<Chunk>) -> Result<JoinedChunks, ChunkJoinError> {
    chunks.sort_by_key(|chunk| (chunk.range.min, chunk.range.max));
    let mut joined = JoinedChunks { chunks: Vec::with_capacity(chunks.len()), duplicates: 0 };
    let mut rest = chunks.into_iter().peekable();
    while let Some(first) = rest.next() {
        let mut max = first.range.max;
        let mut overlapping = vec![first];
        while let Some(next) = rest.next_if(|next| next.range.min <= max) {
            max = max.max(next.range.max);
            overlapping.push(next);
        }
        if overlapping.len() == 1 {
            joined.chunks.append(&mut overlapping);
        } else {
            joined.add(&overlapping)?;
        }
    }
    Ok(joined)
}

impl JoinedChunks {
    /// Adds the samples of chunks that overlap.
    fn add(&mut self, overlapping: &[Chunk]) -> Result<(), ChunkJoinError> {
        let mut samples = Vec::new();
        for chunk in overlapping {
            if chunk.encoding == Encoding::Aggregates {
                return Err(ChunkJoinError::Aggregates);
            }
            decode_chunk(chunk, &mut samples)?;
        }
        samples.sort_by_key(|sample| sample.at);
        let before = samples.len();
        let mut conflict = None;
        samples.dedup_by(|next, kept| {
            let same_time = next.at == kept.at;
            if same_time && next.value != kept.value {
                conflict.get_or_insert(next.at);
            }
            same_time
        });
        if let Some(at) = conflict {
            return Err(ChunkJoinError::Conflict { at });
        }
        self.duplicates += (before - samples.len()) as u64;
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
    fn what_cannot_be_joined_is_an_error() {
        let error = join_chunks(vec![constant(0..10, 1.0), constant(9..15, 2.0)]).unwrap_err();
        assert_eq!(error, ChunkJoinError::Conflict { at: Timestamp::from_millis(9) });
        let damaged = Chunk { data: bytes::Bytes::new(), ..constant(0..10, 1.0) };
        let error = join_chunks(vec![damaged, constant(9..15, 1.0)]).unwrap_err();
        assert!(matches!(error, ChunkJoinError::Damaged(_)), "{error}");
        let aggregates = Chunk { encoding: Encoding::Aggregates, ..constant(0..10, 1.0) };
        assert_eq!(
            join_chunks(vec![aggregates.clone(), aggregates]).unwrap_err(),
            ChunkJoinError::Aggregates
        );
    }
}
