//! Metrics of the reloader, with the names of Thanos.

use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use runtime::Registry;

/// Metrics of the reloader. Clones share the counters.
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
        registry.register("reloads", "Reloads requested from Prometheus", metrics.reloads.clone());
        registry.register("reloads_failed", "Reloads that failed", metrics.reloads_failed.clone());
        registry.register(
            "last_reload_successful",
            "Whether the last reload succeeded",
            metrics.last_successful.clone(),
        );
        registry.register(
            "last_reload_success_timestamp_seconds",
            "Time of the last successful reload, in seconds since the epoch",
            metrics.last_success.clone(),
        );
        registry.register("config_apply_operations", "Checks of the watched files", metrics.applies.clone());
        registry.register(
            "config_apply_operations_failed",
            "Checks of the watched files that failed before a reload was requested",
            metrics.applies_failed.clone(),
        );
        registry.register(
            "config_environment_variable_expansion_errors",
            "Unset variables at the last expansion of the configuration; the expansion stops at the first one",
            metrics.expansion_errors.clone(),
        );
        registry.register("info", "How reloads are requested; the value is always 1", metrics.info.clone());
        registry.register("watches", "Watched directories", metrics.watches.clone());
        registry.register(
            "watch_events",
            "Changes reported by the file system",
            metrics.watch_events.clone(),
        );
        registry.register(
            "watch_errors",
            "Errors while watching the file system",
            metrics.watch_errors.clone(),
        );
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
