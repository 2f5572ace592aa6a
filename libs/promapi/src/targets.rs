//! Scrape targets, as `/api/v1/targets` has them.

use model::Labels;
use serde::{Deserialize, Serialize};

use crate::alertmanagers::AlertmanagerDiscovery;
use crate::api_time::ApiTime;
use crate::json::{labels_json, null_is_default};

/// Targets that are scraped, and targets that relabelling has dropped.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TargetDiscovery {
    /// Targets that are scraped.
    #[serde(deserialize_with = "null_is_default")]
    pub active_targets: Vec<ActiveTarget>,
    /// Targets that relabelling has dropped.
    #[serde(deserialize_with = "null_is_default")]
    pub dropped_targets: Vec<DroppedTarget>,
    /// The Alertmanagers, where stores were asked for them instead of targets. They are not part of the JSON.
    #[serde(skip)]
    pub alertmanagers: Option<AlertmanagerDiscovery>,
}

/// A target that is scraped.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ActiveTarget {
    /// Its labels before relabelling.
    #[serde(with = "labels_json")]
    pub discovered_labels: Labels,
    /// Its labels after relabelling.
    #[serde(with = "labels_json")]
    pub labels: Labels,
    /// The name of its scrape configuration.
    pub scrape_pool: String,
    /// The URL that is scraped.
    pub scrape_url: String,
    /// The URL as seen from other machines.
    pub global_url: String,
    /// Why the last scrape failed; empty if it did not.
    pub last_error: String,
    /// Time of the last scrape.
    pub last_scrape: ApiTime,
    /// Duration of the last scrape in seconds.
    #[serde(rename = "lastScrapeDuration")]
    pub last_scrape_seconds: f64,
    /// Its health.
    pub health: TargetHealth,
    /// The interval of scrapes, such as `15s`; empty if it is not known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub scrape_interval: String,
    /// The timeout of scrapes, such as `10s`; empty if it is not known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub scrape_timeout: String,
}

/// A target that relabelling has dropped.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DroppedTarget {
    /// Its labels before relabelling.
    #[serde(with = "labels_json")]
    pub discovered_labels: Labels,
    /// The name of its scrape configuration; empty if it is not known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub scrape_pool: String,
}

/// The health of a target, the worst first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", from = "String")]
pub enum TargetHealth {
    /// The last scrape failed.
    Down,
    /// The last scrape succeeded.
    Up,
    /// Not scraped yet.
    #[default]
    Unknown,
}

impl From<String> for TargetHealth {
    fn from(text: String) -> Self {
        match text.as_str() {
            "up" => Self::Up,
            "down" => Self::Down,
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_of_prometheus_are_read_and_printed_in_its_format() {
        let json = serde_json::json!({
            "activeTargets": [{
                "discoveredLabels": {"__address__": "a:1", "job": "j"}, "labels": {"instance": "a:1", "job": "j"},
                "scrapePool": "j", "scrapeUrl": "http://a:1/metrics", "globalUrl": "http://h:1/metrics",
                "lastError": "", "lastScrape": "2024-05-01T12:00:00.5Z", "lastScrapeDuration": 0.25, "health": "up",
                "scrapeInterval": "15s", "scrapeTimeout": "10s",
            }],
            "droppedTargets": [{"discoveredLabels": {"__address__": "b:1"}}],
        });
        let targets: TargetDiscovery = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(targets.active_targets[0].health, TargetHealth::Up);
        assert_eq!(serde_json::to_value(&targets).unwrap(), json);
        let empty: TargetDiscovery =
            serde_json::from_str(r#"{"activeTargets":[],"droppedTargets":null,"droppedTargetCounts":null}"#)
                .unwrap();
        assert_eq!(empty, TargetDiscovery::default());
    }
}
