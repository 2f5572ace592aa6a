//! How targets are discovered.

use std::path::{Path, PathBuf};
use std::time::Duration;

use httpclient::HttpClientConfig;
use model::Labels;
use runtime::yaml::{Mistakes, YamlFields, YamlNode, YamlValue};

use crate::config::values::{duration_if_any, labels, text, texts};

/// Where targets come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiscoveryConfig {
    /// Targets in the configuration itself.
    Static(Vec<TargetGroup>),
    /// Targets in files.
    File(FileDiscoveryConfig),
    /// Names in DNS.
    Dns(DnsDiscoveryConfig),
    /// A list that a server sends.
    Http(Box<HttpDiscoveryConfig>),
}

/// Targets with common labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetGroup {
    /// The own labels of each target, of which `__address__` is one.
    pub targets: Vec<Labels>,
    /// The labels of all.
    pub labels: Labels,
}

/// Targets in files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileDiscoveryConfig {
    /// Paths, whose last part may contain `*`.
    pub files: Vec<PathBuf>,
    /// How often files are read that do not seem to have changed.
    pub refresh_interval: Duration,
}

/// Names in DNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsDiscoveryConfig {
    /// The names.
    pub names: Vec<String>,
    /// What is asked for.
    pub kind: DnsRecordKind,
    /// The port of targets, except for SRV.
    pub port: u16,
    /// How often the names are looked up.
    pub refresh_interval: Duration,
}

/// A type of records in DNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsRecordKind {
    /// Services, with their ports.
    Srv,
    /// Addresses of IPv4.
    A,
    /// Addresses of IPv6.
    Aaaa,
    /// Mail servers.
    Mx,
    /// Name servers.
    Ns,
}

/// A list that a server sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpDiscoveryConfig {
    /// Where the list is.
    pub url: String,
    /// How it is asked for.
    pub http: HttpClientConfig,
    /// How often it is asked for.
    pub refresh_interval: Duration,
}

/// Discoveries of Prometheus that are not known here.
const REFUSED: [&str; 28] = [
    "azure_sd_configs",
    "consul_sd_configs",
    "digitalocean_sd_configs",
    "docker_sd_configs",
    "dockerswarm_sd_configs",
    "ec2_sd_configs",
    "eureka_sd_configs",
    "gce_sd_configs",
    "hetzner_sd_configs",
    "ionos_sd_configs",
    "kubernetes_sd_configs",
    "kuma_sd_configs",
    "lightsail_sd_configs",
    "linode_sd_configs",
    "marathon_sd_configs",
    "nerve_sd_configs",
    "nomad_sd_configs",
    "openstack_sd_configs",
    "outscale_sd_configs",
    "ovhcloud_sd_configs",
    "puppetdb_sd_configs",
    "scaleway_sd_configs",
    "serverset_sd_configs",
    "stackit_sd_configs",
    "triton_sd_configs",
    "uyuni_sd_configs",
    "vultr_sd_configs",
    "zookeeper_sd_configs",
];

/// Reads all discoveries of a scrape configuration. Paths are relative to `folder`.
pub(crate) fn read_discoveries(
    fields: &mut YamlFields<'_>,
    folder: &Path,
    mistakes: &Mistakes,
) -> Vec<DiscoveryConfig> {
    for name in REFUSED {
        fields.refuse(
            name,
            "is not known here; take Prometheus with the sidecar, or file_sd_configs or http_sd_configs",
        );
    }
    let groups = fields.list("static_configs", |path, node| Some(read_group(path, node, mistakes)));
    let mut read = Vec::new();
    if !groups.is_empty() {
        read.push(DiscoveryConfig::Static(groups));
    }
    read.extend(fields.list("file_sd_configs", |path, node| read_file(path, node, folder, mistakes)));
    read.extend(fields.list("dns_sd_configs", |path, node| read_dns(path, node, mistakes)));
    read.extend(fields.list("http_sd_configs", |path, node| read_http(path, node, folder, mistakes)));
    read
}

/// Reads a group of targets: `targets` and `labels`.
pub(crate) fn read_group(path: String, node: &YamlNode, mistakes: &Mistakes) -> TargetGroup {
    let mut fields = YamlFields::new(path, node, mistakes);
    let targets = fields.list("targets", |path, item| match item.scalar() {
        Ok(address) => Labels::from_pairs([("__address__", address)]).ok(),
        Err(why) => {
            mistakes.add(item.line, path, why);
            None
        }
    });
    let own = fields.path_of("labels");
    let labels = fields.node("labels").map_or_else(Labels::empty, |node| labels(&own, node, mistakes));
    fields.finish();
    TargetGroup { targets, labels }
}

const FILE_ENDS: [&str; 6] = [".json", ".yml", ".yaml", ".JSON", ".YML", ".YAML"];

fn read_file(path: String, node: &YamlNode, folder: &Path, mistakes: &Mistakes) -> Option<DiscoveryConfig> {
    let mut fields = YamlFields::new(path, node, mistakes);
    let files = fields.list("files", |path, item| {
        let read = text(item).and_then(|text| {
            let has_end = FILE_ENDS.iter().any(|end| text.ends_with(end));
            let is_whole = text.split_once('*').is_none_or(|(_, rest)| !rest.contains('/'));
            match has_end && is_whole {
                true => Ok(folder.join(text)),
                false => Err(format!(
                    "{text:?} must end in .json, .yml or .yaml, and may contain * only in its last part"
                )),
            }
        });
        read.map_err(|why| mistakes.add(item.line, path, why)).ok()
    });
    if is_empty(fields.node("files")) {
        fields.wrong("files", "is empty: list at least one file");
    }
    let refresh_interval = interval(&mut fields, 300);
    fields.finish();
    Some(DiscoveryConfig::File(FileDiscoveryConfig { files, refresh_interval }))
}

fn read_dns(path: String, node: &YamlNode, mistakes: &Mistakes) -> Option<DiscoveryConfig> {
    let mut fields = YamlFields::new(path, node, mistakes);
    let names = texts(&mut fields, "names", mistakes);
    if is_empty(fields.node("names")) {
        fields.wrong("names", "is empty: list at least one name");
    }
    let kind = fields.optional("type", |node| match node.scalar()?.to_uppercase().as_str() {
        "SRV" => Ok(DnsRecordKind::Srv),
        "A" => Ok(DnsRecordKind::A),
        "AAAA" => Ok(DnsRecordKind::Aaaa),
        "MX" => Ok(DnsRecordKind::Mx),
        "NS" => Ok(DnsRecordKind::Ns),
        other => Err(format!("{other:?} is not a type of records; expected SRV, A, AAAA, MX or NS")),
    });
    let kind = kind.unwrap_or(DnsRecordKind::Srv);
    let port = fields.optional("port", |node| node.integer(0, 65_535)).unwrap_or(0);
    if port == 0 && kind != DnsRecordKind::Srv {
        fields.wrong("port", "is missing: records of this type have no port");
    }
    let refresh_interval = interval(&mut fields, 30);
    fields.finish();
    Some(DiscoveryConfig::Dns(DnsDiscoveryConfig {
        names,
        kind,
        port: u16::try_from(port).unwrap_or_default(),
        refresh_interval,
    }))
}

fn read_http(path: String, node: &YamlNode, folder: &Path, mistakes: &Mistakes) -> Option<DiscoveryConfig> {
    let mut fields = YamlFields::new(path, node, mistakes);
    let url = fields.required("url", |node| {
        let url = text(node)?;
        let authority = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        match authority.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/')) {
            true => Ok(url),
            false => Err(format!("{url:?} is not of the form http://HOST:PORT/PATH")),
        }
    });
    let http = HttpClientConfig::read(&mut fields, folder, mistakes);
    let refresh_interval = interval(&mut fields, 60);
    fields.finish();
    Some(DiscoveryConfig::Http(Box::new(HttpDiscoveryConfig { url: url?, http, refresh_interval })))
}

fn is_empty(list: Option<&YamlNode>) -> bool {
    list.is_none_or(|node| matches!(&node.value, YamlValue::List(items) if items.is_empty()))
}

fn interval(fields: &mut YamlFields<'_>, default_seconds: u64) -> Duration {
    let given = fields.optional("refresh_interval", duration_if_any).flatten();
    given.unwrap_or(Duration::from_secs(default_seconds))
}
