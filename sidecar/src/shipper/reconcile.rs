//! Second part of a pass, at the start and once a day: does the bucket still have what the journal says it has?

use std::time::Duration;

use bucket::{BucketError, layout};
use futures::{StreamExt, TryStreamExt};
use model::Timestamp;
use tracing::{info, warn};
use tsdb::Ulid;

use super::Shipper;
use super::disk::DiskError;
use super::journal::Stage;
use super::local::{LocalBlock, LocalBlocks};
use super::pin::Means;

/// Time between two comparisons.
const PERIOD: Duration = Duration::from_secs(24 * 3600);

/// Blocks that are looked up at the same time.
const CONCURRENCY: usize = 8;

impl Shipper {
    /// Has every block uploaded again that is here and was in the bucket, and is there neither itself nor as part of another.
    ///
    /// A block that is marked for deletion, or was compacted, has gone on purpose.
    pub(super) async fn reconcile(
        &mut self,
        local: &LocalBlocks,
        now: Timestamp,
    ) -> Result<(), super::PassError> {
        if self.reconciled.is_some_and(|last| last <= now && now < last + PERIOD) {
            return Ok(());
        }
        let verified = local.blocks.iter().filter(|block| self.journal.is_verified(block.meta.ulid));
        let missing = self.missing(verified.map(|block| block.meta.ulid).collect()).await?;
        if let Some(oldest) = missing.iter().map(|block| super::upload::made_after(local, *block)).min() {
            self.neighbours.refresh(&self.bucket, oldest).await?;
        }
        let here = |block: &&LocalBlock| missing.contains(&block.meta.ulid);
        let mut repeated = 0;
        for block in local.blocks.iter().filter(here) {
            let id = block.meta.ulid;
            if self.neighbours.holders(id).next().is_some() {
                continue;
            }
            warn!(block = %id, bucket = self.bucket.name(), "block has gone from the bucket and is uploaded again");
            self.metrics.repeated.inc();
            self.again(block, now)?;
            repeated += 1;
        }
        if self.reconciled.is_none() {
            let known = self.journal.iter().count();
            info!(known, repeated, bucket = self.bucket.name(), "journal and bucket agree");
        }
        self.reconciled = Some(now);
        Ok(())
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

    /// The blocks that have no description in the bucket and no deletion mark.
    async fn missing(&self, blocks: Vec<Ulid>) -> Result<Vec<Ulid>, BucketError> {
        let bucket = &self.bucket;
        let look = |block: Ulid| async move {
            let mark = layout::block_file(block, layout::DELETION_MARK_FILE);
            let is_there = bucket.exists(&layout::meta(block)).await? || bucket.exists(&mark).await?;
            Ok::<_, BucketError>((!is_there).then_some(block))
        };
        let looks = futures::stream::iter(blocks).map(look).buffered(CONCURRENCY);
        looks.try_filter_map(|missing| async move { Ok(missing) }).try_collect().await
    }
}
