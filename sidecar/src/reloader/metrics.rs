//! What the reloader counts, under Thanos' names.

use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use runtime::Registry;

/// Cheap to clone; clones count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReloaderMetrics {
    reloads: Counter,
    reloads_failed: Counter,
    last_successful: Gauge,
    last_success: Gauge<f64, AtomicU64>,
    applies: Counter,
    applies_failed: Counter,
    expansion_errors: Gauge,
    info: Family<Vec<(&'static str, &'static str)>, Gauge>,
    watches: Gauge,
    watch_events: Counter,
    watch_errors: Counter,
}

impl ReloaderMetrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("thanos_sidecar_reloader");
        registry.register("reloads", "Reloads that Prometheus was asked for", metrics.reloads.clone());
        registry.register(
            "reloads_failed",
            "Reloads that Prometheus did not do",
            metrics.reloads_failed.clone(),
        );
        registry.register(
            "last_reload_successful",
            "Whether the last reload succeeded",
            metrics.last_successful.clone(),
        );
        registry.register(
            "last_reload_success_timestamp_seconds",
            "When a reload last succeeded, in seconds since the epoch",
            metrics.last_success.clone(),
        );
        registry.register("config_apply_operations", "Looks at the watched files", metrics.applies.clone());
        registry.register(
            "config_apply_operations_failed",
            "Looks at the watched files that failed before Prometheus was asked",
            metrics.applies_failed.clone(),
        );
        registry.register(
            "config_environment_variable_expansion_errors",
            "Variables that were not set when the configuration was last expanded; the first one ends it",
            metrics.expansion_errors.clone(),
        );
        registry.register(
            "info",
            "How Prometheus is told to reload, value is always 1",
            metrics.info.clone(),
        );
        registry.register("watches", "Folders that are watched", metrics.watches.clone());
        registry.register(
            "watch_events",
            "Changes that the file system told of",
            metrics.watch_events.clone(),
        );
        registry.register("watch_errors", "Errors of watching the file system", metrics.watch_errors.clone());
        metrics
    }

    pub(super) fn method(&self, name: &'static str) {
        self.info.get_or_create(&vec![("method", name)]).set(1);
    }

    pub(super) fn applying(&self) {
        self.applies.inc();
    }

    pub(super) fn apply_failed(&self) {
        self.applies_failed.inc();
    }

    pub(super) fn expanded(&self, whole: bool) {
        self.expansion_errors.set(i64::from(!whole));
    }

    pub(super) fn reloading(&self) {
        self.reloads.inc();
    }

    pub(super) fn reloaded(&self) {
        self.last_successful.set(1);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_success.set(now.as_secs_f64());
    }

    pub(super) fn reload_failed(&self) {
        self.reloads_failed.inc();
        self.last_successful.set(0);
    }

    pub(super) fn watches(&self, folders: usize) {
        self.watches.set(folders as i64);
    }

    pub(super) fn watch_event(&self) {
        self.watch_events.inc();
    }

    pub(super) fn watch_error(&self) {
        self.watch_errors.inc();
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> (u64, u64, i64) {
        (self.reloads.get(), self.reloads_failed.get(), self.last_successful.get())
    }

    #[cfg(test)]
    pub(super) fn applies(&self) -> u64 {
        self.applies.get()
    }

    #[cfg(test)]
    pub(super) fn events(&self) -> u64 {
        self.watch_events.get()
    }

    #[cfg(test)]
    pub(super) fn failed_expansion(&self) -> bool {
        self.expansion_errors.get() > 0
    }
}
