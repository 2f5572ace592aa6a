//! The HTTP API over real sockets, with stores over real gRPC.

mod certificates;
mod downsampled;
mod info;
mod order;
mod paths;
mod requests;
mod starting;
mod tenancy;

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use clap::Parser;
use runtime::{RunningRole, Startup};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::QueryArgs;
use crate::component::{ROLE, build};

#[derive(Parser)]
struct WebTestCommand {
    #[command(flatten)]
    args: QueryArgs,
}

/// Starts a querier with these endpoints.
async fn start(endpoints: &[String], flags: &[&str]) -> RunningRole {
    let mut args =
        vec!["query".to_owned(), "--http-address=127.0.0.1:0".into(), "--grpc-address=127.0.0.1:0".into()];
    args.push("--query.replica-label=replica".into());
    args.extend(endpoints.iter().map(|endpoint| format!("--endpoint={endpoint}")));
    args.extend(flags.iter().map(|flag| (*flag).to_owned()));
    let config = WebTestCommand::try_parse_from(args).unwrap().args.check().unwrap();
    let startup = Startup::bind(ROLE, &config.args.common).await.unwrap();
    build(config, startup).await.unwrap()
}

/// Starts a querier with these endpoints and waits until it is ready.
pub(super) async fn querier(endpoints: &[String], flags: &[&str]) -> RunningRole {
    let querier = start(endpoints, flags).await;
    for _ in 0..2000 {
        if get(&querier, "/-/ready").await.status == 200 {
            return querier;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the querier did not become ready in 10 s");
}

pub(super) struct HttpAnswer {
    pub(super) status: u16,
    head: String,
    pub(super) body: String,
}

impl HttpAnswer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }
}

pub(super) async fn send(to: SocketAddr, request: &str) -> HttpAnswer {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    HttpAnswer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

pub(super) async fn get(querier: &RunningRole, path: &str) -> HttpAnswer {
    ask(querier, "GET", path).await
}

pub(super) async fn ask(querier: &RunningRole, method: &str, path: &str) -> HttpAnswer {
    let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    send(querier.http_address(), &request).await
}

pub(super) async fn post(querier: &RunningRole, path: &str, form: &str) -> HttpAnswer {
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\
         content-type: application/x-www-form-urlencoded; charset=utf-8\r\n\r\n{form}",
        form.len()
    );
    send(querier.http_address(), &request).await
}

/// Time in seconds at which all samples exist.
const AT: i64 = START / 1000 + 590;

async fn two_replicas() -> Vec<String> {
    let external = |replica| [("cluster", "eu-1"), ("replica", replica)];
    vec![
        serve(memory(&external("a"), &["api", "db"])).await,
        serve(memory(&external("b"), &["api", "db"])).await,
    ]
}

#[tokio::test]
async fn health_check_of_grafana_passes() {
    let querier = querier(&[], &[]).await;
    let answer = post(&querier, "/api/v1/query", "query=1%2B1&time=4").await;
    assert_eq!(answer.body, r#"{"status":"success","data":{"resultType":"scalar","result":[4,"2"]}}"#);
    assert!(answer.head.contains("content-type: application/json"), "{}", answer.head);
    let build = get(&querier, "/api/v1/status/buildinfo").await.json();
    assert!(build["data"]["version"].as_str().unwrap().starts_with("3."), "{build}");
    assert!(
        build["data"]["isthmusVersion"].is_string() && build["data"].get("features").is_none(),
        "{build}"
    );
}

#[tokio::test]
async fn replicas_are_merged_unless_dedup_is_off() {
    let querier = querier(&two_replicas().await, &[]).await;
    let count = |parameters: &str| {
        let path = format!("/api/v1/query?query=count(up)&time={AT}{parameters}");
        let querier = &querier;
        async move { get(querier, &path).await.json()["data"]["result"][0]["value"][1].clone() }
    };
    assert_eq!(count("").await, "2");
    assert_eq!(count("&dedup=false").await, "4");
    assert_eq!(count("&replicaLabels%5B%5D=job").await, "2");
    assert_eq!(count("&replicaLabels%5B%5D=job&replicaLabels%5B%5D=replica").await, "1");
    assert_eq!(count("&replicaLabels%5B%5D=job,replica").await, "1");
    let path = format!("/api/v1/query?query=up&time={AT}&replicaLabels%5B%5D=replica,replika");
    let answer = get(&querier, &path).await.json();
    assert_eq!(
        answer["infos"],
        json!([
            "replica label \"replika\": no store has it as an external label; check --query.replica-label"
        ])
    );
    assert_eq!(answer["data"]["result"].as_array().map(Vec::len), Some(2));
    let answer = get(&querier, &format!("/api/v1/query?query=up&time={AT}")).await.json();
    assert_eq!(
        answer["data"]["result"],
        json!([
            {"metric": {"__name__": "up", "cluster": "eu-1", "job": "api"}, "value": [AT, "1"]},
            {"metric": {"__name__": "up", "cluster": "eu-1", "job": "db"}, "value": [AT, "1"]},
        ])
    );
    let form = format!("query=sum(count_over_time(up%5B1m%5D))&start={}&end={AT}&step=60", AT - 120);
    let answer = post(&querier, "/api/v1/query_range", &form).await.json();
    assert_eq!(answer["data"]["resultType"], "matrix", "{answer}");
    assert_eq!(answer["data"]["result"][0]["values"], json!([[AT - 120, "8"], [AT - 60, "8"], [AT, "8"]]));
}

#[tokio::test]
async fn errors_have_the_format_and_text_of_prometheus() {
    let querier = querier(&[], &[]).await;
    for (path, status, kind, part) in [
        ("/api/v1/query?query=up%7B", 400, "bad_data", "invalid parameter \"query\": 1:4: parse error"),
        ("/api/v1/query?query=", 400, "bad_data", "invalid parameter \"query\""),
        ("/api/v1/query?query=up&time=soon", 400, "bad_data", "cannot parse \"soon\" to a valid timestamp"),
        ("/api/v1/query?query=up&dedup=maybe", 400, "bad_data", "dedup"),
        ("/api/v1/query?query=up&storeMatch[]=%7B", 400, "bad_data", "storeMatch[]"),
        (
            "/api/v1/query_range?query=up&start=0&end=1&step=0",
            400,
            "bad_data",
            "zero or negative query resolution",
        ),
        (
            "/api/v1/query_range?query=up&start=2&end=1&step=1",
            400,
            "bad_data",
            "end timestamp must not be before",
        ),
        ("/api/v1/query_range?query=up&start=0&end=99999&step=1", 400, "bad_data", "11,000 points"),
        ("/api/v1/query_range?query=up[1m]&start=0&end=1&step=1", 400, "bad_data", "invalid expression type"),
        ("/api/v1/series", 400, "bad_data", "no match[] parameter provided"),
        ("/api/v1/series?match[]=up%7B", 400, "bad_data", "match[]"),
        ("/api/v1/nothing", 404, "not_found", "/nothing"),
    ] {
        let answer = get(&querier, path).await;
        let body = answer.json();
        assert_eq!((answer.status, body["status"].as_str()), (status, Some("error")), "{path}: {body}");
        assert_eq!(body["errorType"], kind, "{path}: {body}");
        assert!(body["error"].as_str().unwrap().contains(part), "{path}: {body}");
        assert!(answer.head.contains("cache-control: no-store"), "{path}: {}", answer.head);
    }
}

#[tokio::test]
async fn missing_store_is_an_uncacheable_warning_or_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed_port = listener.local_addr().unwrap().to_string();
    drop(listener);
    let mut endpoints = two_replicas().await;
    endpoints.push(closed_port.clone());
    let querier = querier(&endpoints, &[]).await;
    for path in [
        "/api/v1/query?query=up%2Bup",
        "/api/v1/series?match[]=up&match[]=%7Bjob=%22api%22%7D",
        "/api/v1/labels",
        "/api/v1/label/job/values",
    ] {
        let answer = get(&querier, path).await;
        let body = answer.json();
        assert_eq!(answer.status, 200, "{path}: {body}");
        assert!(body["warnings"][0].as_str().unwrap().contains(&closed_port), "{path}: {body}");
        assert_eq!(body["warnings"].as_array().unwrap().len(), 1, "{path}: {body}");
        assert!(answer.head.contains("cache-control: no-store"), "{path}: {}", answer.head);
        let separator = if path.contains('?') { '&' } else { '?' };
        let answer = get(&querier, &format!("{path}{separator}partial_response=false")).await;
        assert_eq!((answer.status, &answer.json()["errorType"]), (422, &json!("execution")), "{path}");
    }
    let chosen =
        format!("/api/v1/query?query=up&time={AT}&storeMatch[]=%7B__address__!=%22{closed_port}%22%7D");
    let whole = get(&querier, &chosen).await;
    assert!(whole.json().get("warnings").is_none(), "{}", whole.body);
    assert!(!whole.head.contains("cache-control"), "{}", whole.head);
    let stats = get(&querier, "/api/v1/query?query=up&stats=all").await.json();
    let outcomes: Vec<&str> = stats["data"]["stats"]["stores"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["outcome"].as_str().unwrap())
        .collect();
    assert!(outcomes.contains(&"failed"), "{stats}");
    assert_eq!(stats["warnings"].as_array().unwrap().len(), 1, "{stats}");
    let odd = get(&querier, "/api/v1/query?query=1&stats=1").await.json();
    let warning = odd["warnings"][0].as_str().unwrap();
    assert!(warning.starts_with("value \"1\" for parameter \"stats\" is deprecated"), "{odd}");
}

#[tokio::test]
async fn timeout_and_disconnect_cancel_the_query_and_its_streams() {
    let store = Arc::new(Scripted::new(vec![]).hanging());
    let open = || store.open.load(Ordering::SeqCst);
    let hung = serve(Arc::clone(&store) as Arc<dyn Store>).await;
    let querier = querier(std::slice::from_ref(&hung), &[]).await;
    let answer = get(&querier, "/api/v1/query?query=up&timeout=0.1").await;
    assert_eq!((answer.status, &answer.json()["errorType"]), (503, &json!("timeout")), "{}", answer.body);
    assert_eq!(
        answer.json()["error"],
        format!("query timed out in expression evaluation, waiting for store {hung}")
    );
    wait_for("the stream of the query that was too slow to end", || open() == 0).await;
    let answer = get(&querier, "/api/v1/series?match[]=up&timeout=0.1").await;
    assert_eq!((answer.status, &answer.json()["errorType"]), (503, &json!("timeout")), "{}", answer.body);
    wait_for("the stream of the request that was too slow to end", || open() == 0).await;

    let mut stream = TcpStream::connect(querier.http_address()).await.unwrap();
    stream.write_all(b"GET /api/v1/query?query=sum(up) HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    wait_for("the query to reach the store", || open() == 1).await;
    drop(stream);
    wait_for("the store's stream to end with the connection", || open() == 0).await;
}

#[tokio::test]
async fn query_over_its_limit_fails_and_names_the_limit() {
    let querier = querier(&two_replicas().await, &["--query.max-samples=10"]).await;
    let path = format!("/api/v1/query?query=count_over_time(up%5B10m%5D)&time={AT}");
    let answer = get(&querier, &path).await;
    assert_eq!((answer.status, &answer.json()["errorType"]), (422, &json!("execution")), "{}", answer.body);
    assert!(answer.body.contains("more than max_samples=10 allows"), "{}", answer.body);
    assert!(answer.body.contains("(--query.max-samples)"), "{}", answer.body);
}

#[tokio::test]
async fn plans_are_explained_and_measured() {
    let querier = querier(&two_replicas().await, &[]).await;
    let query = "query=sum+by+(job)+(rate(up%5B5m%5D))";
    let plan = get(&querier, &format!("/api/v1/query_explain?{query}&time={AT}")).await.json();
    let plan = &plan["data"];
    assert_eq!((&plan["name"], &plan["steps"]), (&json!("sum by (job)"), &json!(1)), "{plan}");
    assert_eq!(plan["children"][0]["name"], "rate of up[5m]", "{plan}");
    assert_eq!(plan["selects"][0]["function"], "rate", "{plan}");
    assert_eq!(plan["selects"][0]["maxTime"], AT * 1000, "{plan}");
    assert!(plan["text"].as_str().unwrap().contains("└─ rate of"), "{plan}");

    let form = format!("{query}&start={}&end={AT}&step=60", AT - 120);
    let plan = post(&querier, "/api/v1/query_range_explain", &form).await.json();
    assert_eq!(plan["data"]["steps"], 3, "{plan}");
    let bad = get(&querier, "/api/v1/query_explain?query=up%7B").await;
    assert_eq!((bad.status, &bad.json()["errorType"]), (400, &json!("bad_data")), "{}", bad.body);

    let plain = post(&querier, "/api/v1/query_range", &form).await.json();
    assert!(plain["data"].get("analysis").is_none(), "{plain}");
    let measured = post(&querier, "/api/v1/query_range", &format!("{form}&analyze=true")).await.json();
    assert_eq!(measured["data"]["result"], plain["data"]["result"]);
    let (sum, rate) = (&measured["data"]["analysis"], &measured["data"]["analysis"]["children"][0]);
    assert_eq!(
        (&sum["name"], &sum["series"], &sum["samples"]),
        (&json!("sum by (job)"), &json!(2), &json!(6))
    );
    assert_eq!(rate["series"], 2, "{rate}");
    let text = measured["data"]["analysis"]["text"].as_str().unwrap();
    assert!(text.starts_with("sum by (job)  steps=3  series=2 samples=6 bytes="), "{text}");
    assert!(rate["totalSamples"].as_u64() > Some(0) && rate["totalSamples"] == sum["totalSamples"], "{sum}");
    assert!(rate["executionTime"].as_str().unwrap().ends_with('s'), "{rate}");
    let fanout = rate["fanout"].as_array().unwrap();
    assert!(sum.get("fanout").is_none() && fanout.len() == 2, "{sum}");
    for store in fanout {
        assert_eq!(
            (&store["series"], &store["chunks"], &store["samples"]),
            (&json!(2), &json!(2), &json!(80))
        );
        assert!(store["endpointAddr"].is_string() && store["bytesProcessed"].as_u64() > Some(0), "{store}");
        assert!(store["numResponses"].as_u64() > Some(0) && store["duration"] != "0ns", "{store}");
    }

    let answer = post(&querier, "/api/v1/query_range", &format!("{form}&stats=all")).await.json();
    let stats = &answer["data"]["stats"];
    let seconds = |name: &str| stats["timings"][name].as_f64().unwrap_or_else(|| panic!("{name}: {stats}"));
    let parts = seconds("queryPreparationTime") + seconds("innerEvalTime") + seconds("resultSortTime");
    assert!((seconds("evalTotalTime") - parts).abs() < 1e-6 && seconds("innerEvalTime") > 0.0, "{stats}");
    assert!((seconds("execTotalTime") - seconds("evalTotalTime") - seconds("execQueueTime")).abs() < 1e-6);
    let samples = &stats["samples"];
    assert!(samples["samplesRead"].as_u64() > Some(0), "{stats}");
    assert_eq!(samples["totalQueryableSamples"], samples["samplesRead"], "{stats}");
    assert_eq!(
        samples["peakSamples"].as_u64(),
        samples["peakBytes"].as_u64().map(|bytes| bytes / 16),
        "{stats}"
    );
    assert!(stats["stores"].as_array().unwrap().iter().all(|store| store["seconds"].as_f64() > Some(0.0)));
}

#[tokio::test]
async fn matchers_are_applied_to_both_sides_unless_a_store_is_a_querier() {
    let stores = two_replicas().await;
    let store = remote("store", memory(&[], &["api"])).await;
    let through_querier = serve(Arc::new(proxy(vec![store], ProxyOptions::default()))).await;
    let carried = async |stores: &[String], flags: &[&str]| {
        let querier = querier(stores, flags).await;
        let path = format!("/api/v1/query_explain?query=up%7Bjob%3D%22api%22%7D+%2F+up&time={AT}");
        let plan = get(&querier, &path).await.json();
        let selects = plan["data"]["selects"].as_array().unwrap().clone();
        selects.iter().all(|select| select["matchers"].as_array().unwrap().contains(&json!("job=\"api\"")))
    };
    assert!(carried(&stores, &[]).await);
    assert!(!carried(&stores, &["--query.propagate-matchers=never"]).await);
    let with_querier: Vec<String> = stores.into_iter().chain([through_querier]).collect();
    assert!(!carried(&with_querier, &[]).await, "selector labels of a querier are on no series");
    assert!(carried(&with_querier, &["--query.propagate-matchers"]).await);
}

#[tokio::test]
async fn queued_series_count_towards_the_memory_limits() {
    for (flags, limit) in [
        (&["--query.max-memory=1KiB"][..], "max_bytes=1024"),
        (&["--query.max-memory=1GiB", "--query.max-total-memory=1KiB"], "max_total_bytes=1024"),
    ] {
        let querier = querier(&two_replicas().await, flags).await;
        let answer = get(&querier, &format!("/api/v1/query?query=up&time={AT}")).await;
        let kind = &answer.json()["errorType"];
        assert_eq!((answer.status, kind), (422, &json!("execution")), "{}", answer.body);
        assert!(answer.body.contains(limit), "{}", answer.body);
    }
}

#[tokio::test]
async fn series_and_labels_are_merged_over_all_stores() {
    let mut endpoints = two_replicas().await;
    endpoints.push(serve(memory(&[("cluster", "us-1")], &["web"])).await);
    let querier = querier(&endpoints, &[]).await;
    let data = |path: &'static str| {
        let querier = &querier;
        async move { get(querier, path).await.json() }
    };
    assert_eq!(data("/api/v1/labels").await["data"], json!(["__name__", "cluster", "job", "replica"]));
    assert_eq!(data("/api/v1/label/job/values").await["data"], json!(["api", "db", "web"]));
    assert_eq!(data("/api/v1/label/U__job/values").await["data"], json!(["api", "db", "web"]));
    assert_eq!(
        data("/api/v1/label/job/values?match[]=%7Bcluster=%22us-1%22,job!=%22%22%7D").await["data"],
        json!(["web"])
    );
    let cut = data("/api/v1/label/job/values?limit=2").await;
    assert_eq!(
        (&cut["data"], &cut["warnings"]),
        (&json!(["api", "db"]), &json!(["results truncated due to limit"]))
    );
    let all = data("/api/v1/series?match[]=up").await["data"].clone();
    assert_eq!(all.as_array().unwrap().len(), 3, "{all}");
    let all = data("/api/v1/series?match[]=up&dedup=false").await["data"].clone();
    assert_eq!(all.as_array().unwrap().len(), 5, "{all}");
    let two = data("/api/v1/series?match[]=up&limit=2").await;
    assert_eq!(two["data"].as_array().unwrap().len(), 2);
    assert_eq!(two["warnings"], json!(["results truncated due to limit"]));
    let stores = data("/api/v1/stores").await["data"]["sidecar"].clone();
    assert_eq!(stores.as_array().unwrap().len(), 3, "{stores}");
    assert_eq!(stores[0]["lastError"], Value::Null);
    assert_eq!(stores[0]["labelSets"][0]["cluster"], "eu-1");
    assert_eq!(stores[0]["minTime"], START);
}

#[tokio::test]
async fn querier_is_a_store_of_another_querier() {
    let lower = querier(&two_replicas().await, &["--selector-label=tier=\"edge\""]).await;
    let upper = querier(&[lower.grpc_address().to_string()], &[]).await;
    for (query, expected) in [("count(up)", json!("2")), ("count(up%7Btier=%22edge%22%7D)", json!("2"))] {
        let path = format!("/api/v1/query?query={query}&time={AT}");
        let answer = get(&upper, &path).await.json();
        assert_eq!(answer["data"]["result"][0]["value"][1], expected, "{query}: {answer}");
        assert!(answer.get("warnings").is_none(), "{answer}");
    }
    let none = get(&upper, &format!("/api/v1/query?query=up%7Btier=%22core%22%7D&time={AT}")).await.json();
    assert_eq!(none["data"]["result"], json!([]));
    let stores = get(&upper, "/api/v1/stores").await.json();
    assert_eq!(stores["data"]["query"][0]["labelSets"][0]["tier"], "edge", "{stores}");
}

#[tokio::test]
async fn cors_status_pages_and_metrics_are_served() {
    let querier = querier(&[], &[]).await;
    let options = ask(&querier, "OPTIONS", "/api/v1/query").await;
    assert_eq!(options.status, 204);
    assert!(options.head.contains("access-control-allow-origin: *"), "{}", options.head);
    let flags = get(&querier, "/api/v1/status/flags").await.json();
    assert_eq!(flags["data"]["query.timeout"], "2m");
    assert!(get(&querier, "/api/v1/status/runtimeinfo").await.json()["data"]["startTime"].is_string());
    assert_eq!(get(&querier, "/api/v1/metadata").await.json()["data"], json!({}));
    let formatted = get(&querier, "/api/v1/format_query?query=sum(+up++)by(job)").await.json();
    assert_eq!(formatted["data"], "sum by (job) (up)");
    let parsed = get(&querier, "/api/v1/parse_query?query=up%5B5m%5D").await.json();
    assert_eq!(parsed["data"]["range"], 300_000);
    assert!(get(&querier, "/").await.body.contains("api/v1/query"));
    let metrics = get(&querier, "/metrics").await.body;
    for family in [
        "thanos_query_concurrent_gate_queries_max 20",
        "thanos_query_concurrent_gate_queries_in_flight 0",
        "isthmus_query_stores{healthy=\"true\"} 0",
        "isthmus_query_memory_bytes 0",
        "http_requests_total{",
        "isthmus_query_store_requests_total{outcome=\"failed\"} 0",
    ] {
        assert!(metrics.contains(family), "{family} is missing in\n{metrics}");
    }
    match promtool_check(&metrics) {
        Some((true, _)) => {}
        Some((false, said)) => panic!("promtool: {said}"),
        None => println!("skipped: promtool is not installed"),
    }
}

/// Runs the linter of promtool; `None` if it is not installed.
fn promtool_check(text: &str) -> Option<(bool, String)> {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    promtool.stdin.take()?.write_all(text.as_bytes()).ok()?;
    let output = promtool.wait_with_output().ok()?;
    Some((
        output.status.success(),
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
    ))
}
