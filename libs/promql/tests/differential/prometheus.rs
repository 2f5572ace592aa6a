//! A real Prometheus server with given samples.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use promql::QueryParams;
use serde_json::Value as Json;
use tempfile::TempDir;

use crate::data::Value;
use crate::oracle::Answer;

/// Time limit for starting and for answering.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running Prometheus. It is killed when dropped.
pub(crate) struct Prometheus {
    address: SocketAddr,
    process: Child,
    _dir: TempDir,
}

impl Prometheus {
    /// Starts Prometheus on samples in OpenMetrics format. Returns `None` if Prometheus is not installed.
    ///
    /// # Panics
    /// If it does not start.
    pub(crate) fn start(exposition: &str) -> Option<Self> {
        Command::new("prometheus").arg("--version").output().ok()?;
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (input, data, config) =
            (dir.path().join("input.om"), dir.path().join("data"), dir.path().join("prometheus.yml"));
        fs::write(&input, exposition).expect("a file");
        fs::write(&config, "global:\n  scrape_interval: 1h\n").expect("a file");
        let promtool = Command::new("promtool")
            .args(["tsdb", "create-blocks-from", "openmetrics"])
            .args([&input, &data])
            .output()
            .expect("promtool runs");
        assert!(promtool.status.success(), "promtool: {}", String::from_utf8_lossy(&promtool.stderr));
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = free.local_addr().expect("its address");
        drop(free);
        let log = fs::File::create(dir.path().join("log")).expect("a file");
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg(format!("--web.listen-address={address}"))
            // The samples are old.
            .arg("--storage.tsdb.retention.time=100y")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus runs");
        let prometheus = Self { address, process, _dir: dir };
        let deadline = Instant::now() + PATIENCE;
        while !prometheus.request("GET", "/-/ready", "").is_ok_and(|answer| answer.contains(" 200 ")) {
            assert!(Instant::now() < deadline, "prometheus is not ready after {PATIENCE:?}");
            std::thread::park_timeout(Duration::from_millis(50));
        }
        Some(prometheus)
    }

    /// Sends a request and returns the whole response.
    fn request(&self, method: &str, path: &str, form: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        // With HTTP/1.0 the response is not chunked and ends with the connection.
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: {}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {}\r\n\r\n{form}",
            self.address,
            form.len()
        );
        stream.write_all(head.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Evaluates a query.
    ///
    /// # Errors
    /// The error of Prometheus.
    pub(crate) fn ask(&self, text: &str, params: &QueryParams) -> Result<Answer, String> {
        let seconds = |at: model::Timestamp| at.as_secs_f64().to_string();
        let query: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let (path, form) = match params.step {
            None => ("/api/v1/query", format!("query={query}&time={}", seconds(params.start))),
            Some(step) => {
                let times = format!("start={}&end={}", seconds(params.start), seconds(params.end));
                ("/api/v1/query_range", format!("query={query}&{times}&step={}", step.as_secs_f64()))
            }
        };
        let answer = self.request("POST", path, &form).expect("prometheus answers");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
        let body: Json = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"));
        if body["status"] != "success" {
            return Err(body["error"].to_string());
        }
        let (kind, result) = (&body["data"]["resultType"], &body["data"]["result"]);
        let point = |point: &Json| {
            let at = (point[0].as_f64().expect("a time") * 1000.0).round() as i64;
            let value = point[1].as_str().and_then(|text| text.parse().ok()).expect("a number");
            (at, Value::Float(value))
        };
        if kind == "scalar" {
            return Ok(Answer::from([(Default::default(), [point(result)].into())]));
        }
        let mut series = Answer::new();
        for one in result.as_array().expect("a list") {
            let labels = one["metric"].as_object().expect("labels").iter();
            let labels = labels.map(|(n, v)| (n.clone(), v.as_str().expect("a text").to_owned())).collect();
            let points = match one["values"].as_array() {
                Some(values) => values.iter().map(point).collect(),
                None => [point(&one["value"])].into(),
            };
            series.insert(labels, points);
        }
        Ok(series)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Both fail only if the process has already exited.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
