//! What a verification has found so far.

use model::TimeRange;

use crate::block::Block;
use crate::error::{BlockError, BlockLocation, BlockPart};
use crate::meta::BlockStats;

/// What a verification has to tell while it runs.
#[derive(Debug)]
pub enum VerifyEvent {
    /// Something is wrong. More may follow.
    Problem(BlockError),
    /// So many of the block's series were checked.
    Progress {
        /// Series checked so far.
        series: u64,
        /// Series in all.
        of: u64,
    },
}

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verification {
    /// How many problems were told; the block is sound where there are none.
    pub problems: u64,
    /// What is in the block, counted; what could not be read is not in it.
    pub stats: BlockStats,
    /// First and last sample, both included; `None` where there are none.
    pub range: Option<TimeRange>,
    /// Size of the largest series' entry, in bytes, without its length and checksum.
    pub series_max_bytes: u64,
    /// Size of the largest chunk's record, in bytes.
    pub chunk_max_bytes: u64,
}

/// A verification in progress.
pub(super) struct Findings<'a> {
    pub(super) block: &'a Block,
    report: &'a mut dyn FnMut(VerifyEvent),
    pub(super) found: Verification,
}

impl<'a> Findings<'a> {
    pub(super) fn new(block: &'a Block, report: &'a mut dyn FnMut(VerifyEvent)) -> Self {
        Self { block, report, found: Verification::default() }
    }

    /// Counts and reports a problem.
    pub(super) fn problem(&mut self, error: BlockError) {
        self.found.problems += 1;
        (self.report)(VerifyEvent::Problem(error));
    }

    /// The value of `result`; an error is reported.
    pub(super) fn ok_or_report<T>(&mut self, result: Result<T, BlockError>) -> Option<T> {
        result.map_err(|error| self.problem(error)).ok()
    }

    /// Reports that `series` of `of` were checked.
    pub(super) fn progress(&mut self, series: u64, of: u64) {
        (self.report)(VerifyEvent::Progress { series, of });
    }

    pub(super) fn place(&self, part: BlockPart) -> BlockLocation {
        self.block.place(part)
    }
}
