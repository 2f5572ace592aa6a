//! `status/...`.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::State;
use axum::response::Response;
use runtime::BuildVersion;
use serde_json::json;

use crate::api::Api;
use crate::api::exchange::{ApiReply, respond};
use crate::api::stores::rfc3339;

/// The version of Prometheus whose query language and API this is.
const PROMETHEUS_VERSION: &str = "3.14.0";

/// `version` is that of the equivalent Prometheus, by which Grafana decides which requests it can send. Has no `features`: with
/// them Grafana would detect another product.
pub(super) async fn buildinfo() -> Response {
    let version = BuildVersion::current();
    let data = json!({
        "version": PROMETHEUS_VERSION,
        "isthmusVersion": version.version,
        "revision": version.revision,
        "branch": version.branch,
        "buildUser": "",
        "buildDate": version.build_date,
        "goVersion": "",
    });
    respond(ApiReply::of(&data, &[]))
}

pub(super) async fn flags(State(api): State<Arc<Api>>) -> Response {
    respond(ApiReply::of(&api.facts.flags(), &[]))
}

pub(super) async fn config(State(api): State<Arc<Api>>) -> Response {
    respond(ApiReply::of(&json!({"yaml": api.facts.configuration()}), &[]))
}

pub(super) async fn runtimeinfo(State(api): State<Arc<Api>>) -> Response {
    let directory = std::env::current_dir().unwrap_or_default();
    let (is_reloaded, configured) = api.facts.last_reload();
    let data = json!({
        "startTime": rfc3339(api.started),
        "CWD": directory.display().to_string(),
        "serverTime": rfc3339(SystemTime::now()),
        "reloadConfigSuccess": is_reloaded,
        "lastConfigTime": rfc3339(configured.unwrap_or(api.started)),
        "corruptionCount": 0,
        "goroutineCount": tokio::runtime::Handle::current().metrics().num_alive_tasks(),
        "GOMAXPROCS": api.driver.engine().workers,
        "GOMEMLIMIT": api.driver.engine().max_bytes,
        "GOGC": "",
        "GODEBUG": "",
        "storageRetention": api.facts.retention(),
    });
    respond(ApiReply::of(&data, &[]))
}
