//! Metrics of views, under Thanos' names.

use std::sync::atomic::AtomicI64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use runtime::Registry;

use crate::fetch::view::{BucketView, FetchError, STATES};

const DURATION_BUCKETS: [f64; 7] = [0.01, 1.0, 10.0, 100.0, 300.0, 600.0, 1000.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ModifiedLabels {
    modified: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct IndexLabels {
    result: &'static str,
}

/// What became of a look at the index of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IndexUse {
    /// It was used, and was read.
    Changed,
    /// It was used, and had not changed.
    Unchanged,
    Missing,
    Unreadable,
    Damaged,
    Distrusted,
    Old,
}

impl IndexUse {
    const ALL: [Self; 7] = [
        Self::Changed,
        Self::Unchanged,
        Self::Missing,
        Self::Unreadable,
        Self::Damaged,
        Self::Distrusted,
        Self::Old,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Missing => "missing",
            Self::Unreadable => "unreadable",
            Self::Damaged => "damaged",
            Self::Distrusted => "distrusted",
            Self::Old => "old",
        }
    }
}

/// The `thanos_blocks_meta_*` families; clones share the counts. The default belongs to no registry.
#[derive(Clone, Debug)]
pub struct FetchMetrics {
    syncs: Counter,
    failures: Counter,
    base_syncs: Counter,
    cache_busts: Counter,
    seconds: Histogram,
    synced: Family<StateLabels, Gauge<i64, AtomicI64>>,
    modified: Family<ModifiedLabels, Gauge<i64, AtomicI64>>,
    index: Family<IndexLabels, Counter>,
}

impl Default for FetchMetrics {
    fn default() -> Self {
        Self {
            syncs: Counter::default(),
            failures: Counter::default(),
            base_syncs: Counter::default(),
            cache_busts: Counter::default(),
            seconds: Histogram::new(DURATION_BUCKETS),
            synced: Family::default(),
            modified: Family::default(),
            index: Family::default(),
        }
    }
}

impl FetchMetrics {
    /// Registers the families.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "thanos_blocks_meta_syncs",
            "Views of the bucket that were started",
            metrics.syncs.clone(),
        );
        registry.register(
            "thanos_blocks_meta_sync_failures",
            "Views of the bucket that failed or were incomplete",
            metrics.failures.clone(),
        );
        registry.register(
            "thanos_blocks_meta_base_syncs",
            "Views of the bucket that were started, before filters",
            metrics.base_syncs.clone(),
        );
        registry.register(
            "thanos_blocks_meta_base_cache_busts",
            "Cached metas that were fetched again because they changed in the bucket",
            metrics.cache_busts.clone(),
        );
        registry.register(
            "thanos_blocks_meta_sync_duration_seconds",
            "Duration of fetching a view of the bucket in seconds",
            metrics.seconds.clone(),
        );
        registry.register(
            "thanos_blocks_meta_synced",
            "Blocks in the last view of the bucket, by state",
            metrics.synced.clone(),
        );
        registry.register(
            "thanos_blocks_meta_modified",
            "Changes to metas in the last view of the bucket",
            metrics.modified.clone(),
        );
        registry.register(
            "isthmus_blocks_index_reads",
            "Looks at the index of the bucket by result; changed and unchanged ones were used, and for the others the bucket was listed",
            metrics.index.clone(),
        );
        for outcome in IndexUse::ALL {
            metrics.index.get_or_create(&IndexLabels { result: outcome.name() }).inc_by(0);
        }
        for (_, state) in STATES {
            metrics.synced.get_or_create(&StateLabels { state }).set(0);
        }
        metrics.replica_labels_removed(0);
        metrics
    }

    pub(super) fn begin(&self) {
        self.syncs.inc();
        self.base_syncs.inc();
    }

    pub(super) fn index_read(&self, outcome: IndexUse) {
        self.index.get_or_create(&IndexLabels { result: outcome.name() }).inc();
    }

    pub(super) fn cache_bust(&self) {
        self.cache_busts.inc();
    }

    pub(super) fn replica_labels_removed(&self, count: usize) {
        let labels = ModifiedLabels { modified: "replica-label-removed" };
        self.modified.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(super) fn end(&self, took: Duration, result: &Result<BucketView, FetchError>) {
        self.seconds.observe(took.as_secs_f64());
        let view = match result {
            Ok(view) => view,
            Err(FetchError::Incomplete { view }) => {
                self.failures.inc();
                view
            }
            // The counts remain those of the last view.
            Err(FetchError::Listing(_)) => {
                self.failures.inc();
                return;
            }
        };
        for (state, label) in STATES {
            let count = view.counts.get(&state).copied().unwrap_or(0);
            let gauge = self.synced.get_or_create(&StateLabels { state: label });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}
