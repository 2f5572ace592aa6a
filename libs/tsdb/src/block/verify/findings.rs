//! What a verification has found so far.

use model::{Labels, TimeRange};

use crate::block::Block;
use crate::error::{BlockError, BlockLocation, BlockPart};
use crate::meta::BlockStats;

/// A report of a running verification.
#[derive(Debug)]
pub enum VerifyEvent {
    /// A problem was found. More may follow.
    Problem(BlockError),
    /// This many series of the block were checked.
    Progress {
        /// Series checked so far.
        series: u64,
        /// Series of the block.
        of: u64,
    },
}

/// The result of a verification.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verification {
    /// Number of problems that were reported; 0 if the block is undamaged.
    pub problems: u64,
    /// Counts of what is in the block. Parts that could not be read are not counted.
    pub stats: BlockStats,
    /// First and last sample, both included; `None` without samples.
    pub range: Option<TimeRange>,
    /// Size of the largest entry of a series in bytes, without its length and checksum.
    pub series_max_bytes: u64,
    /// Size of the largest record of a chunk in bytes.
    pub chunk_max_bytes: u64,
}

/// A verification in progress.
pub(super) struct Findings<'a> {
    pub(super) block: &'a Block,
    report: &'a mut dyn FnMut(VerifyEvent),
    pub(super) found: Verification,
    /// The series whose chunks are checked now.
    pub(super) series: Option<Labels>,
}

impl<'a> Findings<'a> {
    pub(super) fn new(block: &'a Block, report: &'a mut dyn FnMut(VerifyEvent)) -> Self {
        Self { block, report, found: Verification::default(), series: None }
    }

    /// Counts and reports a problem.
    pub(super) fn problem(&mut self, mut error: BlockError) {
        if let (BlockPart::Segment(_), Some(series)) = (error.part, &self.series) {
            error.series = Some(series.to_string().into());
        }
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
