//! Alertmanagers, as `/api/v1/alertmanagers` has them.

use serde::{Deserialize, Serialize};

use crate::json::null_is_default;

/// The Alertmanagers to which alerts are sent, and those that relabelling has dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AlertmanagerDiscovery {
    /// Those to which alerts are sent.
    #[serde(deserialize_with = "null_is_default")]
    pub active_alertmanagers: Vec<Alertmanager>,
    /// Those that relabelling has dropped.
    #[serde(deserialize_with = "null_is_default")]
    pub dropped_alertmanagers: Vec<Alertmanager>,
}

/// An Alertmanager.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Alertmanager {
    /// The URL to which alerts are sent.
    pub url: String,
}
