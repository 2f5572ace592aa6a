//! Groups of targets as JSON.

use std::collections::BTreeMap;

use model::Labels;
use serde::Deserialize;

use crate::config::TargetGroup;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonGroup {
    #[serde(default)]
    targets: Option<Vec<String>>,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

/// Reads a list of groups.
pub(super) fn parse_json(bytes: &[u8]) -> Result<Vec<TargetGroup>, String> {
    let groups: Option<Vec<JsonGroup>> = serde_json::from_slice(bytes).map_err(|why| why.to_string())?;
    groups.unwrap_or_default().into_iter().map(group).collect()
}

fn group(json: JsonGroup) -> Result<TargetGroup, String> {
    let address = |address| Labels::from_pairs([("__address__", address)]).map_err(|why| why.to_string());
    let targets: Result<_, _> = json.targets.unwrap_or_default().into_iter().map(address).collect();
    let labels = Labels::from_pairs(json.labels.unwrap_or_default()).map_err(|why| why.to_string())?;
    Ok(TargetGroup { targets: targets?, labels })
}
