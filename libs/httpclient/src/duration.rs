//! Durations in files of Prometheus.

use std::time::Duration;

use runtime::yaml::YamlNode;

/// A duration such as `1m30s`, in the form of Prometheus.
///
/// # Errors
/// It is not a duration.
pub fn yaml_duration(node: &YamlNode) -> Result<Duration, String> {
    let text = node.scalar()?;
    promapi::parse_prometheus_duration(&text).map_err(|_| {
        format!(
            "{text:?} is not a duration: write whole numbers with units (y w d h m s ms), for example 1m30s"
        )
    })
}

/// As [`yaml_duration`]; 0 is as if it were not given.
///
/// # Errors
/// It is not a duration.
pub fn yaml_duration_if_any(node: &YamlNode) -> Result<Option<Duration>, String> {
    yaml_duration(node).map(|length| Some(length).filter(|length| !length.is_zero()))
}
