//! A real Alertmanager, Debian package `prometheus-alertmanager`, and what it tells its receiver.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use serde::Deserialize;

/// A real Alertmanager. It is killed in the end.
pub(super) struct RealAlertmanager {
    process: Child,
    pub(super) port: u16,
    folder: PathBuf,
    scheme: &'static str,
}

impl RealAlertmanager {
    /// Starts one in a folder; none, after a line on standard output, if it is not installed. Its receiver is at `webhook`.
    pub(super) fn start(folder: &Path, webhook: &str) -> Option<Self> {
        let config = format!(
            "route: {{receiver: test, group_by: ['...'], group_wait: 0s, group_interval: 1s, repeat_interval: 24h}}\n\
             receivers: [{{name: test, webhook_configs: [{{url: '{webhook}', send_resolved: true}}]}}]\n"
        );
        std::fs::write(folder.join("alertmanager.yml"), config).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let scheme = if folder.join("web.yml").exists() { "https" } else { "http" };
        let Some(process) = spawn(folder, port) else {
            println!("skipped: prometheus-alertmanager is not installed");
            return None;
        };
        let own = Self { process, port, folder: folder.to_owned(), scheme };
        own.wait_ready();
        Some(own)
    }

    pub(super) fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.port)
    }

    /// Starts it again after [`RealAlertmanager::stop`], at the same address.
    pub(super) fn start_again(&mut self) {
        self.process = spawn(&self.folder, self.port).unwrap();
        self.wait_ready();
    }

    /// Ends it in order, so that it knows later what it has told its receiver.
    pub(super) fn stop(&mut self) {
        let term = Command::new("kill").arg(self.process.id().to_string()).status();
        assert!(term.is_ok_and(|status| status.success()));
        self.process.wait().unwrap();
    }

    fn wait_ready(&self) {
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(began.elapsed() < Duration::from_secs(60), "Alertmanager does not listen after 60 s");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The alerts that are active, by `amtool`: their labels.
    pub(super) fn active(&self) -> Vec<BTreeMap<String, String>> {
        #[derive(Deserialize)]
        struct Shown {
            labels: BTreeMap<String, String>,
        }
        let url = format!("--alertmanager.url={}", self.url());
        let output = Command::new("amtool").args([url.as_str(), "--output=json", "alert", "query"]).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let shown: Vec<Shown> = serde_json::from_slice(&output.stdout).unwrap();
        shown.into_iter().map(|alert| alert.labels).collect()
    }

    /// The names of the alerts that are active, sorted.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.active().into_iter().map(|labels| labels["alertname"].clone()).collect();
        names.sort_unstable();
        names
    }
}

fn spawn(folder: &Path, port: u16) -> Option<Child> {
    let mut command = Command::new("prometheus-alertmanager");
    command
        .arg(format!("--config.file={}", folder.join("alertmanager.yml").display()))
        .arg(format!("--storage.path={}", folder.join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .args(["--cluster.listen-address=", "--log.level=warn"]);
    let web = folder.join("web.yml");
    if web.exists() {
        command.arg(format!("--web.config.file={}", web.display()));
    }
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()
}

impl Drop for RealAlertmanager {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Notifications of alerts: how often each alert was said to fire, and to be resolved.
#[derive(Clone, Debug, Default)]
pub(super) struct Webhook(Arc<Mutex<BTreeMap<String, [usize; 2]>>>);

#[derive(Debug, Deserialize)]
struct Notification {
    alerts: Vec<NotifiedAlert>,
}

#[derive(Debug, Deserialize)]
struct NotifiedAlert {
    status: String,
    labels: BTreeMap<String, String>,
}

impl Webhook {
    /// Starts it, and gives its URL.
    pub(super) async fn start() -> (Self, String) {
        let own = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new().route("/", post(notified)).with_state(own.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        (own, format!("http://{address}/"))
    }

    /// How often an alert was said to fire, and to be resolved.
    pub(super) fn of(&self, name: &str) -> [usize; 2] {
        self.0.lock().unwrap().get(name).copied().unwrap_or_default()
    }
}

async fn notified(State(own): State<Webhook>, body: Bytes) {
    let notification: Notification = serde_json::from_slice(&body).unwrap();
    let mut counts = own.0.lock().unwrap();
    for alert in notification.alerts {
        let counts = counts.entry(alert.labels["alertname"].clone()).or_default();
        counts[usize::from(alert.status == "resolved")] += 1;
    }
}
