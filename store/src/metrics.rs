//! Metrics of the store, under Thanos' names where they mean the same.

use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use runtime::Registry;
use series::AggrChunk;
use storeapi::SeriesFrame;

use crate::request_metrics::RequestMetrics;

const BLOCK_COUNTS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];
const SECONDS: [f64; 8] = [0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0];

/// The counters; clones share them. The default belongs to no registry.
#[derive(Clone, Debug)]
pub(crate) struct StoreMetrics {
    loaded: Gauge,
    unreadable: Gauge,
    refused: Gauge,
    last_sync: Gauge<f64, AtomicU64>,
    sync_failures: Counter,
    sync_seconds: Histogram,
    blocks_queried: Histogram,
    series: Counter,
    chunk_bytes: Counter,
    bucket_requests: Counter,
    bucket_bytes: Counter,
    loads: Counter,
    load_failures: Counter,
    drops: Counter,
    /// What Series requests do.
    pub(crate) requests: RequestMetrics,
}

impl Default for StoreMetrics {
    fn default() -> Self {
        Self {
            loaded: Gauge::default(),
            unreadable: Gauge::default(),
            refused: Gauge::default(),
            last_sync: Gauge::default(),
            sync_failures: Counter::default(),
            sync_seconds: Histogram::new(SECONDS),
            blocks_queried: Histogram::new(BLOCK_COUNTS),
            series: Counter::default(),
            chunk_bytes: Counter::default(),
            bucket_requests: Counter::default(),
            bucket_bytes: Counter::default(),
            loads: Counter::default(),
            load_failures: Counter::default(),
            drops: Counter::default(),
            requests: RequestMetrics::default(),
        }
    }
}

impl StoreMetrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let requests = RequestMetrics::new(registry);
        let metrics = Self { requests, ..Self::default() };
        registry.register(
            "thanos_bucket_store_blocks_loaded",
            "Blocks that are served",
            metrics.loaded.clone(),
        );
        registry.register(
            "isthmus_store_blocks_unreadable",
            "Blocks whose meta.json cannot be used or could not be read",
            metrics.unreadable.clone(),
        );
        registry.register(
            "isthmus_store_blocks_refused",
            "Blocks that are not served because they lack a label that their bucket requires",
            metrics.refused.clone(),
        );
        registry.register(
            "isthmus_store_last_sync_success_timestamp_seconds",
            "Time of the last sync that read all buckets, in seconds since the epoch",
            metrics.last_sync.clone(),
        );
        registry.register(
            "isthmus_store_sync_failures",
            "Syncs that failed, were incomplete or took too long",
            metrics.sync_failures.clone(),
        );
        registry.register(
            "isthmus_store_sync_duration_seconds",
            "Duration of syncs that read all buckets, in seconds",
            metrics.sync_seconds.clone(),
        );
        registry.register(
            "thanos_bucket_store_series_blocks_queried",
            "Number of blocks that a Series request needed",
            metrics.blocks_queried.clone(),
        );
        registry.register("isthmus_store_series_sent", "Series sent to clients", metrics.series.clone());
        registry.register(
            "isthmus_store_chunk_bytes_sent",
            "Bytes of chunks sent to clients",
            metrics.chunk_bytes.clone(),
        );
        registry.register(
            "isthmus_store_request_bucket_requests",
            "Ranges that were read from buckets for requests of clients",
            metrics.bucket_requests.clone(),
        );
        registry.register(
            "isthmus_store_request_bucket_bytes",
            "Bytes that were read from buckets for requests of clients",
            metrics.bucket_bytes.clone(),
        );
        registry.register(
            "thanos_bucket_store_block_loads",
            "Blocks that a sync has added to those that are served",
            metrics.loads.clone(),
        );
        registry.register(
            "thanos_bucket_store_block_load_failures",
            "Blocks that a sync has found and that cannot be served",
            metrics.load_failures.clone(),
        );
        registry.register(
            "thanos_bucket_store_block_drops",
            "Blocks that a sync has removed from those that are served",
            metrics.drops.clone(),
        );
        metrics
    }

    pub(crate) fn synced(&self, took: Duration) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_sync.set(now.as_secs_f64());
        self.sync_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn sync_failed(&self) {
        self.sync_failures.inc();
    }

    pub(crate) fn catalog(&self, loaded: usize, unreadable: usize, refused: usize) {
        self.loaded.set(loaded as i64);
        self.unreadable.set(unreadable as i64);
        self.refused.set(refused as i64);
    }

    /// What a sync has changed.
    pub(crate) fn changed(&self, loaded: usize, failed: usize, dropped: usize) {
        self.loads.inc_by(loaded as u64);
        self.load_failures.inc_by(failed as u64);
        self.drops.inc_by(dropped as u64);
    }

    /// What one request read from buckets.
    pub(crate) fn read(&self, requests: u64, bytes: u64) {
        self.bucket_requests.inc_by(requests);
        self.bucket_bytes.inc_by(bytes);
    }

    pub(crate) fn asked(&self, blocks: usize) {
        self.blocks_queried.observe(blocks as f64);
    }

    pub(crate) fn sent(&self, frame: &SeriesFrame) {
        if let SeriesFrame::Series(series) = frame {
            self.requests.sent(series);
            self.series.inc_by(series.len() as u64);
            let chunks = series.iter().flat_map(|series| &series.chunks);
            self.chunk_bytes.inc_by(chunks.map(AggrChunk::size_bytes).sum::<usize>() as u64);
        }
    }
}
