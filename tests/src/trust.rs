//! A mesh of real gateway processes: a trust domain, an observability gateway, and clusters that joined with tokens.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

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

/// How a gateway is started.
#[derive(Clone, Debug)]
struct GatewayCommand {
    name: String,
    args: Vec<String>,
    log: PathBuf,
    http: SocketAddr,
}

impl GatewayCommand {
    fn start(&self) -> Process {
        let mut process = Process::start(&isthmus(), &self.args, &self.log);
        process.wait_ready(&format!("gateway {}", self.name), self.http);
        process
    }
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
        let (mesh, grpc) = (free_port(), free_port());
        let listening: Vec<SocketAddr> = clusters.iter().map(|_| free_port()).collect();
        let mut yaml = format!(
            "role: observability\ndata_dir: observability\ntransport: {transport}\npki: {{state: {}}}\n\
             listen: {mesh}\nclusters:\n",
            state.display()
        );
        for (cluster, at) in clusters.iter().zip(&listening).filter(|(c, _)| c.reach.is_dialled()) {
            yaml.push_str(&format!("  - {{name: {}, dial: ['{at}']}}\n", cluster.name));
        }
        let own = gateway(dir, "observability", &yaml, grpc, None);
        let observability = own.start();
        let commands: Vec<GatewayCommand> = clusters
            .iter()
            .zip(&listening)
            .map(|(cluster, at)| join(dir, &state, transport, cluster, *at, mesh, more))
            .collect();
        let clusters = commands.iter().map(GatewayCommand::start).collect();
        Self { observability, clusters, grpc, http: own.http, commands, dir: dir.to_owned(), address: mesh }
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
        self.clusters[cluster] = self.commands[cluster].start();
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
    gateway(dir, cluster.name, &yaml, free_port(), Some(&token))
}

/// Creates a trust domain in `dir`, and returns the state directory of its issuer.
///
/// # Panics
/// If it cannot be created.
pub fn create_trust_domain(dir: &Path) -> PathBuf {
    let state = dir.join("pki/state");
    let passphrase = dir.join("passphrase");
    fs::create_dir_all(dir.join("pki")).expect("a folder");
    fs::write(&passphrase, "only a test\n").expect("a file");
    run(&[
        "pki",
        "init",
        "--trust-domain",
        "test.isthmus",
        "--state",
        &text(&state),
        "--root-out",
        &text(&dir.join("pki/roots")),
        "--root-passphrase-file",
        &text(&passphrase),
    ]);
    state
}

/// Creates a token in `out` with which a cluster of the environment `testing` joins at `observability`.
///
/// # Panics
/// If it cannot be created.
pub fn create_token(state: &Path, cluster: &str, observability: SocketAddr, out: &Path) {
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
        &observability.to_string(),
        "--out",
        &text(out),
    ]);
}

fn gateway(dir: &Path, name: &str, yaml: &str, grpc: SocketAddr, token: Option<&PathBuf>) -> GatewayCommand {
    let config = dir.join(format!("{name}.yaml"));
    fs::write(&config, yaml).expect("a file");
    let http = free_port();
    let mut args = vec![
        "gateway".to_owned(),
        format!("--config={}", config.display()),
        format!("--http-address={http}"),
        format!("--grpc-address={grpc}"),
    ];
    args.extend(token.map(|file| format!("--join-file={}", file.display())));
    GatewayCommand { name: name.to_owned(), args, log: dir.join(format!("{name}.log")), http }
}

fn run(args: &[&str]) {
    let output = Command::new(isthmus()).args(args).output().expect("isthmus runs");
    assert!(output.status.success(), "isthmus {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
