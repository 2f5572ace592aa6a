//! The steps of `docs/migrate.md` that this repository can take: before, between and after each one, answers are the same.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::{Cluster, Mesh, Process, Reach, free_port, get, isthmus, percent_encode, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);

/// A process with its HTTP and gRPC address.
struct Role {
    http: SocketAddr,
    grpc: SocketAddr,
    _process: Process,
}

impl Role {
    fn start(dir: &Path, name: &str, args: &[String]) -> Self {
        let (http, grpc) = (free_port(), free_port());
        let mut args = args.to_vec();
        args.extend([format!("--http-address={http}"), format!("--grpc-address={grpc}")]);
        let mut process = Process::start(&isthmus(), &args, &dir.join(format!("{name}.log")));
        process.wait_ready(name, http);
        Self { http, grpc, _process: process }
    }

    fn data(&self, path: &str) -> Result<Value, String> {
        let (_, body) = get(self.http, path)?;
        serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))
    }
}

/// A querier of these endpoints and gateways, when it can read `stores` stores.
fn querier(dir: &Path, flags: &[String], stores: usize) -> Role {
    let mut args = vec!["query".to_owned(), "--query.replica-label=replica".to_owned()];
    args.extend_from_slice(flags);
    let querier = Role::start(dir, "querier", &args);
    wait_for(&format!("{stores} healthy stores"), PATIENCE, || {
        let body = querier.data("/api/v1/stores")?;
        let groups = body["data"].as_object().ok_or_else(|| body.to_string())?;
        let all = groups.values().filter_map(Value::as_array).flatten();
        let healthy = all.filter(|store| store["lastError"].is_null()).count();
        if healthy == stores { Ok(()) } else { Err(body.to_string()) }
    });
    querier
}

/// The answer of a querier to these expressions at a time; there must be one without warnings.
fn answers(querier: &Role, expressions: &[&str], at: f64) -> BTreeMap<String, Value> {
    let mut answers = BTreeMap::new();
    for expression in expressions {
        let path = format!("/api/v1/query?time={at}&query={}", percent_encode(expression));
        let mut body = querier.data(&path).expect("an answer");
        assert!(body["warnings"].is_null(), "{expression}: {body}");
        let result = body["data"]["result"].take();
        assert!(!result.as_array().is_none_or(Vec::is_empty), "{expression}: {body}");
        answers.insert((*expression).to_owned(), result);
    }
    answers
}

#[test]
fn answers_stay_the_same_while_a_gateway_takes_the_place_of_a_proxy() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let target = free_port();
    let config = dir.join("prometheus.yml");
    let text = "global: {scrape_interval: 500ms, scrape_timeout: 500ms, external_labels: {cluster: eu-1, environment: testing, replica: a}}\n";
    fs::write(
        &config,
        format!("{text}scrape_configs: [{{job_name: x, static_configs: [{{targets: ['{target}']}}]}}]\n"),
    )
    .expect("a file");
    let data = format!("--data-dir={}", dir.join("data").display());
    let prometheus =
        Role::start(dir, "scraper", &["scrape".into(), format!("--config.file={}", config.display()), data]);
    let sidecar = Role::start(
        dir,
        "sidecar",
        &["sidecar".into(), format!("--prometheus.url=http://{}", prometheus.http)],
    );
    let direct = format!("--endpoint={}", sidecar.grpc);

    println!("the querier reads the sidecar as it did before, through a proxy or without");
    let before = querier(dir, std::slice::from_ref(&direct), 1);
    let at = wait_for("a sample", PATIENCE, || {
        let body = before.data("/api/v1/query?query=timestamp(up)")?;
        let time = body["data"]["result"][0]["value"][1].as_str().and_then(|time| time.parse::<f64>().ok());
        time.ok_or_else(|| body.to_string())
    });
    let expressions = ["up", "count(scrape_samples_scraped)", "max by (cluster) (count_over_time(up[1h]))"];
    let expected = answers(&before, &expressions, at);

    println!("a gateway is started, and the querier has both ways");
    let targets = vec![("scraper-0".to_owned(), sidecar.grpc)];
    let cluster = Cluster { name: "eu-1", reach: Reach::DialsOut, targets };
    let mesh = Mesh::start(&dir.join("mesh"), "auto", &[cluster]);
    let gateway = format!("--gateway={}", mesh.grpc);
    let both = querier(dir, &[direct, gateway.clone()], 2);
    assert_eq!(answers(&both, &expressions, at), expected, "with both ways");

    println!("the old way is removed");
    let after = querier(dir, &[gateway], 1);
    assert_eq!(answers(&after, &expressions, at), expected, "through the gateway");
}

#[test]
fn answers_stay_the_same_while_one_store_takes_the_place_of_another() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let bucket = dir.join("bucket");
    let output = Command::new(isthmus())
        .args(["tools", "block", "generate", "--series=50", "--blocks=2", "--duration=2h"])
        .args(["--start=2026-01-01T00:00:00Z", "--label=cluster=eu-1", "--label=replica=a", "--output-dir"])
        .arg(&bucket)
        .output()
        .expect("isthmus runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let store = |name: &str| {
        let objstore =
            format!("--objstore.config=type: FILESYSTEM\nconfig: {{directory: {}}}", bucket.display());
        let data = format!("--data-dir={}", dir.join(name).display());
        Role::start(dir, name, &["store".into(), objstore, data])
    };
    let endpoint = |store: &Role| format!("--endpoint-strict={}", store.grpc);
    let old = store("old");
    // An hour and a half after the first sample.
    let at = 1_767_231_000.0;
    let expressions = ["count({cluster=\"eu-1\"})", "sum({cluster=\"eu-1\"})"];
    let expected = answers(&querier(dir, &[endpoint(&old)], 1), &expressions, at);
    let new = store("new");
    let both = querier(dir, &[endpoint(&old), endpoint(&new)], 2);
    assert_eq!(answers(&both, &expressions, at), expected, "with both stores");
    drop(old);
    assert_eq!(
        answers(&querier(dir, &[endpoint(&new)], 1), &expressions, at),
        expected,
        "with the new store"
    );
}
