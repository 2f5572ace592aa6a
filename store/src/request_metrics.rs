//! Metrics of Series requests under the names that the dashboards of Thanos have.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use runtime::Registry;
use series::{AggrChunk, Series};

use crate::hints::AnswerCount;
use crate::meter::RequestMeter;

const SECONDS: [f64; 15] =
    [0.001, 0.01, 0.1, 0.3, 0.6, 1.0, 3.0, 6.0, 9.0, 20.0, 30.0, 60.0, 90.0, 120.0, 240.0];
const ITEMS: [f64; 9] = [1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8];
const CHUNK_BYTES: [f64; 8] = [32.0, 256.0, 512.0, 1024.0, 32e3, 256e3, 1e6, 32e6];

type ByType = Family<Vec<(&'static str, &'static str)>, Histogram, fn() -> Histogram>;

/// The metrics; clones share them. The default belongs to no registry.
#[derive(Clone, Debug)]
pub(crate) struct RequestMetrics {
    gate: Histogram,
    get_all: Histogram,
    merge: Histogram,
    result_series: Histogram,
    chunk_bytes: Histogram,
    touched: ByType,
    /// Thanos counts blocks that could not be dropped. Here nothing can fail.
    drop_failures: Counter,
}

impl Default for RequestMetrics {
    fn default() -> Self {
        let items: fn() -> Histogram = || Histogram::new(ITEMS);
        Self {
            gate: Histogram::new(SECONDS),
            get_all: Histogram::new(SECONDS),
            merge: Histogram::new(SECONDS),
            result_series: Histogram::new(ITEMS),
            chunk_bytes: Histogram::new(CHUNK_BYTES),
            touched: Family::new_with_constructor(items),
            drop_failures: Counter::default(),
        }
    }
}

impl RequestMetrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let mut histogram =
            |name: &str, help: &str, metric: &Histogram| registry.register(name, help, metric.clone());
        // Thanos has renamed the metric, and its alerts have the old name.
        for name in ["gate_duration_seconds", "gate_queries_duration_seconds"] {
            let help = "Time that Series requests waited until fewer ran than may at once, in seconds";
            histogram(&format!("thanos_bucket_store_series_{name}"), help, &metrics.gate);
        }
        histogram(
            "thanos_bucket_store_series_get_all_duration_seconds",
            "Time until the first series of each block of a Series request were read, in seconds",
            &metrics.get_all,
        );
        histogram(
            "thanos_bucket_store_series_merge_duration_seconds",
            "Time from then to the end of the answer, with reading, merging and sending, in seconds",
            &metrics.merge,
        );
        histogram(
            "thanos_bucket_store_series_result_series",
            "Series in the answer to a Series request",
            &metrics.result_series,
        );
        histogram(
            "thanos_bucket_store_sent_chunk_size_bytes",
            "Bytes of the chunks of a series in an answer",
            &metrics.chunk_bytes,
        );
        registry.register(
            "thanos_bucket_store_series_data_touched",
            "Series and chunks of blocks that a Series request used",
            metrics.touched.clone(),
        );
        registry.register(
            "thanos_bucket_store_block_drop_failures",
            "Always 0: nothing can fail when a block is dropped",
            metrics.drop_failures.clone(),
        );
        for data_type in ["series", "chunks"] {
            drop(metrics.touched.get_or_create(&vec![("data_type", data_type)]));
        }
        metrics
    }

    /// A request has waited for its turn.
    pub(crate) fn waited(&self, time: Duration) {
        self.gate.observe(time.as_secs_f64());
    }

    /// Series were sent.
    pub(crate) fn sent(&self, series: &[Series]) {
        for series in series {
            let bytes: usize = series.chunks.iter().map(AggrChunk::size_bytes).sum();
            self.chunk_bytes.observe(bytes as f64);
        }
    }

    /// An answer has ended.
    pub(crate) fn answered(&self, count: &AnswerCount, meter: &RequestMeter) {
        let stats = count.stats(0, meter);
        self.get_all.observe(stats.first_read.as_secs_f64());
        self.merge.observe(stats.merge.as_secs_f64());
        self.result_series.observe(stats.merged_series as f64);
        for (data_type, items) in [("series", stats.series), ("chunks", stats.chunks)] {
            self.touched.get_or_create(&vec![("data_type", data_type)]).observe(items as f64);
        }
    }
}
