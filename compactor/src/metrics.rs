//! Metrics of the compactor, under Thanos' names where they mean the same.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use runtime::Registry;

use crate::progress::Backlog;

/// Why a block was marked for deletion.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MarkLabels {
    marker: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResolutionLabels {
    resolution: String,
}

/// The counters; clones share them. The default belongs to no registry.
#[derive(Clone, Debug, Default)]
pub(crate) struct CompactorMetrics {
    halted: Gauge,
    iterations: Counter,
    compactions: Counter,
    vertical: Counter,
    failures: Counter,
    marked: Family<MarkLabels, Counter>,
    marked_for_deletion: Counter,
    collections: Counter,
    collection_failures: Counter,
    collection_seconds: CollectionSeconds,
    garbage: Counter,
    cleaned: Counter,
    cleanup_failures: Counter,
    partial: Counter,
    downsampled: Family<ResolutionLabels, Counter>,
    downsample_failures: Counter,
    job_seconds: JobSeconds,
    todo_compactions: Gauge,
    todo_blocks: Gauge,
    todo_bytes: Gauge,
    todo_downsample: Gauge,
    todo_deletion: Gauge,
    quarantined: Gauge,
    corrupt: Gauge,
    refused: Gauge,
    skipped: Gauge,
    waiting: Gauge,
    breaker: Gauge,
    clock_error: Gauge,
    last_success: Gauge<f64, AtomicU64>,
    samples: Counter,
    conflicts: Counter,
    rewritten: Counter,
    deleted: Counter,
    waits_for_readers: Gauge,
    readers_ignored: Counter,
}

#[derive(Clone, Debug)]
struct JobSeconds(Histogram);

impl Default for JobSeconds {
    fn default() -> Self {
        Self(Histogram::new([1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0]))
    }
}

#[derive(Clone, Debug)]
struct CollectionSeconds(Histogram);

impl Default for CollectionSeconds {
    fn default() -> Self {
        Self(Histogram::new([0.001, 0.01, 0.1, 0.3, 0.6, 1.0, 3.0, 6.0, 9.0, 20.0, 30.0, 60.0, 90.0, 120.0]))
    }
}

/// The resolutions to which blocks are downsampled, in milliseconds.
const RESOLUTIONS: [i64; 2] = [300_000, 3_600_000];

impl CompactorMetrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let m = Self::default();
        for resolution in RESOLUTIONS {
            let labels = ResolutionLabels { resolution: resolution.to_string() };
            drop(m.downsampled.get_or_create(&labels));
        }
        m.register_work(registry);
        m.register_state(registry);
        m
    }

    fn register_work(&self, registry: &mut Registry) {
        let mut counter =
            |name: &str, help: &str, metric: &Counter| registry.register(name, help, metric.clone());
        counter(
            "thanos_compact_iterations",
            "Passes over all buckets that found nothing left to do",
            &self.iterations,
        );
        counter("thanos_compact_group_compactions", "Merges that made a block", &self.compactions);
        counter("thanos_compact_group_vertical_compactions", "Merges of blocks that overlap", &self.vertical);
        counter("thanos_compact_group_compactions_failures", "Merges that failed", &self.failures);
        counter(
            "thanos_compact_garbage_collected_blocks",
            "Blocks that were marked for deletion because another block has their sources",
            &self.garbage,
        );
        counter("thanos_compact_blocks_cleaned", "Marked blocks whose files were removed", &self.cleaned);
        counter("thanos_compact_block_cleanup_failures", "Removals that failed", &self.cleanup_failures);
        counter(
            "thanos_compact_aborted_partial_uploads_deletion_attempts",
            "Abandoned uploads that were removed",
            &self.partial,
        );
        counter(
            "thanos_compact_downsample_failures",
            "Blocks that could not be downsampled",
            &self.downsample_failures,
        );
        // The name in the dashboards of Thanos, which has renamed the metric.
        counter(
            "thanos_compact_downsample_failed",
            "Blocks that could not be downsampled",
            &self.downsample_failures,
        );
        counter(
            "thanos_compact_blocks_marked_for_deletion",
            "Blocks that were marked for deletion",
            &self.marked_for_deletion,
        );
        counter(
            "thanos_compact_garbage_collection",
            "Looks for blocks whose sources are in another block",
            &self.collections,
        );
        counter(
            "thanos_compact_garbage_collection_failures",
            "Such looks after which a block could not be marked",
            &self.collection_failures,
        );
        counter("isthmus_compact_samples_written", "Samples of new blocks", &self.samples);
        counter(
            "isthmus_compact_samples_in_conflict",
            "Samples that were left out because another block has another value at their time",
            &self.conflicts,
        );
        counter(
            "isthmus_compact_blocks_rewritten",
            "Blocks that were written again without deleted samples",
            &self.rewritten,
        );
        counter(
            "isthmus_compact_samples_deleted",
            "Samples, or windows of aggregates, that such blocks do not have any more",
            &self.deleted,
        );
        counter(
            "isthmus_compact_removals_without_readers",
            "Blocks that were removed although a store had not acknowledged it within the longest wait",
            &self.readers_ignored,
        );
        registry.register(
            "thanos_compact_blocks_marked",
            "Blocks that were marked, by reason",
            self.marked.clone(),
        );
        registry.register(
            "thanos_compact_downsample",
            "Blocks that were made by downsampling",
            self.downsampled.clone(),
        );
        registry.register(
            "thanos_compact_garbage_collection_duration_seconds",
            "Duration of looks for blocks whose sources are in another block, in seconds",
            self.collection_seconds.0.clone(),
        );
        registry.register(
            "isthmus_compact_job_duration_seconds",
            "Duration of merges and downsamplings that succeeded, in seconds",
            self.job_seconds.0.clone(),
        );
    }

    fn register_state(&self, registry: &mut Registry) {
        let mut gauge =
            |name: &str, help: &str, metric: &Gauge| registry.register(name, help, metric.clone());
        gauge("thanos_compact_halted", "Always 0: a block that fails stops no other one", &self.halted);
        gauge("thanos_compact_todo_compactions", "Merges that are due", &self.todo_compactions);
        gauge("thanos_compact_todo_compaction_blocks", "Blocks of merges that are due", &self.todo_blocks);
        gauge("isthmus_compact_todo_compaction_bytes", "Bytes of merges that are due", &self.todo_bytes);
        gauge(
            "thanos_compact_todo_downsample_blocks",
            "Blocks that are due to be downsampled",
            &self.todo_downsample,
        );
        gauge(
            "thanos_compact_todo_deletion_blocks",
            "Blocks that are marked for deletion",
            &self.todo_deletion,
        );
        gauge(
            "isthmus_compact_blocks_quarantined",
            "Blocks that cannot be read and are left alone",
            &self.quarantined,
        );
        gauge("isthmus_compact_blocks_corrupt", "Blocks whose meta.json cannot be used", &self.corrupt);
        gauge(
            "isthmus_compact_blocks_refused",
            "Blocks that are left alone because they lack a label that their bucket requires, or have an unknown resolution",
            &self.refused,
        );
        gauge("isthmus_compact_jobs_skipped", "Jobs that do not fit on the disk", &self.skipped);
        gauge(
            "isthmus_compact_blocks_waiting_for_readers",
            "Blocks that are due to be removed and that a store may still read",
            &self.waits_for_readers,
        );
        gauge("isthmus_compact_groups_waiting", "Groups on which another compactor works", &self.waiting);
        gauge(
            "isthmus_compact_deletion_breaker_open",
            "Whether more blocks are due to be retired than may be in one pass, so that none is",
            &self.breaker,
        );
        gauge(
            "isthmus_compact_clock_differs",
            "Whether the clock of the bucket differs by more than five minutes, so that nothing is retired or removed",
            &self.clock_error,
        );
        registry.register(
            "isthmus_compact_last_success_timestamp_seconds",
            "When a pass last saw a whole bucket and had no failure, in seconds since the epoch",
            self.last_success.clone(),
        );
    }

    pub(crate) fn iterated(&self) {
        self.iterations.inc();
        self.last_success.set(crate::now().as_secs_f64());
    }

    pub(crate) fn compacted(&self, is_vertical: bool, took: Duration, written: u64, conflicts: u64) {
        self.compactions.inc();
        if is_vertical {
            self.vertical.inc();
        }
        self.job_seconds.0.observe(took.as_secs_f64());
        self.samples.inc_by(written);
        self.conflicts.inc_by(conflicts);
    }

    pub(crate) fn waiting_for_readers(&self, blocks: usize) {
        self.waits_for_readers.set(blocks as i64);
    }

    pub(crate) fn readers_ignored(&self) {
        self.readers_ignored.inc();
    }

    pub(crate) fn rewritten(&self, took: Duration, deleted: u64) {
        self.rewritten.inc();
        self.deleted.inc_by(deleted);
        self.job_seconds.0.observe(took.as_secs_f64());
    }

    pub(crate) fn failed(&self) {
        self.failures.inc();
    }

    pub(crate) fn downsampled(&self, resolution: i64, took: Duration) {
        let labels = ResolutionLabels { resolution: resolution.to_string() };
        self.downsampled.get_or_create(&labels).inc();
        self.job_seconds.0.observe(took.as_secs_f64());
    }

    pub(crate) fn downsampling_failed(&self) {
        self.downsample_failures.inc();
    }

    /// A block was marked for deletion for this reason.
    pub(crate) fn marked(&self, reason: &'static str) {
        self.marked.get_or_create(&MarkLabels { marker: "deletion-mark.json", reason }).inc();
        self.marked_for_deletion.inc();
        if reason == "garbage" {
            self.garbage.inc();
        }
    }

    /// Blocks whose sources are in another block were looked for and marked.
    pub(crate) fn collected(&self, took: Duration, is_complete: bool) {
        self.collections.inc();
        self.collection_seconds.0.observe(took.as_secs_f64());
        if !is_complete {
            self.collection_failures.inc();
        }
    }

    pub(crate) fn excluded(&self) {
        let labels = MarkLabels { marker: "no-compact-mark.json", reason: "index-size-exceeding" };
        self.marked.get_or_create(&labels).inc();
    }

    pub(crate) fn cleaned(&self, is_done: bool) {
        if is_done {
            self.cleaned.inc()
        } else {
            self.cleanup_failures.inc()
        };
    }

    pub(crate) fn partial_removed(&self) {
        self.partial.inc();
    }

    pub(crate) fn backlog(&self, backlog: &Backlog) {
        self.todo_compactions.set(backlog.jobs as i64);
        self.todo_blocks.set(backlog.blocks as i64);
        self.todo_bytes.set(backlog.bytes as i64);
        self.todo_downsample.set(backlog.downsample as i64);
        self.todo_deletion.set(backlog.marked as i64);
        self.quarantined.set(backlog.quarantined as i64);
        self.corrupt.set(backlog.corrupt as i64);
        self.refused.set(backlog.refused as i64);
        self.skipped.set(backlog.skipped as i64);
        self.waiting.set(backlog.waiting as i64);
    }

    pub(crate) fn guards(&self, breaker_open: bool, clock_differs: bool) {
        self.breaker.set(i64::from(breaker_open));
        self.clock_error.set(i64::from(clock_differs));
    }
}
