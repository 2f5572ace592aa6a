//! The store program: its answers, through a querier, are those of a real Prometheus on the same blocks.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use model::Timestamp;
use serde_json::Value;
use tests::{Process, Prometheus, free_port, get, isthmus, percent_encode};
use tsdb::{BlockOptions, ThanosMeta, Ulid, Workload};

/// Begin of the first block, in seconds; a multiple of two hours.
const BEGIN: i64 = 1_735_689_600;
const END: i64 = BEGIN + 3 * 7200;

/// Ranges of subqueries end between their steps, because Prometheus 2 includes a step at the begin of a range and Prometheus 3
/// does not.
const QUESTIONS: [&str; 24] = [
    "count({__name__=~\".+\"})",
    "count by (__name__) ({job=\"api\"})",
    "sum by (job) (rate(app_events_012_total{job=~\"a.*\"}[5m]))",
    "sum by (namespace) (increase(app_events_008_total{job!=\"web\"}[10m]))",
    "max by (job) ({__name__=~\"app_pool_.*\",namespace!=\"\"})",
    "count({pod=~\".*1.*\"})",
    "count({job!=\"api\",pod!=\"\"})",
    "count({job=~\"api|web|none\"})",
    "count({job=\"none\"})",
    "sum(count_over_time(app_events_019_total{job=\"api\"}[1h]))",
    "sum by (node) (resets(app_events_010_total[2h]))",
    "avg by (job) (avg_over_time(app_pool_002_in_use{job=~\"b.*\"}[30m]))",
    "topk(3, sum by (pod) (rate(app_events_011_total{job=\"cart\"}[5m])))",
    "quantile by (job) (0.9, app_pool_003_in_use)",
    "sum by (job) (changes(app_pool_004_in_use{job=\"email\"}[1h]))",
    "sum(last_over_time(app_events_013_total{job=\"web\"}[5m]))",
    "sum by (job) (rate(app_events_014_total{job=\"api\"}[5m] offset 1h))",
    "sum by (job) (max_over_time(sum by (job, pod) (app_pool_005_in_use{job=\"users\"})[1801s:5m]))",
    "count({job=\"search\"} offset 2h)",
    "sum by (service) (app_pool_006_in_use > 100)",
    "count(histogram_count(app_request_000_duration_seconds{job=\"api\"}))",
    "sum(histogram_sum(app_request_001_duration_seconds))",
    "absent(app_pool_007_in_use{absent!=\"\"})",
    "min_over_time(count(app_events_015_total{job=\"api\"})[3601s:1m])",
];

/// Three blocks of two hours, with histograms, jitter and targets that come and go, in a bucket and in the folder of a Prometheus.
fn write_blocks(bucket: &Path, data: &Path) {
    fs::create_dir_all(data).expect("a folder");
    fs::create_dir_all(bucket).expect("a folder");
    for number in 0..3_u64 {
        let start = Timestamp::from_millis((BEGIN + number as i64 * 7200) * 1000);
        let workload = Workload {
            series: 2_000,
            series_per_target: 20,
            churn: 0.3,
            start,
            jitter: Duration::from_millis(700),
            histograms: 0.1,
            ..Workload::default()
        };
        let labels = [("cluster", "eu-1"), ("replica", "a")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        let thanos = ThanosMeta { labels: labels.into(), source: "test".to_owned(), ..ThanosMeta::default() };
        let id = Ulid::from_parts(1_735_696_800_000 + number * 7_200_000, u128::from(number));
        let options = BlockOptions { thanos: Some(thanos), ..BlockOptions::new(id) };
        workload.write(bucket, options, &mut |_| {}).expect("a block");
        let (from, to) = (bucket.join(id.to_string()), data.join(id.to_string()));
        fs::create_dir_all(to.join("chunks")).expect("a folder");
        for file in ["meta.json", "index", "tombstones", "chunks/000001"] {
            if from.join(file).exists() {
                fs::copy(from.join(file), to.join(file)).expect("a copy");
            }
        }
    }
}

fn role(dir: &Path, name: &str, flags: &[String], http: SocketAddr) -> Process {
    let mut args = vec![name.to_owned(), format!("--http-address={http}")];
    args.extend_from_slice(flags);
    let mut process = Process::start(&isthmus(), &args, &dir.join(format!("{name}.log")));
    process.wait_ready(name, http);
    process
}

/// The data of an answer, with the warnings; the order of series does not matter.
fn ask(at: SocketAddr, question: &str, step: i64) -> (Value, Value) {
    let query = percent_encode(question);
    let path = format!("/api/v1/query_range?query={query}&start={BEGIN}&end={}&step={step}", END - 1);
    let (status, body) = get(at, &path).expect("an answer");
    assert_eq!(status, 200, "{question}: {body}");
    let mut answer: Value = serde_json::from_str(&body).expect("JSON");
    let result = answer["data"]["result"].as_array_mut().expect("a matrix");
    result.sort_by_key(|series| series["metric"].to_string());
    (answer["data"].clone(), answer["warnings"].clone())
}

/// Whether two answers are equal, but for the last digits of numbers, which depend on the order of additions.
fn is_near(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_near(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| is_near(a, b)))
        }
        (Value::String(a), Value::String(b)) => {
            a == b
                || match (a.parse::<f64>(), b.parse::<f64>()) {
                    (Ok(a), Ok(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()),
                    _ => false,
                }
        }
        _ => a == b,
    }
}

/// The first series that differs, shortened, for the message of a failed test.
fn first_difference(found: &Value, expected: &Value) -> String {
    let series = |data: &Value| data["result"].as_array().cloned().unwrap_or_default();
    let (found, expected) = (series(found), series(expected));
    let pair = found.iter().zip(&expected).find(|(found, expected)| !is_near(found, expected));
    let Some((found, expected)) = pair else {
        return format!("{} series, expected {}", found.len(), expected.len());
    };
    let points = |series: &Value| series["values"].as_array().cloned().unwrap_or_default();
    let (values, wanted) = (points(found), points(expected));
    let at = values
        .iter()
        .zip(&wanted)
        .position(|(a, b)| !is_near(a, b))
        .unwrap_or(values.len().min(wanted.len()));
    format!("{} at point {at}: {:?}, expected {:?}", expected["metric"], values.get(at), wanted.get(at))
}

#[test]
fn answers_from_a_bucket_are_those_of_prometheus_on_the_same_blocks() {
    if !Prometheus::is_installed("the comparison of the store with Prometheus") {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    let bucket = dir.path().join("bucket");
    write_blocks(&bucket, &dir.path().join("prometheus/data"));
    let prometheus = Prometheus::start(&dir.path().join("prometheus"), &[]);
    let (store_http, store_grpc, http) = (free_port(), free_port(), free_port());
    let flags = [
        format!("--objstore.config={{type: FILESYSTEM, config: {{directory: {}}}}}", bucket.display()),
        format!("--data-dir={}", dir.path().join("store").display()),
        format!("--grpc-address={store_grpc}"),
    ];
    let store = role(dir.path(), "store", &flags, store_http);
    let flags = [
        format!("--endpoint={store_grpc}"),
        format!("--grpc-address={}", free_port()),
        "--query.replica-label=replica".to_owned(),
    ];
    let querier = role(dir.path(), "query", &flags, http);
    for question in QUESTIONS {
        // Both steps do not divide the length of a chunk, so that steps fall on every place of it.
        for step in [60, 1_337] {
            let (expected, _) = ask(prometheus.address, question, step);
            let (found, warnings) = ask(http, question, step);
            assert!(warnings.is_null(), "{question}: {warnings}");
            assert!(
                is_near(&found, &expected),
                "{question}, step {step}: {}",
                first_difference(&found, &expected)
            );
        }
    }
    let (_, body) = get(store_http, "/api/v1/blocks").expect("an answer");
    let blocks: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(blocks["data"]["blocks"].as_array().map(Vec::len), Some(3), "{body}");
    drop((store, querier));
}

#[test]
fn a_bucket_or_a_data_folder_that_cannot_be_used_ends_the_start_with_one_line() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    fs::create_dir_all(dir.path().join("prometheus/wal")).expect("a folder");
    fs::create_dir_all(dir.path().join("bucket")).expect("a folder");
    let bucket = |name: &str| {
        format!(
            "--objstore.config={{type: FILESYSTEM, config: {{directory: {}}}}}",
            dir.path().join(name).display()
        )
    };
    let data = |name: &str| format!("--data-dir={}", dir.path().join(name).display());
    for (flags, words, code) in [
        (vec![bucket("absent"), data("d1")], "absent", 2),
        (vec![bucket("bucket"), data("prometheus")], "belongs to a Prometheus", 2),
        (vec![data("d2")], "no bucket is configured", 2),
        (
            vec![bucket("bucket"), data("d3"), "--index-cache.config={type: DISK}".to_owned()],
            "\"DISK\" is unknown",
            2,
        ),
        (
            vec![bucket("bucket"), data("d4"), "--selector.relabel-config=- {action: replace}".to_owned()],
            "\"replace\" is unknown",
            2,
        ),
    ] {
        let output = std::process::Command::new(isthmus())
            .arg("store")
            .args(&flags)
            .args([format!("--http-address={}", free_port()), format!("--grpc-address={}", free_port())])
            .output()
            .expect("isthmus runs");
        let text = String::from_utf8_lossy(&output.stderr);
        let errors: Vec<&str> = text.lines().filter(|line| line.starts_with("error: ")).collect();
        assert!(errors.len() == 1 && errors[0].contains(words), "{flags:?}: {text}");
        assert_eq!(output.status.code(), Some(code), "{flags:?}: {text}");
    }
}
