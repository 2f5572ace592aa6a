//! Samples that are deleted although they are still in the files of their block: no answer has them.

use bucket::BlockFault;
use model::Labels;
use series::DeletedTimes;
use tsdb::{Block, BlockError, ChunkMeta};

use crate::catalog::KnownBlock;

impl KnownBlock {
    /// The deleted times of one of its series, by the labels that are stored in the block.
    pub(crate) fn deleted(&self, labels: &Labels) -> DeletedTimes {
        if self.deletions.is_empty() {
            return DeletedTimes::default();
        }
        DeletedTimes::new(self.deletions.of_series(labels), self.meta.resolution())
    }
}

/// Whether a sample is left in chunks of which none is deleted whole. Chunks are read only if their times do not say it. It blocks the
/// thread then.
///
/// # Errors
/// When the store does not answer.
pub(crate) fn is_left(
    block: &Block,
    chunks: &[ChunkMeta],
    deleted: &DeletedTimes,
) -> Result<bool, BlockError> {
    if deleted.is_empty() || chunks.iter().any(|chunk| !deleted.may_empty(&chunk.range)) {
        return Ok(!chunks.is_empty());
    }
    for meta in chunks {
        // Damage is not a reason to call a sample deleted; the reader of the chunk is told about it.
        let left = match block.chunk(meta) {
            Ok(chunk) => deleted.leave(chunk).map_or(true, |left| !left.is_empty()),
            Err(error) if BlockFault::of_read(&error) == BlockFault::Corrupt => true,
            Err(error) => return Err(error),
        };
        if left {
            return Ok(true);
        }
    }
    Ok(false)
}
