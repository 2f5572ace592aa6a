//! Series that cannot be decoded.

use model::{Labels, TimeRange};
use tsdb::{Aggregate, ChunkError};

/// A series with a chunk that cannot be decoded: names the series, the chunk and the problem.
///
/// The query fails with it, because an answer without the chunk would be wrong without a sign of it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("series {labels}: chunk from {} to {} ms: {problem}", range.min, range.max)]
pub struct DecodeError {
    /// The series.
    pub labels: Labels,
    /// The range that the chunk claims.
    pub range: TimeRange,
    /// What is wrong with it.
    pub problem: DecodeProblem,
}

/// What is wrong with a chunk of a series.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DecodeProblem {
    /// The payload is damaged.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// Timestamps decrease or repeat.
    #[error("its timestamps do not ascend")]
    Unsorted,
    /// The aggregate that the query reads is missing.
    #[error("the store sent neither raw samples nor the aggregate {0}")]
    MissingAggregate(Aggregate),
    /// Sums and counts of one chunk have different timestamps.
    #[error("its sums and counts have different timestamps")]
    Unaligned,
}
