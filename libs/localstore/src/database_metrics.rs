//! Metrics of the data folder, with the names of Prometheus.

use std::fmt;

use model::{TimeRange, Timestamp};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::data::LocalData;

/// Reads the metrics from the data folder when they are asked for. There are none before it is open.
pub struct DatabaseMetrics {
    data: LocalData,
    /// The name of the metric of samples that are only in memory.
    unlogged: String,
}

impl DatabaseMetrics {
    /// The metrics of `data`. `role` is the part of names that names the role, such as `scrape`, where Prometheus has no such metric.
    pub fn new(role: &str, data: LocalData) -> Self {
        Self { data, unlogged: format!("isthmus_{role}_unlogged_samples") }
    }
}

impl fmt::Debug for DatabaseMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DatabaseMetrics")
    }
}

impl Collector for DatabaseMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Ok(database) = self.data.database() else { return Ok(()) };
        let head = database.head();
        let stats = head.stats();
        let blocks = database.blocks(TimeRange::ALL);
        let bytes: u64 = blocks.iter().map(|block| block.bytes).sum();
        let unlogged = head.unlogged();
        let millis = |time: Option<Timestamp>| time.map_or(0, Timestamp::as_millis);
        let lowest = blocks.iter().map(|block| block.block.meta().min_time).min();
        let first = stats.times.map(|times| times.min);
        let number = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        let gauges = [
            ("prometheus_tsdb_head_series", "Series in the head", number(stats.series)),
            ("prometheus_tsdb_head_chunks", "Chunks in the head", number(stats.chunks)),
            (
                "prometheus_tsdb_head_min_time",
                "Time of the first sample in the head, in milliseconds",
                millis(first),
            ),
            (
                "prometheus_tsdb_head_max_time",
                "Time of the last sample in the head, in milliseconds",
                millis(stats.times.map(|times| times.max)),
            ),
            (
                "prometheus_tsdb_lowest_timestamp",
                "Time of the first sample in the data folder, in milliseconds",
                millis(lowest.or(first)),
            ),
            ("prometheus_tsdb_blocks_loaded", "Blocks that are served", number(blocks.len())),
            (
                "prometheus_tsdb_storage_blocks_bytes",
                "Bytes of the blocks that are served",
                i64::try_from(bytes).unwrap_or(i64::MAX),
            ),
            (
                self.unlogged.as_str(),
                "Samples that are only in memory, because the write-ahead log cannot be written",
                unlogged.as_ref().map_or(0, |unlogged| i64::try_from(unlogged.samples).unwrap_or(i64::MAX)),
            ),
            ("prometheus_tsdb_exemplar_exemplars_in_storage", "Exemplars in memory", number(stats.exemplars)),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let appended = ConstCounter::new(head.appended_samples());
        appended.encode(encoder.encode_descriptor(
            "prometheus_tsdb_head_samples_appended",
            "Samples that were appended to the head",
            None,
            appended.metric_type(),
        )?)
    }
}
