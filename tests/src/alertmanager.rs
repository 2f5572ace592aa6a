//! A real Alertmanager, what it notifies, and a server in its place that fails.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use serde::Deserialize;
use tokio::runtime::Runtime;

use crate::process::{Process, free_port};

/// Starts a real Alertmanager at this address (Debian package `prometheus-alertmanager`); none, after a line, if it is not installed.
/// It notifies `receiver` at once of each alert.
///
/// # Panics
/// If it does not become ready.
pub fn alertmanager(dir: &Path, at: SocketAddr, receiver: Option<&Notifications>) -> Option<Process> {
    let program = Path::new("prometheus-alertmanager");
    if Command::new(program).arg("--version").output().is_err() {
        println!("skipped: alerts are not sent (no prometheus-alertmanager on the PATH)");
        return None;
    }
    let config = dir.join("alertmanager.yml");
    let webhook = receiver.map_or_else(String::new, |receiver| {
        format!(", webhook_configs: [{{url: 'http://{}/', send_resolved: true}}]", receiver.server.address)
    });
    let text = format!(
        "route: {{receiver: all, group_by: ['...'], group_wait: 0s, group_interval: 1s, repeat_interval: 24h}}\n\
         receivers: [{{name: all{webhook}}}]\n"
    );
    std::fs::write(&config, text).expect("a file");
    let args = [
        format!("--config.file={}", config.display()),
        format!("--storage.path={}", dir.join("alertmanager-data").display()),
        format!("--web.listen-address={at}"),
        "--cluster.listen-address=".to_owned(),
    ];
    let mut process = Process::start(program, &args, &dir.join("alertmanager.log"));
    process.wait_ready("alertmanager", at);
    Some(process)
}

/// The labels of an alert.
pub type AlertLabels = BTreeMap<String, String>;

/// An HTTP server with one route. It ends when this is dropped.
struct Server {
    address: SocketAddr,
    _runtime: Runtime,
}

impl Server {
    fn start(routes: Router) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let address = free_port();
        let listener = runtime.block_on(tokio::net::TcpListener::bind(address)).expect("a free port");
        runtime.spawn(async move { axum::serve(listener, routes).await });
        Self { address, _runtime: runtime }
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

type Counts = Arc<Mutex<BTreeMap<AlertLabels, [usize; 2]>>>;

/// Receives the notifications of an Alertmanager, and counts them.
pub struct Notifications {
    counts: Counts,
    server: Server,
}

#[derive(Deserialize)]
struct Notification {
    alerts: Vec<NotifiedAlert>,
}

#[derive(Deserialize)]
struct NotifiedAlert {
    status: String,
    labels: AlertLabels,
}

impl Notifications {
    /// Starts the receiver.
    ///
    /// # Panics
    /// If no port is free.
    pub fn start() -> Self {
        let counts = Counts::default();
        let routes = Router::new().route("/", post(count)).with_state(Arc::clone(&counts));
        Self { counts, server: Server::start(routes) }
    }

    /// For each alert, how often it was notified as firing, and as resolved.
    pub fn counts(&self) -> BTreeMap<AlertLabels, [usize; 2]> {
        lock(&self.counts).clone()
    }
}

async fn count(State(counts): State<Counts>, body: Bytes) -> StatusCode {
    let Ok(notification) = serde_json::from_slice::<Notification>(&body) else {
        return StatusCode::BAD_REQUEST;
    };
    let mut counts = lock(&counts);
    for alert in notification.alerts {
        counts.entry(alert.labels).or_default()[usize::from(alert.status == "resolved")] += 1;
    }
    StatusCode::OK
}

/// What a [`FaultyAlertmanager`] does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It takes the alerts.
    None,
    /// It answers with status 500.
    Fails,
    /// It does not answer.
    Hangs,
}

/// A server with the API of an Alertmanager, which can fail. It remembers the alerts that it has taken.
pub struct FaultyAlertmanager {
    state: FaultyState,
    server: Server,
}

#[derive(Clone)]
struct FaultyState {
    fault: Arc<Mutex<Fault>>,
    taken: Arc<Mutex<Vec<AlertLabels>>>,
}

#[derive(Deserialize)]
struct PostedAlert {
    labels: AlertLabels,
}

impl FaultyAlertmanager {
    /// Starts it. It takes alerts at first.
    ///
    /// # Panics
    /// If no port is free.
    pub fn start() -> Self {
        let state = FaultyState { fault: Arc::new(Mutex::new(Fault::None)), taken: Arc::default() };
        let routes = Router::new().route("/api/v2/alerts", post(take)).with_state(state.clone());
        Self { state, server: Server::start(routes) }
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// Changes what it does from now on.
    pub fn set(&self, fault: Fault) {
        *lock(&self.state.fault) = fault;
    }

    /// The labels of all alerts that it has taken, in the order in which they came.
    pub fn taken(&self) -> Vec<AlertLabels> {
        lock(&self.state.taken).clone()
    }
}

async fn take(State(state): State<FaultyState>, body: Bytes) -> StatusCode {
    let fault = *lock(&state.fault);
    match fault {
        Fault::None => {}
        Fault::Fails => return StatusCode::INTERNAL_SERVER_ERROR,
        Fault::Hangs => return std::future::pending().await,
    }
    let Ok(alerts) = serde_json::from_slice::<Vec<PostedAlert>>(&body) else {
        return StatusCode::BAD_REQUEST;
    };
    lock(&state.taken).extend(alerts.into_iter().map(|alert| alert.labels));
    StatusCode::OK
}
