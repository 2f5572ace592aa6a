//! A mesh of real gateway processes: a trust domain, an observability gateway, and clusters that joined with tokens.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::gateway::GatewayCommand;
use crate::pki_commands::PkiCommands;
use crate::process::{Process, free_port, isthmus};

/// Which side opens the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The cluster's gateway.
    DialsOut,
    /// The observability gateway.
    IsDialled,
    /// Both of them, so that there are two connections.
    Both,
}

impl Reach {
    fn is_dialled(self) -> bool {
        self != Self::DialsOut
    }
}

/// A client cluster that joins the mesh.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Its name.
    pub name: &'static str,
    /// Which side opens the connection.
    pub reach: Reach,
    /// Names and addresses of its stores.
    pub targets: Vec<(String, SocketAddr)>,
}

/// Running gateways. They are killed when this is dropped.
pub struct Mesh {
    /// The observability gateway.
    pub observability: Process,
    /// The gateways of the clusters, in the order of the arguments.
    pub clusters: Vec<Process>,
    /// Address of the observability gateway's local gRPC port.
    pub grpc: SocketAddr,
    /// Address of the observability gateway's HTTP port.
    pub http: SocketAddr,
    /// How the observability gateway was started.
    own: GatewayCommand,
    /// How the gateways of the clusters were started, in the order of the arguments.
    commands: Vec<GatewayCommand>,
    dir: PathBuf,
    /// The address at which clusters join.
    pub address: SocketAddr,
}

impl Mesh {
    /// Creates a trust domain in `dir` and starts the gateways. `transport` is `auto`, `quic` or `tcp`.
    ///
    /// # Panics
    /// If a process does not become ready in time.
    pub fn start(dir: &Path, transport: &str, clusters: &[Cluster]) -> Self {
        Self::start_with(dir, transport, clusters, "")
    }

    /// The same with `more` in the configuration of each cluster.
    ///
    /// # Panics
    /// If a process does not become ready in time.
    pub fn start_with(dir: &Path, transport: &str, clusters: &[Cluster], more: &str) -> Self {
        let state = create_trust_domain(dir);
        let mesh = free_port();
        let listening: Vec<SocketAddr> = clusters.iter().map(|_| free_port()).collect();
        let mut yaml = format!(
            "role: observability\ndata_dir: observability\ntransport: {transport}\npki: {{state: {}}}\n\
             listen: {mesh}\nclusters:\n",
            state.display()
        );
        for (cluster, at) in clusters.iter().zip(&listening).filter(|(c, _)| c.reach.is_dialled()) {
            yaml.push_str(&format!("  - {{name: {}, dial: ['{at}']}}\n", cluster.name));
        }
        let own = GatewayCommand::new(dir, "observability", &yaml, None);
        let observability = own.start_ready();
        let commands: Vec<GatewayCommand> = clusters
            .iter()
            .zip(&listening)
            .map(|(cluster, at)| join(dir, &state, transport, cluster, *at, mesh, more))
            .collect();
        let clusters = commands.iter().map(GatewayCommand::start_ready).collect();
        let (grpc, http) = (own.grpc, own.http);
        Self { observability, clusters, grpc, http, own, commands, dir: dir.to_owned(), address: mesh }
    }

    /// Address of the HTTP port of a cluster's gateway.
    pub fn cluster_http(&self, cluster: usize) -> SocketAddr {
        self.commands[cluster].http
    }

    /// The address at which clusters join and connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts the gateway of a cluster again, which was killed.
    ///
    /// # Panics
    /// If it does not become ready in time.
    pub fn start_again(&mut self, cluster: usize) {
        self.clusters[cluster] = self.commands[cluster].start_ready();
    }

    /// Starts the observability gateway again, which was killed.
    ///
    /// # Panics
    /// If it does not become ready in time.
    pub fn start_observability_again(&mut self) {
        self.observability = self.own.start_ready();
    }

    /// The commands of the PKI over the folder of the issuer, which has its state, its roots and their passphrase.
    ///
    /// # Panics
    /// If the passphrase cannot be written.
    pub fn pki(&self) -> PkiCommands {
        pki_of(&self.dir)
    }

    /// The state directory of the issuer.
    pub fn pki_state(&self) -> PathBuf {
        self.dir.join("pki/state")
    }

    /// Creates a token with which a cluster of the environment `testing` joins, and returns its file.
    ///
    /// # Panics
    /// If it cannot be created.
    pub fn token(&self, cluster: &str, file: &str) -> PathBuf {
        let file = self.dir.join(file);
        create_token(&self.pki_state(), cluster, self.address, &file);
        file
    }
}

fn join(
    dir: &Path,
    state: &Path,
    transport: &str,
    cluster: &Cluster,
    listen: SocketAddr,
    observability: SocketAddr,
    more: &str,
) -> GatewayCommand {
    let token = dir.join(format!("{}.token", cluster.name));
    create_token(state, cluster.name, observability, &token);
    let mut yaml = format!("role: cluster\ndata_dir: {}\ntransport: {transport}\n", cluster.name);
    if cluster.reach.is_dialled() {
        yaml.push_str(&format!("listen: {listen}\n"));
    }
    if cluster.reach == Reach::Both {
        yaml.push_str(&format!("dial: ['{observability}']\n"));
    }
    yaml.push_str(more);
    yaml.push_str("targets:\n");
    for (name, address) in &cluster.targets {
        yaml.push_str(&format!("  - {{name: {name}, address: '{address}'}}\n"));
    }
    GatewayCommand::new(dir, cluster.name, &yaml, Some(&token))
}

/// Creates a trust domain in `dir`, and returns the state directory of its issuer.
///
/// # Panics
/// If it cannot be created.
pub fn create_trust_domain(dir: &Path) -> PathBuf {
    pki_of(dir).must("init --trust-domain test.isthmus ROOTS STATE");
    dir.join("pki/state")
}

/// The commands over the trust domain that [`create_trust_domain`] creates in `dir`.
fn pki_of(dir: &Path) -> PkiCommands {
    let folder = dir.join("pki");
    fs::create_dir_all(&folder).expect("a folder");
    PkiCommands::new(&folder)
}

/// Creates a token in `out` with which a cluster of the environment `testing` joins at `observability`.
///
/// # Panics
/// If it cannot be created.
pub fn create_token(state: &Path, cluster: &str, observability: SocketAddr, out: &Path) {
    create_named_token(state, cluster, &observability.to_string(), out);
}

/// The same with an address that may have a name, `HOST:PORT`.
///
/// # Panics
/// If it cannot be created.
pub fn create_named_token(state: &Path, cluster: &str, observability: &str, out: &Path) {
    run(&[
        "pki",
        "token",
        "create",
        "--state",
        &text(state),
        "--cluster",
        cluster,
        "--environment",
        "testing",
        "--address",
        observability,
        "--out",
        &text(out),
    ]);
}

fn run(args: &[&str]) {
    let output = Command::new(isthmus()).args(args).output().expect("isthmus runs");
    assert!(output.status.success(), "isthmus {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
