//! Metrics of the shipper, with the names of Thanos where the meaning is the same.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use model::Timestamp;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use runtime::Registry;

/// Metrics of the shipper. Clones share the counters.
#[derive(Clone, Debug, Default)]
pub(crate) struct ShipperMetrics {
    pub(crate) passes: Counter,
    pub(crate) pass_failures: Counter,
    pub(crate) uploads: Counter,
    pub(crate) upload_failures: Counter,
    pub(crate) corrupted: Counter,
    pub(crate) compacted_done: Gauge,
    pub(crate) repeated: Counter,
    pub(crate) lost: Counter,
    pub(crate) deletions_not_shipped: Counter,
    backlog: Gauge,
    backlog_age: Gauge<f64, AtomicU64>,
    quarantined: Gauge,
    pinned: Gauge,
    foreign: Gauge,
    verified_until: Gauge<f64, AtomicU64>,
    serve_from: Gauge<f64, AtomicU64>,
}

impl ShipperMetrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let thanos = registry.sub_registry_with_prefix("thanos_shipper");
        thanos.register("dir_syncs", "Passes over the data directory and the bucket", metrics.passes.clone());
        thanos.register(
            "dir_sync_failures",
            "Passes over the data directory and the bucket that were incomplete",
            metrics.pass_failures.clone(),
        );
        thanos.register("uploads", "Blocks uploaded and verified", metrics.uploads.clone());
        thanos.register("upload_failures", "Failed uploads of a block", metrics.upload_failures.clone());
        thanos.register(
            "corrupted_blocks",
            "Blocks that were damaged before their upload",
            metrics.corrupted.clone(),
        );
        thanos.register(
            "upload_compacted_done",
            "1 if all locally compacted blocks are in the bucket",
            metrics.compacted_done.clone(),
        );
        let ours = registry.sub_registry_with_prefix("isthmus_shipper");
        ours.register("backlog_blocks", "Blocks that wait for their upload", metrics.backlog.clone());
        ours.register(
            "backlog_age_seconds",
            "Age of the oldest block that waits for its upload, in seconds",
            metrics.backlog_age.clone(),
        );
        ours.register(
            "quarantined_blocks",
            "Blocks that cannot be uploaded; the log names them",
            metrics.quarantined.clone(),
        );
        ours.register(
            "pinned_blocks",
            "Blocks with hard links or copies in thanos/upload",
            metrics.pinned.clone(),
        );
        ours.register(
            "foreign_blocks",
            "Blocks that are not uploaded because another producer has uploaded blocks with the same labels and times",
            metrics.foreign.clone(),
        );
        ours.register(
            "blocks_repeated",
            "Blocks uploaded again because the bucket had lost them",
            metrics.repeated.clone(),
        );
        ours.register(
            "blocks_lost",
            "Blocks removed from the data directory before they were pinned",
            metrics.lost.clone(),
        );
        ours.register(
            "blocks_with_deletions",
            "Blocks uploaded without the deletions that Prometheus has recorded for them",
            metrics.deletions_not_shipped.clone(),
        );
        ours.register(
            "verified_until_timestamp_seconds",
            "End of the newest block in the bucket, in seconds since the epoch",
            metrics.verified_until.clone(),
        );
        ours.register(
            "store_min_time_seconds",
            "Time from which the sidecar serves data, in seconds since the epoch; earlier data is served from the bucket; 0 if it serves everything",
            metrics.serve_from.clone(),
        );
        metrics
    }

    pub(crate) fn backlog(&self, blocks: usize, age: Duration) {
        self.backlog.set(blocks as i64);
        self.backlog_age.set(age.as_secs_f64());
    }

    pub(crate) fn set_block_counts(&self, pinned: usize, quarantined: usize, foreign: usize) {
        self.pinned.set(pinned as i64);
        self.quarantined.set(quarantined as i64);
        self.foreign.set(foreign as i64);
    }

    pub(crate) fn verified_until(&self, at: Timestamp) {
        self.verified_until.set(at.as_secs_f64());
    }

    pub(crate) fn set_serve_from(&self, at: Timestamp) {
        self.serve_from.set(if at == Timestamp::MIN { 0.0 } else { at.as_secs_f64() });
    }
}
