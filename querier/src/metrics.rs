//! Number of stores and memory of queries, computed at each scrape.

use std::collections::BTreeMap;
use std::fmt;

use budget::TotalBudget;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use crate::endpoints::EndpointSet;

/// The label of the cluster that a store is registered in.
const CLUSTER: &str = "cluster";

/// `thanos_store_nodes_grpc_connections`: healthy stores by external labels and component, as in Thanos.
/// `isthmus_query_stores`: known stores by health. `isthmus_query_store_unhealthy`: 1 for each store that is not healthy; healthy
/// ones are left out, so that many stores do not make many series.
pub(crate) struct StoreNodes {
    endpoints: EndpointSet,
}

impl StoreNodes {
    pub(crate) fn new(endpoints: EndpointSet) -> Self {
        Self { endpoints }
    }
}

impl fmt::Debug for StoreNodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreNodes")
    }
}

impl Collector for StoreNodes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut connections: BTreeMap<(String, String), i64> = BTreeMap::new();
        let mut healths = BTreeMap::from([("false", 0i64), ("true", 0)]);
        for endpoint in self.endpoints.endpoints() {
            let state = endpoint.state();
            let healthy = state.last_error.is_none();
            *healths.entry(if healthy { "true" } else { "false" }).or_default() += 1;
            if let Some(info) = state.info.filter(|_| healthy) {
                let sets: Vec<String> = info.label_sets.iter().map(|set| set.to_string()).collect();
                *connections.entry((sets.join(","), info.component.clone())).or_default() += 1;
            }
        }
        let gauge = ConstGauge::new(0i64);
        let help = "Healthy stores, by external labels and component";
        let mut family = encoder.encode_descriptor(
            "thanos_store_nodes_grpc_connections",
            help,
            None,
            gauge.metric_type(),
        )?;
        for ((labels, component), count) in connections {
            let labels = [("external_labels", labels), ("store_type", component)];
            ConstGauge::new(count).encode(family.encode_family(&labels)?)?;
        }
        let help = "Known stores, by health";
        let mut family =
            encoder.encode_descriptor("isthmus_query_stores", help, None, gauge.metric_type())?;
        for (healthy, count) in healths {
            ConstGauge::new(count).encode(family.encode_family(&[("healthy", healthy)])?)?;
        }
        let help = "1 for each known store that is not healthy, with its component, and with the cluster that it is registered in as peer";
        let mut family =
            encoder.encode_descriptor("isthmus_query_store_unhealthy", help, None, gauge.metric_type())?;
        for (endpoint, away) in self.endpoints.listed() {
            let state = endpoint.state();
            if state.last_error.is_none() && away.is_none() {
                continue;
            }
            let component = state.info.map_or(String::new(), |info| info.component.clone());
            // The external labels of the Prometheus that scrapes the metric would replace a label `cluster`.
            let cluster = state.bound.value(CLUSTER);
            let mut labels = vec![("store", endpoint.name()), ("peer", cluster), ("component", &component)];
            labels.retain(|(_, value)| !value.is_empty());
            ConstGauge::new(1i64).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// `isthmus_query_memory_bytes`: memory that queries and their answers use, limited by
/// `--query.max-total-memory`.
#[derive(Debug)]
pub(crate) struct QueryMemory(pub(crate) TotalBudget);

impl Collector for QueryMemory {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let held = ConstGauge::new(i64::try_from(self.0.reserved_bytes()).unwrap_or(i64::MAX));
        let help = "Memory that queries and their answers use";
        held.encode(encoder.encode_descriptor(
            "isthmus_query_memory",
            help,
            Some(&Unit::Bytes),
            held.metric_type(),
        )?)
    }
}
