//! The gateway's configuration file, from YAML to checked types.
//!
//! All mistakes of a file are reported together, each with its field and line. `docs/gateway.md` explains every
//! field; `testdata/good` and `testdata/bad` contain examples. Reading order: [`Config`], [`ObservabilityRole`],
//! [`ClusterRole`], then the functions that read them.

mod expected_identity;
mod issuing;
mod policy;
mod target_tls;

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use httpclient::NoProxy;
pub use httpclient::ProxyConfig;
use identity::Name;
use mesh::Authority;
use pki::DeliveredIssuer;
use runtime::{ConfigMistakes, ListenAddress};
use tls::{ClientTls, ClientTlsOptions};

pub use expected_identity::ExpectedIdentity;
use expected_identity::read_expected_identity;
use issuing::read_pki;
use policy::{read_access_log, read_policy};
use target_tls::read_target_tls;

use crate::access_log::AccessLogOptions;
use crate::policy::Policy;
pub use crate::transport::TransportChoice;
pub use runtime::yaml::Mistake;
use runtime::yaml::{Mistakes, YamlFields, YamlNode};

/// Largest configuration file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Bounds of `info_interval`, inclusive.
const INFO_INTERVAL_BOUNDS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));
/// Bounds of `pki.leaf_lifetime`, inclusive. The shortest lifetimes are for tests of renewal.
const LEAF_LIFETIME_BOUNDS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30 * 86_400));

/// Bounds of `pki.recover_expired`, inclusive.
const RECOVER_BOUNDS: (Duration, Duration) = (Duration::ZERO, Duration::from_secs(30 * 86_400));

/// A checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Directory of the credentials and the trust bundle, mode 0700; created if it does not exist.
    pub data_dir: PathBuf,
    /// Which transports are used for dialling.
    pub transport: TransportChoice,
    /// The proxy for dialling over TCP and for joining.
    pub proxy: ProxyConfig,
    /// Which side of the mesh this gateway is.
    pub role: GatewayRole,
}

impl Config {
    /// Reads the files of `targets[].tls`, and returns what is wrong with them. A gateway itself starts nevertheless, because
    /// other targets do not need them, and reads them with the first request.
    pub fn tls_mistakes(&self) -> ConfigMistakes {
        let GatewayRole::Cluster(cluster) = &self.role else { return ConfigMistakes::default() };
        let wrong = |target: &ClusterTarget| {
            let loaded = ClientTls::load("targets[].tls", target.tls.clone()?);
            loaded.err().map(|error| format!("target {}: tls: {error}", target.name))
        };
        cluster.targets.iter().filter_map(wrong).collect()
    }
}

/// Which side of the mesh a gateway is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GatewayRole {
    /// In the observability cluster.
    Observability(ObservabilityRole),
    /// In a client cluster.
    Cluster(ClusterRole),
}

/// The gateway of the observability cluster: issues certificates, publishes the directory, sends requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservabilityRole {
    /// State directory of the issuing CA (created by `isthmus pki init`).
    pub pki_state: PathBuf,
    /// Where the issuing CA is delivered, if another system does that. It is taken over into the state directory.
    pub delivered: Option<DeliveredIssuer>,
    /// Lifetime of certificates issued from now on. A certificate never outlives the issuing CA.
    pub leaf_lifetime: Duration,
    /// How long after its end a cluster's certificate can be exchanged for another one with its key; zero switches that off.
    pub recover_expired: Duration,
    /// The address at which clusters connect and join, UDP and TCP.
    pub listen: ListenAddress,
    /// Clusters to dial. A cluster that dials in needs no entry.
    pub clusters: Vec<DialledCluster>,
    /// Plain ports, one for each target.
    pub targets: Vec<PlainPort>,
}

/// A cluster that is dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DialledCluster {
    /// The registered name.
    pub name: Name,
    /// The addresses of its gateways; one connection is kept to each.
    pub dial: Vec<DialAddress>,
}

/// An HTTP/2 port without TLS for one target, for clients that do not support the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainPort {
    /// The target that the port serves.
    pub name: Authority,
    /// The address of the port.
    pub listen: ListenAddress,
}

/// The gateway of a client cluster: serves its targets to the observability side, within the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterRole {
    /// The cluster that this configuration is for.
    pub identity: ExpectedIdentity,
    /// The stores that can be read.
    pub targets: Vec<ClusterTarget>,
    /// Addresses of observability gateways to dial; one connection is kept to each. If empty, the addresses of the token
    /// are dialled, unless `listen` is set.
    pub dial: Vec<DialAddress>,
    /// The address at which the observability side connects, UDP and TCP.
    pub listen: Option<ListenAddress>,
    /// Which requests are allowed.
    pub policy: Policy,
    /// How often each target's Info is polled.
    pub info_interval: Duration,
    /// Where requests are logged; `None` if they are not.
    pub access_log: Option<AccessLogOptions>,
}

impl ClusterRole {
    /// Default of `info_interval`.
    pub const INFO_INTERVAL: Duration = Duration::from_secs(5);

    /// The configuration of a gateway without a configuration file.
    pub(crate) fn for_join(targets: Vec<ClusterTarget>, listen: Option<ListenAddress>) -> Self {
        Self {
            identity: ExpectedIdentity::default(),
            targets,
            dial: Vec::new(),
            listen,
            policy: Policy::default(),
            info_interval: Self::INFO_INTERVAL,
            access_log: None,
        }
    }
}

/// A store that a cluster offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterTarget {
    /// Its name within the cluster, such as `scraper-0`.
    pub name: Name,
    /// The address of its StoreAPI. It never leaves this cluster.
    pub address: DialAddress,
    /// The TLS of its gRPC port; `None` for cleartext.
    pub tls: Option<ClientTlsOptions>,
}

/// An address to connect to, `HOST:PORT`: the host is not empty, and the port is not 0.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DialAddress(String);

impl DialAddress {
    /// The address as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host, an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        self.0.rsplit_once(':').map_or("", |(host, _)| host).trim_matches(['[', ']'])
    }

    /// The port.
    pub fn port(&self) -> u16 {
        // The text was checked when it was parsed.
        self.0.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or_default()
    }
}

impl fmt::Display for DialAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for DialAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address: ListenAddress = text.parse().map_err(|error| match error {
            runtime::AddressError::NoPort(_) => format!("address {text:?} has no port: write HOST:PORT"),
            error => error.to_string(),
        })?;
        if address.host().is_empty() {
            return Err(format!("address {text:?} has no host: write HOST:PORT"));
        }
        if address.port() == 0 {
            return Err(format!("address {text:?}: port 0 cannot be connected to, expected 1 to 65535"));
        }
        if address.host().parse().is_ok_and(|ip| is_never_a_target(&ip)) {
            return Err(format!(
                "address {text:?} is link-local, multicast or unspecified: write the address of one host"
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

/// Whether an address cannot be a target: link-local addresses (clouds have their metadata services there), multicast
/// addresses and the unspecified address. A name that resolves to one of them is rejected when it is connected to.
pub(crate) fn is_never_a_target(ip: &IpAddr) -> bool {
    let ip = ip.to_canonical();
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    link_local || ip.is_multicast() || ip.is_unspecified()
}

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    /// It cannot be read.
    #[error("read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// It is read, but has mistakes.
    #[error("{}", MistakeList(path, mistakes))]
    Wrong {
        /// The file.
        path: PathBuf,
        /// All of its mistakes in the order of the file; at least one.
        mistakes: Vec<Mistake>,
    },
}

impl From<ConfigFileError> for runtime::ConfigMistakes {
    fn from(error: ConfigFileError) -> Self {
        match error {
            ConfigFileError::Read { .. } => error.to_string().into(),
            ConfigFileError::Wrong { path, mistakes } => {
                mistakes.iter().map(|mistake| format!("{}: {mistake}", path.display())).collect()
            }
        }
    }
}

struct MistakeList<'a>(&'a Path, &'a [Mistake]);

impl fmt::Display for MistakeList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(path, mistakes) = self;
        if let [mistake] = mistakes {
            return write!(f, "{}: {mistake}", path.display());
        }
        write!(f, "{}: {} mistakes", path.display(), mistakes.len())?;
        mistakes.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

impl Config {
    /// The configuration of a gateway that joins with flags alone, without a configuration file.
    pub(crate) fn for_join(
        data_dir: PathBuf,
        targets: Vec<ClusterTarget>,
        listen: Option<ListenAddress>,
    ) -> Self {
        let role = GatewayRole::Cluster(ClusterRole::for_join(targets, listen));
        Self { data_dir, transport: TransportChoice::default(), proxy: ProxyConfig::Environment, role }
    }

    /// Reads a file. Relative paths in it are relative to its directory.
    ///
    /// # Errors
    /// The file cannot be read, or has mistakes; then the error lists all of them.
    pub fn load(path: &Path) -> Result<Self, ConfigFileError> {
        let text = identity::read_bounded(path, MAX_FILE_BYTES)
            .and_then(|bytes| {
                String::from_utf8(bytes).map_err(|_| std::io::Error::other("is not valid UTF-8"))
            })
            .map_err(|source| ConfigFileError::Read { path: path.to_owned(), source })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, folder)
            .map_err(|mistakes| ConfigFileError::Wrong { path: path.to_owned(), mistakes })
    }

    /// Parses the text of a file in `folder`.
    ///
    /// # Errors
    /// All mistakes, in the order of the file; at least one.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, Vec<Mistake>> {
        let root = YamlNode::parse(text).map_err(|mistake| vec![mistake])?;
        let mistakes = Mistakes::default();
        let config = read_config(&root, folder, &mistakes);
        let mistakes = mistakes.into_sorted();
        match config {
            Some(config) if mistakes.is_empty() => Ok(config),
            _ => Err(mistakes),
        }
    }
}

fn read_config(root: &YamlNode, folder: &Path, mistakes: &Mistakes) -> Option<Config> {
    let mut fields = YamlFields::new("", root, mistakes);
    let role = fields.required("role", |node| match node.text()? {
        text @ ("observability" | "cluster") => Ok(text),
        other => Err(format!("{other:?} is neither \"observability\" nor \"cluster\"")),
    });
    let data_dir = fields.required("data_dir", |node| node.text().map(|text| folder.join(text)));
    let transport = fields.optional("transport", |node| match node.text()? {
        "auto" => Ok(TransportChoice::Auto),
        "quic" => Ok(TransportChoice::Quic),
        "tcp" => Ok(TransportChoice::Tcp),
        other => Err(format!("{other:?} is none of \"auto\", \"quic\" and \"tcp\"")),
    });
    let proxy = fields.optional("proxy", |node| match node.text()? {
        "none" => Ok(ProxyConfig::None),
        url => url.parse().map(|url| ProxyConfig::Url(url, NoProxy::default())),
    });
    // Without a role it is unknown which other fields are allowed.
    let role = match role? {
        "observability" => read_observability(&mut fields, folder, mistakes).map(GatewayRole::Observability),
        _ => Some(GatewayRole::Cluster(read_cluster(&mut fields, folder, mistakes))),
    };
    fields.finish();
    Some(Config {
        data_dir: data_dir?,
        transport: transport.unwrap_or_default(),
        proxy: proxy.unwrap_or(ProxyConfig::Environment),
        role: role?,
    })
}

fn read_observability(
    fields: &mut YamlFields<'_>,
    folder: &Path,
    mistakes: &Mistakes,
) -> Option<ObservabilityRole> {
    let pki = match fields.node("pki") {
        Some(node) => read_pki(node, folder, mistakes),
        None => {
            fields.wrong("pki", "is missing: set the state directory of the issuing CA, `pki: {state: DIR}`");
            None
        }
    };
    let listen = fields.optional("listen", YamlNode::parsed::<ListenAddress>);

    let clusters: Vec<(Option<u64>, DialledCluster)> = fields.list("clusters", |path, node| {
        let mut fields = YamlFields::new(path, node, mistakes);
        let name = fields.required("name", YamlNode::parsed::<Name>);
        let dial = fields.parsed_list::<DialAddress>("dial");
        if dial.is_empty() {
            fields.wrong("dial", "contains no address; remove the entry if the cluster dials in");
        }
        fields.finish();
        Some((node.line, DialledCluster { name: name?, dial }))
    });
    note_duplicates(
        "clusters",
        clusters.iter().map(|(line, cluster)| (*line, cluster.name.as_str())),
        mistakes,
    );

    let targets: Vec<(Option<u64>, PlainPort)> = fields.list("targets", |path, node| {
        let mut fields = YamlFields::new(path, node, mistakes);
        let name = fields.required("name", YamlNode::parsed::<Authority>);
        let listen = fields.required("listen", YamlNode::parsed::<ListenAddress>);
        fields.finish();
        Some((node.line, PlainPort { name: name?, listen: listen? }))
    });
    let names: Vec<_> = targets.iter().map(|(line, port)| (*line, port.name.to_string())).collect();
    note_duplicates("targets", names.iter().map(|(line, name)| (*line, name.as_str())), mistakes);
    let ports: Vec<_> = targets
        .iter()
        .filter(|(_, port)| port.listen.port() != 0)
        .map(|(line, port)| (*line, port.listen.to_string()))
        .collect();
    note_duplicates("targets", ports.iter().map(|(line, port)| (*line, port.as_str())), mistakes);

    let pki = pki?;
    Some(ObservabilityRole {
        pki_state: pki.state,
        delivered: pki.delivered,
        leaf_lifetime: pki.leaf_lifetime,
        recover_expired: pki.recover_expired,
        listen: listen.unwrap_or_else(default_listen),
        clusters: clusters.into_iter().map(|(_, cluster)| cluster).collect(),
        targets: targets.into_iter().map(|(_, port)| port).collect(),
    })
}

fn duration(node: &YamlNode, (min, max): (Duration, Duration)) -> Result<Duration, String> {
    let duration = runtime::parse_duration(node.text()?).map_err(|error| error.to_string())?;
    if duration < min || duration > max {
        let [min, max] = [min, max].map(runtime::format_duration);
        return Err(format!("is not in the range {min} to {max}"));
    }
    Ok(duration)
}

fn default_listen() -> ListenAddress {
    "0.0.0.0:10943".parse().expect("a constant address")
}

fn read_cluster(fields: &mut YamlFields<'_>, folder: &Path, mistakes: &Mistakes) -> ClusterRole {
    let identity = fields.node("identity").map(|node| read_expected_identity(node, mistakes));
    let targets: Vec<(Option<u64>, ClusterTarget)> = fields.list("targets", |path, node| {
        let mut fields = YamlFields::new(path, node, mistakes);
        let name = fields.required("name", YamlNode::parsed::<Name>);
        let address = fields.required("address", YamlNode::parsed::<DialAddress>);
        let path = fields.path_of("tls");
        let tls = fields.given("tls").map(|node| read_target_tls(path, node, folder, mistakes));
        fields.finish();
        Some((node.line, ClusterTarget { name: name?, address: address?, tls }))
    });
    note_duplicates("targets", targets.iter().map(|(line, target)| (*line, target.name.as_str())), mistakes);
    if fields.node("targets").is_none() {
        fields.wrong(
            "targets",
            "is missing: list at least one store, `targets: [{name: scraper-0, address: HOST:PORT}]`",
        );
    }
    let dial = fields.parsed_list::<DialAddress>("dial");
    let listen = fields.optional("listen", YamlNode::parsed::<ListenAddress>);
    let policy = match fields.node("policy") {
        Some(node) => read_policy(node, mistakes),
        None => Policy::default(),
    };
    let info_interval = fields.optional("info_interval", |node| duration(node, INFO_INTERVAL_BOUNDS));
    let access_log = fields.node("access_log").and_then(|node| read_access_log(node, folder, mistakes));
    ClusterRole {
        identity: identity.unwrap_or_default(),
        targets: targets.into_iter().map(|(_, target)| target).collect(),
        dial,
        listen,
        policy,
        info_interval: info_interval.unwrap_or(ClusterRole::INFO_INTERVAL),
        access_log,
    }
}

fn note_duplicates<'a>(list: &str, items: impl Iterator<Item = (Option<u64>, &'a str)>, mistakes: &Mistakes) {
    let mut seen = std::collections::BTreeSet::new();
    for (line, name) in items {
        if !seen.insert(name) {
            mistakes.add(line, list, format!("{name} is listed twice"));
        }
    }
}

#[cfg(test)]
mod tests;
