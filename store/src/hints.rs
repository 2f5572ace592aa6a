//! Hints of requests: which blocks are asked, and what is reported about the answer.

use std::time::{Duration, Instant};

use bucket::BLOCK_ID_LABEL;
use series::{AggrChunk, Series};
use storeapi::{AnswerHints, BlockHints, QueryStats};

use crate::catalog::SelectedBlock;
use crate::meter::RequestMeter;

/// Leaves the blocks whose labels satisfy the hints, and notes them for the answer. Without hints, all blocks stay.
///
/// As in Thanos, a block that is left out is not replaced by blocks of other resolutions.
pub(crate) fn filter(blocks: &mut Vec<SelectedBlock>, hints: Option<&BlockHints>) -> Option<AnswerHints> {
    let hints = hints?;
    blocks.retain(|block| {
        let known = &block.known;
        let id = known.key.block.to_string();
        hints.matchers.iter().all(|matcher| match matcher.name() {
            BLOCK_ID_LABEL => matcher.matches(&id),
            name => matcher.matches(known.external.get(name).unwrap_or("")),
        })
    });
    let mut ids: Vec<String> = blocks.iter().map(|block| block.known.key.block.to_string()).collect();
    // A block may be selected for several slices of time.
    ids.sort_unstable();
    ids.dedup();
    Some(AnswerHints { blocks: ids, stats: None })
}

/// Counts the series of an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AnswerCount {
    began: Instant,
    first_read: Duration,
    series: u64,
    chunks: u64,
    chunk_bytes: u64,
}

impl AnswerCount {
    pub(crate) fn begin() -> Self {
        Self { began: Instant::now(), first_read: Duration::ZERO, series: 0, chunks: 0, chunk_bytes: 0 }
    }

    /// Notes that the first series of each block were read.
    pub(crate) fn first_read(&mut self) {
        self.first_read = self.began.elapsed();
    }

    pub(crate) fn sent(&mut self, series: &[Series]) {
        let chunks = || series.iter().flat_map(|series| &series.chunks);
        self.series += series.len() as u64;
        self.chunks += chunks().count() as u64;
        self.chunk_bytes += chunks().map(AggrChunk::size_bytes).sum::<usize>() as u64;
    }

    /// What was read for the answer.
    pub(crate) fn stats(&self, blocks: usize, meter: &RequestMeter) -> QueryStats {
        let (series, chunks) = meter.counted();
        QueryStats {
            blocks: blocks as u64,
            series,
            chunks,
            merged_series: self.series,
            merged_chunks: self.chunks,
            chunk_bytes: self.chunk_bytes,
            downloaded_bytes: meter.reads().bytes(),
            first_read: self.first_read,
            merge: self.began.elapsed().saturating_sub(self.first_read),
        }
    }
}
