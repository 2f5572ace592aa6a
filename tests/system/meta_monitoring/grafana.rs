//! What Grafana asks of a data source of the type Prometheus with the flavour Thanos.

use serde_json::Value;
use tests::{get, percent_encode, post_form};

use crate::meta_monitoring::world::World;

/// The button "Save & test", the choice of labels, panels, and the list of rules.
pub(crate) fn check_grafana(world: &World) {
    println!("Grafana asks");
    let at = world.querier.http;
    let parsed = |what: &str, answer: Result<(u16, String), String>| -> Value {
        let (status, body) = answer.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(status, 200, "{what}: {body}");
        let body: Value =
            serde_json::from_str(&body).unwrap_or_else(|error| panic!("{what}: {error}: {body}"));
        assert_eq!(body["status"], "success", "{what}: {body}");
        body["data"].clone()
    };
    let post = |path: &str, form: &str| parsed(path, post_form(at, path, form));
    let ask = |path: &str| parsed(path, get(at, path));

    let two = post("/api/v1/query", "query=1%2B1&time=4");
    assert_eq!(two["result"][1], "2", "{two}");
    let build = ask("/api/v1/status/buildinfo");
    assert!(build["version"].is_string(), "{build}");
    // With features, Grafana would take the querier for a Mimir.
    assert!(build["features"].is_null(), "{build}");

    let now = std::time::UNIX_EPOCH.elapsed().expect("a clock").as_secs_f64();
    let range = format!("start={:.3}&end={now:.3}", now - 60.0);
    let up = percent_encode("up");
    let form = format!("query={up}&{range}&step=15&max_source_resolution=auto");
    let points = post("/api/v1/query_range", &form);
    assert!(points["result"][0]["values"].is_array(), "{points}");
    let names = ask(&format!("/api/v1/label/__name__/values?{range}&match%5B%5D={up}&limit=40000"));
    assert_eq!(names, serde_json::json!(["up"]));
    // Names that are not legacy names are written in this way.
    let jobs = ask(&format!("/api/v1/label/U__job/values?{range}&limit=40000"));
    assert!(jobs.as_array().is_some_and(|jobs| jobs.iter().any(|job| job == "querier")), "{jobs}");
    let labels = post("/api/v1/labels", &format!("{range}&match%5B%5D={up}"));
    assert!(labels.as_array().is_some_and(|labels| labels.iter().any(|label| label == "job")), "{labels}");
    let series = post("/api/v1/series", &format!("{range}&match%5B%5D={up}"));
    assert!(series[0]["instance"].is_string(), "{series}");
    assert!(ask("/api/v1/metadata").is_object());
    let rules = ask("/api/v1/rules");
    assert!(rules["groups"][0]["rules"][0]["type"].is_string(), "{rules}");
    assert!(ask("/api/v1/alerts")["alerts"].is_array());
}
