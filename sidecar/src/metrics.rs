//! Metrics of the sidecar, with the names of Thanos where the meaning is the same.

use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use runtime::Registry;

/// Metrics of serving. Clones share the counters.
#[derive(Clone, Debug, Default)]
pub(crate) struct SidecarMetrics {
    up: Gauge,
    last_heartbeat: Gauge<f64, AtomicU64>,
    series: Counter,
    chunk_bytes: Counter,
    sorted_in_memory: Counter,
    failed_reads: Counter,
    made_equal: Counter,
    uploads_blocked: Gauge,
}

impl SidecarMetrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "thanos_sidecar_prometheus_up",
            "Whether the last request for the state of Prometheus succeeded",
            metrics.up.clone(),
        );
        registry.register(
            "thanos_sidecar_last_heartbeat_success_time_seconds",
            "Time of the last successful request for the state of Prometheus, in seconds since the epoch",
            metrics.last_heartbeat.clone(),
        );
        registry.register(
            "isthmus_sidecar_series_sent",
            "Series read from Prometheus and sent to clients",
            metrics.series.clone(),
        );
        registry.register(
            "isthmus_sidecar_chunk_bytes_sent",
            "Bytes of chunks read from Prometheus and sent to clients",
            metrics.chunk_bytes.clone(),
        );
        registry.register(
            "isthmus_sidecar_series_requests_sorted_in_memory",
            "Series requests whose answer had to be sorted in memory",
            metrics.sorted_in_memory.clone(),
        );
        registry.register(
            "isthmus_sidecar_series_requests_failed",
            "Series requests that failed because of an error of Prometheus",
            metrics.failed_reads.clone(),
        );
        registry.register(
            "isthmus_sidecar_series_made_equal",
            "Series sent that became equal to another one because external labels override their labels",
            metrics.made_equal.clone(),
        );
        registry.register(
            "isthmus_sidecar_uploads_blocked",
            "1 if blocks are to be uploaded, but the flags of Prometheus do not permit it",
            metrics.uploads_blocked.clone(),
        );
        metrics
    }

    pub(crate) fn uploads_blocked(&self, blocked: bool) {
        self.uploads_blocked.set(i64::from(blocked));
    }

    pub(crate) fn prometheus_up(&self, up: bool) {
        self.up.set(i64::from(up));
    }

    pub(crate) fn heartbeat(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_heartbeat.set(now.as_secs_f64());
    }

    pub(crate) fn sent(&self, series: usize, chunk_bytes: usize) {
        self.series.inc_by(series as u64);
        self.chunk_bytes.inc_by(chunk_bytes as u64);
    }

    pub(crate) fn sorted_in_memory(&self) {
        self.sorted_in_memory.inc();
    }

    pub(crate) fn made_equal(&self, series: u64) {
        self.made_equal.inc_by(series);
    }

    pub(crate) fn failed_read(&self) {
        self.failed_reads.inc();
    }
}
