//! First part of a pass: finds new blocks in the data directory, and pins them before Prometheus removes
//! them.

use model::Timestamp;
use tracing::{error, info, warn};
use tsdb::{BlockMeta, Ulid};

use crate::disk::DiskError;
use crate::journal::BlockStage;
use crate::local::{BlockTask, LocalBlock, LocalBlocks};
use crate::pin::PinMethod;
use crate::shipper::{Quarantine, Shipper};

impl Shipper {
    /// Pins each block that must be uploaded and is not in the bucket.
    ///
    /// # Errors
    /// The first error; the other blocks are pinned nevertheless.
    pub(crate) fn pin_new_blocks(&mut self, local: &LocalBlocks, now: Timestamp) -> Result<(), DiskError> {
        for (block, reason) in &local.unreadable {
            let quarantine = Quarantine { reason: reason.clone(), is_damaged: true, is_foreign: false };
            self.quarantine_block(*block, quarantine);
        }
        // Without a pin, the reason was the `meta.json`, which may be readable now.
        let (pins, unreadable) = (&self.pins, &local.unreadable);
        self.quarantine
            .retain(|block, _| pins.contains(*block) || unreadable.iter().any(|(other, _)| other == block));
        let mut failure = None;
        for block in &local.blocks {
            if self.journal.is_settled(block.meta.ulid) {
                continue;
            }
            match self.decide(&block.meta) {
                BlockTask::Ship => {
                    if let Err(cause) = self.pin(block, now) {
                        failure.get_or_insert(cause);
                    }
                }
                BlockTask::Covered => self.mark_covered(&block.meta),
                BlockTask::Leave => {}
            }
        }
        self.adopt_unknown_pins(now)?;
        self.drop_replaced(local)?;
        self.report_lost_blocks(local);
        self.journal.save()?;
        failure.map_or(Ok(()), Err)
    }

    /// Records that a block needs no upload; needed for blocks that Prometheus makes from it.
    pub(crate) fn mark_covered(&mut self, meta: &BlockMeta) {
        let parents = meta.compaction.parents.iter().map(|parent| parent.ulid);
        let origins = parents.chain(meta.compaction.sources.iter().copied());
        // A block without samples has nothing that the bucket could lack.
        let since = origins.filter_map(|origin| self.journal.settled_since(origin)).max();
        self.journal.set(meta, BlockStage::Covered, since.unwrap_or(meta.max_time));
    }

    fn pin(&mut self, block: &LocalBlock, now: Timestamp) -> Result<(), DiskError> {
        let id = block.meta.ulid;
        match self.pins.pin(id, &block.dir, PinMethod::Link) {
            Ok(()) => {
                self.journal.set(&block.meta, BlockStage::Pinned, now);
                Ok(())
            }
            // Prometheus is removing the block; the next pass will see that.
            Err(cause) if cause.is_missing() => Ok(()),
            Err(cause) => {
                if cause.is_link_unsupported() && self.journal.get(id).is_none() {
                    warn!(block = %id, error = %cause, "block cannot be hard linked, it is copied when its upload starts and may be lost before");
                }
                if self.journal.get(id).is_none_or(|entry| entry.stage != BlockStage::Seen) {
                    self.journal.set(&block.meta, BlockStage::Seen, now);
                }
                if cause.is_link_unsupported() { Ok(()) } else { Err(cause) }
            }
        }
    }

    /// Adds pins to the journal that it lacks, for example after a kill between the two steps.
    fn adopt_unknown_pins(&mut self, now: Timestamp) -> Result<(), DiskError> {
        for block in self.pins.blocks()? {
            if self.journal.get(block).is_some_and(|entry| entry.stage != BlockStage::Seen) {
                continue;
            }
            match crate::local::read_meta(&self.pins.dir(block), block) {
                Ok(meta) => self.journal.set(&meta, BlockStage::Pinned, now),
                Err(reason) => {
                    let quarantine = Quarantine { reason, is_damaged: true, is_foreign: false };
                    self.quarantine_block(block, quarantine);
                }
            }
        }
        Ok(())
    }

    /// Drops a waiting block if Prometheus has replaced it by a pinned block: one without the deleted samples, or one
    /// with late samples.
    fn drop_replaced(&mut self, local: &LocalBlocks) -> Result<(), DiskError> {
        for block in local.blocks.iter().filter(|block| self.pins.contains(block.meta.ulid)) {
            let compaction = &block.meta.compaction;
            let origins: Vec<Ulid> = match compaction.level {
                ..=1 => compaction.parents.iter().map(|parent| parent.ulid).collect(),
                _ => compaction.sources.clone(),
            };
            for origin in origins {
                let waits = self.journal.get(origin).is_some_and(|entry| entry.stage == BlockStage::Pinned);
                if waits && !local.contains(origin) {
                    info!(block = %origin, by = %block.meta.ulid, "Prometheus has replaced this block, the new block is uploaded instead");
                    self.pins.release(origin)?;
                    self.journal.retain(|known, _| known != origin);
                }
            }
        }
        Ok(())
    }

    /// Reports blocks that were removed before they were in the bucket.
    fn report_lost_blocks(&mut self, local: &LocalBlocks) {
        let is_merged = |block: Ulid| local.blocks.iter().any(|b| b.meta.compaction.sources.contains(&block));
        let is_lost = |block: Ulid| {
            !self.journal.is_settled(block)
                && !local.contains(block)
                && !self.pins.contains(block)
                && !is_merged(block)
        };
        let lost: Vec<Ulid> =
            self.journal.iter().map(|(block, _)| block).filter(|block| is_lost(*block)).collect();
        for block in &lost {
            self.metrics.lost.inc();
            error!(block = %block, "block was removed before it was uploaded, its samples are not in the bucket");
        }
        self.journal.retain(|block, _| !lost.contains(&block));
    }
}
