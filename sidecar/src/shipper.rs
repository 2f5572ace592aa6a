//! The shipper: brings Prometheus' finished blocks into a bucket, each whole or not at all.
//!
//! ```text
//! seen ──► pinned ──► verified
//!          │          the bucket has the block, read back and compared; Prometheus may compact or remove it
//!          hard links in <tsdb.path>/thanos/upload hold its files, whatever Prometheus does
//! ```
//!
//! One pass after the other looks at the data folder, pins what is new, and uploads what is not in the bucket, oldest first.
//! A pass may be cut anywhere, by a kill or an error: the next one finds what there is and goes on. No block waits for
//! another one that cannot be uploaded.
//!
//! Reading order: `config`, `preflight` (what Prometheus must be told), `local` (its blocks), `journal`, `uploaded` (the list
//! for Prometheus), `pin`, `keep` (pass: find and pin), `reconcile` (pass: does the bucket still have what it had),
//! `neighbours` (what else is in the bucket), `upload` (pass: one block after the other), `handover` (what the sidecar need
//! not serve any more), `disk`, `metrics`.

mod config;
mod disk;
mod handover;
mod journal;
mod keep;
mod local;
mod metrics;
mod neighbours;
mod pin;
mod preflight;
mod reconcile;
mod upload;
mod uploaded;

#[cfg(test)]
mod faults;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bucket::{Bucket, BucketError};
use model::{Labels, Timestamp};
use runtime::Shutdown;
use tokio::sync::watch;
use tracing::{error, info, warn};
use tsdb::Ulid;

pub(crate) use config::{ShipperArgs, ShipperConfig};
use disk::DiskError;
use handover::Holding;
use journal::{Journal, Stage};
use local::{LocalBlocks, Task};
pub(crate) use metrics::ShipperMetrics;
use neighbours::Neighbours;
use pin::Pins;
pub(crate) use preflight::{Fit, Preflight};
use uploaded::Uploaded;

/// Time between two passes.
const INTERVAL: Duration = Duration::from_secs(30);

/// How long the journal remembers a block that is in the bucket and no longer here.
const MEMORY: Duration = Duration::from_secs(30 * 24 * 3600);

/// Whose blocks are shipped, as Prometheus tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Producer {
    /// Attached to every block; never empty.
    pub(crate) external: Labels,
    /// How far behind the present samples may arrive.
    pub(crate) out_of_order_window: Duration,
    /// Length of its blocks.
    pub(crate) block_range: Duration,
}

/// Why a pass left something undone.
#[derive(Debug, thiserror::Error)]
enum PassError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Bucket(#[from] BucketError),
    #[error("{failed} of {waiting} blocks that wait were not uploaded, the last one because of: {last}")]
    Uploads { failed: usize, waiting: usize, last: String },
}

/// Ships the blocks of one Prometheus.
pub(crate) struct Shipper {
    config: ShipperConfig,
    bucket: Bucket,
    metrics: ShipperMetrics,
    journal: Journal,
    uploaded: Uploaded,
    pins: Pins,
    neighbours: Neighbours,
    /// Blocks that cannot be uploaded as they are, and why.
    quarantine: BTreeMap<Ulid, Quarantine>,
    /// Pinned blocks whose checksums were found right.
    sound: BTreeSet<Ulid>,
    /// Blocks whose last upload the store failed: others come first the next time.
    failed: BTreeSet<Ulid>,
    /// When journal and bucket were last compared.
    reconciled: Option<Timestamp>,
    /// The earliest instant that the sidecar must serve.
    begin: watch::Sender<Timestamp>,
}

/// Why a block is not uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Quarantine {
    reason: String,
    /// Looking again cannot help: the files themselves are damaged.
    is_damaged: bool,
    /// Another producer has its labels and its time.
    is_foreign: bool,
}

impl Shipper {
    /// A shipper that tells `begin` from which instant on the sidecar must serve.
    pub(crate) fn new(
        config: ShipperConfig,
        bucket: Bucket,
        metrics: ShipperMetrics,
        begin: watch::Sender<Timestamp>,
    ) -> Self {
        let folder = config.folder();
        Self {
            journal: Journal::open(folder.join("shipper-journal.json")),
            uploaded: Uploaded::open(config.uploaded_file.clone()),
            pins: Pins::new(folder.join("upload")),
            neighbours: Neighbours::default(),
            quarantine: BTreeMap::new(),
            sound: BTreeSet::new(),
            failed: BTreeSet::new(),
            reconciled: None,
            config,
            bucket,
            metrics,
            begin,
        }
    }

    /// Runs until shutdown. `producer` is `None` as long as Prometheus has not answered.
    ///
    /// Does file work in place: run it where that holds up nobody.
    ///
    /// # Cancel safety
    /// Shutdown cuts a pass where it is; the next start goes on from there.
    pub(crate) async fn run(mut self, mut producer: watch::Receiver<Option<Producer>>, shutdown: Shutdown) {
        // Prometheus may compact whatever it likes while the list is not there.
        if let Err(cause) = self.uploaded.ensure() {
            error!(error = %cause, "the list of uploaded blocks cannot be written");
        }
        let known = producer.wait_for(Option::is_some);
        if !matches!(shutdown.until_triggered(known).await, Some(Ok(_))) {
            return;
        }
        let mut complaint = None;
        loop {
            let Some(producer) = producer.borrow_and_update().clone() else { return };
            let Some(outcome) = shutdown.until_triggered(self.pass(&producer, crate::now())).await else {
                return;
            };
            let fresh = outcome.err().map(|cause| cause.to_string());
            match &fresh {
                Some(err) if fresh != complaint => {
                    warn!(bucket = self.bucket.name(), retry = "30s", err, "blocks wait for their upload");
                }
                None if complaint.is_some() => {
                    info!(bucket = self.bucket.name(), "all blocks are uploaded")
                }
                _ => {}
            }
            complaint = fresh;
            if shutdown.until_triggered(tokio::time::sleep(INTERVAL)).await.is_none() {
                return;
            }
        }
    }

    /// Does everything that can be done now.
    async fn pass(&mut self, producer: &Producer, now: Timestamp) -> Result<(), PassError> {
        self.metrics.passes.inc();
        let outcome = self.steps(producer, now).await;
        if outcome.is_err() {
            self.metrics.pass_failures.inc();
        }
        outcome
    }

    async fn steps(&mut self, producer: &Producer, now: Timestamp) -> Result<(), PassError> {
        let local = LocalBlocks::find(&self.config.data_dir)?;
        self.pins.tidy()?;
        // What fails on the way out of the data folder must not keep what is out from being uploaded.
        let kept = self.keep(&local, now);
        self.hand_over(&local, producer, now);
        let reconciled = self.reconcile(&local, now).await;
        let uploaded = self.upload(&local, producer, now).await;
        let settled = self.settle(&local, now);
        self.hand_over(&local, producer, now);
        self.count(&local, now);
        kept?;
        settled?;
        reconciled?;
        uploaded
    }

    /// Makes what was reached last: journal, then the list for Prometheus, then the pins that are needed no more.
    fn settle(&mut self, local: &LocalBlocks, now: Timestamp) -> Result<(), DiskError> {
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

    fn task(&self, meta: &tsdb::BlockMeta) -> Task {
        local::task(meta, &self.journal, self.config.upload_compacted)
    }

    /// Tells the sidecar from where on it must serve.
    fn hand_over(&self, local: &LocalBlocks, producer: &Producer, now: Timestamp) {
        if self.config.serve_uploaded {
            return;
        }
        let holding = |block: &local::LocalBlock| {
            let meta = &block.meta;
            let in_bucket_since = self.journal.settled_since(meta.ulid);
            Holding { min_time: meta.min_time, max_time: meta.max_time, in_bucket_since }
        };
        let mut holdings: Vec<Holding> = local.blocks.iter().map(holding).collect();
        // Nobody knows the times of a block whose description cannot be read.
        let unknown = Holding { min_time: Timestamp::MIN, max_time: Timestamp::MIN, in_bucket_since: None };
        holdings.extend(local.unreadable.iter().map(|_| unknown));
        let begin = handover::begin(&holdings, now, producer.out_of_order_window, producer.block_range);
        self.metrics.serves_from(begin);
        self.begin.send_if_modified(|old| std::mem::replace(old, begin) != begin);
    }

    fn count(&self, local: &LocalBlocks, now: Timestamp) {
        let waits = |block: &&local::LocalBlock| {
            !self.journal.is_settled(block.meta.ulid) && self.task(&block.meta) == Task::Ship
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
        self.metrics.held(pinned.len(), self.quarantine.len(), foreign);
        let verified = self.journal.iter().filter(|(_, entry)| entry.stage == Stage::Verified);
        if let Some(until) = verified.map(|(_, entry)| entry.max_time).max() {
            self.metrics.verified_until(until);
        }
        let is_left = |block: &local::LocalBlock| {
            block.meta.compaction.level > 1 && !self.journal.is_settled(block.meta.ulid)
        };
        self.metrics.compacted_done.set(i64::from(!local.blocks.iter().any(is_left)));
    }

    /// Sets a block aside, with one log line for each new reason.
    fn set_aside(&mut self, block: Ulid, quarantine: Quarantine) {
        if self.quarantine.get(&block) == Some(&quarantine) {
            return;
        }
        error!(block = %block, err = quarantine.reason, "block is not uploaded, others are");
        if quarantine.is_damaged {
            self.metrics.corrupted.inc();
        }
        self.quarantine.insert(block, quarantine);
    }
}
