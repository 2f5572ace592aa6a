//! Cluster bundles: what `pki cluster bundle` writes starts a gateway that joins, in each format.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use runtime::yaml::{YamlNode, YamlValue};
use tests::{Mesh, Process, free_port, get, isthmus, wait_for};

use crate::world::{querier, wait_for_stores};

const PATIENCE: Duration = Duration::from_secs(30);

fn isthmus_output(args: &[&str]) -> Output {
    Command::new(isthmus()).args(args).output().expect("isthmus runs")
}

/// Writes a bundle for a cluster of the environment `testing`.
fn bundle(mesh: &Mesh, cluster: &str, format: &str, out: &Path, more: &[&str]) {
    let (state, address) = (mesh.pki_state().display().to_string(), mesh.address.to_string());
    let to = out.display().to_string();
    let line = ["pki", "cluster", "bundle", "--state", &state, "--format", format, "--out", &to];
    let token = ["--cluster", cluster, "--environment", "testing", "--address", &address];
    let output = isthmus_output(&[&line[..], &token, more].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn verify(bundle: &Path) -> (Option<i32>, String) {
    let output = isthmus_output(&["pki", "cluster", "bundle", "verify", &bundle.display().to_string()]);
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A machine on which a bundle is applied: where its folders are, and the ports that replace those that are taken here.
struct Machine {
    /// Places of the bundle and what they are here.
    places: Vec<(String, PathBuf)>,
    http: Vec<SocketAddr>,
    grpc: SocketAddr,
    dir: PathBuf,
}

impl Machine {
    fn new(dir: &Path, files: &Path) -> Self {
        let state = dir.join("state");
        fs::create_dir_all(&state).expect("a folder");
        let places = [("/etc/isthmus", files.to_owned()), ("/var/lib/isthmus", state)];
        let places = places.into_iter().map(|(place, here)| (place.to_owned(), here)).collect();
        Self { places, http: vec![free_port(), free_port()], grpc: free_port(), dir: dir.to_owned() }
    }

    fn here(&self, text: &str) -> String {
        self.places
            .iter()
            .fold(text.to_owned(), |text, (place, here)| text.replace(place, &here.display().to_string()))
    }

    /// Writes the places and ports of this machine into the configuration files; `store` is the address of the scraper in them.
    fn adapt(&self, files: &Path, store: &str) {
        for name in ["gateway.yaml", "prometheus.yml"] {
            let text = fs::read_to_string(files.join(name)).expect("a file of the bundle");
            let text = self.here(&text).replace(store, &self.grpc.to_string());
            fs::write(files.join(name), text).expect("a file");
        }
    }

    fn start(&self, name: &str, words: &[String], http: SocketAddr, grpc: SocketAddr) -> Process {
        let mut args: Vec<String> = words.iter().map(|word| self.here(word)).collect();
        args.extend([format!("--http-address={http}"), format!("--grpc-address={grpc}")]);
        let mut process = Process::start(&isthmus(), &args, &self.dir.join(format!("{name}.log")));
        process.wait_ready(name, http);
        process
    }

    /// Starts a scraper and a gateway, and waits until a querier of the other side reads the store.
    fn joins(&self, mesh: &Mesh, scraper: &[String], gateway: &[String]) -> (Process, Process) {
        let scraper = self.start("scraper", scraper, self.http[0], self.grpc);
        let gateway = self.start("gateway", gateway, self.http[1], free_port());
        let (_querier, http) = querier(&self.dir, "querier", &[format!("--gateway={}", mesh.grpc)]);
        wait_for_stores(http, 1);
        let (_, stores) = get(http, "/api/v1/stores").expect("an answer");
        assert!(stores.contains("scraper-0.eu-1"), "{stores}");
        (scraper, gateway)
    }
}

/// The words of the command of a unit, without the program and the variables of its environment.
fn command_of_unit(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).expect("a unit");
    let line = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("a command");
    line.split_whitespace().skip(1).filter(|word| !word.starts_with('$')).map(str::to_owned).collect()
}

#[test]
fn a_bundle_for_systemd_joins_and_the_token_may_be_removed_then() {
    let dir = tempfile::tempdir().expect("a folder");
    let mesh = Mesh::start(&dir.path().join("mesh"), "auto", &[]);
    let files = dir.path().join("eu-1");
    bundle(&mesh, "eu-1", "systemd", &files, &[]);
    assert_eq!(verify(&files).0, Some(0), "{}", verify(&files).1);
    let machine = Machine::new(dir.path(), &files);
    machine.adapt(&files, "127.0.0.1:10901");
    let scraper = command_of_unit(&files.join("isthmus-scrape.service"));
    let gateway = command_of_unit(&files.join("isthmus-gateway.service"));
    let (_scraper, mut running) = machine.joins(&mesh, &scraper, &gateway);

    println!("without its token it starts again");
    assert_eq!(running.terminate(), Some(0), "{}", running.output());
    fs::remove_file(files.join("token")).expect("the token");
    let mut again = machine.start("gateway again", &gateway, machine.http[1], free_port());
    assert_eq!(again.terminate(), Some(0), "{}", again.output());

    println!("with the configuration of another trust domain, cluster or environment it does not");
    let text = fs::read_to_string(files.join("gateway.yaml")).expect("the configuration");
    for (right, wrong, field) in [
        ("\"test.isthmus\"", "\"staging.isthmus\"", "trust_domain"),
        ("cluster: \"eu-1\"", "cluster: \"us-1\"", "cluster"),
        ("\"testing\"", "\"production\"", "environment"),
    ] {
        assert!(text.contains(right), "{text}");
        fs::write(files.join("gateway.yaml"), text.replace(right, wrong)).expect("a file");
        let args: Vec<String> = gateway.iter().map(|word| machine.here(word)).collect();
        let output = Command::new(isthmus()).args(&args).output().expect("isthmus runs");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.code() == Some(2) && error.contains(&format!("identity.{field}: is ")),
            "{error}"
        );
    }
}

#[test]
fn a_bundle_for_compose_joins() {
    let dir = tempfile::tempdir().expect("a folder");
    let mesh = Mesh::start(&dir.path().join("mesh"), "auto", &[]);
    let files = dir.path().join("eu-1");
    let secret = dir.path().join("sent-on-another-way");
    bundle(&mesh, "eu-1", "compose", &files, &["--secret-out", &secret.display().to_string()]);
    assert!(verify(&files).1.contains("is not in these files"));
    fs::rename(&secret, files.join("token")).expect("the token");
    let machine = Machine::new(dir.path(), &files);
    machine.adapt(&files, "scraper:10901");
    let services = commands_of_compose(&files.join("compose.yaml"));
    let command =
        |name: &str| services.iter().find(|(service, _)| service == name).expect("a service").1.clone();
    machine.joins(&mesh, &command("scraper"), &command("gateway"));
}

/// The objects are taken apart as Kubernetes does it: files of the ConfigMap and the Secret, and the arguments of the container.
#[test]
fn a_bundle_for_kubernetes_joins() {
    let dir = tempfile::tempdir().expect("a folder");
    let mesh = Mesh::start(&dir.path().join("mesh"), "auto", &[]);
    let file = dir.path().join("eu-1.yaml");
    bundle(&mesh, "eu-1", "kubernetes", &file, &[]);
    assert_eq!(verify(&file).0, Some(0), "{}", verify(&file).1);
    let text = fs::read_to_string(&file).expect("a bundle");
    let objects = text.split("\n---\n").filter(|object| object.contains("\nkind: "));
    let objects: Vec<YamlNode> = objects
        .map(|object| YamlNode::parse(object).unwrap_or_else(|mistake| panic!("{mistake}: {object}")))
        .collect();
    let text_at = |object: &YamlNode, path: &[&str]| {
        let found = path.iter().try_fold(object.clone(), |node, name| field(&node, name).cloned());
        found.and_then(|node| node.text().map(str::to_owned).ok())
    };
    let find = |kind: &str, path: &[&str]| {
        let of_kind = objects.iter().filter(|object| text_at(object, &["kind"]).as_deref() == Some(kind));
        of_kind
            .into_iter()
            .find_map(|object| text_at(object, path))
            .unwrap_or_else(|| panic!("{kind} {path:?}"))
    };
    let files = dir.path().join("files");
    fs::create_dir(&files).expect("a folder");
    fs::write(files.join("token-0"), find("Secret", &["stringData", "token-0"])).expect("a file");
    fs::write(files.join("gateway.yaml"), find("ConfigMap", &["data", "gateway.yaml"])).expect("a file");
    fs::write(
        files.join("prometheus.yml"),
        "global: {external_labels: {cluster: eu-1, environment: testing, replica: a}}\nscrape_configs: []\n",
    )
    .expect("a file");
    let machine = Machine {
        places: [("/etc/isthmus/gateway", &files), ("/etc/isthmus/join", &files), ("/etc/isthmus", &files)]
            .into_iter()
            .chain([("/var/lib/isthmus", &dir.path().join("state"))])
            .map(|(place, here)| (place.to_owned(), here.clone()))
            .collect(),
        ..Machine::new(dir.path(), &files)
    };
    let config = fs::read_to_string(files.join("gateway.yaml")).expect("the configuration");
    let store = config.lines().find_map(|line| line.trim().strip_prefix("address: ")).expect("a store");
    machine.adapt(&files, store);
    let stateful = objects.iter().find(|object| {
        text_at(object, &["kind"]).as_deref() == Some("StatefulSet")
            && text_at(object, &["metadata", "name"]).is_some_and(|name| name.ends_with("gateway"))
    });
    let containers = ["spec", "template", "spec", "containers"];
    let containers = containers.iter().fold(stateful.expect("a StatefulSet").clone(), |node, name| {
        field(&node, name).cloned().unwrap_or_else(|| panic!("{name}"))
    });
    let YamlValue::List(containers) = &containers.value else { panic!("{containers:?}") };
    let args = field(&containers[0], "args").expect("arguments");
    let YamlValue::List(args) = &args.value else { panic!("{args:?}") };
    let args: Vec<String> =
        args.iter().map(|word| word.text().expect("a word").replace("$(POD_INDEX)", "0")).collect();
    let args = args
        .into_iter()
        .filter(|word| !word.starts_with("--http-address") && !word.starts_with("--grpc-address"));
    let scraper =
        ["scrape", "--config.file=/etc/isthmus/prometheus.yml", "--data-dir=/var/lib/isthmus/scrape"];
    machine.joins(&mesh, &scraper.map(str::to_owned), &args.collect::<Vec<_>>());
}

#[test]
fn a_bundle_whose_token_has_expired_is_refused_by_verify_and_by_the_gateway() {
    let dir = tempfile::tempdir().expect("a folder");
    let mesh = Mesh::start(&dir.path().join("mesh"), "auto", &[]);
    let files = dir.path().join("eu-1");
    bundle(&mesh, "eu-1", "systemd", &files, &["--ttl", "1s"]);
    wait_for("the end of the token", PATIENCE, || match verify(&files) {
        (Some(4), text) if text.contains("REFUSED: token: ") && text.contains("expired at") => Ok(()),
        (code, text) => Err(format!("{code:?} {text}")),
    });
    let machine = Machine::new(dir.path(), &files);
    machine.adapt(&files, "127.0.0.1:10901");
    let args: Vec<String> = command_of_unit(&files.join("isthmus-gateway.service"))
        .iter()
        .map(|word| machine.here(word))
        .collect();
    let ports = [format!("--http-address={}", free_port()), format!("--grpc-address={}", free_port())];
    let output = Command::new(isthmus()).args(&args).args(ports).output().expect("isthmus runs");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("expired at") && error.contains("create a new one"), "{error}");
}

/// The services of a compose file with their commands.
pub(crate) fn commands_of_compose(file: &Path) -> Vec<(String, Vec<String>)> {
    let text = fs::read_to_string(file).expect("a compose file");
    let root = YamlNode::parse(&text).unwrap_or_else(|mistake| panic!("{}: {mistake}", file.display()));
    let services = field(&root, "services").expect("services");
    let YamlValue::Map(services) = &services.value else { panic!("services: {services:?}") };
    let command = |service: &YamlNode| {
        let command = field(service, "command").expect("a command");
        let YamlValue::List(words) = &command.value else { panic!("command: {command:?}") };
        words.iter().map(|word| word.text().expect("a word").to_owned()).collect()
    };
    services.iter().map(|(name, service)| (name.name().to_owned(), command(service))).collect()
}

fn field<'a>(node: &'a YamlNode, name: &str) -> Option<&'a YamlNode> {
    let YamlValue::Map(fields) = &node.value else { return None };
    fields.iter().find(|(key, _)| key.name() == name).map(|(_, value)| value)
}
