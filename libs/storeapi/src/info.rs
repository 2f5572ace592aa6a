//! What a store announces about itself.

use model::{Labels, TimeRange};

/// The external labels of one TSDB and the times it covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TsdbInfo {
    /// Its external labels.
    pub labels: Labels,
    /// The first and last instant for which it may have samples.
    pub range: TimeRange,
}

/// Which APIs a component serves besides Info.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Apis {
    /// Series, label names, label values.
    pub store: bool,
    /// Rules.
    pub rules: bool,
    /// Metric metadata.
    pub metadata: bool,
    /// Targets.
    pub targets: bool,
    /// Exemplars.
    pub exemplars: bool,
    /// Queries.
    pub query: bool,
    /// TSDB statistics.
    pub status: bool,
}

/// A store's answer to Info.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreInfo {
    /// `sidecar`, `store`, `rule`, `receive`, `query`, or another name.
    pub component: String,
    /// Distinct sets of external labels; without any, the store may have series with any labels.
    pub label_sets: Vec<Labels>,
    /// The instants for which it may have samples; empty when it has none.
    pub range: TimeRange,
    /// Whether it applies a request's shard itself.
    pub supports_sharding: bool,
    /// Whether it removes replica labels itself and sorts by the other labels.
    pub supports_without_replica_labels: bool,
    /// The time range of each label set; empty when it is unknown.
    pub tsdbs: Vec<TsdbInfo>,
    /// The APIs that it serves.
    pub apis: Apis,
    /// What an operator should know about it, one sentence each, for example why its blocks are not uploaded. Thanos ignores
    /// them.
    pub warnings: Vec<String>,
}

impl StoreInfo {
    /// A component that serves the whole StoreAPI.
    pub fn new(component: &str, label_sets: Vec<Labels>, range: TimeRange) -> Self {
        Self {
            component: component.to_owned(),
            tsdbs: label_sets.iter().map(|labels| TsdbInfo { labels: labels.clone(), range }).collect(),
            label_sets,
            range,
            supports_sharding: true,
            supports_without_replica_labels: true,
            apis: Apis { store: true, ..Apis::default() },
            warnings: Vec::new(),
        }
    }
}
