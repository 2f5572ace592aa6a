//! Changes the chunks of one series: removes intervals, and joins series whose labels became equal.

use model::Labels;
use series::{ChunkJoinError, ChunkSample, JoinedChunks, decode_chunk, encode_chunks, join_chunks};
use tsdb::{Chunk, Encoding};

use crate::bucket::rewrite::config::{Interval, ToDelete, covers, touches};
use crate::error::{Cause, Result, ToolError};

/// What became of every sample. `read` must be the sum of the other counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SampleAccount {
    pub(super) read: u64,
    pub(super) written: u64,
    /// Removed by deletions, or with series that relabelling drops.
    pub(super) deleted: u64,
    /// Samples of joined series that have the same time and value as another sample.
    pub(super) duplicates: u64,
}

impl SampleAccount {
    /// Whether no sample was lost or added.
    pub(super) fn is_balanced(&self) -> bool {
        self.read == self.written + self.deleted + self.duplicates
    }

    pub(super) fn add(&mut self, other: Self) {
        self.read += other.read;
        self.written += other.written;
        self.deleted += other.deleted;
        self.duplicates += other.duplicates;
    }
}

/// The remaining chunks of a series.
#[derive(Debug, Default)]
pub(super) struct Remainder {
    pub(super) chunks: Vec<Chunk>,
    /// Number of removed samples.
    pub(super) deleted: u64,
    /// The times of the removed samples, as merged intervals.
    pub(super) intervals: Vec<Interval>,
}

/// Removes `to_delete` from the chunks of a series, which are in the order of their times.
///
/// A chunk without removed samples is copied byte for byte.
///
/// # Errors
/// A damaged chunk, or an interval that ends inside a chunk of aggregates, which cannot be split.
pub(super) fn cut(labels: &Labels, chunks: Vec<Chunk>, to_delete: &ToDelete) -> Result<Remainder> {
    let mut kept = Remainder::default();
    let intervals = match to_delete {
        ToDelete::Nothing => {
            kept.chunks = chunks;
            return Ok(kept);
        }
        ToDelete::Everything => &[Interval { min: i64::MIN, max: i64::MAX }][..],
        ToDelete::Intervals(intervals) => intervals,
    };
    for chunk in chunks {
        let (min, max) = (chunk.range.min, chunk.range.max);
        if !touches(intervals, min, max) {
            kept.chunks.push(chunk);
        } else if covers(intervals, min, max) {
            kept.deleted += chunk.sample_count() as u64;
            kept.note(min.as_millis(), max.as_millis());
        } else if chunk.encoding == Encoding::Aggregates {
            return Err(ToolError::usage(format!(
                "an interval of --rewrite.to-delete-config ends inside the aggregates of {labels} from {min} to {max}, \
                 which cannot be split: give intervals of whole chunks, or rewrite the raw block and downsample it again"
            )));
        } else {
            kept.cut_chunk(labels, &chunk, intervals)?;
        }
    }
    Ok(kept)
}

impl Remainder {
    fn cut_chunk(&mut self, labels: &Labels, chunk: &Chunk, intervals: &[Interval]) -> Result<()> {
        let mut samples = Vec::new();
        decode_chunk(chunk, &mut samples).map_err(|error| damaged(labels, error))?;
        let before = samples.len();
        samples.retain(|sample| {
            let millis = sample.at.as_millis();
            let is_deleted = intervals.iter().any(|i| i.min <= millis && millis <= i.max);
            if is_deleted {
                self.note(millis, millis);
            }
            !is_deleted
        });
        self.deleted += (before - samples.len()) as u64;
        self.chunks.extend(encode(labels, &samples)?);
        Ok(())
    }

    /// Adds a time to the removed intervals; times ascend.
    fn note(&mut self, min: i64, max: i64) {
        match self.intervals.last_mut() {
            // Consecutive samples are one interval, because there is no sample between them.
            Some(last) if self.chunks.last().is_none_or(|chunk| chunk.range.max.as_millis() < last.min) => {
                last.max = max;
            }
            _ => self.intervals.push(Interval { min, max }),
        }
    }
}

fn encode(labels: &Labels, samples: &[ChunkSample]) -> Result<Vec<Chunk>> {
    encode_chunks(samples).map_err(|error| damaged(labels, error))
}

fn damaged(labels: &Labels, error: impl std::fmt::Display) -> ToolError {
    ToolError::new(Cause::Damaged, format!("series {labels}: {error}"))
}

/// Joins the chunks of series whose labels became equal, in the order of time. Returns the number of dropped duplicates too.
///
/// # Errors
/// A damaged chunk, two samples with the same time and different values, or aggregates that overlap.
pub(super) fn join(labels: &Labels, chunks: Vec<Chunk>) -> Result<JoinedChunks> {
    join_chunks(chunks).map_err(|error| match error {
        ChunkJoinError::Damaged(error) => damaged(labels, error),
        ChunkJoinError::Append(error) => damaged(labels, error),
        ChunkJoinError::Aggregates => ToolError::new(
            Cause::Conflict,
            format!("several downsampled series become {labels} by relabelling; aggregates cannot be joined"),
        ),
        ChunkJoinError::Conflict { at } => ToolError::new(
            Cause::Conflict,
            format!(
                "several series become {labels} by relabelling and have different values at {at}: \
                 keep a label that distinguishes them"
            ),
        ),
    })
}

#[cfg(test)]
mod tests {
    use model::Timestamp;
    use series::ChunkSampleValue;

    use super::*;

    fn samples(times: impl IntoIterator<Item = i64>, value: f64) -> Vec<ChunkSample> {
        let sample = |millis| ChunkSample {
            at: Timestamp::from_millis(millis),
            start: Timestamp::EPOCH,
            value: ChunkSampleValue::Float(value),
            encoding: Encoding::Xor,
        };
        times.into_iter().map(sample).collect()
    }

    fn chunk(times: std::ops::Range<i64>, value: f64) -> Chunk {
        encode(&Labels::empty(), &samples(times, value)).unwrap().remove(0)
    }

    fn times(chunks: &[Chunk]) -> Vec<i64> {
        let mut samples = Vec::new();
        chunks.iter().for_each(|chunk| decode_chunk(chunk, &mut samples).unwrap());
        samples.iter().map(|sample| sample.at.as_millis()).collect()
    }

    #[test]
    fn intervals_are_cut_out_and_untouched_chunks_stay_as_they_are() {
        let chunks = vec![chunk(0..10, 1.0), chunk(10..20, 1.0), chunk(20..30, 1.0)];
        let to_delete = ToDelete::Intervals(vec![Interval { min: 8, max: 22 }]);
        let kept = cut(&Labels::empty(), chunks.clone(), &to_delete).unwrap();
        assert_eq!(times(&kept.chunks), (0..8).chain(23..30).collect::<Vec<_>>());
        assert_eq!((kept.deleted, kept.intervals), (15, vec![Interval { min: 8, max: 22 }]));

        let kept =
            cut(&Labels::empty(), chunks.clone(), &ToDelete::Intervals(vec![Interval { min: 40, max: 50 }]));
        assert_eq!(kept.unwrap().chunks, chunks);
        let kept = cut(&Labels::empty(), chunks, &ToDelete::Everything).unwrap();
        assert_eq!((kept.chunks.len(), kept.deleted), (0, 30));
        assert_eq!(kept.intervals, [Interval { min: 0, max: 29 }]);
    }

    #[test]
    fn two_intervals_are_noted_apart() {
        let to_delete = ToDelete::Intervals(vec![Interval { min: 2, max: 3 }, Interval { min: 15, max: 16 }]);
        let kept = cut(&Labels::empty(), vec![chunk(0..10, 1.0), chunk(10..20, 1.0)], &to_delete).unwrap();
        assert_eq!(kept.intervals, [Interval { min: 2, max: 3 }, Interval { min: 15, max: 16 }]);
        assert_eq!(kept.deleted, 4);
    }

    #[test]
    fn series_that_become_equal_are_joined_without_losing_a_sample() {
        let joined = join(&Labels::empty(), vec![chunk(0..10, 1.0), chunk(5..15, 1.0)]).unwrap();
        assert_eq!((times(&joined.chunks), joined.duplicates), ((0..15).collect(), 5));

        let error = join(&Labels::empty(), vec![chunk(0..10, 1.0), chunk(9..15, 2.0)]).unwrap_err();
        assert_eq!(error.cause(), Cause::Conflict);
        assert!(error.to_string().contains("different values at 9"), "{error}");
    }
}
