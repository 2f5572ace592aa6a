//! Third part of a pass: one block after the other into the bucket, the oldest first.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

use bucket::{BucketError, PublishError, PublishOptions, layout};
use model::Timestamp;
use tracing::{info, warn};
use tsdb::{BlockMeta, BlockProblem, Ulid, VerifyEvent};

use crate::shipper::disk::DiskError;
use crate::shipper::journal::Stage;
use crate::shipper::local::{self, LocalBlock, LocalBlocks, Task};
use crate::shipper::pin::Means;
use crate::shipper::{PassError, Producer, Quarantine, Shipper};

/// The pass ends after this many blocks in a row that the store failed: it is the store, not the blocks.
const MAX_FAILURES_IN_A_ROW: usize = 3;

/// Prometheus' remark on a block whose samples arrived out of order; such blocks overlap others by nature.
const OUT_OF_ORDER: &str = "from-out-of-order";

/// A block that waits for its upload.
struct Waiting {
    meta: BlockMeta,
    dir: PathBuf,
}

/// Why one block was not uploaded.
enum Failure {
    /// The block, for itself.
    Block(Quarantine),
    /// The store; the next block may fare better.
    Store(String),
}

impl From<BucketError> for Failure {
    fn from(cause: BucketError) -> Self {
        Self::Store(cause.to_string())
    }
}

fn refused(reason: impl ToString) -> Failure {
    Failure::Block(Quarantine { reason: reason.to_string(), is_damaged: false, is_foreign: false })
}

fn damaged(reason: impl ToString) -> Failure {
    Failure::Block(Quarantine { reason: reason.to_string(), is_damaged: true, is_foreign: false })
}

/// An instant before which neither this block nor one that was made of it can have been made.
pub(super) fn made_after(local: &LocalBlocks, block: Ulid) -> Timestamp {
    let made = Timestamp::from_millis(i64::try_from(block.timestamp_ms()).unwrap_or(i64::MAX));
    let known = local.blocks.iter().find(|known| known.meta.ulid == block);
    known.map_or(made, |known| known.meta.min_time.min(made))
}

impl Shipper {
    /// Uploads what is not in the bucket.
    pub(super) async fn upload(
        &mut self,
        local: &LocalBlocks,
        producer: &Producer,
        now: Timestamp,
    ) -> Result<(), PassError> {
        // A disk without room for a copy must not hold up what is pinned.
        let copied = self.copy_next(local, now);
        let waiting = self.waiting()?;
        if let Some(oldest) = waiting.iter().map(|block| block.meta.min_time).min() {
            self.neighbours.refresh(&self.bucket, oldest).await?;
        }
        let labels: BTreeMap<String, String> =
            producer.external.iter().map(|label| (label.name.to_owned(), label.value.to_owned())).collect();
        // A store has had a block since its upload ended, not since the pass began.
        let begun = Instant::now();
        let (mut failed, mut in_a_row, mut last) = (0, 0, String::new());
        // Damaged blocks wait as well: for a hand.
        for (block, quarantine) in self.quarantine.iter().filter(|(_, quarantine)| quarantine.is_damaged) {
            failed += 1;
            last = format!("block {block}: {}", quarantine.reason);
        }
        let all = waiting.len() + failed;
        for block in waiting {
            let id = block.meta.ulid;
            // What it was made of may have come before it in this very pass.
            if self.task(&block.meta) == Task::Covered {
                self.cover(&block.meta);
                self.settle(local, now)?;
                continue;
            }
            match self.upload_one(&block, local, &labels).await {
                Ok(stage) => {
                    in_a_row = 0;
                    self.failed.remove(&id);
                    self.quarantine.remove(&id);
                    let now = now + begun.elapsed();
                    self.journal.set(&block.meta, stage, now);
                    self.settle(local, now)?;
                    self.hand_over(local, producer, now);
                }
                Err(Failure::Block(quarantine)) => {
                    self.metrics.upload_failures.inc();
                    failed += 1;
                    last = format!("block {id}: {}", quarantine.reason);
                    self.set_aside(id, quarantine);
                }
                Err(Failure::Store(cause)) => {
                    self.metrics.upload_failures.inc();
                    failed += 1;
                    in_a_row += 1;
                    if self.failed.insert(id) {
                        warn!(block = %id, err = cause, "block was not uploaded and is tried again");
                    }
                    last = cause;
                    if in_a_row == MAX_FAILURES_IN_A_ROW {
                        break;
                    }
                }
            }
        }
        copied?;
        if failed == 0 { Ok(()) } else { Err(PassError::Uploads { failed, waiting: all, last }) }
    }

    /// Copies the oldest block that cannot be linked; one at a time, so that a backlog does not fill the disk twice.
    fn copy_next(&mut self, local: &LocalBlocks, now: Timestamp) -> Result<(), DiskError> {
        let is_seen = |block: &&LocalBlock| {
            self.journal.get(block.meta.ulid).is_some_and(|entry| entry.stage == Stage::Seen)
        };
        let Some(block) = local.blocks.iter().find(is_seen) else { return Ok(()) };
        match self.pins.pin(block.meta.ulid, &block.dir, Means::Copy) {
            Ok(()) => self.journal.set(&block.meta, Stage::Pinned, now),
            // Prometheus removes it this very moment; the next look at the folder tells.
            Err(cause) if cause.is_missing() => {}
            Err(cause) => return Err(cause),
        }
        self.journal.save()
    }

    /// What waits, oldest first, behind it what the store failed the last time.
    fn waiting(&mut self) -> Result<Vec<Waiting>, PassError> {
        let mut waiting = Vec::new();
        for block in self.pins.blocks()? {
            let is_damaged = self.quarantine.get(&block).is_some_and(|quarantine| quarantine.is_damaged);
            if is_damaged || self.journal.is_settled(block) {
                continue;
            }
            let dir = self.pins.dir(block);
            match local::read_meta(&dir, block) {
                Ok(meta) => waiting.push(Waiting { meta, dir }),
                Err(reason) => {
                    self.set_aside(block, Quarantine { reason, is_damaged: true, is_foreign: false });
                }
            }
        }
        waiting.sort_by_key(|block| {
            (self.failed.contains(&block.meta.ulid), block.meta.min_time, block.meta.ulid)
        });
        Ok(waiting)
    }

    /// Brings one block into the bucket; tells how it got on where its samples are there, by whatever way, or must not be.
    async fn upload_one(
        &mut self,
        block: &Waiting,
        local: &LocalBlocks,
        labels: &BTreeMap<String, String>,
    ) -> Result<Stage, Failure> {
        let id = block.meta.ulid;
        if self.is_contained(&block.meta) {
            info!(block = %id, bucket = self.bucket.name(), "the bucket has the samples of this block in others");
            return Ok(Stage::Verified);
        }
        self.refuse_overlap(&block.meta, labels)?;
        if !self.sound.contains(&id) {
            let dir = block.dir.clone();
            let checked = tokio::task::spawn_blocking(move || check(&dir)).await;
            checked.map_err(|cause| refused(format!("its verification broke off: {cause}")))??;
            self.sound.insert(id);
        }
        let deletions =
            local.blocks.iter().find(|known| known.meta.ulid == id).map_or(0, |b| b.meta.stats.tombstones);
        let mut meta = block.meta.clone();
        // Tombstones stay here, and so does their number.
        meta.stats.tombstones = 0;
        let thanos = meta.thanos.get_or_insert_default();
        thanos.labels = self.labels_in_bucket(id).await?.unwrap_or_else(|| labels.clone());
        thanos.source = "sidecar".to_owned();
        let options = PublishOptions { concurrency: self.config.concurrency, ..PublishOptions::default() };
        let published = match bucket::publish(&self.bucket, &block.dir, meta, &options).await {
            Ok(published) => published,
            Err(PublishError::Marked(_)) => {
                info!(block = %id, bucket = self.bucket.name(), "block is marked for deletion in the bucket and stays away");
                return Ok(Stage::Withdrawn);
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
                "Prometheus has deleted samples of this block; they are in the bucket: delete them there, too"
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
            "block is in the bucket"
        );
        Ok(Stage::Verified)
    }

    /// Whether the bucket has all samples of a block in other blocks, made from it or from what it was made of.
    fn is_contained(&self, meta: &BlockMeta) -> bool {
        let sources: BTreeSet<Ulid> = meta.compaction.sources.iter().copied().collect();
        !sources.is_empty()
            && sources
                .iter()
                .all(|source| self.neighbours.holders(*source).any(|other| other.ulid != meta.ulid))
    }

    /// The labels under which the bucket has this block already: those of an earlier configuration, or of Thanos.
    async fn labels_in_bucket(&self, block: Ulid) -> Result<Option<BTreeMap<String, String>>, Failure> {
        match self.bucket.get(&layout::meta(block)).await {
            Ok(bytes) => {
                Ok(BlockMeta::parse(&bytes).ok().and_then(|meta| meta.thanos).map(|thanos| thanos.labels))
            }
            Err(cause) if cause.is_not_found() => Ok(None),
            Err(cause) => Err(cause.into()),
        }
    }

    /// Refuses a block beside which the bucket has another one with the same labels and times.
    ///
    /// Blocks that a Prometheus cuts from its head never overlap each other, except those of samples that arrived out of
    /// order. So a fresh block from a sidecar that overlaps ours, and that this journal does not know, comes from another
    /// Prometheus with the same external labels. Whoever uploads first goes on; the other one stops, and keeps its blocks
    /// until its labels are its own.
    fn refuse_overlap(&self, meta: &BlockMeta, labels: &BTreeMap<String, String>) -> Result<(), Failure> {
        let is_out_of_order =
            |meta: &BlockMeta| meta.compaction.hints.iter().any(|hint| hint == OUT_OF_ORDER);
        if is_out_of_order(meta) {
            return Ok(());
        }
        let mut others = self.neighbours.overlapping(meta, labels).filter(|other| !is_out_of_order(other));
        if meta.compaction.level > 1 {
            let other = others.next().filter(|_| !self.config.allow_overlaps);
            return other.map_or(Ok(()), |other| {
                Err(refused(format!(
                    "it was compacted here, and the bucket has block {} of the same time; give \
                     --shipper.allow-out-of-order-uploads if the compactor merges overlapping blocks",
                    other.ulid
                )))
            });
        }
        let is_foreign = |other: &&BlockMeta| {
            other.compaction.level <= 1
                && other.thanos.as_ref().is_some_and(|thanos| thanos.source == "sidecar")
                && self.journal.get(other.ulid).is_none()
        };
        let Some(foreign) = others.find(is_foreign) else { return Ok(()) };
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        Err(Failure::Block(Quarantine {
            reason: format!(
                "block {} in the bucket has the same external labels {{{}}} and overlaps in time, but comes from another \
                 Prometheus; give each its own labels, such as a replica label, in global.external_labels",
                foreign.ulid,
                labels.join(", ")
            ),
            is_damaged: false,
            is_foreign: true,
        }))
    }
}

/// Reads a block whole and compares it with its checksums and itself.
///
/// Damage keeps a block back. What only contradicts itself, such as a count in `meta.json`, is told and shipped: every
/// sample of it can be read, and holding it back would lose them.
fn check(dir: &Path) -> Result<(), Failure> {
    let mut failure = None;
    let mut report = |event| {
        let VerifyEvent::Problem(problem) = event else { return };
        if let BlockProblem::Contradiction(_) = problem.problem {
            warn!(error = %problem, "block contradicts itself and is uploaded as it is");
        } else {
            let told = if problem.is_damage() { damaged(&problem) } else { refused(&problem) };
            failure.get_or_insert(told);
        }
    };
    tsdb::verify_dir(dir, &mut report);
    failure.map_or(Ok(()), Err)
}
