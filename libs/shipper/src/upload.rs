//! Third part of a pass: uploads one block after the other, oldest first.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

use bucket::{BucketError, PublishError, PublishOptions, layout};
use model::Timestamp;
use tracing::{info, warn};
use tsdb::{BlockMeta, BlockProblem, Ulid, VerifyEvent};

use crate::config::BlockSource;
use crate::disk::DiskError;
use crate::journal::BlockStage;
use crate::local::{self, BlockTask, LocalBlock, LocalBlocks};
use crate::pin::PinMethod;
use crate::shipper::{PassError, Producer, Quarantine, Shipper};

/// The pass ends after this many consecutive failures of the store: then the store is the cause, not the
/// blocks.
const MAX_FAILURES_IN_A_ROW: usize = 3;

/// The hint of Prometheus on blocks of samples that arrived out of order; such blocks normally overlap
/// others.
const OUT_OF_ORDER: &str = "from-out-of-order";

/// A block that waits for its upload.
struct WaitingBlock {
    meta: BlockMeta,
    dir: PathBuf,
}

/// Why one block was not uploaded.
enum UploadFailure {
    /// The block itself.
    Block(Quarantine),
    /// The store; the next block may succeed.
    Store(String),
}

/// The blocks that a pass has not uploaded.
#[derive(Default)]
struct FailedUploads {
    count: usize,
    /// Failures of the store since the last upload that succeeded.
    store_in_a_row: usize,
    /// The last cause.
    last: String,
}

impl From<BucketError> for UploadFailure {
    fn from(cause: BucketError) -> Self {
        Self::Store(cause.to_string())
    }
}

fn refused(reason: impl ToString) -> UploadFailure {
    UploadFailure::Block(Quarantine { reason: reason.to_string(), is_damaged: false, is_foreign: false })
}

fn damaged(reason: impl ToString) -> UploadFailure {
    UploadFailure::Block(Quarantine { reason: reason.to_string(), is_damaged: true, is_foreign: false })
}

/// A time before which neither this block nor one made from it can have been created.
pub(crate) fn made_after(local: &LocalBlocks, block: Ulid) -> Timestamp {
    let made = Timestamp::from_millis(i64::try_from(block.timestamp_ms()).unwrap_or(i64::MAX));
    let known = local.blocks.iter().find(|known| known.meta.ulid == block);
    known.map_or(made, |known| known.meta.min_time.min(made))
}

impl Shipper {
    /// Uploads the blocks that are not in the bucket.
    pub(crate) async fn upload(
        &mut self,
        local: &LocalBlocks,
        producer: &Producer,
        now: Timestamp,
    ) -> Result<(), PassError> {
        // A full disk must not prevent the upload of pinned blocks.
        let copied = self.copy_next(local, now);
        let waiting = self.waiting_blocks()?;
        if let Some(oldest) = waiting.iter().map(|block| block.meta.min_time).min() {
            self.neighbours.refresh(&self.bucket, oldest).await?;
        }
        let labels: BTreeMap<String, String> =
            producer.external.iter().map(|label| (label.name.to_owned(), label.value.to_owned())).collect();
        // The time of a block in the bucket starts at the end of its upload, not at the start of the pass.
        let begun = Instant::now();
        let mut failed = self.damaged_blocks();
        let all = waiting.len() + failed.count;
        for block in waiting {
            let id = block.meta.ulid;
            // The blocks that it was compacted from may have been uploaded earlier in this pass.
            if self.decide(&block.meta) == BlockTask::Covered {
                self.mark_covered(&block.meta);
                self.save_progress(local, now)?;
                continue;
            }
            match self.upload_one(&block, local, &labels).await {
                Ok(stage) => {
                    failed.store_in_a_row = 0;
                    self.failed.remove(&id);
                    self.quarantine.remove(&id);
                    let now = now + begun.elapsed();
                    self.journal.set(&block.meta, stage, now);
                    self.journal.cover_sources(&block.meta, now);
                    self.save_progress(local, now)?;
                    self.update_serve_from(local, producer, now);
                }
                Err(failure) => self.record_failure(id, failure, &mut failed),
            }
            if failed.store_in_a_row == MAX_FAILURES_IN_A_ROW {
                break;
            }
        }
        copied?;
        match failed {
            FailedUploads { count: 0, .. } => Ok(()),
            FailedUploads { count, last, .. } => {
                Err(PassError::Uploads { failed: count, waiting: all, last })
            }
        }
    }

    /// The blocks that are known to be damaged. They wait as well, for an operator.
    fn damaged_blocks(&self) -> FailedUploads {
        let mut failed = FailedUploads::default();
        for (block, quarantine) in self.quarantine.iter().filter(|(_, quarantine)| quarantine.is_damaged) {
            failed.count += 1;
            failed.last = format!("block {block}: {}", quarantine.reason);
        }
        failed
    }

    fn record_failure(&mut self, block: Ulid, failure: UploadFailure, failed: &mut FailedUploads) {
        self.metrics.upload_failures.inc();
        failed.count += 1;
        match failure {
            UploadFailure::Block(quarantine) => {
                failed.last = format!("block {block}: {}", quarantine.reason);
                self.quarantine_block(block, quarantine);
            }
            UploadFailure::Store(cause) => {
                failed.store_in_a_row += 1;
                if self.failed.insert(block) {
                    warn!(block = %block, error = %cause, "block was not uploaded and is tried again");
                }
                failed.last = cause;
            }
        }
    }

    /// Copies the oldest block that cannot be linked. One per pass, so that a backlog does not fill the disk
    /// with copies.
    fn copy_next(&mut self, local: &LocalBlocks, now: Timestamp) -> Result<(), DiskError> {
        let is_seen = |block: &&LocalBlock| {
            self.journal.get(block.meta.ulid).is_some_and(|entry| entry.stage == BlockStage::Seen)
        };
        let Some(block) = local.blocks.iter().find(is_seen) else { return Ok(()) };
        match self.pins.pin(block.meta.ulid, &block.dir, PinMethod::Copy) {
            Ok(()) => self.journal.set(&block.meta, BlockStage::Pinned, now),
            // Prometheus is removing the block; the next pass will see that.
            Err(cause) if cause.is_missing() => {}
            Err(cause) => return Err(cause),
        }
        self.journal.save()
    }

    /// The waiting blocks, oldest first, followed by those that the store failed last time.
    fn waiting_blocks(&mut self) -> Result<Vec<WaitingBlock>, PassError> {
        let mut waiting = Vec::new();
        for block in self.pins.blocks()? {
            let is_damaged = self.quarantine.get(&block).is_some_and(|quarantine| quarantine.is_damaged);
            if is_damaged || self.journal.is_settled(block) {
                continue;
            }
            let dir = self.pins.dir(block);
            match local::read_meta(&dir, block) {
                Ok(meta) => waiting.push(WaitingBlock { meta, dir }),
                Err(reason) => {
                    self.quarantine_block(block, Quarantine { reason, is_damaged: true, is_foreign: false });
                }
            }
        }
        waiting.sort_by_key(|block| {
            (self.failed.contains(&block.meta.ulid), block.meta.min_time, block.meta.ulid)
        });
        Ok(waiting)
    }

    /// Uploads one block. Returns its stage if its samples are in the bucket, or must not be.
    async fn upload_one(
        &mut self,
        block: &WaitingBlock,
        local: &LocalBlocks,
        labels: &BTreeMap<String, String>,
    ) -> Result<BlockStage, UploadFailure> {
        let id = block.meta.ulid;
        if self.is_contained(&block.meta) {
            info!(block = %id, bucket = self.bucket.name(), "samples of this block are in other blocks of the bucket");
            return Ok(BlockStage::Verified);
        }
        self.reject_overlap(&block.meta, labels)?;
        if !self.sound.contains(&id) {
            let dir = block.dir.clone();
            let checked = tokio::task::spawn_blocking(move || verify_block(&dir)).await;
            checked.map_err(|cause| refused(format!("its verification panicked: {cause}")))??;
            self.sound.insert(id);
        }
        let deletions =
            local.blocks.iter().find(|known| known.meta.ulid == id).map_or(0, |b| b.meta.stats.tombstones);
        let mut meta = block.meta.clone();
        // Tombstones are not uploaded, so their count is zero.
        meta.stats.tombstones = 0;
        let thanos = meta.thanos.get_or_insert_default();
        thanos.labels = self.labels_in_bucket(id).await?.unwrap_or_else(|| labels.clone());
        thanos.source = self.config.source.name().to_owned();
        let options = PublishOptions { concurrency: self.config.concurrency, ..PublishOptions::default() };
        let published = match bucket::publish(&self.bucket, &block.dir, meta, &options).await {
            Ok(published) => published,
            Err(PublishError::Marked(_)) => {
                info!(block = %id, bucket = self.bucket.name(), "block is marked for deletion in the bucket and is not uploaded");
                return Ok(BlockStage::Withdrawn);
            }
            Err(PublishError::Bucket(cause)) => return Err(cause.into()),
            Err(cause) => return Err(refused(cause)),
        };
        self.metrics.uploads.inc();
        if deletions > 0 {
            self.metrics.deletions_not_shipped.inc();
            warn!(
                block = %id,
                deletions,
                "block was uploaded with samples that were deleted in Prometheus; delete them in the bucket too, with isthmus tools bucket rewrite"
            );
        }
        info!(
            block = %id,
            min_time = %block.meta.min_time,
            max_time = %block.meta.max_time,
            samples = block.meta.stats.samples,
            bytes = published.total_bytes,
            sent_bytes = published.sent_bytes,
            bucket = self.bucket.name(),
            "block was uploaded and verified"
        );
        Ok(BlockStage::Verified)
    }

    /// Whether the bucket has all samples of a block in other blocks, made from it or from its sources. Of a block that
    /// replaces blocks with equal samples, one other block must have them all.
    fn is_contained(&self, meta: &BlockMeta) -> bool {
        let sources: BTreeSet<Ulid> = meta.compaction.sources.iter().copied().collect();
        let holders = |source: &Ulid| -> BTreeSet<Ulid> {
            let others = self.neighbours.holders(*source).map(|other| other.ulid);
            others.filter(|other| *other != meta.ulid).collect()
        };
        if !local::merges_equal_samples(meta, &self.journal, self.block_range) {
            return !sources.is_empty() && sources.iter().all(|source| !holders(source).is_empty());
        }
        let of_all = sources.iter().map(holders).reduce(|all, own| all.intersection(&own).copied().collect());
        of_all.is_some_and(|holders| !holders.is_empty())
    }

    /// The labels with which the bucket has this block already: those of an earlier configuration, or of
    /// Thanos.
    async fn labels_in_bucket(&self, block: Ulid) -> Result<Option<BTreeMap<String, String>>, UploadFailure> {
        match self.bucket.get(&layout::meta(block)).await {
            Ok(bytes) => {
                Ok(BlockMeta::parse(&bytes).ok().and_then(|meta| meta.thanos).map(|thanos| thanos.labels))
            }
            Err(cause) if cause.is_not_found() => Ok(None),
            Err(cause) => Err(cause.into()),
        }
    }

    /// Rejects a block if the bucket has another one with the same labels and overlapping times.
    ///
    /// Blocks that a Prometheus cuts from its head never overlap each other, except those with samples that
    /// arrived out of order, and those that such blocks were merged into. So a new block of a sidecar that overlaps
    /// ours and is not in this journal comes from another Prometheus with the same external labels. The one that
    /// uploads first continues. The other one stops, and keeps its blocks until its labels are unique.
    fn reject_overlap(
        &self,
        meta: &BlockMeta,
        labels: &BTreeMap<String, String>,
    ) -> Result<(), UploadFailure> {
        let is_out_of_order =
            |meta: &BlockMeta| meta.compaction.hints.iter().any(|hint| hint == OUT_OF_ORDER);
        if is_out_of_order(meta) {
            return Ok(());
        }
        // Readers ignore a block whose sources are all in another block.
        let sources = &meta.compaction.sources;
        let is_part = |other: &BlockMeta| {
            let theirs = &other.compaction.sources;
            !theirs.is_empty() && theirs.iter().all(|source| sources.contains(source))
        };
        let mut others = self
            .neighbours
            .overlapping(meta, labels)
            .filter(|other| !is_out_of_order(other) && !is_part(other));
        if meta.compaction.level > 1 && !local::is_of_one_range(meta, self.block_range) {
            let other = others.next().filter(|_| !self.config.allow_overlaps);
            return other.map_or(Ok(()), |other| {
                Err(refused(format!(
                    "it was compacted here, and block {} in the bucket overlaps it in time; set \
                     --shipper.allow-out-of-order-uploads if the compactor merges overlapping blocks",
                    other.ulid
                )))
            });
        }
        let is_foreign = |other: &&BlockMeta| {
            other.thanos.as_ref().is_some_and(|thanos| BlockSource::is_producer(&thanos.source))
                && self.journal.get(other.ulid).is_none()
        };
        let Some(foreign) = others.find(is_foreign) else { return Ok(()) };
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        Err(UploadFailure::Block(Quarantine {
            reason: format!(
                "block {} in the bucket has the same external labels {{{}}} and overlaps in time, but comes from another \
                 Prometheus or ruler; set unique labels for each, such as a replica label, in global.external_labels or --label",
                foreign.ulid,
                labels.join(", ")
            ),
            is_damaged: false,
            is_foreign: true,
        }))
    }
}

/// Reads a whole block, and verifies its checksums and its consistency.
///
/// A damaged block is not uploaded. A mere contradiction, such as a wrong count in `meta.json`, is logged and
/// the block is uploaded: all its samples can be read, and holding it back would lose them.
fn verify_block(dir: &Path) -> Result<(), UploadFailure> {
    let mut failure = None;
    let mut report = |event| {
        let VerifyEvent::Problem(problem) = event else { return };
        if let BlockProblem::Contradiction(_) = problem.problem {
            warn!(error = %problem, "block is inconsistent and is uploaded unchanged");
        } else {
            let found = if problem.is_damage() { damaged(&problem) } else { refused(&problem) };
            failure.get_or_insert(found);
        }
    };
    tsdb::verify_dir(dir, &mut report);
    failure.map_or(Ok(()), Err)
}
