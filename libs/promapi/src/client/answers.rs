//! What Prometheus answers, as far as it is read.

use std::collections::BTreeMap;
use std::time::Duration;

use model::{Labels, Timestamp};
use serde::{Deserialize, Deserializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Data with the warnings that came along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    /// The data.
    pub data: T,
    /// What the server warned of.
    pub warnings: Vec<String>,
}

impl<T> Answer<T> {
    /// The same warnings with other data.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Answer<U> {
        Answer { data: change(self.data), warnings: self.warnings }
    }
}

/// What is known of a metric from its exposition.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct MetadataEntry {
    /// `counter`, `gauge`, `histogram`, ...
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The help text.
    #[serde(default)]
    pub help: String,
    /// The unit; mostly empty.
    #[serde(default)]
    pub unit: String,
}

/// What Prometheus says of its last reload.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeInfo {
    /// Whether the last attempt to take a configuration succeeded.
    pub reload_config_success: bool,
    /// When it last took one, to the second.
    #[serde(deserialize_with = "rfc3339")]
    pub last_config_time: Timestamp,
}

fn rfc3339<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    let text = String::deserialize(deserializer)?;
    let at = OffsetDateTime::parse(&text, &Rfc3339).map_err(serde::de::Error::custom)?;
    // Years 0 to 9999 are far inside i64 milliseconds.
    Ok(Timestamp::from_millis(at.unix_timestamp_nanos().div_euclid(1_000_000) as i64))
}

/// The envelope of every JSON answer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Reply<T> {
    pub(super) status: String,
    pub(super) data: Option<T>,
    #[serde(default)]
    pub(super) error_type: String,
    #[serde(default)]
    pub(super) error: String,
    #[serde(default)]
    pub(super) warnings: Vec<String>,
}

#[derive(Deserialize)]
pub(super) struct StatusConfig {
    pub(super) yaml: String,
}

/// The part of Prometheus' configuration that is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// Attached to all that leaves it; empty where it has none.
    pub external_labels: Labels,
    /// How far behind the newest sample others may arrive; zero where they may not.
    pub out_of_order_time_window: Duration,
}

#[derive(Deserialize)]
struct ConfigYaml {
    #[serde(default)]
    global: GlobalYaml,
    #[serde(default)]
    storage: StorageYaml,
}

#[derive(Default, Deserialize)]
struct GlobalYaml {
    #[serde(default)]
    external_labels: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
struct StorageYaml {
    #[serde(default)]
    tsdb: TsdbYaml,
}

#[derive(Default, Deserialize)]
struct TsdbYaml {
    #[serde(default)]
    out_of_order_time_window: Option<String>,
}

impl Configuration {
    pub(super) fn parse(yaml: &str) -> Result<Self, String> {
        let yaml: ConfigYaml = serde_saphyr::from_str(yaml).map_err(|cause| cause.to_string())?;
        let external_labels =
            Labels::from_pairs(yaml.global.external_labels).map_err(|cause| cause.to_string())?;
        let window = yaml.storage.tsdb.out_of_order_time_window;
        let window = window.map_or(Ok(Duration::ZERO), |text| {
            crate::parse_prometheus_duration(&text).map_err(|cause| cause.to_string())
        });
        Ok(Self { external_labels, out_of_order_time_window: window? })
    }
}

#[derive(Deserialize)]
pub(super) struct BuildInfo {
    pub(super) version: String,
}

/// A label set as a JSON object.
pub(super) struct LabelSet(pub(super) Labels);

impl<'de> Deserialize<'de> for LabelSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let pairs = BTreeMap::<String, String>::deserialize(deserializer)?;
        Labels::from_pairs(pairs).map(LabelSet).map_err(serde::de::Error::custom)
    }
}

/// Finds `prometheus_tsdb_lowest_timestamp_seconds` in the text of `/metrics`.
///
/// An empty head shows the greatest possible time there, which means that nothing is known.
pub(super) fn lowest_timestamp(metrics: &[u8]) -> Option<Timestamp> {
    let value = metrics
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(b"prometheus_tsdb_lowest_timestamp_seconds "))?;
    let seconds: f64 = std::str::from_utf8(value).ok()?.split_ascii_whitespace().next()?.parse().ok()?;
    let millis = seconds * 1000.0;
    // Written so that NaN is refused as well.
    if millis.abs() < i64::MAX as f64 / 2.0 { Some(Timestamp::from_millis(millis as i64)) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_timestamp_is_found_among_the_metrics() {
        let check = |text: &str| lowest_timestamp(text.as_bytes()).map(Timestamp::as_millis);
        let name = "prometheus_tsdb_lowest_timestamp_seconds";
        assert_eq!(
            check(&format!("# HELP {name} x\n{name}_other 5\n{name} 1.669e+09\nup 1\n")),
            Some(1_669_000_000_000)
        );
        // What an empty head shows: i64::MAX / 1000.
        assert_eq!(check(&format!("{name} 9.223372036854775e+15")), None);
        assert_eq!(check(&format!("{name} NaN")), None);
        assert_eq!(check("up 1\n"), None);
    }

    #[test]
    fn the_last_reload_is_read() {
        let json = br#"{"startTime":"2026-01-01T00:00:00.5Z","reloadConfigSuccess":true,"lastConfigTime":"1970-01-01T01:00:02+01:00"}"#;
        let info: RuntimeInfo = serde_json::from_slice(json).unwrap();
        assert_eq!(
            info,
            RuntimeInfo { reload_config_success: true, last_config_time: Timestamp::from_millis(2000) }
        );
        assert!(
            serde_json::from_str::<RuntimeInfo>(r#"{"reloadConfigSuccess":true,"lastConfigTime":"soon"}"#)
                .is_err()
        );
    }

    #[test]
    fn labels_and_window_are_read_from_any_configuration() {
        let yaml = "global:\n  scrape_interval: 15s\n  external_labels:\n    cluster: eu-1\n    replica: \"0\"\nscrape_configs:\n- job_name: a\nstorage:\n  tsdb:\n    out_of_order_time_window: 1h30m\n";
        let read = Configuration::parse(yaml).unwrap();
        assert_eq!(
            read.external_labels,
            Labels::from_pairs([("cluster", "eu-1"), ("replica", "0")]).unwrap()
        );
        assert_eq!(read.out_of_order_time_window, Duration::from_secs(5400));
        let bare =
            Configuration::parse("scrape_configs: []\nstorage: {exemplars: {max_exemplars: 1}}\n").unwrap();
        assert_eq!((bare.external_labels, bare.out_of_order_time_window), (Labels::empty(), Duration::ZERO));
        assert!(Configuration::parse("global:\n  external_labels: [1]\n").is_err());
        assert!(Configuration::parse("storage: {tsdb: {out_of_order_time_window: long}}\n").is_err());
    }
}
