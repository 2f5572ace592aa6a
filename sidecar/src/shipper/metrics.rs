//! What the shipper counts, under Thanos' names where they mean the same.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use model::Timestamp;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use runtime::Registry;

/// Cheap to clone; clones count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct ShipperMetrics {
    pub(super) passes: Counter,
    pub(super) pass_failures: Counter,
    pub(super) uploads: Counter,
    pub(super) upload_failures: Counter,
    pub(super) corrupted: Counter,
    pub(super) compacted_done: Gauge,
    pub(super) repeated: Counter,
    pub(super) lost: Counter,
    pub(super) deletions_not_shipped: Counter,
    backlog: Gauge,
    backlog_age: Gauge<f64, AtomicU64>,
    quarantined: Gauge,
    pinned: Gauge,
    foreign: Gauge,
    verified_until: Gauge<f64, AtomicU64>,
    serves_from: Gauge<f64, AtomicU64>,
}

impl ShipperMetrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let thanos = registry.sub_registry_with_prefix("thanos_shipper");
        thanos.register("dir_syncs", "Looks at the data folder and the bucket", metrics.passes.clone());
        thanos.register(
            "dir_sync_failures",
            "Looks at the data folder and the bucket after which something was left undone",
            metrics.pass_failures.clone(),
        );
        thanos.register("uploads", "Blocks uploaded and verified", metrics.uploads.clone());
        thanos.register("upload_failures", "Uploads of a block that failed", metrics.upload_failures.clone());
        thanos.register(
            "corrupted_blocks",
            "Blocks that were found damaged before they were uploaded",
            metrics.corrupted.clone(),
        );
        thanos.register(
            "upload_compacted_done",
            "1 when every block that was compacted locally is in the bucket",
            metrics.compacted_done.clone(),
        );
        let ours = registry.sub_registry_with_prefix("isthmus_shipper");
        ours.register("backlog_blocks", "Blocks that are not in the bucket yet", metrics.backlog.clone());
        ours.register(
            "backlog_age_seconds",
            "Time since the oldest of the blocks that are not in the bucket yet was made",
            metrics.backlog_age.clone(),
        );
        ours.register(
            "quarantined_blocks",
            "Blocks that cannot be uploaded as they are; the log names them",
            metrics.quarantined.clone(),
        );
        ours.register(
            "pinned_blocks",
            "Blocks whose files are held in thanos/upload",
            metrics.pinned.clone(),
        );
        ours.register(
            "foreign_blocks",
            "Blocks in the bucket that another producer made under the labels and times of this one",
            metrics.foreign.clone(),
        );
        ours.register(
            "blocks_repeated",
            "Blocks uploaded again because they had gone from the bucket",
            metrics.repeated.clone(),
        );
        ours.register(
            "blocks_lost",
            "Blocks that were removed from the data folder before they could be pinned",
            metrics.lost.clone(),
        );
        ours.register(
            "blocks_with_deletions",
            "Blocks uploaded without the deletions that Prometheus knew of",
            metrics.deletions_not_shipped.clone(),
        );
        ours.register(
            "verified_until_timestamp_seconds",
            "End of the youngest block that is in the bucket, in seconds since the epoch",
            metrics.verified_until.clone(),
        );
        ours.register(
            "store_min_time_seconds",
            "Instant before which the sidecar leaves queries to the bucket, in seconds since the epoch; 0 while it serves everything",
            metrics.serves_from.clone(),
        );
        metrics
    }

    pub(super) fn backlog(&self, blocks: usize, age: Duration) {
        self.backlog.set(blocks as i64);
        self.backlog_age.set(age.as_secs_f64());
    }

    pub(super) fn held(&self, pinned: usize, quarantined: usize, foreign: usize) {
        self.pinned.set(pinned as i64);
        self.quarantined.set(quarantined as i64);
        self.foreign.set(foreign as i64);
    }

    pub(super) fn verified_until(&self, at: Timestamp) {
        self.verified_until.set(at.as_secs_f64());
    }

    pub(super) fn serves_from(&self, at: Timestamp) {
        self.serves_from.set(if at == Timestamp::MIN { 0.0 } else { at.as_secs_f64() });
    }
}
