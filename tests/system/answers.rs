//! Questions to servers with the Prometheus API over generated blocks, and the comparison of their answers.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::Value;
use tests::{Process, get, isthmus, percent_encode};

/// Begin of the first block, in seconds; a multiple of two days.
pub(crate) const BEGIN: i64 = 1_735_689_600;

/// Ranges of subqueries end between their steps, because Prometheus 2 includes a step at the begin of a range and Prometheus 3
/// does not.
pub(crate) const QUESTIONS: [&str; 24] = [
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

/// Starts a role in `dir`, and waits until it is ready.
pub(crate) fn role(dir: &Path, name: &str, flags: &[String], http: SocketAddr) -> Process {
    let mut args = vec![name.to_owned(), format!("--http-address={http}")];
    args.extend_from_slice(flags);
    let mut process = Process::start(&isthmus(), &args, &dir.join(format!("{name}.log")));
    process.wait_ready(name, http);
    process
}

/// The data of an answer over the time from [`BEGIN`] to `end`, with the warnings; the order of series does not matter.
pub(crate) fn ask(at: SocketAddr, question: &str, end: i64, step: i64) -> (Value, Value) {
    let query = percent_encode(question);
    let path = format!("/api/v1/query_range?query={query}&start={BEGIN}&end={}&step={step}", end - 1);
    let (status, body) = get(at, &path).expect("an answer");
    assert_eq!(status, 200, "{question}: {body}");
    let mut answer: Value = serde_json::from_str(&body).expect("JSON");
    let result = answer["data"]["result"].as_array_mut().expect("a matrix");
    result.sort_by_key(|series| series["metric"].to_string());
    (answer["data"].clone(), answer["warnings"].clone())
}

/// Whether two answers are equal, but for the last digits of numbers, which depend on the order of additions.
pub(crate) fn is_near(a: &Value, b: &Value) -> bool {
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
pub(crate) fn first_difference(found: &Value, expected: &Value) -> String {
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
