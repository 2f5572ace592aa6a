//! The role on the data folder of a real Prometheus: both give the same answers.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use shipper::testing::{Prometheus, free_port, installed};

use crate::tests::role::*;

/// The data of an answer, with lists in one order: that of vectors and label sets is not fixed.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(items) => {
            let mut items: Vec<Value> = items.iter().map(sorted).collect();
            // Points of a matrix have their order.
            if items.iter().all(|item| !item.is_array()) {
                items.sort_by_key(Value::to_string);
            }
            Value::Array(items)
        }
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(name, value)| (name.clone(), sorted(value))).collect())
        }
        other => other.clone(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_folder_of_a_prometheus_answers_as_this_prometheus() {
    if !installed() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let address = free_port();
    write(
        dir.path(),
        &format!(
            "global: {{scrape_interval: 100ms, scrape_timeout: 100ms, external_labels: {{cluster: eu-1}}}}\n\
             scrape_configs:\n- job_name: self\n  static_configs: [{{targets: ['{address}']}}]\n"
        ),
    );
    let mut prometheus = Prometheus::run(Path::new("prometheus"), dir.path(), address, &[]);
    until("Prometheus", async || TcpStream::connect(address).await.is_ok()).await;
    until("scrapes", async || {
        let (status, body) = get(address, "/api/v1/query?query=count_over_time(up[1m])%3E40").await;
        status == 200 && body.contains("\"value\"")
    })
    .await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() - 1.0;
    let (from, end) = (format!("{:.3}", now - 3.0), format!("{now:.3}"));
    let at = format!("time={end}");
    let range = format!("start={from}&end={end}");
    // Versions of Prometheus differ in what a range has at its begin, so ranges begin before the samples.
    let paths = [
        format!("/api/v1/query?query=up&{at}"),
        format!("/api/v1/query?query=up[1h]&{at}"),
        format!("/api/v1/query?query=sum%20by%20(handler)%20(prometheus_http_requests_total)&{at}"),
        format!("/api/v1/query?query=topk(3,prometheus_http_request_duration_seconds_bucket)&{at}"),
        format!(
            "/api/v1/query_range?query=max_over_time(prometheus_tsdb_head_samples_appended_total[1h])&{range}&step=0.5"
        ),
        format!(
            "/api/v1/query_range?query=histogram_quantile(0.9,prometheus_http_request_duration_seconds_bucket)&{range}&step=1"
        ),
        format!("/api/v1/query_range?query=scrape_samples_scraped&{range}&step=1"),
        format!("/api/v1/series?match[]=up&match[]=go_info&{range}"),
        format!("/api/v1/labels?{range}"),
        format!("/api/v1/label/__name__/values?{range}"),
        format!("/api/v1/label/job/values?match[]=up&{range}"),
        format!("/api/v1/query?query=up{{&{at}"),
    ];
    let ask_all = async |to: SocketAddr| {
        let mut answers = Vec::new();
        for path in &paths {
            let (status, body) = get(to, path).await;
            let body: Value =
                serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"));
            answers.push((status, body));
        }
        answers
    };
    let expected = ask_all(address).await;
    prometheus.kill();

    write(dir.path(), "global: {external_labels: {cluster: eu-1}}\n");
    let role = start(dir.path(), &[]).await;
    let found = ask_all(role.http_address()).await;
    for ((path, (status, expected)), (our_status, found)) in paths.iter().zip(expected).zip(found) {
        assert_eq!(our_status, status, "{path}: {found}");
        let (ours, theirs) = (sorted(&found["data"]), sorted(&expected["data"]));
        let shown = |value: &Value| value.to_string().chars().take(2_000).collect::<String>();
        assert!(ours == theirs, "{path}:\n{}\n{}", shown(&ours), shown(&theirs));
        assert_eq!(found["errorType"], expected["errorType"], "{path}");
        assert_eq!(found["warnings"], Value::Null, "{path}");
    }
    stop(role).await;
}
