//! The answers of Prometheus, as far as they are decoded.

use std::collections::BTreeMap;
use std::time::Duration;

use model::{Labels, Timestamp};
use serde::{Deserialize, Deserializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Data, and the warnings that the server sent with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WithWarnings<T> {
    /// The data.
    pub data: T,
    /// The warnings.
    pub warnings: Vec<String>,
}

impl<T> WithWarnings<T> {
    /// Converts the data and keeps the warnings.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> WithWarnings<U> {
        WithWarnings { data: change(self.data), warnings: self.warnings }
    }
}

/// The metadata of a metric, as its target exposes it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct MetadataEntry {
    /// `counter`, `gauge`, `histogram`, ...
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The help text.
    #[serde(default)]
    pub help: String,
    /// The unit; usually empty.
    #[serde(default)]
    pub unit: String,
}

/// The working directory, and the result of the last configuration reload.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeInfo {
    /// Whether the last attempt to load a configuration succeeded.
    pub reload_config_success: bool,
    /// Time of the last successful load, to the second.
    #[serde(deserialize_with = "rfc3339")]
    pub last_config_time: Timestamp,
    /// The working directory, on which relative paths in flags depend.
    #[serde(rename = "CWD", default)]
    pub working_directory: Option<String>,
}

fn rfc3339<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    let text = String::deserialize(deserializer)?;
    let at = OffsetDateTime::parse(&text, &Rfc3339).map_err(serde::de::Error::custom)?;
    // The years 0 to 9999 fit into i64 milliseconds.
    Ok(Timestamp::from_millis(at.unix_timestamp_nanos().div_euclid(1_000_000) as i64))
}

/// The envelope of every JSON answer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ApiResponse<T> {
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

/// The part of the configuration of Prometheus that is used here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// External labels, attached to all series that leave Prometheus; may be empty.
    pub external_labels: Labels,
    /// Samples may be this much older than the newest one and still be accepted; zero if out-of-order samples
    /// are rejected.
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
pub(super) struct JsonLabelSet(pub(super) Labels);

impl<'de> Deserialize<'de> for JsonLabelSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let pairs = BTreeMap::<String, String>::deserialize(deserializer)?;
        Labels::from_pairs(pairs).map(JsonLabelSet).map_err(serde::de::Error::custom)
    }
}

/// Finds `prometheus_tsdb_lowest_timestamp_seconds` in the text of `/metrics`.
///
/// An empty head reports the greatest possible time. The result is then `None`.
pub(super) fn lowest_timestamp(metrics: &[u8]) -> Option<Timestamp> {
    let value = metrics
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(b"prometheus_tsdb_lowest_timestamp_seconds "))?;
    let seconds: f64 = std::str::from_utf8(value).ok()?.split_ascii_whitespace().next()?.parse().ok()?;
    let millis = seconds * 1000.0;
    // This form of the comparison also rejects NaN.
    if millis.abs() < i64::MAX as f64 / 2.0 { Some(Timestamp::from_millis(millis as i64)) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lowest_timestamp_is_found_in_the_metrics_text() {
        let check = |text: &str| lowest_timestamp(text.as_bytes()).map(Timestamp::as_millis);
        let name = "prometheus_tsdb_lowest_timestamp_seconds";
        assert_eq!(
            check(&format!("# HELP {name} x\n{name}_other 5\n{name} 1.669e+09\nup 1\n")),
            Some(1_669_000_000_000)
        );
        // The value that an empty head reports: i64::MAX / 1000.
        assert_eq!(check(&format!("{name} 9.223372036854775e+15")), None);
        assert_eq!(check(&format!("{name} NaN")), None);
        assert_eq!(check("up 1\n"), None);
    }

    #[test]
    fn runtime_info_is_decoded() {
        let json = br#"{"CWD":"/","startTime":"2026-01-01T00:00:00.5Z","reloadConfigSuccess":true,"lastConfigTime":"1970-01-01T01:00:02+01:00"}"#;
        let info: RuntimeInfo = serde_json::from_slice(json).unwrap();
        assert_eq!(
            info,
            RuntimeInfo {
                reload_config_success: true,
                last_config_time: Timestamp::from_millis(2000),
                working_directory: Some("/".to_owned()),
            }
        );
        assert!(
            serde_json::from_str::<RuntimeInfo>(r#"{"reloadConfigSuccess":true,"lastConfigTime":"soon"}"#)
                .is_err()
        );
    }

    #[test]
    fn external_labels_and_out_of_order_window_are_read_from_a_configuration() {
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
