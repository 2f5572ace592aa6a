//! Which Alertmanagers there are.

use std::path::Path;
use std::time::Duration;

use httpclient::HttpEndpointsConfig;
use runtime::parse_duration;
use runtime::yaml::{Mistakes, YamlFields, YamlNode};

/// The port of an Alertmanager.
pub(crate) const DEFAULT_PORT: u16 = 9093;
/// Thanos' limit of a request.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// What a [`Notifier`](crate::Notifier) does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotifierConfig {
    /// Groups of Alertmanagers. Alerts are sent to all of them.
    pub groups: Vec<AlertmanagerGroup>,
    /// Most alerts in the queue: 10,000 by default, as in Prometheus. When it is full, the oldest are dropped.
    pub capacity: usize,
    /// Most bytes of alerts in the queue: 64 MiB by default. When it is full, the oldest are dropped.
    pub capacity_bytes: usize,
    /// Most alerts of a request: 64 by default.
    pub batch: usize,
    /// How often names are looked up in DNS.
    pub dns_interval: Duration,
}

impl Default for NotifierConfig {
    fn default() -> Self {
        Self {
            groups: Vec::new(),
            capacity: 10_000,
            capacity_bytes: 64 << 20,
            batch: 64,
            dns_interval: Duration::from_secs(30),
        }
    }
}

/// Alertmanagers that are replicas of each other: each of them gets every alert, and an alert is sent when one of them has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertmanagerGroup {
    /// Where they are.
    pub members: Vec<HttpEndpointsConfig>,
    /// The most time of a request.
    pub timeout: Duration,
}

impl AlertmanagerGroup {
    /// Names the group in the journal: it is the same after a restart, as long as the Alertmanagers are configured in the same way.
    pub(crate) fn key(&self) -> String {
        let mut text = String::new();
        for member in &self.members {
            let HttpEndpointsConfig { is_https, path_prefix, addresses, files, .. } = member;
            text.push_str(&format!("{is_https} {path_prefix}"));
            addresses.iter().for_each(|address| text.push_str(&format!(" {address}")));
            files.iter().for_each(|files| text.push_str(&format!(" {:?}", files.patterns)));
            text.push('\n');
        }
        format!("{:08x}", crc32c::crc32c(text.as_bytes()))
    }

    /// Reads Thanos' YAML: a mapping with the list `alertmanagers`, of which each entry is a group. Paths are relative to `folder`.
    ///
    /// # Errors
    /// All mistakes, with their lines.
    pub fn parse_all(text: &str, folder: &Path) -> Result<Vec<Self>, Vec<String>> {
        let root = YamlNode::parse(text).map_err(|mistake| vec![mistake.to_string()])?;
        let mistakes = Mistakes::default();
        let mut fields = YamlFields::new("", &root, &mistakes);
        let groups =
            fields.list("alertmanagers", |path, node| Some(read_group(path, node, folder, &mistakes)));
        fields.finish();
        let mistakes = mistakes.into_sorted();
        if mistakes.is_empty() { Ok(groups) } else { Err(mistakes.iter().map(ToString::to_string).collect()) }
    }
}

fn read_group(path: String, node: &YamlNode, folder: &Path, mistakes: &Mistakes) -> AlertmanagerGroup {
    let mut fields = YamlFields::new(path, node, mistakes);
    let endpoints = HttpEndpointsConfig::read(&mut fields, folder, DEFAULT_PORT, mistakes);
    if endpoints.addresses.is_empty() && endpoints.files.is_empty() {
        let given = fields.node("static_configs").is_some() || fields.node("file_sd_configs").is_some();
        if !given {
            fields.wrong("static_configs", "is missing, and file_sd_configs too: no Alertmanager is named");
        }
    }
    let timeout = |node: &YamlNode| match node.text_if_any()? {
        None => Ok(DEFAULT_TIMEOUT),
        Some(text) => match parse_duration(text).map_err(|why| why.to_string())? {
            Duration::ZERO => Err("must be greater than 0".to_owned()),
            timeout => Ok(timeout),
        },
    };
    let timeout = fields.optional("timeout", timeout).unwrap_or(DEFAULT_TIMEOUT);
    let _ = fields.optional("api_version", |node| match node.text()? {
        "v2" => Ok(()),
        "v1" => {
            Err("v1 was removed from Alertmanager in version 0.27; remove the field or write v2".to_owned())
        }
        other => Err(format!("is {other:?}, expected v2")),
    });
    fields.finish();
    AlertmanagerGroup { members: vec![endpoints], timeout }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_thanos_are_read() {
        let groups = AlertmanagerGroup::parse_all(
            "alertmanagers:\n- static_configs: ['dns+am:9093', b]\n  scheme: https\n  timeout: 3s\n  api_version: v2\n\
             - http_config: {bearer_token: x}\n  file_sd_configs: [{files: [a.json]}]\n  path_prefix: /x\n",
            Path::new("/etc"),
        )
        .unwrap();
        assert_eq!((groups.len(), groups[0].members[0].addresses.len()), (2, 2));
        assert_eq!((groups[0].timeout, groups[1].timeout), (Duration::from_secs(3), DEFAULT_TIMEOUT));
        assert!(groups[0].members[0].is_https && groups[1].members[0].http.authorization.is_some());
        assert_eq!(AlertmanagerGroup::parse_all("", Path::new("")).unwrap(), []);
    }

    #[test]
    fn every_mistake_is_reported() {
        let check = |text: &str, expected: &[&str]| {
            assert_eq!(AlertmanagerGroup::parse_all(text, Path::new("")).unwrap_err(), expected, "{text}");
        };
        check(
            "alertmanagers:\n- {api_version: v3, timeout: 0s}\n- {static_configs: [a], timeout: x, relabel_configs: []}\n",
            &[
                "line 2: alertmanagers[0].static_configs: is missing, and file_sd_configs too: no Alertmanager is named",
                "line 2: alertmanagers[0].timeout: must be greater than 0",
                "line 2: alertmanagers[0].api_version: is \"v3\", expected v2",
                "line 3: alertmanagers[1].timeout: \"x\" is not a duration: write numbers with units (y w d h m s ms us ns), for example 1h30m, 2w or 1.5s",
                "line 3: alertmanagers[1].relabel_configs: unknown field; known fields: http_config, static_configs, file_sd_configs, scheme, path_prefix, timeout, api_version",
            ],
        );
        check("- static_configs: [a]", &["line 1: expected a mapping of fields, found a list"]);
    }
}
