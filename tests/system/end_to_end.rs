//! Compares query results over two replicas, two gateways and a querier with those of one Prometheus that has all samples.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::Value;
use tests::{Prometheus, get, percent_encode, post_form};

use crate::world::{BEGIN, CLUSTERS, END, World};

/// Tolerated difference, because the order of additions may differ: relative to the numbers, or absolute if they cancel out.
const TOLERANCE: f64 = 1e-12;

/// Each query runs as an instant query and as a range query.
///
/// Windows are left-open in Prometheus 3 and closed in Prometheus 2, so no evaluation time falls on a sample. Extrapolation
/// differs if a window starts before its series, so no window does.
const QUERIES: &[&str] = &[
    "http_requests_total",
    "http_requests_total{cluster=\"eu-1\",code=~\"2..\"}",
    "http_requests_total{code!~\"2..\",path!=\"/\"}",
    "temperature_celsius offset 10m",
    "temperature_celsius - temperature_celsius offset 1h",
    "rate(http_requests_total[5m])",
    "increase(http_requests_total[17m])",
    "irate(http_requests_total[2m])",
    "delta(temperature_celsius[10m])",
    "idelta(temperature_celsius[2m])",
    "deriv(temperature_celsius[20m])",
    "predict_linear(temperature_celsius[20m], 3600)",
    "changes(temperature_celsius[10m])",
    "resets(http_requests_total[1h])",
    "sum(rate(http_requests_total[5m]))",
    "sum by (cluster) (rate(http_requests_total[5m]))",
    "sum without (code) (rate(http_requests_total[5m]))",
    "avg by (room) (temperature_celsius)",
    "min by (cluster) (temperature_celsius)",
    "max without (cluster, environment) (temperature_celsius)",
    "count by (room) (temperature_celsius)",
    "stddev by (cluster) (temperature_celsius)",
    "stdvar(temperature_celsius)",
    "quantile by (cluster) (0.75, temperature_celsius)",
    "topk by (cluster) (1, temperature_celsius)",
    "bottomk(2, temperature_celsius)",
    "count_values(\"celsius\", round(temperature_celsius, 10))",
    "group by (path) (http_requests_total)",
    "avg_over_time(temperature_celsius[10m])",
    "sum_over_time(temperature_celsius[10m])",
    "min_over_time(temperature_celsius[10m])",
    "max_over_time(temperature_celsius[10m])",
    "count_over_time(temperature_celsius[10m])",
    "last_over_time(temperature_celsius[10m])",
    "present_over_time(temperature_celsius[10m])",
    "stddev_over_time(temperature_celsius[10m])",
    "quantile_over_time(0.9, temperature_celsius[10m])",
    "histogram_quantile(0.9, sum by (le, cluster) (rate(latency_seconds_bucket[5m])))",
    "histogram_quantile(0.5, rate(latency_seconds_bucket[10m]))",
    "rate(latency_seconds_sum[5m]) / rate(latency_seconds_count[5m])",
    "sum by (path) (http_requests_total{code=\"500\"}) / sum by (path) (http_requests_total)",
    "http_requests_total / ignoring (code) group_left sum without (code) (http_requests_total)",
    "temperature_celsius > 10",
    "temperature_celsius > bool 10",
    "temperature_celsius and on (cluster) http_requests_total{code=\"500\"}",
    "temperature_celsius{room=\"attic\"} or temperature_celsius{room=\"cellar\"}",
    "temperature_celsius unless temperature_celsius > 0",
    "-temperature_celsius ^ 2 % 7",
    "abs(temperature_celsius) + ceil(temperature_celsius) * 2",
    "clamp(temperature_celsius, -5, 20)",
    "label_replace(temperature_celsius, \"floor\", \"$1\", \"room\", \"(.).*\")",
    "label_join(temperature_celsius, \"where\", \"/\", \"cluster\", \"room\")",
    "timestamp(temperature_celsius)",
    "hour(timestamp(temperature_celsius))",
    "vector(time())",
    "scalar(sum(temperature_celsius))",
    "absent(no_such_metric{a=\"b\"})",
    "absent_over_time(temperature_celsius{room=\"cellar\"}[2m])",
    "max_over_time(sum by (cluster) (rate(http_requests_total[5m]))[30m:1m])",
    "avg_over_time(temperature_celsius[10m:] @ end())",
    "temperature_celsius @ 1790003607",
    "sum by (cluster) (rate(http_requests_total[5m] @ start()))",
    "1 + 2 * 3",
    "sgn(temperature_celsius) + sqrt(abs(temperature_celsius)) + ln(abs(temperature_celsius))",
];

/// A result in comparable form: series by their labels, each with its points in order.
type PointsBySeries = BTreeMap<String, Vec<(f64, f64)>>;

fn points(body: &str) -> PointsBySeries {
    let answer: Value = serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {body}"));
    assert_eq!(answer["status"], "success", "{body}");
    assert!(answer["warnings"].is_null(), "{body}");
    let point = |p: &Value| -> (f64, f64) {
        let value = p[1].as_str().expect("a value").parse().expect("a number");
        (p[0].as_f64().expect("a time"), value)
    };
    let result = &answer["data"]["result"];
    if answer["data"]["resultType"] == "scalar" {
        return BTreeMap::from([(String::new(), vec![point(result)])]);
    }
    let series = result.as_array().expect("a list").iter().map(|series| {
        let points = match series["values"].as_array() {
            Some(values) => values.iter().map(point).collect(),
            None => vec![point(&series["value"])],
        };
        (series["metric"].to_string(), points)
    });
    series.collect()
}

fn same(a: f64, b: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= TOLERANCE * a.abs().max(b.abs()).max(1.0)
}

fn assert_same(query: &str, ours: &PointsBySeries, reference: &PointsBySeries) {
    let names = |points: &PointsBySeries| points.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(ours), names(reference), "series of {query}");
    for (series, expected) in reference {
        let got = &ours[series];
        assert_eq!(got.len(), expected.len(), "points of {series} in {query}");
        for (got, expected) in got.iter().zip(expected) {
            assert!(
                got.0 == expected.0 && same(got.1, expected.1),
                "{query}: {series}: got {got:?}, Prometheus has {expected:?}"
            );
        }
    }
}

fn instant(query: &str) -> String {
    format!("/api/v1/query?query={}&time={}", percent_encode(query), BEGIN + 2 * 3600 + 7)
}

fn range(query: &str) -> String {
    let (start, end) = (BEGIN + 3600 + 607, END - 67);
    format!("/api/v1/query_range?query={}&start={start}&end={end}&step=45", percent_encode(query))
}

fn ask(at: SocketAddr, path: &str) -> String {
    match get(at, path) {
        Ok((200, body)) => body,
        other => panic!("{path}: {other:?}"),
    }
}

/// One test runs all queries, because starting the system takes long and a query does not.
#[test]
fn results_over_the_mesh_equal_those_of_one_prometheus_with_all_samples() {
    if !Prometheus::is_installed("the end-to-end test") {
        return;
    }
    let world = World::start();
    for query in QUERIES {
        for path in [instant(query), range(query)] {
            let over_mesh = ask(world.over_mesh, &path);
            assert_eq!(over_mesh, ask(world.direct, &path), "through the mesh and directly: {query}");
            assert_same(query, &points(&over_mesh), &points(&ask(world.reference.address, &path)));
        }
    }
    metadata_is_equal(&world);
    all_replicas_are_returned_without_deduplication(&world);
    a_restarted_prometheus_is_used_again(world);
}

fn metadata_is_equal(world: &World) {
    let window = format!("start={BEGIN}&end={END}");
    let data = |at, path: &str| -> Value {
        let body: Value = serde_json::from_str(&ask(at, path)).expect("JSON");
        body["data"].clone()
    };
    let matched = percent_encode("temperature_celsius{room!=\"attic\"}");
    for path in [
        format!("/api/v1/label/room/values?{window}"),
        format!("/api/v1/label/cluster/values?{window}"),
        format!("/api/v1/label/__name__/values?{window}"),
        format!("/api/v1/label/cluster/values?{window}&match[]={matched}"),
    ] {
        let ours = data(world.over_mesh, &path);
        assert_eq!(ours, data(world.direct, &path), "through the mesh and directly: {path}");
        assert_eq!(ours, data(world.reference.address, &path), "{path}");
    }
    let path = format!("/api/v1/series?{window}&match[]={matched}");
    assert_eq!(data(world.over_mesh, &path), data(world.reference.address, &path), "{path}");
    let path = format!("/api/v1/labels?{window}");
    let (ours, theirs) = (data(world.over_mesh, &path), data(world.reference.address, &path));
    let without_replica: Vec<&Value> =
        ours.as_array().expect("a list").iter().filter(|n| *n != "replica").collect();
    assert_eq!(without_replica, theirs.as_array().expect("a list").iter().collect::<Vec<_>>());
    let (status, body) =
        post_form(world.over_mesh, "/api/v1/query", "query=count(temperature_celsius").expect("HTTP");
    assert_eq!(status, 400, "{body}");
    assert!(body.contains("parse error"), "{body}");
}

fn all_replicas_are_returned_without_deduplication(world: &World) {
    let path = format!("{}&dedup=false", instant("count by (cluster) (temperature_celsius)"));
    let counts = points(&ask(world.over_mesh, &path));
    assert_eq!(counts.len(), CLUSTERS.len());
    assert!(counts.values().all(|points| points[0].1 == 6.0), "{counts:?}");
}

fn a_restarted_prometheus_is_used_again(mut world: World) {
    let (prometheus, sidecar) = &mut world.scrapers[0];
    prometheus.kill();
    let path = instant("count by (cluster) (temperature_celsius)");
    tests::wait_for("a warning about the lost replica", std::time::Duration::from_secs(30), || {
        let body: Value = serde_json::from_str(&ask(world.over_mesh, &path)).map_err(|e| e.to_string())?;
        let clusters = body["data"]["result"].as_array().map_or(0, Vec::len);
        assert_eq!(clusters, CLUSTERS.len(), "expected the samples of the other replica: {body}");
        let warned = body["warnings"].as_array().is_some_and(|w| !w.is_empty());
        if warned { Ok(()) } else { Err(body.to_string()) }
    });
    assert!(sidecar.process.is_running(), "{}", sidecar.process.output());
}
