//! The role over real sockets. It scrapes itself.

use std::fs;
pub(super) use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use clap::Parser;
use model::{Matcher, TimeRange};
use runtime::{RunningRole, Startup};
pub(super) use serde_json::Value;
use storeapi::{SeriesRequest, Store, StoreClient, collect_series};
pub(super) use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
pub(super) use tokio::net::TcpStream;

use crate::ScrapeArgs;
use crate::component::{ROLE, build};

#[derive(Parser)]
struct ScrapeCommand {
    #[command(flatten)]
    args: ScrapeArgs,
}

fn args(dir: &Path, flags: &[&str]) -> Vec<String> {
    let mut args = vec!["scrape".to_owned()];
    args.push("--web.listen-address=127.0.0.1:0".to_owned());
    args.push("--grpc-address=127.0.0.1:0".to_owned());
    args.push(format!("--config.file={}", file(dir).display()));
    args.push(format!("--storage.tsdb.path={}", dir.join("data").display()));
    args.extend(flags.iter().map(|flag| (*flag).to_owned()));
    args
}

fn file(dir: &Path) -> PathBuf {
    dir.join("prometheus.yml")
}

pub(super) fn write(dir: &Path, text: &str) {
    fs::write(file(dir), text).unwrap();
}

async fn try_start(dir: &Path, flags: &[&str]) -> Result<RunningRole, String> {
    let args = ScrapeCommand::try_parse_from(args(dir, flags)).map_err(|error| error.to_string())?.args;
    let common = args.common();
    let config = args.check(Vec::new()).map_err(|mistakes| mistakes.to_string())?;
    let startup = Startup::bind(ROLE, &common).await.unwrap();
    build(config, startup).await.map_err(|error| format!("{} {error}", error.exit_code()))
}

pub(super) async fn start(dir: &Path, flags: &[&str]) -> RunningRole {
    let role = try_start(dir, flags).await.unwrap();
    until("ready", async || get(role.http_address(), "/-/ready").await.0 == 200).await;
    role
}

pub(super) async fn until(what: &str, mut is_done: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_done().await {
        assert!(Instant::now() < deadline, "waited 60 s for: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(super) async fn ask(to: SocketAddr, method: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let request = format!("{method} {path} HTTP/1.0\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

pub(super) async fn get(to: SocketAddr, path: &str) -> (u16, String) {
    ask(to, "GET", path).await
}

async fn json(to: SocketAddr, path: &str) -> Value {
    let (status, body) = get(to, path).await;
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

/// The value of a metric of the role itself.
async fn metric(to: SocketAddr, name: &str) -> Option<f64> {
    let (_, text) = get(to, "/metrics").await;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

pub(super) async fn stop(role: RunningRole) {
    role.shutdown().trigger();
    role.wait().await;
}

fn config(target: SocketAddr) -> String {
    format!(
        "global: {{scrape_interval: 100ms, external_labels: {{cluster: eu-1, replica: a}}}}\n\
         scrape_configs:\n- job_name: self\n  static_configs: [{{targets: ['{target}']}}]\n"
    )
}

const NO_TARGETS: &str = "global: {external_labels: {cluster: eu-1}}\n";

#[tokio::test(flavor = "multi_thread")]
async fn the_role_scrapes_answers_reloads_and_goes_on_after_a_restart() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), NO_TARGETS);
    let role = start(dir.path(), &[]).await;
    let http = role.http_address();

    println!("a reload adds a target");
    write(dir.path(), &config(http));
    let (status, body) = ask(http, "POST", "/-/reload").await;
    assert_eq!(status, 200, "{body}");
    let up = "/api/v1/query?query=up";
    until("a scrape", async || json(http, up).await["data"]["result"][0]["value"][1] == "1").await;
    let series = json(http, up).await["data"]["result"][0]["metric"].clone();
    assert_eq!(series["job"], "self");
    assert_eq!(series["cluster"], Value::Null, "queries of one Prometheus have no external labels");
    // A scrape is reported after its samples are stored.
    until("a target that is up", async || {
        json(http, "/api/v1/targets").await["data"]["activeTargets"][0]["health"] == "up"
    })
    .await;
    assert!(
        json(http, "/api/v1/status/config").await["data"]["yaml"]
            .as_str()
            .unwrap()
            .contains("job_name: self")
    );
    assert_eq!(json(http, "/api/v1/status/flags").await["data"]["storage.tsdb.min-block-duration"], "2h");
    assert_eq!(json(http, "/api/v1/status/runtimeinfo").await["data"]["storageRetention"], "15d");
    assert!(json(http, "/api/v1/metadata").await["data"].is_object());
    assert!(metric(http, "prometheus_tsdb_head_series").await.unwrap() > 50.0);
    assert!(metric(http, "prometheus_tsdb_head_samples_appended_total").await.unwrap() > 50.0);

    println!("StoreAPI has external labels");
    let client = StoreClient::new("role", mesh::direct(&role.grpc_address().to_string()).unwrap());
    let info = client.info().await.unwrap();
    assert_eq!(info.label_sets[0].to_string(), r#"{cluster="eu-1", replica="a"}"#);
    assert!(
        info.apis.targets
            && info.apis.exemplars
            && info.apis.metadata
            && info.apis.status
            && !info.apis.rules
    );
    let request = SeriesRequest::new(TimeRange::ALL, vec![Matcher::equal("__name__", "up")]);
    let (found, warnings) = collect_series(client.series(request).await.unwrap()).await.unwrap();
    assert_eq!((found[0].labels.value("replica"), warnings.len()), ("a", 0));

    println!("a wrong file changes nothing");
    assert_eq!(metric(http, "prometheus_config_last_reload_successful").await, Some(1.0));
    write(dir.path(), "global: {scrape_interval: soon}\n");
    let (status, body) = ask(http, "POST", "/-/reload").await;
    assert!(status == 500 && body.contains("prometheus.yml: line 1"), "{status} {body}");
    assert_eq!(metric(http, "prometheus_config_last_reload_successful").await, Some(0.0));
    assert_eq!(json(http, "/api/v1/status/runtimeinfo").await["data"]["reloadConfigSuccess"], false);
    let scrapes = async || {
        let counted = json(http, "/api/v1/query?query=count_over_time(up[1h])").await;
        counted["data"]["result"][0]["value"][1].as_str().unwrap().parse::<u64>().unwrap()
    };
    let before = scrapes().await;
    until("more scrapes", async || scrapes().await > before).await;

    println!("promtool asks it");
    let server = format!("http://{http}");
    match Command::new("promtool").args(["query", "instant", &server, "sum(up)"]).output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success() && text.starts_with("{} => 1"), "{text}");
        }
        Err(_) => println!("skipped: promtool is not installed"),
    }

    println!("the folder is locked while it runs");
    write(dir.path(), NO_TARGETS);
    let error = try_start(dir.path(), &[]).await.map(drop).unwrap_err();
    assert!(error.starts_with("2 --data-dir: ") && error.contains("another process"), "{error}");

    println!("after a restart the samples are there");
    let before = scrapes().await;
    stop(role).await;
    let role = start(dir.path(), &[]).await;
    let counted = json(role.http_address(), "/api/v1/query?query=count_over_time(up[1h])").await;
    let after: u64 = counted["data"]["result"][0]["value"][1].as_str().unwrap().parse().unwrap();
    assert!(after >= before, "{after} of {before}");
    stop(role).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_below_the_path_of_the_external_url() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), NO_TARGETS);
    let role = start(dir.path(), &["--web.external-url=http://x.example/prom/"]).await;
    let http = role.http_address();
    for path in [
        "/prom/api/v1/query?query=1",
        "/prom/api/v1/targets",
        "/prom/-/ready",
        "/prom/-/healthy",
        "/prom/metrics",
        "/prom",
        "/prom/graph",
        "/-/ready",
        "/metrics",
    ] {
        assert_eq!(get(http, path).await.0, 200, "{path}");
    }
    assert_eq!(get(http, "/").await.0, 302);
    assert_eq!(get(http, "/api/v1/query?query=1").await.0, 404);
    assert_eq!(ask(http, "POST", "/prom/-/reload").await.0, 200);
    assert_eq!(ask(http, "POST", "/prom/api/v1/read").await.0, 400, "an empty body");
    let page = get(http, "/prom").await.1;
    assert!(page.contains("<base href=\"/prom/\">") && page.contains("http://x.example/prom/"), "{page}");
    let flags = json(http, "/prom/api/v1/status/flags").await;
    assert_eq!(flags["data"]["web.external-url"], "http://x.example/prom/");
    stop(role).await;

    println!("a proxy may remove the path");
    let flags = ["--web.external-url=http://x.example/prom/", "--web.route-prefix=/"];
    let role = start(dir.path(), &flags).await;
    assert_eq!(get(role.http_address(), "/api/v1/query?query=1").await.0, 200);
    assert!(get(role.http_address(), "/").await.1.contains("<base href=\"/prom/\">"));
    stop(role).await;
}

#[tokio::test]
async fn all_mistakes_are_reported_together() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), "global: {scrape_interval: soon}\nrule_files: [x]\n");
    let flags = [
        "--query.timeout=0s",
        "--web.external-url=x.example",
        "--enable-feature=otlp-deltatocumulative,native-histograms",
    ];
    let error = try_start(dir.path(), &flags).await.map(drop).unwrap_err();
    for part in [
        "prometheus.yml: line 1",
        "rule_files",
        "--query.timeout=0s",
        "--web.external-url=x.example",
        "--enable-feature=otlp-deltatocumulative",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(!dir.path().join("data").exists(), "nothing was written");
}

#[tokio::test]
async fn uploads_need_external_labels() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), "scrape_configs: []\n");
    let bucket =
        format!("--objstore.config=type: FILESYSTEM\nconfig: {{directory: {}}}", dir.path().display());
    let error = try_start(dir.path(), &[&bucket]).await.map(drop).unwrap_err();
    assert!(error.contains("global.external_labels"), "{error}");
    write(dir.path(), NO_TARGETS);
    let role = start(dir.path(), &[&bucket]).await;
    write(dir.path(), "scrape_configs: []\n");
    let error = role.reload().run().await.unwrap_err().to_string();
    assert!(error.contains("global.external_labels"), "{error}");
    stop(role).await;
}

#[tokio::test]
async fn a_data_folder_that_is_a_file_is_refused_at_once() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), NO_TARGETS);
    fs::write(dir.path().join("data"), "text").unwrap();
    let error = try_start(dir.path(), &[]).await.map(drop).unwrap_err();
    assert!(error.starts_with("1 --data-dir: ") && !error.contains('\n'), "{error}");
}
