//! Reads a new block back before it is published: every entry of the index and every chunk, with their checksums, must be what was
//! to be written.

use std::path::Path;

use model::TimeRange;
use tsdb::{Block, BlockError};

use crate::account::ChunkDigest;

/// Why a new block is not published.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VerifyError {
    /// It cannot be read.
    #[error("{0}")]
    Read(#[from] BlockError),
    /// It has other content.
    #[error(
        "the new block does not have the samples that were written; it is not published, and its sources stay"
    )]
    Different,
}

/// Compares the block in `dir` with the digest of what was written. Blocks the thread.
pub(crate) fn verify(dir: &Path, expected: &ChunkDigest) -> Result<(), VerifyError> {
    let block = Block::open(dir)?;
    let mut digest = ChunkDigest::default();
    for series in block.select(&[], TimeRange::ALL)? {
        let series = series?;
        digest.add(&series.labels, &block.chunks(&series.chunks)?);
    }
    if digest == *expected { Ok(()) } else { Err(VerifyError::Different) }
}
