//! Second part of a pass, at the start and every hour: does the bucket still have the blocks that the journal
//! says it has?
//!
//! A tool that removes a block on purpose first writes a deletion mark, then removes `meta.json`, then the
//! files, and the mark last. So a mark that was seen is recorded permanently ([`BlockStage::Withdrawn`]). If
//! no mark was seen, for example because no sidecar was running:
//!
//! | the bucket has | the cause was | the block |
//! |---|---|---|
//! | files of the block, but neither `meta.json` nor mark | damage: no removal leaves that state | is uploaded again |
//! | nothing of it, and most of the recent blocks are missing too | the bucket was lost or replaced | is uploaded again |
//! | nothing of it, and most of the recent blocks are there | a removal | is withdrawn |

use std::time::Duration;

use bucket::marks::{self, MarkKind};
use bucket::{Bucket, BucketError, layout};
use futures::{StreamExt, TryStreamExt};
use model::Timestamp;
use tracing::{info, warn};
use tsdb::Ulid;

use crate::disk::DiskError;
use crate::journal::BlockStage;
use crate::local::{LocalBlock, LocalBlocks};
use crate::pin::PinMethod;
use crate::shipper::Shipper;

/// Interval between two comparisons. It is short compared to the days for which marks exist, and to the time
/// in which a lost bucket fills with new blocks.
const PERIOD: Duration = Duration::from_secs(3600);

/// Blocks that end at most this long before the newest one are recent. A bucket that removes blocks by age
/// still has those.
const RECENT: Duration = Duration::from_secs(24 * 3600);

/// Blocks that are looked up concurrently.
const CONCURRENCY: usize = 8;

/// The state of a block in the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BucketPresence {
    /// It has a deletion mark.
    Marked,
    /// It has a `meta.json`, so it is complete.
    Complete,
    /// It has files but no `meta.json`.
    Remains,
    /// The bucket has no object of it.
    Absent,
}

impl Shipper {
    /// Uploads each local block again that the bucket has lost, unless its samples are in another block
    /// there. Records blocks that were removed on purpose.
    pub(crate) async fn reconcile(
        &mut self,
        local: &LocalBlocks,
        now: Timestamp,
    ) -> Result<(), crate::shipper::PassError> {
        if self.reconciled.is_some_and(|last| last <= now && now < last + PERIOD) {
            return Ok(());
        }
        let was_there = |block: &&LocalBlock| {
            let stage = self.journal.get(block.meta.ulid).map(|entry| entry.stage);
            matches!(stage, Some(BlockStage::Verified | BlockStage::Withdrawn))
        };
        let blocks: Vec<&LocalBlock> = local.blocks.iter().filter(was_there).collect();
        let found: Vec<BucketPresence> = futures::stream::iter(&blocks)
            .map(|block| look_up(&self.bucket, block.meta.ulid))
            .buffered(CONCURRENCY)
            .try_collect()
            .await?;
        let looked_up = found.len();
        let mut verified = Vec::new();
        for (block, found) in blocks.into_iter().zip(found) {
            let id = block.meta.ulid;
            let was_withdrawn =
                self.journal.get(id).is_some_and(|entry| entry.stage == BlockStage::Withdrawn);
            match found {
                BucketPresence::Marked if !was_withdrawn => {
                    info!(block = %id, bucket = self.bucket.name(), "block is marked for deletion in the bucket, it is not uploaded again");
                    self.journal.change_stage(id, BlockStage::Withdrawn);
                }
                // The mark was removed.
                BucketPresence::Complete if was_withdrawn => {
                    self.journal.change_stage(id, BlockStage::Verified)
                }
                _ if was_withdrawn => {}
                found => verified.push((block, found)),
            }
        }
        let repeated = self.repeat_lost(local, verified, now).await?;
        self.journal.save()?;
        if self.reconciled.is_none() && looked_up > 0 {
            info!(
                known = looked_up,
                repeated,
                bucket = self.bucket.name(),
                "compared the journal with the bucket"
            );
        }
        self.reconciled = Some(now);
        Ok(())
    }

    /// Handles blocks that are missing without a mark; returns the number of those that are uploaded again.
    async fn repeat_lost(
        &mut self,
        local: &LocalBlocks,
        verified: Vec<(&LocalBlock, BucketPresence)>,
        now: Timestamp,
    ) -> Result<usize, crate::shipper::PassError> {
        let is_missing =
            |found: &BucketPresence| matches!(found, BucketPresence::Remains | BucketPresence::Absent);
        let missing = verified.iter().filter(|(_, found)| is_missing(found));
        let oldest = missing.map(|(block, _)| crate::upload::made_after(local, block.meta.ulid)).min();
        let Some(oldest) = oldest else { return Ok(0) };
        self.neighbours.refresh(&self.bucket, oldest).await?;
        let is_lost = |(block, found): &(&LocalBlock, BucketPresence)| {
            is_missing(found) && self.neighbours.holders(block.meta.ulid).next().is_none()
        };
        let youngest = verified.iter().map(|(block, _)| block.meta.max_time).max();
        let is_recent = |block: &LocalBlock| youngest.is_some_and(|end| block.meta.max_time + RECENT >= end);
        let recent = verified.iter().filter(|(block, _)| is_recent(block));
        let (gone, all) =
            recent.fold((0, 0), |(gone, all), block| (gone + usize::from(is_lost(block)), all + 1));
        let is_bucket_lost = 2 * gone > all;
        let gone: Vec<(&LocalBlock, BucketPresence)> = verified.iter().copied().filter(is_lost).collect();
        let mut repeated = 0;
        for (block, found) in gone {
            let id = block.meta.ulid;
            if found == BucketPresence::Absent && !is_bucket_lost {
                warn!(block = %id, bucket = self.bucket.name(), "block is missing from the bucket while others are there: it was removed on purpose and is not uploaded again");
                self.journal.change_stage(id, BlockStage::Withdrawn);
                continue;
            }
            warn!(block = %id, bucket = self.bucket.name(), "block is missing from the bucket and is uploaded again");
            self.metrics.repeated.inc();
            self.upload_again(block, now)?;
            repeated += 1;
        }
        Ok(repeated)
    }

    fn upload_again(&mut self, block: &LocalBlock, now: Timestamp) -> Result<(), DiskError> {
        let stage = match self.pins.pin(block.meta.ulid, &block.dir, PinMethod::Link) {
            Ok(()) => BlockStage::Pinned,
            Err(cause) if cause.is_link_unsupported() => BlockStage::Seen,
            Err(cause) => return Err(cause),
        };
        self.journal.set(&block.meta, stage, now);
        self.journal.save()
    }
}

/// Looks up the state of a block. The mark is read first: it is written first and removed last.
async fn look_up(bucket: &Bucket, block: Ulid) -> Result<BucketPresence, BucketError> {
    if marks::load(bucket, block, MarkKind::Deletion).await?.mark().is_some() {
        return Ok(BucketPresence::Marked);
    }
    if bucket.exists(&layout::meta(block)).await? {
        return Ok(BucketPresence::Complete);
    }
    let rest = bucket.list_dir(&block.to_string()).await?;
    let is_empty = rest.dirs.is_empty() && rest.objects.is_empty();
    Ok(if is_empty { BucketPresence::Absent } else { BucketPresence::Remains })
}
