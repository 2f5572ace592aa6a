//! prometheus-operator with the image of this program: `Prometheus.spec.thanos.image`, and `ThanosRuler`.
//!
//! The operator adds an argument only if `spec.version` knows it. The tables below have the arguments with the first version that gets
//! them, as the operator writes them: order, quotes, hosts that are empty, JSON inside of a flag. The program is started with exactly
//! these lines in a container with the paths of the operator: all mounts are read-only but the volumes for data.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tests::container::{Container, Image, stop};
use tests::{Network, Process, Prometheus, wait_for};

/// The versions of Thanos at which the operator changes its arguments, as numbers: 0.29 is 29.
const VERSIONS: [u32; 9] = [20, 21, 24, 29, 30, 37, 38, 39, 42];
/// The user of the operator's pods.
const USER: u32 = 1000;
const PATIENCE: Duration = Duration::from_secs(30);

/// An argument, and the first version that gets it. A second number is the first version that does not get it any more.
type Arguments = &'static [(u32, Option<u32>, &'static str)];

/// `Prometheus.spec.thanos` with every field.
const SIDECAR: Arguments = &[
    (0, None, "--prometheus.url=http://localhost:9090/"),
    (0, None, "--grpc-address=:10901"),
    (0, None, "--http-address=:10902"),
    (0, None, "--grpc-server-tls-cert=/etc/prometheus/certs/tls.crt"),
    (0, None, "--grpc-server-tls-key=/etc/prometheus/certs/tls.key"),
    (0, None, "--grpc-server-tls-client-ca=/etc/prometheus/certs/ca.crt"),
    (0, None, "--objstore.config=$(OBJSTORE_CONFIG)"),
    (0, None, "--tsdb.path=/prometheus"),
    (0, None, "--tracing.config=$(TRACING_CONFIG)"),
    (0, None, "--log.level=debug"),
    (0, None, "--log.format=json"),
    (0, None, "--min-time=-30d"),
    (0, None, "--prometheus.ready_timeout=20m"),
    (29, None, "--prometheus.get_config_timeout=10s"),
    (29, None, "--prometheus.get_config_interval=1s"),
    // Older operators write the settings into the flag, newer ones into a file.
    (24, Some(42), "--prometheus.http-client={\"tls_config\": {\"insecure_skip_verify\":true}}"),
    (42, None, "--prometheus.http-client-file=/etc/thanos/config/prometheus.http-client-file.yaml"),
    // `additionalArgs`.
    (0, None, "--reloader.config-file=/etc/thanos/config/prometheus.yaml.tmpl"),
    (0, None, "--reloader.config-envsubst-file=/prometheus/prometheus.env.yaml"),
    (0, None, "--reloader.rule-dir=/etc/thanos/rules"),
    (0, None, "--reloader.watch-interval=1s"),
    (0, None, "--reloader.retry-interval=1s"),
    (0, None, "--shipper.upload-compacted"),
    (0, None, "--shipper.ignore-unequal-block-size"),
];

/// `ThanosRuler.spec` with every field.
const RULER: Arguments = &[
    (0, None, "--data-dir=/thanos/data"),
    (0, None, "--eval-interval=1s"),
    (0, None, "--tsdb.retention=24h"),
    (38, None, "--rule-query-offset=1s"),
    (37, None, "--rule-concurrent-evaluation=4"),
    (30, None, "--for-outage-tolerance=1h"),
    (30, None, "--for-grace-period=10m"),
    (0, None, "--resend-delay=1m"),
    (39, None, "--enable-feature=promql-experimental-functions"),
    (0, None, "--label=thanos_ruler_replica=\"$(POD_NAME)\""),
    (0, None, "--label=team=\"a=b, c\""),
    (0, None, "--alert.label-drop=thanos_ruler_replica"),
    (0, None, "--alert.label-drop=team"),
    (0, None, "--http-address=localhost:10902"),
    (0, None, "--log.level=debug"),
    (0, None, "--log.format=logfmt"),
    (0, None, "--rule-file=/etc/thanos/rules/*/*.yaml"),
    (0, None, "--query.config-file=/etc/thanos/config/query.yaml"),
    (0, None, "--alertmanagers.config-file=/etc/thanos/config/alertmanagers.yaml"),
    (0, None, "--objstore.config-file=/etc/thanos/config/bucket.yaml"),
    (0, None, "--tracing.config-file=/etc/thanos/config/tracing.yaml"),
    (0, None, "--alert.relabel-config-file=/etc/thanos/config/relabel.yaml"),
    (0, None, "--grpc-server-tls-cert=/etc/thanos/certs/tls.crt"),
    (0, None, "--grpc-server-tls-key=/etc/thanos/certs/tls.key"),
    (0, None, "--grpc-server-tls-client-ca=/etc/thanos/certs/ca.crt"),
    (0, None, "--web.external-prefix=/ruler"),
    (0, None, "--web.route-prefix=/ruler"),
    (0, None, "--alert.query-url=https://query.example"),
    (21, None, "--http.config=/etc/thanos/web_config/web-config.yaml"),
];

/// The command line for a version. Kubernetes replaces the variables.
fn line(role: &str, arguments: Arguments, version: u32, variables: &[(&str, &str)]) -> Vec<String> {
    let known =
        arguments.iter().filter(|(first, end, _)| *first <= version && end.is_none_or(|end| version < end));
    let replaced = known.map(|(_, _, argument)| {
        variables
            .iter()
            .fold((*argument).to_owned(), |text, (name, value)| text.replace(&format!("$({name})"), value))
    });
    [role.to_owned()].into_iter().chain(replaced).collect()
}

/// Folders that the operator mounts.
struct Pod {
    dir: PathBuf,
    certificates: PathBuf,
    config: PathBuf,
}

impl Pod {
    fn new(dir: &Path) -> Self {
        let folder = |name: &str| {
            let path = dir.join(name);
            fs::create_dir_all(&path).expect("a folder");
            path
        };
        let pod = Self { dir: dir.to_owned(), certificates: folder("certs"), config: folder("config") };
        write_certificates(&pod.certificates);
        pod.write(
            "config/tracing.yaml",
            "type: OTLP\nconfig: {client_type: http, endpoint: 'localhost:1', insecure: true}\n",
        );
        pod.write("config/prometheus.http-client-file.yaml", "tls_config: {insecure_skip_verify: true}\n");
        pod
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.dir.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    /// An empty volume that the user of the pod may write.
    fn volume(&self, name: &str) -> PathBuf {
        let path = self.dir.join(name);
        fs::create_dir_all(&path).expect("a folder");
        chown(&path, Some(USER), Some(USER)).expect("the owner of a volume");
        path
    }
}

/// A CA, and a certificate of it.
fn write_certificates(folder: &Path) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).expect("a certificate").pem();
    fs::write(folder.join("ca.crt"), &certificate).expect("a file");
    fs::write(folder.join("tls.crt"), &certificate).expect("a file");
    fs::write(folder.join("tls.key"), key.serialize_pem()).expect("a file");
}

/// Waits until a path is answered with 200, and returns the body.
fn answer(
    network: &Network,
    process: &mut Process,
    port: u16,
    path: &str,
    is_right: impl Fn(&str) -> bool,
) -> String {
    wait_for(path, PATIENCE, || {
        assert!(process.is_running(), "it has ended:\n{}", process.output());
        let answer = network.request(port, "GET", path)?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        match answer.split_whitespace().nth(1) == Some("200") && is_right(body) {
            true => Ok(body.to_owned()),
            false => Err(format!("{answer}\n{}", process.output())),
        }
    })
}

#[test]
fn the_sidecar_of_a_prometheus_accepts_what_the_operator_writes() {
    if !Prometheus::is_installed("the sidecar of prometheus-operator") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let Some(image) = Image::build(dir.path(), "the sidecar of prometheus-operator") else { return };
    let Some(network) = Network::create("sidecar", "the sidecar of prometheus-operator") else { return };
    let pod = Pod::new(dir.path());
    pod.write(
        "config/prometheus.yaml.tmpl",
        "global: {external_labels: {prometheus: ns/k8s, prometheus_replica: prometheus-0}}\n",
    );
    pod.write("rules/rules.yaml", "groups: []\n");
    let (data, bucket) = (pod.volume("prometheus"), pod.volume("bucket"));
    // Prometheus reads what the reloader of the sidecar writes; at first it has the labels already.
    let written = data.join("prometheus.env.yaml");
    fs::write(
        &written,
        "global: {external_labels: {prometheus: ns/k8s, prometheus_replica: prometheus-0}}\n",
    )
    .expect("a file");
    chown(&written, Some(USER), Some(USER)).expect("an owner");
    let prometheus = [
        format!("--config.file={}", written.display()),
        format!("--storage.tsdb.path={}", data.display()),
        "--web.listen-address=127.0.0.1:9090".to_owned(),
        "--web.enable-lifecycle".to_owned(),
        "--storage.tsdb.min-block-duration=2h".to_owned(),
        "--storage.tsdb.max-block-duration=2h".to_owned(),
    ];
    let mut prometheus = network.start("prometheus", &prometheus, &dir.path().join("prometheus.log"));
    answer(&network, &mut prometheus, 9090, "/-/ready", |_| true);
    let container = || {
        Container::new(&image, USER, USER)
            .within(&network)
            .with_writable(&data, "/prometheus")
            .with_writable(&bucket, "/bucket")
            .with(&pod.certificates, "/etc/prometheus/certs")
            .with(&pod.config, "/etc/thanos/config")
            .with(&dir.path().join("rules"), "/etc/thanos/rules")
    };
    let variables = [
        ("OBJSTORE_CONFIG", "type: FILESYSTEM\nconfig:\n  directory: /bucket\n"),
        (
            "TRACING_CONFIG",
            "type: OTLP\nconfig:\n  client_type: http\n  endpoint: localhost:1\n  insecure: true\n",
        ),
    ];
    let mut lines: Vec<Vec<String>> =
        VERSIONS.iter().map(|version| line("sidecar", SIDECAR, *version, &variables)).collect();
    lines.dedup();
    for (number, args) in lines.iter().enumerate() {
        println!("{args:?}");
        let log = dir.path().join(format!("sidecar-{number}.log"));
        let mut sidecar = container().start(args, &log);
        answer(&network, &mut sidecar, 10902, "/-/ready", |_| true);
        let metrics = answer(&network, &mut sidecar, 10902, "/metrics", |_| true);
        assert!(metrics.contains("thanos_sidecar_prometheus_up 1"), "{metrics}");
        let (code, log) = (stop(&mut sidecar), sidecar.output());
        assert_eq!(code, Some(0), "{log}");
        assert!(log.lines().all(|line| !line.contains("\"level\":\"error\"")), "{log}");
    }
}

#[test]
fn a_thanos_ruler_accepts_what_the_operator_writes() {
    let dir = tempfile::tempdir().expect("a folder");
    let Some(image) = Image::build(dir.path(), "the ThanosRuler of prometheus-operator") else { return };
    let Some(network) = Network::create("ruler", "the ThanosRuler of prometheus-operator") else { return };
    let pod = Pod::new(dir.path());
    pod.write(
        "rules/rulefiles-0/ns-rules.yaml",
        "groups: [{name: g, rules: [{record: r, expr: vector(1)}]}]\n",
    );
    pod.write("config/query.yaml", "- static_configs: ['localhost:9090']\n  scheme: http\n");
    pod.write(
        "config/alertmanagers.yaml",
        "alertmanagers: [{static_configs: ['localhost:9093'], api_version: v2}]\n",
    );
    pod.write("config/bucket.yaml", "type: FILESYSTEM\nconfig: {directory: /bucket}\n");
    pod.write("config/relabel.yaml", "- {regex: prometheus_replica, action: labeldrop}\n");
    pod.write("web_config/web-config.yaml", "{}\n");
    let bucket = pod.volume("bucket");
    let mut querier = network.start(
        &tests::isthmus().display().to_string(),
        &["query", "--http-address=127.0.0.1:9090", "--grpc-address=127.0.0.1:9091"].map(str::to_owned),
        &dir.path().join("querier.log"),
    );
    answer(&network, &mut querier, 9090, "/-/ready", |_| true);
    let variables = [("POD_NAME", "thanos-ruler-x-0")];
    let mut lines: Vec<Vec<String>> =
        VERSIONS.iter().map(|version| line("rule", RULER, *version, &variables)).collect();
    lines.dedup();
    for (number, args) in lines.iter().enumerate() {
        println!("{args:?}");
        let data = pod.volume(&format!("data-{number}"));
        let container = Container::new(&image, USER, USER)
            .within(&network)
            .with_writable(&data, "/thanos/data")
            .with_writable(&bucket, "/bucket")
            .with(&pod.certificates, "/etc/thanos/certs")
            .with(&pod.config, "/etc/thanos/config")
            .with(&dir.path().join("rules"), "/etc/thanos/rules")
            .with(&dir.path().join("web_config"), "/etc/thanos/web_config");
        let mut ruler = container.start(args, &dir.path().join(format!("ruler-{number}.log")));
        let is_evaluated = |body: &str| {
            let rules: Value = serde_json::from_str(body).unwrap_or_default();
            let group = &rules["data"]["groups"][0];
            group["interval"].as_f64() == Some(1.0) && group["rules"][0]["health"] == "ok"
        };
        answer(&network, &mut ruler, 10902, "/ruler/api/v1/rules", is_evaluated);
        let reload = network.request(10902, "POST", "/ruler/-/reload").expect("an answer");
        assert!(reload.contains(" 200 "), "{reload}");
        let (code, log) = (stop(&mut ruler), ruler.output());
        assert_eq!(code, Some(0), "{log}");
        assert!(!log.contains("level=error"), "{log}");
    }
}

/// Flags of old versions that do nothing any more are accepted, with a line that says so.
#[test]
fn flags_without_effect_are_named_in_a_warning() {
    let dir = tempfile::tempdir().expect("a folder");
    let (http, grpc) = (tests::free_port(), tests::free_port());
    let args = [
        "sidecar".to_owned(),
        "--prometheus.url=http://127.0.0.1:1".to_owned(),
        format!("--http-address={http}"),
        format!("--grpc-address={grpc}"),
        "--shipper.skip-corrupted-blocks".to_owned(),
        "--hash-func=SHA256".to_owned(),
    ];
    let mut sidecar = Process::start(&tests::isthmus(), &args, &dir.path().join("log"));
    wait_for("the warnings", PATIENCE, || {
        assert!(sidecar.is_running(), "{}", sidecar.output());
        let log = sidecar.output();
        let warns = |flag: &str| log.lines().any(|line| line.contains("level=warn") && line.contains(flag));
        if warns("shipper.skip-corrupted-blocks") && warns("hash-func") { Ok(()) } else { Err(log) }
    });
}
