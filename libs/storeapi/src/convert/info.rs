//! Info and label sets. Public, because the directory of the mesh carries them inside its own messages.

use model::{Labels, TimeRange, Timestamp};
use proto::thanos as wire;

use crate::{Apis, StoreError, StoreInfo, TsdbInfo};

/// Most warnings of a component that are kept.
const MAX_WARNINGS: usize = 16;
/// Most characters of one of them that are kept.
const MAX_WARNING_CHARS: usize = 2000;

/// A label set from the wire, in any order.
///
/// # Errors
/// When a name is empty or occurs twice.
pub fn labels_from_wire(labels: &[wire::Label]) -> Result<Labels, StoreError> {
    Labels::from_pairs(labels.iter().map(|l| (&l.name, &l.value)))
        .map_err(|cause| StoreError::violation(cause.to_string()))
}

/// A label set for the wire.
pub fn labels_to_wire(labels: &Labels) -> wire::LabelSet {
    let labels =
        labels.iter().map(|l| wire::Label { name: l.name.to_owned(), value: l.value.to_owned() }).collect();
    wire::LabelSet { labels }
}

fn range(min: i64, max: i64) -> TimeRange {
    TimeRange::new(Timestamp::from_millis(min), Timestamp::from_millis(max))
}

/// What a component announces about itself.
///
/// Label sets without labels are dropped. A component without StoreAPI has an empty range. Of more than 16 warnings, or more
/// than 2,000 characters of one, the rest is dropped.
///
/// # Errors
/// When a label set is malformed.
pub fn info_from_wire(info: wire::info::InfoResponse) -> Result<StoreInfo, StoreError> {
    let mut label_sets = Vec::with_capacity(info.label_sets.len());
    for set in &info.label_sets {
        let labels = labels_from_wire(&set.labels).map_err(|e| e.within("info"))?;
        if !labels.is_empty() {
            label_sets.push(labels);
        }
    }
    let apis = Apis {
        store: info.store.is_some(),
        rules: info.rules.is_some(),
        metadata: info.metric_metadata.is_some(),
        targets: info.targets.is_some(),
        exemplars: info.exemplars.is_some(),
        query: info.query.is_some(),
        status: info.status.is_some(),
    };
    let store = info.store.unwrap_or(wire::info::StoreInfo {
        min_time: i64::MAX,
        max_time: i64::MIN,
        ..Default::default()
    });
    let mut tsdbs = Vec::with_capacity(store.tsdb_infos.len());
    for tsdb in &store.tsdb_infos {
        let set = tsdb.labels.as_ref().map_or(&[][..], |set| &set.labels);
        let labels = labels_from_wire(set).map_err(|e| e.within("info"))?;
        tsdbs.push(TsdbInfo { labels, range: range(tsdb.min_time, tsdb.max_time) });
    }
    Ok(StoreInfo {
        component: info.component_type,
        label_sets,
        range: range(store.min_time, store.max_time),
        supports_sharding: store.supports_sharding,
        supports_without_replica_labels: store.supports_without_replica_labels,
        tsdbs,
        apis,
        warnings: info
            .warnings
            .into_iter()
            .take(MAX_WARNINGS)
            .map(|warning| warning.chars().take(MAX_WARNING_CHARS).collect())
            .collect(),
    })
}

/// The answer to Info.
pub fn info_to_wire(info: &StoreInfo) -> wire::info::InfoResponse {
    let tsdb_infos = info
        .tsdbs
        .iter()
        .map(|tsdb| wire::info::TsdbInfo {
            labels: Some(labels_to_wire(&tsdb.labels)),
            min_time: tsdb.range.min.as_millis(),
            max_time: tsdb.range.max.as_millis(),
        })
        .collect();
    let store = wire::info::StoreInfo {
        min_time: info.range.min.as_millis(),
        max_time: info.range.max.as_millis(),
        supports_sharding: info.supports_sharding,
        supports_without_replica_labels: info.supports_without_replica_labels,
        tsdb_infos,
        supports_projections: false,
    };
    let apis = info.apis;
    wire::info::InfoResponse {
        label_sets: info.label_sets.iter().map(labels_to_wire).collect(),
        component_type: info.component.clone(),
        store: apis.store.then_some(store),
        rules: apis.rules.then_some(wire::info::RulesInfo {}),
        metric_metadata: apis.metadata.then_some(wire::info::MetricMetadataInfo {}),
        targets: apis.targets.then_some(wire::info::TargetsInfo {}),
        exemplars: apis.exemplars.then_some(wire::info::ExemplarsInfo::default()),
        query: apis.query.then_some(wire::info::QueryApiInfo {}),
        status: apis.status.then_some(wire::info::StatusInfo {}),
        warnings: info.warnings.clone(),
    }
}
