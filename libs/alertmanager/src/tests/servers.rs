//! A notifier at work, and an Alertmanager that can be told how to answer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use httpclient::HttpEndpointsConfig;
use model::{Labels, Timestamp};
use runtime::{Registry, Shutdown};
use serde::Deserialize;
use tokio::task::JoinHandle;

use crate::{Alert, AlertmanagerGroup, Notifier, NotifierConfig};

/// How a request is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Answer {
    #[default]
    Take,
    Fail(u16),
    Hang,
    Html,
    /// Refuses messages with an alert of this name, with status 422, and takes nothing of them.
    Refuse(&'static str),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Posted {
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) starts_at: String,
    pub(super) ends_at: String,
    #[serde(rename = "generatorURL")]
    pub(super) generator_url: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct Received {
    pub(super) answer: Answer,
    pub(super) requests: usize,
    /// Sizes of requests that were taken.
    pub(super) batches: Vec<usize>,
    /// What was taken.
    pub(super) alerts: Vec<Posted>,
    pub(super) authorization: Option<String>,
}

impl Received {
    pub(super) fn names(&self) -> Vec<&str> {
        self.alerts.iter().map(|alert| alert.labels["alertname"].as_str()).collect()
    }
}

/// An Alertmanager. Clones share what was received.
#[derive(Clone, Debug, Default)]
pub(super) struct TestAlertmanager(Arc<Mutex<Received>>);

impl TestAlertmanager {
    /// Starts it; its URL has a prefix.
    pub(super) async fn start() -> (Self, String) {
        let (own, address) = Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0))).await;
        (own, format!("http://{address}/prefix"))
    }

    /// Starts it at an address, and gives the one that it has.
    pub(super) async fn start_at(address: SocketAddr) -> (Self, SocketAddr) {
        let own = Self::default();
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new().route("/prefix/api/v2/alerts", post(receive)).with_state(own.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        (own, address)
    }

    pub(super) fn with<T>(&self, look: impl FnOnce(&mut Received) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    pub(super) fn answers(&self, answer: Answer) {
        self.with(|received| received.answer = answer);
    }

    pub(super) fn count(&self) -> usize {
        self.with(|received| received.alerts.len())
    }

    pub(super) fn requests(&self) -> usize {
        self.with(|received| received.requests)
    }
}

async fn receive(State(own): State<TestAlertmanager>, headers: HeaderMap, body: Bytes) -> Response {
    assert_eq!(headers[header::CONTENT_TYPE], "application/json");
    let answer = own.with(|received| {
        received.requests += 1;
        let authorization = headers.get(header::AUTHORIZATION);
        received.authorization = authorization.map(|value| value.to_str().unwrap().to_owned());
        received.answer
    });
    let alerts: Vec<Posted> = serde_json::from_slice(&body).unwrap();
    match answer {
        Answer::Hang => std::future::pending().await,
        Answer::Fail(status) => return (StatusCode::from_u16(status).unwrap(), "no").into_response(),
        Answer::Html => {
            return ([(header::CONTENT_TYPE, "text/html")], "<html>Log in</html>").into_response();
        }
        Answer::Refuse(name) if alerts.iter().any(|alert| alert.labels["alertname"] == name) => {
            return (StatusCode::UNPROCESSABLE_ENTITY, "bad alert").into_response();
        }
        Answer::Refuse(_) | Answer::Take => {}
    }
    own.with(|received| {
        received.batches.push(alerts.len());
        received.alerts.extend(alerts);
    });
    StatusCode::OK.into_response()
}

pub(super) fn group(urls: &[&str]) -> AlertmanagerGroup {
    let members = urls.iter().map(|url| HttpEndpointsConfig::from_url(url, 9093).unwrap());
    AlertmanagerGroup { members: members.collect(), timeout: Duration::from_secs(10) }
}

pub(super) fn config(groups: Vec<AlertmanagerGroup>) -> NotifierConfig {
    NotifierConfig { groups, ..NotifierConfig::default() }
}

/// Milliseconds since the epoch.
pub(super) fn now() -> Timestamp {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp::from_millis(i64::try_from(now.as_millis()).unwrap())
}

/// An alert that fires for an hour.
pub(super) fn firing(name: &str) -> Alert {
    Alert {
        labels: Labels::from_pairs([("alertname", name), ("cluster", "eu-1")]).unwrap(),
        annotations: Labels::from_pairs([("summary", "text")]).unwrap(),
        starts_at: now(),
        ends_at: now() + Duration::from_secs(3_600),
        generator_url: "http://querier/graph".to_owned(),
    }
}

pub(super) fn resolved(name: &str) -> Alert {
    Alert { ends_at: now(), starts_at: now() - Duration::from_secs(60), ..firing(name) }
}

/// A notifier at work.
pub(super) struct World {
    pub(super) notifier: Arc<Notifier>,
    registry: Registry,
    shutdown: Shutdown,
    running: JoinHandle<()>,
}

impl World {
    pub(super) fn start(config: NotifierConfig, data_dir: Option<&Path>) -> Self {
        let mut registry = Registry::default();
        let notifier = Arc::new(Notifier::open(config, data_dir, &mut registry).unwrap());
        let shutdown = Shutdown::new();
        let running = tokio::spawn({
            let (notifier, shutdown) = (Arc::clone(&notifier), shutdown.clone());
            async move { notifier.run(shutdown).await }
        });
        Self { notifier, registry, shutdown, running }
    }

    pub(super) fn send(&self, alerts: Vec<Alert>) {
        self.notifier.send(alerts);
    }

    /// The value of a metric whose line begins with `begin`.
    pub(super) fn metric(&self, begin: &str) -> f64 {
        self.metric_if_any(begin).unwrap_or_else(|| panic!("no metric {begin}"))
    }

    fn metric_if_any(&self, begin: &str) -> Option<f64> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let line = text.lines().find(|line| line.starts_with(begin))?;
        Some(line.rsplit_once(' ').unwrap().1.parse().unwrap())
    }

    /// Requests that failed, of the only Alertmanager.
    pub(super) fn failures(&self) -> f64 {
        self.metric_if_any("thanos_alert_sender_errors_total{").unwrap_or(0.0)
    }

    pub(super) async fn is_sent(&self) {
        until("the queue is empty", || self.notifier.waiting() == 0).await;
    }

    /// Ends it in order.
    pub(super) async fn stop(self) {
        self.shutdown.trigger();
        self.running.await.unwrap();
    }

    /// Ends it as a kill does: what was not written is lost.
    pub(super) async fn kill(self) {
        self.running.abort();
        let _ = self.running.await;
    }
}

/// Waits until a condition holds.
pub(super) async fn until(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(60), "not within 60 s: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
