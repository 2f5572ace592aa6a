//! What the command line of a role needs from this machine and the network.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use bucket::ObjstoreArgs;
use clap::{ArgMatches, Command};
use gateway::cli::JoinArgs;
use gateway::component::has_credentials;
use gateway::config::{Config, GatewayRole, ProxyConfig, TransportChoice};
use httpclient::HttpEndpointsConfig;
use pki::JoinToken;
use runtime::{ConfigMistakes, ListenAddress};

use crate::doctor::configuration;
use crate::doctor::finding::Finding;
use crate::doctor::objects::Buckets;
use crate::doctor::ports::Port;
use crate::doctor::servers::ServerKind;

/// The roles with a gateway.
const WITH_GATEWAY: [&str; 2] = ["gateway", "agent"];
/// The roles that only read their bucket.
const READERS: [&str; 1] = ["store"];
/// The flags with addresses of stores and queriers.
const STORES: [&str; 6] =
    ["endpoint", "endpoint-strict", "endpoint-group", "endpoint-group-strict", "gateway", "store"];

/// What is checked.
#[derive(Debug, Default)]
pub(super) struct Subject {
    /// What is wrong with the command line and the files that it names.
    pub(super) mistakes: Vec<Finding>,
    pub(super) ports: Vec<Port>,
    /// The HTTP port.
    pub(super) http: Option<ListenAddress>,
    /// The gateways of the other side, `HOST:PORT`.
    pub(super) peers: Vec<String>,
    pub(super) transport: TransportChoice,
    pub(super) proxy: ProxyConfig,
    /// The stores of this side, `HOST:PORT`.
    pub(super) stores: Vec<String>,
    /// Addresses of stores with a way to look them up, such as `dnssrv+_grpc._tcp.stores.example`.
    pub(super) lookups: Vec<String>,
    /// HTTP servers, and what they are.
    pub(super) servers: Vec<(ServerKind, HttpEndpointsConfig)>,
    pub(super) token: Option<JoinToken>,
    /// Data directory of a gateway.
    pub(super) data_dir: Option<PathBuf>,
    /// State directory of the issuer.
    pub(super) pki_state: Option<PathBuf>,
    /// Certificates of ports: flag and file.
    pub(super) certificates: Vec<(&'static str, PathBuf)>,
    pub(super) bucket: Option<Buckets>,
    /// URLs of servers whose clocks are compared with this one.
    pub(super) clocks: Vec<String>,
}

/// A role with its flags, as the program understands them.
struct RoleLine {
    name: String,
    command: Command,
    matches: ArgMatches,
}

impl RoleLine {
    /// The values of a flag, by its long name; those of the default if it is not given.
    fn values(&self, flag: &str) -> Vec<String> {
        let id = self
            .command
            .get_arguments()
            .find(|arg| arg.get_long() == Some(flag))
            .map(|arg| arg.get_id().clone());
        let Some(id) = id else { return Vec::new() };
        let raw = self.matches.try_get_raw(id.as_str()).ok().flatten();
        raw.into_iter().flatten().map(|value| value.to_string_lossy().into_owned()).collect()
    }

    fn value(&self, flag: &str) -> Option<String> {
        self.values(flag).into_iter().next()
    }
}

impl Subject {
    /// Reads the command line of a role; an empty one needs nothing. Exits with the message of the program if the command line has
    /// a mistake that the program would report, or asks for help.
    pub(super) fn of_role(program: Command, role: &[OsString]) -> anyhow::Result<Self> {
        let mut subject = Self { proxy: ProxyConfig::Environment, ..Self::default() };
        if role.is_empty() {
            return Ok(subject);
        }
        let line = [OsString::from(program.get_name().to_owned())].into_iter().chain(role.iter().cloned());
        let args = runtime::kingpin_args(&program, line);
        let matches = program.clone().try_get_matches_from(args).unwrap_or_else(|error| error.exit());
        let Some((name, matches)) = matches.subcommand() else { return Ok(subject) };
        let command = program.find_subcommand(name).cloned().unwrap_or_default();
        let line = RoleLine { name: name.to_owned(), command, matches: matches.clone() };
        subject.note(configuration::mistakes(&line.name, &line.matches)?);
        let servers = configuration::servers(&line.name, &line.matches)?;
        subject.servers.extend(servers.queriers.into_iter().map(|config| (ServerKind::Querier, config)));
        let alertmanagers = servers.alertmanagers.into_iter();
        subject.servers.extend(alertmanagers.map(|config| (ServerKind::Alertmanager, config)));
        subject.read(&line);
        Ok(subject)
    }

    fn read(&mut self, line: &RoleLine) {
        for flag in ["http-address", "grpc-address"] {
            let address = line.value(flag).and_then(|value| value.parse::<ListenAddress>().ok());
            if let Some(address) = address {
                if flag == "http-address" {
                    self.http = Some(address.clone());
                }
                self.ports.push(Port { flag: format!("--{flag}"), address, udp: false });
            }
        }
        let certificate = line.value("grpc-server-tls-cert").map(PathBuf::from);
        self.certificates.extend(certificate.map(|file| ("--grpc-server-tls-cert", file)));
        let (lookups, stores): (Vec<_>, Vec<_>) =
            STORES.iter().flat_map(|flag| line.values(flag)).partition(|address| address.contains('+'));
        (self.stores, self.lookups) = (stores, lookups);
        for url in line.values("prometheus.url") {
            if let Some(authority) = url.strip_prefix("http://") {
                self.stores
                    .extend(authority.split('/').next().filter(|host| host.contains(':')).map(str::to_owned));
            }
            self.clocks.push(url);
        }
        self.read_bucket(line);
        if WITH_GATEWAY.contains(&line.name.as_str()) {
            self.read_gateway(line);
        }
    }

    fn read_bucket(&mut self, line: &RoleLine) {
        let args = ObjstoreArgs {
            objstore_config: line.value("objstore.config"),
            objstore_config_file: line.value("objstore.config-file").map(PathBuf::from),
        };
        if args.objstore_config.is_none() && args.objstore_config_file.is_none() {
            return;
        }
        let writes = !READERS.contains(&line.name.as_str());
        match args.served() {
            Ok(configured) => self.bucket = Some(Buckets { configured, writes }),
            Err(error) => self.note(error),
        }
    }

    /// Adds mistakes that are not known yet.
    fn note(&mut self, mistakes: impl Into<ConfigMistakes>) {
        let mistakes: ConfigMistakes = mistakes.into();
        for line in mistakes.lines() {
            let finding = Finding::critical("configuration", line.clone());
            if !self.mistakes.contains(&finding) {
                self.mistakes.push(finding);
            }
        }
    }

    fn read_gateway(&mut self, line: &RoleLine) {
        let mut data_dir = match line.name.as_str() {
            "agent" => line.value("data-dir").map(|dir| Path::new(&dir).join("gateway")),
            _ => line.value("data-dir").map(PathBuf::from),
        };
        let mut dials = Vec::new();
        if let Some(file) = line.value("config") {
            match Config::load(Path::new(&file)) {
                Ok(config) => {
                    data_dir = Some(config.data_dir.clone());
                    self.note(config.tls_mistakes());
                    self.note_config(config, &mut dials);
                }
                Err(error) => return self.note(error),
            }
        } else {
            let targets = line.values("target");
            self.stores
                .extend(targets.iter().filter_map(|target| Some(target.split_once('=')?.1.to_owned())));
            let listen = line.value("listen").and_then(|value| value.parse().ok());
            self.ports.extend(listen.map(|address| Port { flag: "--listen".to_owned(), address, udp: true }));
        }
        let data_dir = data_dir.unwrap_or_default();
        self.read_token(line, &data_dir);
        if dials.is_empty() && !self.ports.iter().any(|port| port.udp) {
            dials = self.addresses_of_issuer(&data_dir);
        }
        self.peers.extend(dials);
        self.data_dir = Some(data_dir);
    }

    fn note_config(&mut self, config: Config, dials: &mut Vec<String>) {
        (self.transport, self.proxy) = (config.transport, config.proxy);
        let mut listen = |address: &ListenAddress| {
            self.ports.push(Port { flag: "listen".to_owned(), address: address.clone(), udp: true });
        };
        match config.role {
            GatewayRole::Cluster(role) => {
                role.listen.iter().for_each(&mut listen);
                dials.extend(role.dial.iter().map(ToString::to_string));
                self.stores.extend(role.targets.iter().map(|target| target.address.to_string()));
            }
            GatewayRole::Observability(role) => {
                listen(&role.listen);
                dials.extend(role.clusters.iter().flat_map(|cluster| &cluster.dial).map(ToString::to_string));
                for target in &role.targets {
                    let flag = format!("targets: {}", target.name);
                    self.ports.push(Port { flag, address: target.listen.clone(), udp: false });
                }
                self.pki_state = Some(role.pki_state);
            }
        }
    }

    fn read_token(&mut self, line: &RoleLine, data_dir: &Path) {
        // The token of standard input is for the role, not for its doctor.
        let file = line.value("join-file").filter(|file| file != "-").map(PathBuf::from);
        match JoinArgs::of_file(file).load(data_dir) {
            Ok(token) => self.token = token,
            Err(error) => self.note(error),
        }
    }

    /// Those of the token, or those of the token that was used.
    fn addresses_of_issuer(&self, data_dir: &Path) -> Vec<String> {
        if let (Some(token), false) = (&self.token, has_credentials(data_dir)) {
            return token.addresses().to_vec();
        }
        gateway::component::addresses_of_issuer(data_dir)
    }
}
