//! What is sent to Alertmanagers.

use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::{Json, Router};

use super::querier::{Behaviour, FakeQuerier};
use super::*;

pub(super) type Received = Arc<Mutex<Vec<Value>>>;

async fn receive(State(received): State<Received>, Json(alerts): Json<Vec<Value>>) {
    received.lock().unwrap().extend(alerts);
}

/// An Alertmanager that only remembers.
pub(super) async fn receiver() -> (SocketAddr, Received) {
    let received = Received::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = Router::new().route("/api/v2/alerts", axum::routing::post(receive));
    let routes = routes.with_state(Arc::clone(&received));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (address, received)
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_are_sent_with_labels_and_links_until_they_are_resolved() {
    let dir = TempDir::new().unwrap();
    write_rules(
        dir.path(),
        "groups:\n- name: g\n  interval: 300ms\n  rules:\n\
         \x20 - {alert: A, expr: up > 1, labels: {cluster: eu-1, tmp: x}, annotations: {text: 'value {{ $value }} of {{ $externalLabels.replica }}'}}\n\
         \x20 - {alert: Hidden, expr: up > 1, labels: {severity: none}}\n\
         \x20 - {alert: Pending, expr: up > 1, for: 1h}\n",
    );
    let querier = FakeQuerier::start(Behaviour::Answers(vec![("a", 2.0)], vec![])).await;
    let (address, received) = receiver().await;
    let flags = [
        &querier.flag(),
        &format!("--alertmanagers.url=http://{address}"),
        "--label=cluster=\"obs\"",
        "--label=region=\"eu\"",
        "--label=replica=\"a\"",
        "--alert.label-drop=replica",
        "--alert.query-url=https://q.example",
        "--alert.relabel-config=[{regex: tmp, action: labeldrop}, {source_labels: [severity], regex: none, action: drop}]",
        "--resend-delay=100ms",
    ];
    let role = start(dir.path(), &flags).await;
    let http = role.http_address();
    let all = || received.lock().unwrap().clone();
    until("an alert was sent twice", async || all().len() >= 2).await;
    for alert in all() {
        assert_eq!(alert["labels"], json!({"alertname": "A", "cluster": "eu-1", "job": "a", "region": "eu"}));
        assert_eq!(alert["annotations"], json!({"text": "value 2 of a"}));
        assert_eq!(alert["generatorURL"], "https://q.example/graph?g0.expr=up+%3E+1&g0.tab=1");
    }
    let managers = data(http, "/api/v1/alertmanagers").await;
    let url = managers["activeAlertmanagers"][0]["url"].as_str().unwrap().to_owned();
    assert!(url.starts_with(&format!("http://{address}")), "{url}");
    let shown = data(http, "/api/v1/alerts").await;
    let names: Vec<&str> = shown["alerts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|alert| alert["labels"]["alertname"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["A", "Hidden", "Pending"]);

    println!("it is resolved when the expression no longer holds");
    let started = all()[0]["startsAt"].clone();
    querier.set(Behaviour::Answers(vec![], vec![]));
    until("no alert is active", async || {
        data(http, "/api/v1/alerts").await["alerts"].as_array().is_none_or(Vec::is_empty)
    })
    .await;
    // The end of an alert that fires is in the future.
    let now = || json!(rfc3339());
    until("it was sent as resolved", async || {
        let last = all().last().unwrap().clone();
        last["startsAt"] == started && last["endsAt"].as_str() <= now().as_str()
    })
    .await;
    stop(role).await;
}

/// The time now, as Alertmanagers print it.
fn rfc3339() -> String {
    let output = std::process::Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%S.999Z"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
