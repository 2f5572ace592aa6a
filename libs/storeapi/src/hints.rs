//! Hints: what a request asks of a store of blocks, and what the store reports about its answer. Other stores ignore them.

use std::time::Duration;

use model::Matcher;

/// The hints of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockHints {
    /// Only blocks whose external labels and `__block_id` satisfy all of them are asked.
    pub matchers: Vec<Matcher>,
    /// Whether the answer has [`QueryStats`]; only for series.
    pub wants_stats: bool,
}

/// The hints of an answer, for a request that had hints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnswerHints {
    /// The ids of the blocks that were asked.
    pub blocks: Vec<String>,
    /// What was read, if the request wanted to know.
    pub stats: Option<QueryStats>,
}

/// What was read for a request for series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueryStats {
    /// Number of blocks that were asked.
    pub blocks: u64,
    /// Series in the blocks whose entries were used.
    pub series: u64,
    /// Chunks in the blocks that were read.
    pub chunks: u64,
    /// Series of the answer.
    pub merged_series: u64,
    /// Chunks of the answer.
    pub merged_chunks: u64,
    /// Bytes of the chunks of the answer.
    pub chunk_bytes: u64,
    /// Bytes that were read from object storage.
    pub downloaded_bytes: u64,
    /// Time until the first series of each block were read.
    pub first_read: Duration,
    /// Time from then until the last series was merged.
    pub merge: Duration,
}
