//! Second part of a pass, at the start and every hour: does the bucket still have what the journal says it has?
//!
//! Whoever removes a block on purpose puts a mark on it first, removes `meta.json`, then the files, and the mark last. So a
//! mark that was seen is remembered for good ([`Stage::Withdrawn`]). Where none was seen, as while no sidecar ran:
//!
//! | the bucket has | it was | the block |
//! |---|---|---|
//! | files of the block, neither `meta.json` nor mark | damage: no removal leaves that | is uploaded again |
//! | nothing of it, and most of the recent blocks are gone as well | the loss of the bucket, or another bucket | is uploaded again |
//! | nothing of it, and most of the recent blocks are there | a removal | is withdrawn |

use std::time::Duration;

use bucket::{Bucket, BucketError, layout};
use futures::{StreamExt, TryStreamExt};
use model::Timestamp;
use tracing::{info, warn};
use tsdb::Ulid;

use crate::shipper::Shipper;
use crate::shipper::disk::DiskError;
use crate::shipper::journal::Stage;
use crate::shipper::local::{LocalBlock, LocalBlocks};
use crate::shipper::pin::Means;

/// Time between two comparisons: short beside the days for which marks stand, and beside the time in which a lost bucket
/// would fill with new blocks.
const PERIOD: Duration = Duration::from_secs(3600);

/// Blocks that end at most this long before the youngest one are recent. A bucket that removes by age has those.
const RECENT: Duration = Duration::from_secs(24 * 3600);

/// Blocks that are looked up at the same time.
const CONCURRENCY: usize = 8;

/// What the bucket has of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// A deletion mark, whatever else.
    Marked,
    /// `meta.json`, and so the block.
    There,
    /// Files without `meta.json`.
    Remains,
    /// Not a trace.
    Nothing,
}

impl Shipper {
    /// Has every block uploaded again that is here and was lost in the bucket, and is there neither itself nor as part of
    /// another; remembers which ones were removed on purpose.
    pub(super) async fn reconcile(
        &mut self,
        local: &LocalBlocks,
        now: Timestamp,
    ) -> Result<(), super::PassError> {
        if self.reconciled.is_some_and(|last| last <= now && now < last + PERIOD) {
            return Ok(());
        }
        let was_there = |block: &&LocalBlock| {
            let stage = self.journal.get(block.meta.ulid).map(|entry| entry.stage);
            matches!(stage, Some(Stage::Verified | Stage::Withdrawn))
        };
        let blocks: Vec<&LocalBlock> = local.blocks.iter().filter(was_there).collect();
        let found: Vec<Found> = futures::stream::iter(&blocks)
            .map(|block| look(&self.bucket, block.meta.ulid))
            .buffered(CONCURRENCY)
            .try_collect()
            .await?;
        let looked_up = found.len();
        let mut verified = Vec::new();
        for (block, found) in blocks.into_iter().zip(found) {
            let id = block.meta.ulid;
            let was_withdrawn = self.journal.get(id).is_some_and(|entry| entry.stage == Stage::Withdrawn);
            match found {
                Found::Marked if !was_withdrawn => {
                    info!(block = %id, bucket = self.bucket.name(), "block is marked for deletion in the bucket and is never uploaded again");
                    self.journal.restate(id, Stage::Withdrawn);
                }
                // Somebody thought better of it.
                Found::There if was_withdrawn => self.journal.restate(id, Stage::Verified),
                _ if was_withdrawn => {}
                found => verified.push((block, found)),
            }
        }
        let repeated = self.repeat_lost(local, verified, now).await?;
        self.journal.save()?;
        if self.reconciled.is_none() && looked_up > 0 {
            info!(known = looked_up, repeated, bucket = self.bucket.name(), "journal and bucket agree");
        }
        self.reconciled = Some(now);
        Ok(())
    }

    /// Decides about blocks that have gone without a mark; gives the number of those that are uploaded again.
    async fn repeat_lost(
        &mut self,
        local: &LocalBlocks,
        verified: Vec<(&LocalBlock, Found)>,
        now: Timestamp,
    ) -> Result<usize, super::PassError> {
        let is_missing = |found: &Found| matches!(found, Found::Remains | Found::Nothing);
        let missing = verified.iter().filter(|(_, found)| is_missing(found));
        let oldest = missing.map(|(block, _)| super::upload::made_after(local, block.meta.ulid)).min();
        let Some(oldest) = oldest else { return Ok(0) };
        self.neighbours.refresh(&self.bucket, oldest).await?;
        let has_gone = |(block, found): &(&LocalBlock, Found)| {
            is_missing(found) && self.neighbours.holders(block.meta.ulid).next().is_none()
        };
        let youngest = verified.iter().map(|(block, _)| block.meta.max_time).max();
        let is_recent = |block: &LocalBlock| youngest.is_some_and(|end| block.meta.max_time + RECENT >= end);
        let recent = verified.iter().filter(|(block, _)| is_recent(block));
        let (gone, all) =
            recent.fold((0, 0), |(gone, all), block| (gone + usize::from(has_gone(block)), all + 1));
        let is_bucket_lost = 2 * gone > all;
        let gone: Vec<(&LocalBlock, Found)> = verified.iter().copied().filter(has_gone).collect();
        let mut repeated = 0;
        for (block, found) in gone {
            let id = block.meta.ulid;
            if found == Found::Nothing && !is_bucket_lost {
                warn!(block = %id, bucket = self.bucket.name(), "block has gone from the bucket without a trace while others are there: it was removed on purpose and is not uploaded again");
                self.journal.restate(id, Stage::Withdrawn);
                continue;
            }
            warn!(block = %id, bucket = self.bucket.name(), "block has gone from the bucket and is uploaded again");
            self.metrics.repeated.inc();
            self.again(block, now)?;
            repeated += 1;
        }
        Ok(repeated)
    }

    fn again(&mut self, block: &LocalBlock, now: Timestamp) -> Result<(), DiskError> {
        let stage = match self.pins.pin(block.meta.ulid, &block.dir, Means::Link) {
            Ok(()) => Stage::Pinned,
            Err(cause) if cause.is_no_place_for_links() => Stage::Seen,
            Err(cause) => return Err(cause),
        };
        self.journal.set(&block.meta, stage, now);
        self.journal.save()
    }
}

/// What the bucket has of a block. The mark is looked for first: it is the first to come and the last to go.
async fn look(bucket: &Bucket, block: Ulid) -> Result<Found, BucketError> {
    if bucket.exists(&layout::block_file(block, layout::DELETION_MARK_FILE)).await? {
        return Ok(Found::Marked);
    }
    if bucket.exists(&layout::meta(block)).await? {
        return Ok(Found::There);
    }
    let rest = bucket.list_dir(&block.to_string()).await?;
    let is_empty = rest.dirs.is_empty() && rest.objects.is_empty();
    Ok(if is_empty { Found::Nothing } else { Found::Remains })
}
