//! Testing, staging and production as three trust domains with the same charts: no gateway serves one of another domain.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::{Process, free_port, get, isthmus, wait_for};

use crate::charts::objects::{committed, of_kind, parse};
use crate::charts::render::{chart_folder, helm};
use crate::charts::tools;

const PATIENCE: Duration = Duration::from_secs(30);

/// The sets of values of the observability chart, and their trust domains.
const DOMAINS: [(&str, &str); 3] =
    [("small", "testing.example"), ("usual", "staging.example"), ("large", "prod.example")];

/// The configuration of the gateway in the objects of a release.
fn gateway_config(objects: &[Value]) -> String {
    let mut configs =
        of_kind(objects, "ConfigMap").filter_map(|object| object["data"]["gateway.yaml"].as_str());
    configs.next().expect("a gateway").to_owned()
}

/// A gateway that runs with a rendered configuration.
struct Gateway {
    http: SocketAddr,
    process: Process,
}

impl Gateway {
    fn start(dir: &Path, config: &str, token: Option<&Path>) -> Self {
        let http = free_port();
        let args = Self::args(dir, config, token, http);
        Self { http, process: Process::start(&isthmus(), &args, &dir.join("log")) }
    }

    fn args(dir: &Path, config: &str, token: Option<&Path>, http: SocketAddr) -> Vec<String> {
        let file = dir.join("gateway.yaml");
        fs::write(&file, config).expect("a file");
        let mut args = vec![
            "gateway".to_owned(),
            format!("--config={}", file.display()),
            format!("--http-address={http}"),
            "--grpc-address=127.0.0.1:0".to_owned(),
        ];
        args.extend(token.map(|file| format!("--join-file={}", file.display())));
        args
    }

    /// The sum of the series of a metric whose labels contain a text.
    fn sum(&self, metric: &str, labels: &str) -> Result<u64, String> {
        let (_, page) = get(self.http, "/metrics")?;
        let lines =
            page.lines().filter(|line| line.starts_with(&format!("{metric}{{")) && line.contains(labels));
        Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
    }

    fn until(&self, metric: &str, labels: &str, is_enough: impl Fn(u64) -> bool) {
        wait_for(&format!("{metric} with {labels}"), PATIENCE, || match self.sum(metric, labels)? {
            count if is_enough(count) => Ok(()),
            count => Err(format!("{count}: {}", self.process.output())),
        });
    }
}

/// The observability gateway of one domain.
struct Domain {
    name: &'static str,
    dir: PathBuf,
    address: SocketAddr,
    gateway: Gateway,
}

impl Domain {
    fn start(dir: &Path, set: &str, name: &'static str) -> Self {
        let (dir, address) = (dir.join(name), free_port());
        let issuer = dir.join("issuer");
        fs::create_dir_all(&issuer).expect("a folder");
        let path = |at: &str| dir.join(at).display().to_string();
        fs::write(dir.join("passphrase"), "only a test\n").expect("a file");
        let (state, roots, passphrase) = (path("offline"), path("roots"), path("passphrase"));
        pki(&[
            "init",
            "--trust-domain",
            name,
            "--state",
            &state,
            "--root-out",
            &roots,
            "--root-passphrase-file",
            &passphrase,
        ]);
        for file in ["issuer.pem", "bundle.pem"] {
            fs::copy(dir.join("offline").join(file), issuer.join(file)).expect("a file of the Secret");
        }
        let config = gateway_config(&committed("isthmus-observability", set));
        assert!(config.contains(&format!("trust_domain: {name}")), "{config}");
        let mut config = config
            .replace("/var/lib/isthmus", &path("state"))
            .replace("/etc/isthmus/issuer", &path("issuer"))
            .replace("\":10943\"", &format!("'{address}'"));
        for port in ["\":20001\"", "\":20002\""] {
            config = config.replace(port, &format!("'{}'", free_port()));
        }
        let mut gateway = Gateway::start(&dir, &config, None);
        gateway.process.wait_ready(name, gateway.http);
        Self { name, dir, address, gateway }
    }

    fn token(&self) -> PathBuf {
        let (state, file) = (self.dir.join("state/pki").display().to_string(), self.dir.join("token"));
        let about =
            ["--cluster", "eu-1", "--environment", "production", "--address", &self.address.to_string()];
        let token = pki(&[&["token", "create", "--state", &state][..], &about].concat());
        fs::write(&file, token).expect("a file");
        file
    }

    /// What the chart of a client cluster of this domain renders, if it dials the gateways of all domains.
    fn client(&self, helm_folder: &Path, domains: &[Self]) -> String {
        let dial: Vec<String> = domains.iter().map(|domain| format!("'{}'", domain.address)).collect();
        let values = self.dir.join("values.yaml");
        let text = format!("trustDomain: {}\ngateway: {{dial: [{}]}}\n", self.name, dial.join(", "));
        fs::write(&values, text).expect("a file");
        let files = [chart_folder("isthmus-client").join("ci/usual.yaml"), values];
        let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        let args: Vec<&str> = files.iter().flat_map(|file| ["--values", file.as_str()]).collect();
        let rendered = helm(helm_folder, "v37", "isthmus-client", &args).expect("the chart is rendered");
        let folder = self.dir.join("client").display().to_string();
        gateway_config(&parse(&rendered)).replace("/var/lib/isthmus", &folder)
    }
}

fn pki(args: &[&str]) -> String {
    let output = Command::new(isthmus()).arg("pki").args(args).output().expect("isthmus runs");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn gateways_of_three_environments_refuse_each_other() {
    let Some(tools) = tools::folder() else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let domains = DOMAINS.map(|(set, name)| Domain::start(dir.path(), set, name));

    println!("a token of another environment is refused by name, before it is used");
    for (own, other) in [(0, 1), (1, 2), (2, 0)] {
        let (own, other) = (&domains[own], &domains[other]);
        let folder = own.dir.join("client");
        fs::create_dir_all(&folder).expect("a folder");
        let args = Gateway::args(&folder, &own.client(&tools, &domains), Some(&other.token()), free_port());
        let output = Command::new(isthmus()).args(args).output().expect("isthmus runs");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains("identity.trust_domain: is ") && error.contains(other.name), "{error}");
    }

    println!(
        "a cluster that dials the gateways of all environments has a connection to its own, and to no other"
    );
    let clients = domains.iter().map(|domain| {
        let config = domain.client(&tools, &domains);
        Gateway::start(&domain.dir.join("client"), &config, Some(&domain.token()))
    });
    let clients: Vec<Gateway> = clients.collect();
    for (domain, client) in domains.iter().zip(&clients) {
        client.until("isthmus_gateway_handshake_failures_total", "reason=\"refused\"", |count| count >= 2);
        client.until("isthmus_gateway_connections", "peer=\"observability\"", |count| count == 1);
        domain.gateway.until("isthmus_gateway_cluster_connected", "peer=\"eu-1\"", |count| count == 1);
        let connections = domain.gateway.sum("isthmus_gateway_connections", "").expect("metrics");
        assert_eq!(connections, 1, "{}", domain.name);
    }
}
