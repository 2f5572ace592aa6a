//! Metrics that are counted when they are scraped, so that they are true then.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use runtime::Registry;

use crate::blocks::Blocks;

/// The state of the open blocks and of what their files share.
struct BlocksCollector(Arc<Blocks>);

/// Registers the metrics.
pub(crate) fn register(blocks: &Arc<Blocks>, registry: &mut Registry) {
    registry.register_collector(Box::new(BlocksCollector(Arc::clone(blocks))));
}

impl fmt::Debug for BlocksCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BlocksCollector")
    }
}

impl Collector for BlocksCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let blocks = &self.0;
        let (open, index_bytes) = blocks.opened();
        let shared = blocks.shared();
        let mut gauge = |name: &str, help: &str, value: u64| {
            let gauge = ConstGauge::new(value as i64);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        gauge("isthmus_store_blocks_open", "Blocks whose index is open", open as u64)?;
        gauge(
            "isthmus_store_open_index_bytes",
            "Bytes of memory of the indexes of open blocks",
            index_bytes,
        )?;
        gauge(
            "isthmus_store_index_header_bytes",
            "Bytes of the index headers in the data folder",
            blocks.header_bytes(),
        )?;
        gauge(
            "isthmus_store_blocks_quarantined",
            "Blocks that could not be read and are not asked for five minutes",
            blocks.quarantine().len() as u64,
        )?;
        gauge("isthmus_store_cache_bytes", "Bytes of the cache in memory", shared.cache_bytes)?;
        if let Some(bytes) = shared.disk_bytes {
            gauge("isthmus_store_disk_cache_bytes", "Bytes of the pages in the cache on disk", bytes)?;
        }
        let counter = ConstCounter::new(shared.hedged);
        counter.encode(encoder.encode_descriptor(
            "isthmus_store_bucket_requests_hedged",
            "Requests to buckets that were sent a second time because the first answer took long",
            None,
            counter.metric_type(),
        )?)
    }
}
