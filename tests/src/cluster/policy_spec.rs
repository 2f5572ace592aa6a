//! The specification of network policies.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::cluster::pod_spec::{Port, Protocol};

/// The specification of a network policy.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Policy {
    pub(crate) pod_selector: Selector,
    policy_types: Option<Vec<Direction>>,
    #[serde(default)]
    ingress: Vec<Rule>,
    egress: Option<Vec<Rule>>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub(crate) enum Direction {
    Ingress,
    Egress,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Selector {
    #[serde(default)]
    pub(crate) match_labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    /// Everyone if empty.
    #[serde(default, alias = "from", alias = "to")]
    pub(crate) peers: Vec<Peer>,
    /// All ports if empty.
    #[serde(default)]
    pub(crate) ports: Vec<PolicyPort>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Peer {
    pub(crate) pod_selector: Option<Selector>,
    pub(crate) namespace_selector: Option<Selector>,
    pub(crate) ip_block: Option<Block>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Block {
    pub(crate) cidr: String,
    #[serde(default)]
    pub(crate) except: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PolicyPort {
    pub(crate) port: Option<Port>,
    #[serde(default)]
    pub(crate) protocol: Protocol,
}

/// Reads the specification of a network policy.
///
/// # Errors
/// If it has something that the runner does not understand.
pub(crate) fn policy(spec: Value) -> Result<Policy, String> {
    serde_json::from_value(spec).map_err(|cause| cause.to_string())
}

impl Policy {
    /// Whether selected pods may only do in this direction what is allowed.
    pub(crate) fn isolates(&self, direction: Direction) -> bool {
        match &self.policy_types {
            Some(types) => types.contains(&direction),
            None => direction == Direction::Ingress || self.egress.is_some(),
        }
    }

    /// What is allowed.
    pub(crate) fn rules(&self, direction: Direction) -> &[Rule] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => self.egress.as_deref().unwrap_or_default(),
        }
    }
}
