//! Metrics of shared caches, under Thanos' names where they mean the same.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use runtime::Registry;

const SECONDS: [f64; 12] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 3.0, 6.0, 10.0];

type Labels = Vec<(&'static str, &'static str)>;

#[derive(Clone, Debug)]
struct Seconds;

impl MetricConstructor<Histogram> for Seconds {
    fn new_metric(&self) -> Histogram {
        Histogram::new(SECONDS)
    }
}

/// The metrics of all caches of one kind of server.
#[derive(Clone, Debug)]
pub(crate) struct SharedMetrics {
    requests: Family<Labels, Counter>,
    hits: Family<Labels, Counter>,
    rejected: Family<Labels, Counter>,
    operations: Family<Labels, Counter>,
    failures: Family<Labels, Counter>,
    skipped: Family<Labels, Counter>,
    waiting: Family<Labels, Gauge>,
    seconds: Family<Labels, Histogram, Seconds>,
}

impl Default for SharedMetrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            hits: Family::default(),
            rejected: Family::default(),
            operations: Family::default(),
            failures: Family::default(),
            skipped: Family::default(),
            waiting: Family::default(),
            seconds: Family::new_with_constructor(Seconds),
        }
    }
}

impl SharedMetrics {
    /// The metrics of caches of `kind`: `redis` or `memcached`.
    pub(crate) fn new(registry: &mut Registry, kind: &str) -> Self {
        let metrics = Self::default();
        registry.register(
            format!("thanos_cache_{kind}_requests"),
            "Pages that were looked up in the cache",
            metrics.requests.clone(),
        );
        registry.register(
            format!("thanos_cache_{kind}_hits"),
            "Pages that the cache had",
            metrics.hits.clone(),
        );
        registry.register(
            format!("isthmus_store_{kind}_values_rejected"),
            "Values of the cache that were not the page that was asked for, and were ignored",
            metrics.rejected.clone(),
        );
        registry.register(
            format!("thanos_{kind}_operation_duration_seconds"),
            "Duration of operations of the servers, in seconds",
            metrics.seconds.clone(),
        );
        registry.register(
            format!("isthmus_store_{kind}_waiting_bytes"),
            "Bytes of pages that wait to be written to the cache",
            metrics.waiting.clone(),
        );
        // Thanos counts these for memcached only.
        let owner = if kind == "memcached" { "thanos" } else { "isthmus_store" };
        for (name, help, family) in [
            ("operations", "Operations of the servers", &metrics.operations),
            ("operation_failures", "Operations of the servers that failed, by reason", &metrics.failures),
            (
                "operation_skipped",
                "Operations that were not sent to the servers, by reason",
                &metrics.skipped,
            ),
        ] {
            registry.register(format!("{owner}_{kind}_{name}"), help, family.clone());
        }
        metrics
    }

    /// The metrics of the cache with this name.
    pub(super) fn named(&self, name: &'static str) -> NamedMetrics {
        let waiting = self.waiting.get_or_create(&vec![("name", name)]).clone();
        NamedMetrics { all: self.clone(), waiting, name }
    }
}

/// What is asked of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Get,
    Set,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Get => "getmulti",
            Self::Set => "set",
        }
    }
}

/// The metrics of one cache.
#[derive(Clone, Debug)]
pub(super) struct NamedMetrics {
    all: SharedMetrics,
    waiting: Gauge,
    pub(super) name: &'static str,
}

impl NamedMetrics {
    fn of(&self, operation: Operation) -> Labels {
        vec![("name", self.name), ("operation", operation.name())]
    }

    fn because(&self, operation: Operation, reason: &'static str) -> Labels {
        [self.of(operation), vec![("reason", reason)]].concat()
    }

    /// Counts bytes that begin to wait. Returns how many wait then.
    pub(super) fn wait(&self, bytes: u64) -> u64 {
        (self.waiting.inc_by(bytes as i64) + bytes as i64).max(0) as u64
    }

    /// Counts bytes that no longer wait.
    pub(super) fn waited(&self, bytes: u64) {
        self.waiting.dec_by(bytes as i64);
    }

    /// Bytes that wait.
    #[cfg(test)]
    pub(super) fn waiting_bytes(&self) -> u64 {
        self.waiting.get().max(0) as u64
    }

    pub(super) fn looked_up(&self, pages: usize, found: usize, rejected: usize) {
        let labels = vec![("name", self.name)];
        self.all.requests.get_or_create(&labels).inc_by(pages as u64);
        self.all.hits.get_or_create(&labels).inc_by(found as u64);
        self.all.rejected.get_or_create(&labels).inc_by(rejected as u64);
    }

    pub(super) fn done(&self, operation: Operation, took: Duration, failed: Option<&'static str>) {
        self.all.operations.get_or_create(&self.of(operation)).inc();
        match failed {
            Some(reason) => _ = self.all.failures.get_or_create(&self.because(operation, reason)).inc(),
            None => self.all.seconds.get_or_create(&self.of(operation)).observe(took.as_secs_f64()),
        }
    }

    pub(super) fn skipped(&self, operation: Operation, reason: &'static str, items: usize) {
        self.all.skipped.get_or_create(&self.because(operation, reason)).inc_by(items as u64);
    }
}
