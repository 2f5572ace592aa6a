//! Downsampling: the samples of a series become aggregates of windows of 5 minutes, and those become aggregates of 1 hour.
//!
//! ```text
//! raw samples       . . . .|. . . . .|. . R . .|. .    |: end of a window     R: the counter was reset
//! count, sum,               x         x         x   x   one point for each window that has samples, at its end,
//! min, max                                              but not after the last sample of the chunk
//! counter, floats   x       x         x         x   xx  the first raw value; the growth up to the end of each window added to
//!                                                       it; the last raw value, at the time of the point before it
//! counter,          x       x         x x|x     x   x   the first raw histogram; the raw histogram at the end of each window.
//! histograms                                            At a reset, a new chunk begins
//! ```
//!
//! A window ends where time is a multiple of the resolution, and its point is 1 ms before that. NaNs and staleness markers are
//! dropped; histograms whose sum is NaN are kept, because their buckets count. About 140 windows make a chunk.
//!
//! Floats are encoded byte for byte as by Thanos (`pkg/compact/downsample/downsample.go`), except where Thanos is wrong: it
//! drops samples before 1970, and gives infinite values a finite minimum or maximum. For histograms, Thanos adds up a running
//! total that restarts with each chunk, although its readers take the total for a raw counter, so that each chunk looks like a
//! reset. It drops the growth before the end of the first window, and panics where custom bounds change. Here a chunk of
//! histograms ends where one of Prometheus ends: at a reset, at other bucket bounds, and between gauges and counters. So functions
//! like `rate` compare the same histograms at a border as they do in raw samples. Readers need not know the difference.

mod floats;
mod histograms;
#[cfg(test)]
mod oracle;
mod runs;
#[cfg(test)]
mod tests;
mod windows;

use std::sync::Arc;
use std::time::Duration;

use model::{FloatHistogram, TimeRange};
use tsdb::{Aggregate, Aggregates, AppendError, Chunk, ChunkError};

use crate::Samples;
use crate::downsample::floats::FloatWindows;

/// Downsamples one series after the other. It keeps its buffers from one series to the next.
///
/// Memory: the decoded floats of one series (16 bytes a sample), or the histograms of one output chunk (about 140 windows) and
/// of one input chunk.
///
/// ```
/// use std::time::Duration;
///
/// use model::Sample;
/// use series::{AggrChunk, Downsampler};
///
/// let samples: Vec<Sample> = (0..240).map(|n| Sample::new(n * 30_000, n as f64)).collect();
/// let raw: Vec<tsdb::Chunk> = AggrChunk::from_floats(&samples)?.into_iter().filter_map(|c| c.raw).collect();
/// let five_minutes = Duration::from_secs(300);
/// let chunks = Downsampler::new(Duration::ZERO, five_minutes).series(&raw)?;
/// assert_eq!(chunks.iter().map(|chunk| chunk.sample_count()).sum::<usize>(), 24);
/// let coarser = Downsampler::new(five_minutes, Duration::from_secs(3600)).series(&chunks)?;
/// assert_eq!(coarser.iter().map(|chunk| chunk.sample_count()).sum::<usize>(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Downsampler {
    /// Resolution of aggregates in the input, in milliseconds.
    from: i64,
    /// Resolution of the output, in milliseconds.
    to: i64,
    floats: Samples,
    histograms: Vec<(i64, Arc<FloatHistogram>)>,
    windows: FloatWindows,
}

impl Downsampler {
    /// A downsampler from one resolution to a coarser one: from raw samples (zero) to 5 minutes, or from 5 minutes to 1 hour.
    /// `from` decides only how many windows there are in a chunk. Both are rounded to milliseconds; less than 1 ms counts as 1 ms.
    pub fn new(from: Duration, to: Duration) -> Self {
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX).max(1);
        Self {
            from: millis(from),
            to: millis(to),
            floats: Samples::new(),
            histograms: Vec::new(),
            windows: FloatWindows::default(),
        }
    }

    /// The chunks of the downsampled series, in the order of time; none if no sample is left. Each is a chunk of aggregates, and
    /// claims the range from the point of its first window to that of its last one; the first sample of its counter may be
    /// before it.
    ///
    /// `chunks` are those of one series in the order of time: raw samples of every encoding, or aggregates. Chunks must not
    /// overlap ([`join_chunks`](crate::join_chunks) joins raw ones), and deleted samples must have been removed. Where a series
    /// changes its kind (floats, histograms, their aggregates), a chunk ends, and the window of the change has a point of each
    /// kind.
    ///
    /// # Errors
    /// When a chunk is damaged, lacks an aggregate, or does not begin after the end of the one before it. Downsampling the
    /// series again does not help.
    pub fn series(&mut self, chunks: &[Chunk]) -> Result<Vec<Chunk>, DownsampleError> {
        runs::downsample(self, chunks)
    }
}

/// A series that cannot be downsampled: the range of the chunk, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("chunk from {} to {} ms: {problem}", range.min, range.max)]
pub struct DownsampleError {
    /// The range that the chunk claims; that of several chunks if their aggregates cannot be encoded.
    pub range: TimeRange,
    /// What is wrong.
    pub problem: DownsampleProblem,
}

/// Why a chunk cannot be downsampled.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DownsampleProblem {
    /// The payload is damaged.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// Timestamps decrease or repeat, in the chunk or after the chunk before it.
    #[error("its timestamps do not ascend from those of the chunk before it")]
    Unsorted,
    /// A chunk of aggregates lacks one that it needs.
    #[error("it has no aggregate {0}")]
    MissingAggregate(Aggregate),
    /// An aggregate has other windows than the counts.
    #[error("its aggregates have different timestamps")]
    Unaligned,
    /// The aggregates cannot be encoded.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// One of the aggregates of a chunk.
fn part(aggregates: &Aggregates, aggregate: Aggregate) -> Result<&Chunk, DownsampleProblem> {
    aggregates.get(aggregate).ok_or(DownsampleProblem::MissingAggregate(aggregate))
}
