//! First part of a pass: find what is new in the data folder, and pin it before Prometheus takes it away.

use model::Timestamp;
use tracing::{error, info, warn};
use tsdb::{BlockMeta, Ulid};

use crate::shipper::disk::DiskError;
use crate::shipper::journal::Stage;
use crate::shipper::local::{LocalBlock, LocalBlocks, Task};
use crate::shipper::pin::Means;
use crate::shipper::{Quarantine, Shipper};

impl Shipper {
    /// Pins every block that belongs in the bucket and is not there.
    ///
    /// # Errors
    /// The first that met; the other blocks are pinned all the same.
    pub(super) fn keep(&mut self, local: &LocalBlocks, now: Timestamp) -> Result<(), DiskError> {
        for (block, reason) in &local.unreadable {
            let quarantine = Quarantine { reason: reason.clone(), is_damaged: true, is_foreign: false };
            self.set_aside(*block, quarantine);
        }
        // Where there is no pin, the reason was the description, which may be readable again.
        let (pins, unreadable) = (&self.pins, &local.unreadable);
        self.quarantine
            .retain(|block, _| pins.contains(*block) || unreadable.iter().any(|(other, _)| other == block));
        let mut failure = None;
        for block in &local.blocks {
            if self.journal.is_settled(block.meta.ulid) {
                continue;
            }
            match self.task(&block.meta) {
                Task::Ship => {
                    if let Err(cause) = self.pin(block, now) {
                        failure.get_or_insert(cause);
                    }
                }
                Task::Covered => self.cover(&block.meta),
                Task::Leave => {}
            }
        }
        self.adopt(now)?;
        self.replace_cleaned(local)?;
        self.mourn(local);
        self.journal.save()?;
        failure.map_or(Ok(()), Err)
    }

    /// Remembers that a block needs no upload, for what Prometheus makes of it next.
    pub(super) fn cover(&mut self, meta: &BlockMeta) {
        let parents = meta.compaction.parents.iter().map(|parent| parent.ulid);
        let origins = parents.chain(meta.compaction.sources.iter().copied());
        // A block without samples has none that the bucket could lack.
        let since = origins.filter_map(|origin| self.journal.settled_since(origin)).max();
        self.journal.set(meta, Stage::Covered, since.unwrap_or(meta.max_time));
    }

    fn pin(&mut self, block: &LocalBlock, now: Timestamp) -> Result<(), DiskError> {
        let id = block.meta.ulid;
        match self.pins.pin(id, &block.dir, Means::Link) {
            Ok(()) => {
                self.journal.set(&block.meta, Stage::Pinned, now);
                Ok(())
            }
            // Prometheus removes it this very moment; the next look at the folder tells.
            Err(cause) if cause.is_missing() => Ok(()),
            Err(cause) => {
                if cause.is_no_place_for_links() && self.journal.get(id).is_none() {
                    warn!(block = %id, error = %cause, "block is copied when its upload begins, and not safe before");
                }
                if self.journal.get(id).is_none_or(|entry| entry.stage != Stage::Seen) {
                    self.journal.set(&block.meta, Stage::Seen, now);
                }
                if cause.is_no_place_for_links() { Ok(()) } else { Err(cause) }
            }
        }
    }

    /// Takes on pins that the journal does not know, as after a kill between the two.
    fn adopt(&mut self, now: Timestamp) -> Result<(), DiskError> {
        for block in self.pins.blocks()? {
            if self.journal.get(block).is_some_and(|entry| entry.stage != Stage::Seen) {
                continue;
            }
            match super::local::read_meta(&self.pins.dir(block), block) {
                Ok(meta) => self.journal.set(&meta, Stage::Pinned, now),
                Err(reason) => {
                    let quarantine = Quarantine { reason, is_damaged: true, is_foreign: false };
                    self.set_aside(block, quarantine);
                }
            }
        }
        Ok(())
    }

    /// Gives up a block that waits for its upload where Prometheus has replaced it by what deletions left of it.
    fn replace_cleaned(&mut self, local: &LocalBlocks) -> Result<(), DiskError> {
        for block in local.blocks.iter().filter(|block| block.meta.compaction.level <= 1) {
            for parent in &block.meta.compaction.parents {
                let waits = self.journal.get(parent.ulid).is_some_and(|entry| entry.stage == Stage::Pinned);
                if waits && !local.contains(parent.ulid) && self.pins.contains(block.meta.ulid) {
                    info!(block = %parent.ulid, by = %block.meta.ulid, "deletions were applied, the new block is uploaded");
                    self.pins.release(parent.ulid)?;
                    self.journal.retain(|known, _| known != parent.ulid);
                }
            }
        }
        Ok(())
    }

    /// Names the blocks that have gone before they were in the bucket.
    fn mourn(&mut self, local: &LocalBlocks) {
        let has_gone = |block: Ulid| {
            !self.journal.is_settled(block) && !local.contains(block) && !self.pins.contains(block)
        };
        let gone: Vec<Ulid> =
            self.journal.iter().map(|(block, _)| block).filter(|block| has_gone(*block)).collect();
        for block in &gone {
            self.metrics.lost.inc();
            error!(block = %block, "block was removed before it was uploaded; its samples are not in the bucket");
        }
        self.journal.retain(|block, _| !gone.contains(&block));
    }
}
