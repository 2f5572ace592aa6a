//! The charts as objects that run: two client clusters and the observability cluster, with the Secrets that their owners create.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{PodView, Process, Programs, World, isthmus};

use crate::rendered_world::moto;

/// The namespace of every release.
pub(crate) const NAMESPACE: &str = "monitoring";

/// The name under which clusters find the observability gateway.
const GATEWAY: &str = "gateway.observability.test";

/// How long the pods of a cluster may take to be ready.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// Values that all releases have: short waits, so that the test is short, and network policies, so that they allow all that is needed.
const COMMON: &str = "shutdown: {drainDelaySeconds: 2, gracePeriodSeconds: 20}\n\
                      networkPolicy: {enabled: true, bucket: {port: 5000}}\n";

/// The values of a release, beside those of the chart.
pub(crate) const OBSERVABILITY: &str = "trustDomain: test.example\nquery: {replicas: 2}\nruler: {replicas: 1, alertmanagers: ['http://alertmanager:9093']}\n";

/// Two replicas of Prometheus with sidecars, and two gateways.
pub(crate) const EU_1: &str = "cluster: eu-1\nenvironment: production\ngateway: {replicas: 2}\n\
                               scraper: {kind: prometheus, replicas: 2, scrapeInterval: 2s}\npushgateway: {enabled: true}\n";

/// One process of each kind.
pub(crate) const US_1: &str =
    "cluster: us-1\nenvironment: production\nscraper: {kind: embedded, replicas: 1, scrapeInterval: 2s}\n";

/// Replicas of scrapers in both client clusters.
pub(crate) const SCRAPERS: usize = 3;

/// Where the roots are.
const ROOTS: [&str; 4] = ["--root-out", "roots", "--root-passphrase-file", "passphrase"];

/// Which charts and which program a cluster has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Release {
    Current,
    /// The program of `ISTHMUS_PREVIOUS_BIN`, with the charts in the folder `ISTHMUS_PREVIOUS_CHARTS` if it is set.
    Previous,
}

impl Release {
    /// The folder of the charts.
    fn charts(self) -> PathBuf {
        let previous = std::env::var_os("ISTHMUS_PREVIOUS_CHARTS").filter(|_| matches!(self, Self::Previous));
        let current = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/charts");
        previous.map_or_else(current, PathBuf::from)
    }

    /// The values that choose the image.
    const fn image(self) -> &'static str {
        match self {
            Self::Current => "",
            Self::Previous => "image: {tag: previous}\n",
        }
    }
}

/// The running clusters.
pub(crate) struct Rendered {
    pub(crate) world: World,
    helm: PathBuf,
    dir: TempDir,
    _moto: Process,
}

impl Rendered {
    /// Starts everything, with the previous program if there is one; `None` if something is not installed, which is printed.
    pub(crate) fn start(programs: Programs) -> Option<Self> {
        let release = if programs.previous.is_some() { Release::Previous } else { Release::Current };
        let kubernetes = crate::charts::tools::folder()?;
        let (helm, moto) = (kubernetes.join("v37/helm"), moto::program(kubernetes.parent()?)?);
        let world = World::create("the rendered charts", programs)?;
        let dir = tempfile::tempdir().expect("a folder");
        let moto = moto::start(&world, &moto, &dir.path().join("moto.log"));
        let rendered = Self { world, helm, dir, _moto: moto.0 };
        rendered.secret("observability", "isthmus-objstore", &[("objstore.yml", moto.1)]);
        fs::write(rendered.dir.path().join("passphrase"), "only a test\n").expect("a file");
        rendered.pki(&["init"], &[&ROOTS[..], &["--trust-domain", "test.example"]].concat());
        rendered.secret("observability", "isthmus-issuer", &rendered.issuer());
        rendered.upgrade("observability", OBSERVABILITY, release);
        rendered.world.wait_settled("observability", LIMIT);
        let mesh = rendered.service("observability", "-mesh");
        let address = rendered.world.service("observability", NAMESPACE, &mesh).and_then(|(_, outer)| outer);
        rendered.world.publish(GATEWAY, address.expect("a load balancer"));
        for (cluster, values, gateways) in [("eu-1", EU_1, 2), ("us-1", US_1, 1)] {
            let tokens: Vec<(String, String)> =
                (0..gateways).map(|at| (format!("token-{at}"), rendered.token(cluster))).collect();
            let tokens: Vec<(&str, String)> =
                tokens.iter().map(|(key, token)| (&**key, token.clone())).collect();
            rendered.secret(cluster, "isthmus-join", &tokens);
            rendered.upgrade(cluster, values, release);
        }
        for cluster in ["eu-1", "us-1"] {
            rendered.world.wait_settled(cluster, LIMIT);
        }
        Some(rendered)
    }

    /// Installs the chart of a cluster, or replaces its objects by those of changed values or another release.
    pub(crate) fn upgrade(&self, kube: &str, values: &str, release: Release) {
        let chart = if kube == "observability" { "isthmus-observability" } else { "isthmus-client" };
        let file = self.dir.path().join(format!("{kube}.yaml"));
        fs::write(&file, format!("{COMMON}{values}{}", release.image())).expect("a file");
        let chart = release.charts().join(chart);
        let output = Command::new(&self.helm)
            .args(["template", "isthmus"])
            .arg(&chart)
            .arg("--values")
            .arg(&file)
            .env("HOME", self.dir.path())
            .output()
            .expect("helm runs");
        assert!(output.status.success(), "helm: {}", String::from_utf8_lossy(&output.stderr));
        let yaml = String::from_utf8(output.stdout).expect("UTF-8");
        let not_run = self.world.apply(kube, NAMESPACE, "isthmus", &yaml);
        let not_run = not_run.unwrap_or_else(|error| panic!("{kube}: {error}"));
        println!("{kube}: {} objects were only read: {}", not_run.len(), not_run.join(", "));
    }

    /// Creates a Secret, as `kubectl create secret generic` does.
    fn secret(&self, kube: &str, name: &str, files: &[(&str, String)]) {
        let data: serde_json::Map<String, Value> =
            files.iter().map(|(key, text)| ((*key).to_owned(), json!(text))).collect();
        let secret = json!({"kind": "Secret", "metadata": {"name": name}, "stringData": data});
        self.world.apply(kube, NAMESPACE, name, &secret.to_string()).expect("a Secret");
    }

    /// Runs a command of the PKI on the machine of the security team, where the roots are.
    fn pki(&self, command: &[&str], more: &[&str]) -> String {
        let output = Command::new(isthmus())
            .arg("pki")
            .args(command)
            .args(["--state", "pki"])
            .args(more)
            .current_dir(self.dir.path())
            .output()
            .expect("isthmus runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// The files of the issuing CA.
    fn issuer(&self) -> Vec<(&'static str, String)> {
        let state = self.dir.path().join("pki");
        let read =
            |name: &'static str| (name, fs::read_to_string(state.join(name)).expect("a file of the issuer"));
        vec![read("issuer.pem"), read("bundle.pem")]
    }

    /// Creates the next issuing CA, and waits until the gateway uses it.
    pub(crate) fn replace_issuer(&self) {
        self.pki(&["issuer", "renew"], &ROOTS);
        let expected = self.pki(&["issuer", "show"], &[]);
        self.secret("observability", "isthmus-issuer", &self.issuer());
        let gateway = self.pod("observability", "-gateway-0");
        self.world.wait("observability", "the next issuing CA", LIMIT, || {
            let show = ["isthmus", "pki", "issuer", "show", "--state", "/var/lib/isthmus/pki"];
            let output = self.world.exec(gateway.number, "gateway", &show)?;
            let shown = String::from_utf8_lossy(&output.stdout);
            if shown == expected { Ok(()) } else { Err(format!("{shown} is not {expected}")) }
        });
        let now = self.pod("observability", "-gateway-0");
        assert_eq!((now.number, now.restarts), (gateway.number, gateway.restarts), "without a restart");
    }

    /// Creates a token in the pod of the observability gateway.
    fn token(&self, cluster: &str) -> String {
        let gateway = self.pod("observability", "-gateway-0");
        let command = ["isthmus", "pki", "token", "create", "--state", "/var/lib/isthmus/pki", "--ttl", "1h"];
        let address = format!("{GATEWAY}:10943");
        let about = ["--cluster", cluster, "--environment", "production", "--address", &address];
        let output = self
            .world
            .exec(gateway.number, "gateway", &[&command[..], &about[..]].concat())
            .expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("a token")
    }

    /// The full name of the service with this end.
    pub(crate) fn service(&self, kube: &str, end: &str) -> String {
        let services = self.world.services(kube);
        let found = services.iter().find(|name| name.ends_with(end));
        found.cloned().unwrap_or_else(|| panic!("no service ends in {end}: {services:?}"))
    }

    /// The pod whose name ends so.
    pub(crate) fn pod(&self, kube: &str, end: &str) -> PodView {
        let pods = self.world.pods(kube);
        let found = pods.iter().find(|pod| pod.name.ends_with(end) && !pod.is_terminating);
        found.cloned().unwrap_or_else(|| panic!("no pod ends in {end}: {}", self.world.describe(kube)))
    }

    /// The address of the HTTP API of the queriers.
    pub(crate) fn queriers(&self) -> SocketAddr {
        let name = self.service("observability", "-query");
        let (address, _) = self.world.service("observability", NAMESPACE, &name).expect("the service");
        SocketAddr::from((address, 10_902))
    }

    /// Waits until another pod has the name of `before`, and is ready.
    pub(crate) fn wait_replaced(&self, kube: &str, before: &PodView) -> PodView {
        self.world.wait(kube, &format!("another pod {}", before.name), LIMIT, || {
            let pods = self.world.pods(kube);
            let next = pods.into_iter().find(|pod| pod.name == before.name && pod.number != before.number);
            match next {
                Some(pod) if pod.is_ready => Ok(pod),
                other => Err(format!("{other:?}")),
            }
        })
    }
}
