//! The passes of the shipper: each finds, pins, compares, uploads and records.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bucket::{Bucket, BucketError};
use model::{Labels, Timestamp};
use runtime::{Shutdown, Startup};
use tokio::sync::watch;
use tracing::{error, info, warn};
use tsdb::Ulid;

use crate::admission;
use crate::config::ShipperConfig;
use crate::disk::DiskError;
use crate::journal::{BlockStage, Journal};
use crate::local::{self, BlockTask, LocalBlocks, ShipPolicy};
use crate::metrics::ShipperMetrics;
use crate::neighbours::Neighbours;
use crate::pin::Pins;
use crate::serve_from::{self, ServedBlock};
use crate::uploaded::UploadedList;

/// Delay between two passes.
const INTERVAL: Duration = Duration::from_secs(30);

/// The journal keeps a block that is in the bucket and no longer here for this long.
const MEMORY: Duration = Duration::from_secs(30 * 24 * 3600);

/// The producer of the uploaded blocks, as Prometheus reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Producer {
    /// External labels, attached to each block; never empty.
    pub external: Labels,
    /// Maximum age of samples that the producer still accepts.
    pub out_of_order_window: Duration,
    /// Duration of its blocks.
    pub block_range: Duration,
}

/// What a shipper reports while it runs.
#[derive(Clone, Debug)]
pub struct Shipped {
    /// The time from which the component that has the blocks must serve.
    pub serve_from: watch::Receiver<Timestamp>,
    /// Blocks that stores serve, or that the bucket does not need: they may be removed.
    pub removable: watch::Receiver<BTreeSet<Ulid>>,
}

/// Why a pass is incomplete.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PassError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Bucket(#[from] BucketError),
    #[error("{failed} of {waiting} waiting blocks were not uploaded, last error: {last}")]
    Uploads { failed: usize, waiting: usize, last: String },
}

/// Uploads the blocks of one data folder.
pub struct Shipper {
    pub(crate) config: ShipperConfig,
    pub(crate) bucket: Bucket,
    pub(crate) metrics: ShipperMetrics,
    pub(crate) journal: Journal,
    pub(crate) uploaded: UploadedList,
    pub(crate) pins: Pins,
    pub(crate) neighbours: Neighbours,
    /// Duration of the blocks of Prometheus, as of the last pass.
    pub(crate) block_range: Duration,
    /// Blocks that cannot be uploaded in their present state, and why.
    pub(crate) quarantine: BTreeMap<Ulid, Quarantine>,
    /// Pinned blocks whose checksums were verified.
    pub(crate) sound: BTreeSet<Ulid>,
    /// Blocks whose last upload failed because of the store; they come last in the next pass.
    pub(crate) failed: BTreeSet<Ulid>,
    /// Time of the last comparison of journal and bucket.
    pub(crate) reconciled: Option<Timestamp>,
    /// The time from which the sidecar must serve.
    pub(crate) serve_from: watch::Sender<Timestamp>,
    /// The blocks that may be removed here.
    pub(crate) removable: watch::Sender<BTreeSet<Ulid>>,
}

/// Why a block is not uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Quarantine {
    pub(crate) reason: String,
    /// The files are damaged, so another check cannot succeed.
    pub(crate) is_damaged: bool,
    /// Another producer has uploaded a block with its labels and times.
    pub(crate) is_foreign: bool,
}

impl Shipper {
    /// Starts the uploads of a role: tests whether the bucket can be used, and runs a shipper on a thread of its own, because it
    /// flushes files and reads whole blocks. `producer` is `None` while blocks must not be uploaded.
    pub fn start(
        startup: &mut Startup,
        config: ShipperConfig,
        bucket: Bucket,
        producer: watch::Receiver<Option<Producer>>,
    ) -> Shipped {
        let shutdown = startup.shutdown();
        startup.spawn("bucket access", {
            let (bucket, shutdown) = (bucket.clone(), shutdown.clone());
            async move { admission::admitted(&bucket, admission::RETRY, &shutdown).await }
        });
        let shipper = Self::new(config, bucket, ShipperMetrics::new(startup.registry()));
        let shipped = shipper.shipped();
        let handle = tokio::runtime::Handle::current();
        let shipping = tokio::task::spawn_blocking(move || handle.block_on(shipper.run(producer, shutdown)));
        startup.spawn("shipper", shipping);
        shipped
    }

    pub(crate) fn new(config: ShipperConfig, bucket: Bucket, metrics: ShipperMetrics) -> Self {
        let folder = config.folder();
        Self {
            journal: Journal::open(folder.join("shipper-journal.json")),
            uploaded: UploadedList::open(config.uploaded_file.clone()),
            pins: Pins::new(folder.join("upload")),
            neighbours: Neighbours::default(),
            block_range: Duration::ZERO,
            quarantine: BTreeMap::new(),
            sound: BTreeSet::new(),
            failed: BTreeSet::new(),
            reconciled: None,
            config,
            bucket,
            metrics,
            serve_from: watch::Sender::new(Timestamp::MIN),
            removable: watch::Sender::default(),
        }
    }

    pub(crate) fn shipped(&self) -> Shipped {
        Shipped { serve_from: self.serve_from.subscribe(), removable: self.removable.subscribe() }
    }

    /// Runs until shutdown. `producer` is `None` until Prometheus has answered, and while its flags do not permit uploads.
    ///
    /// # Cancel safety
    /// Shutdown interrupts a pass anywhere; the next start continues.
    async fn run(mut self, mut producer: watch::Receiver<Option<Producer>>, shutdown: Shutdown) {
        // While the list is missing, Prometheus may compact any block.
        if let Err(cause) = self.uploaded.create_if_missing() {
            error!(error = %cause, "list of uploaded blocks cannot be written, Prometheus may compact blocks before their upload");
        }
        let mut last_error = None;
        loop {
            let known = shutdown.until_triggered(producer.wait_for(Option::is_some)).await;
            let Some(Ok(Some(producer))) = known.map(|known| known.map(|producer| producer.clone())) else {
                return;
            };
            let Some(outcome) = shutdown.until_triggered(self.pass(&producer, now())).await else {
                return;
            };
            let fresh = outcome.err().map(|cause| cause.to_string());
            match &fresh {
                Some(error) if fresh != last_error => {
                    warn!(bucket = self.bucket.name(), retry = ?INTERVAL, %error, "blocks were not uploaded, retrying");
                }
                None if last_error.is_some() => {
                    info!(bucket = self.bucket.name(), "uploads have recovered, all blocks are in the bucket")
                }
                _ => {}
            }
            last_error = fresh;
            if shutdown.until_triggered(tokio::time::sleep(INTERVAL)).await.is_none() {
                return;
            }
        }
    }

    /// Runs one pass.
    pub(crate) async fn pass(&mut self, producer: &Producer, now: Timestamp) -> Result<(), PassError> {
        self.metrics.passes.inc();
        let outcome = self.run_steps(producer, now).await;
        if outcome.is_err() {
            self.metrics.pass_failures.inc();
        }
        outcome
    }

    async fn run_steps(&mut self, producer: &Producer, now: Timestamp) -> Result<(), PassError> {
        let local = LocalBlocks::find(&self.config.data_dir)?;
        self.block_range = producer.block_range;
        self.pins.remove_unfinished()?;
        // An error while pinning must not prevent the upload of pinned blocks.
        let pinned_new = self.pin_new_blocks(&local, now);
        self.update_serve_from(&local, producer, now);
        let reconciled = self.reconcile(&local, now).await;
        let uploaded = self.upload(&local, producer, now).await;
        let settled = self.save_progress(&local, now);
        self.update_serve_from(&local, producer, now);
        self.update_gauges(&local, now);
        pinned_new?;
        settled?;
        reconciled?;
        uploaded
    }

    /// Persists the progress: first the journal, then the list for Prometheus; then releases pins that are no
    /// longer needed.
    pub(crate) fn save_progress(&mut self, local: &LocalBlocks, now: Timestamp) -> Result<(), DiskError> {
        self.journal.save()?;
        let may_go = |block: &&local::LocalBlock| self.journal.is_settled(block.meta.ulid);
        let uploaded = local.blocks.iter().filter(may_go).map(|block| block.meta.ulid).collect();
        self.uploaded.write(uploaded)?;
        for block in self.pins.blocks()? {
            if self.journal.is_settled(block) {
                self.pins.release(block)?;
                self.sound.remove(&block);
            }
        }
        let mut needed: BTreeSet<Ulid> = self.pins.blocks()?.into_iter().collect();
        for block in &local.blocks {
            needed.insert(block.meta.ulid);
            needed.extend(&block.meta.compaction.sources);
            needed.extend(block.meta.compaction.parents.iter().map(|parent| parent.ulid));
        }
        self.journal.retain(|block, entry| needed.contains(&block) || entry.since + MEMORY > now);
        self.failed.retain(|block| needed.contains(block));
        self.journal.save()
    }

    pub(crate) fn decide(&self, meta: &tsdb::BlockMeta) -> BlockTask {
        let policy =
            ShipPolicy { upload_compacted: self.config.upload_compacted, block_range: self.block_range };
        local::decide(meta, &self.journal, policy)
    }

    /// Updates the time from which the sidecar must serve.
    pub(crate) fn update_serve_from(&self, local: &LocalBlocks, producer: &Producer, now: Timestamp) {
        self.update_removable(local, now);
        if self.config.serve_uploaded {
            return;
        }
        let block = |block: &local::LocalBlock| {
            let meta = &block.meta;
            let in_bucket_since = self.journal.settled_since(meta.ulid);
            ServedBlock { min_time: meta.min_time, max_time: meta.max_time, in_bucket_since }
        };
        let mut blocks: Vec<ServedBlock> = local.blocks.iter().map(block).collect();
        // The times of a block whose `meta.json` cannot be read are unknown.
        let unknown =
            ServedBlock { min_time: Timestamp::MIN, max_time: Timestamp::MIN, in_bucket_since: None };
        blocks.extend(local.unreadable.iter().map(|_| unknown));
        let serve_from =
            serve_from::serve_from(&blocks, now, producer.out_of_order_window, producer.block_range);
        self.metrics.set_serve_from(serve_from);
        self.serve_from.send_if_modified(|old| std::mem::replace(old, serve_from) != serve_from);
    }

    /// Updates the blocks that may be removed here: stores have had time to load them, or no store needs them.
    fn update_removable(&self, local: &LocalBlocks, now: Timestamp) {
        let is_served_by_stores = |block: &&local::LocalBlock| {
            let since = self.journal.settled_since(block.meta.ulid);
            since.is_some_and(|since| since + serve_from::OVERLAP <= now)
        };
        let removable =
            local.blocks.iter().filter(is_served_by_stores).map(|block| block.meta.ulid).collect();
        self.removable.send_if_modified(|old| {
            let is_new = *old != removable;
            *old = removable;
            is_new
        });
    }

    fn update_gauges(&self, local: &LocalBlocks, now: Timestamp) {
        let waits = |block: &&local::LocalBlock| {
            !self.journal.is_settled(block.meta.ulid) && self.decide(&block.meta) == BlockTask::Ship
        };
        let mut waiting: BTreeSet<Ulid> =
            local.blocks.iter().filter(waits).map(|block| block.meta.ulid).collect();
        let pinned = self.pins.blocks().unwrap_or_default();
        waiting.extend(pinned.iter().filter(|block| !self.journal.is_settled(**block)));
        let made =
            |block: &Ulid| Timestamp::from_millis(i64::try_from(block.timestamp_ms()).unwrap_or(i64::MAX));
        let age = waiting.first().map_or(0, |oldest| now.millis_since(made(oldest)).max(0));
        self.metrics.backlog(waiting.len(), Duration::from_millis(age.unsigned_abs()));
        let foreign = self.quarantine.values().filter(|quarantine| quarantine.is_foreign).count();
        self.metrics.set_block_counts(pinned.len(), self.quarantine.len(), foreign);
        let verified = self.journal.iter().filter(|(_, entry)| entry.stage == BlockStage::Verified);
        if let Some(until) = verified.map(|(_, entry)| entry.max_time).max() {
            self.metrics.verified_until(until);
        }
        let is_left = |block: &local::LocalBlock| {
            block.meta.compaction.level > 1 && !self.journal.is_settled(block.meta.ulid)
        };
        self.metrics.compacted_done.set(i64::from(!local.blocks.iter().any(is_left)));
    }

    /// Quarantines a block, and logs each new reason once.
    pub(crate) fn quarantine_block(&mut self, block: Ulid, quarantine: Quarantine) {
        if self.quarantine.get(&block) == Some(&quarantine) {
            return;
        }
        error!(block = %block, error = %quarantine.reason, "block cannot be uploaded and is quarantined, other blocks are uploaded");
        if quarantine.is_damaged {
            self.metrics.corrupted.inc();
        }
        self.quarantine.insert(block, quarantine);
    }
}

/// The current time.
pub(crate) fn now() -> Timestamp {
    Timestamp::EPOCH + SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
