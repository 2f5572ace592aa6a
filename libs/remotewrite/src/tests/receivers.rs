//! A data folder with a queue, and a receiver that decodes messages and can be told how to answer.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use head::{Database, DatabaseOptions};
use model::{Labels, Timestamp};
use prost::Message;
use proto::prometheus as v1;
use proto::prometheus::write_v2 as v2;
use runtime::{Registry, Shutdown};

use crate::{RemoteWriteConfig, RemoteWriteMetrics, RemoteWriter};

/// How late samples may be.
const LATE_WINDOW: Duration = Duration::from_secs(3_600);

/// Samples by series and time, floats as text.
pub(super) type Samples = BTreeMap<String, BTreeMap<i64, String>>;

/// How a request is answered.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Take,
    Fail(u16, &'static [(&'static str, &'static str)]),
    /// The samples are taken, but the connection ends without an answer.
    TakeAndFail,
    /// As a receiver of 1.0 that does not look at the type.
    TakeNothing,
}

#[derive(Default)]
pub(super) struct Received {
    pub(super) samples: Samples,
    /// Samples that a Prometheus would refuse: at or before the last one of their series.
    pub(super) out_of_order: Vec<String>,
    pub(super) metadata: BTreeMap<String, v1::MetricMetadata>,
    pub(super) described: BTreeMap<String, (i32, String, String)>,
    pub(super) starts: BTreeMap<String, i64>,
    pub(super) exemplars: Vec<(String, String, f64)>,
    pub(super) histograms: Vec<(String, v1::Histogram)>,
    /// Version and `Retry-Attempt` of each request.
    pub(super) requests: Vec<(String, u32)>,
    pub(super) times: Vec<Instant>,
    pub(super) answers: VecDeque<Answer>,
    /// How requests are answered when `answers` is empty.
    pub(super) then: Option<Answer>,
}

impl Received {
    fn add(&mut self, series: &str, time: i64, value: f64) {
        let text = if model::is_stale_nan(value) { "stale".to_owned() } else { value.to_string() };
        let samples = self.samples.entry(series.to_owned()).or_default();
        if samples.last_key_value().is_some_and(|(last, _)| *last >= time) {
            self.out_of_order.push(format!("{series} {time}"));
        }
        samples.insert(time, text);
    }

    fn add_v1(&mut self, request: v1::WriteRequest) {
        let text = |labels: &[v1::Label]| {
            let pairs = labels.iter().map(|label| (label.name.clone(), label.value.clone()));
            Labels::from_pairs(pairs).unwrap().to_string()
        };
        for series in request.timeseries {
            let name = text(&series.labels);
            series.samples.iter().for_each(|sample| self.add(&name, sample.timestamp, sample.value));
            self.histograms.extend(series.histograms.into_iter().map(|histogram| (name.clone(), histogram)));
            let exemplars = series.exemplars.iter();
            self.exemplars.extend(exemplars.map(|own| (name.clone(), text(&own.labels), own.value)));
        }
        let metadata = request.metadata.into_iter().map(|own| (own.metric_family_name.clone(), own));
        self.metadata.extend(metadata);
    }

    fn add_v2(&mut self, request: v2::Request) {
        assert_eq!(request.symbols[0], "");
        let symbol = |place: u32| request.symbols[place as usize].clone();
        let text = |refs: &[u32]| {
            let pairs = refs.chunks(2).map(|pair| (symbol(pair[0]), symbol(pair[1])));
            Labels::from_pairs(pairs).unwrap().to_string()
        };
        for series in &request.timeseries {
            let name = text(&series.labels_refs);
            assert!(!series.samples.is_empty() || !series.histograms.is_empty(), "{name} has no samples");
            for sample in &series.samples {
                self.add(&name, sample.timestamp, sample.value);
                self.starts.insert(name.clone(), sample.start_timestamp);
            }
            if let Some(own) = &series.metadata {
                let described = (own.r#type, symbol(own.help_ref), symbol(own.unit_ref));
                self.described.insert(name.clone(), described);
            }
            let exemplars = series.exemplars.iter();
            self.exemplars.extend(exemplars.map(|own| (name.clone(), text(&own.labels_refs), own.value)));
        }
    }

    pub(super) fn count(&self) -> usize {
        self.samples.values().map(BTreeMap::len).sum()
    }
}

/// A receiver. Clones share what was received.
#[derive(Clone, Default)]
pub(super) struct TestReceiver(pub(super) Arc<Mutex<Received>>);

impl TestReceiver {
    pub(super) async fn start() -> (Self, SocketAddr) {
        let receiver = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new().route("/write", post(receive)).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        (receiver, address)
    }

    pub(super) fn with<T>(&self, look: impl FnOnce(&mut Received) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }
}

async fn receive(State(receiver): State<TestReceiver>, headers: HeaderMap, body: Bytes) -> Response {
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(header("content-encoding").as_deref(), Some("snappy"));
    let version = header("x-prometheus-remote-write-version").unwrap();
    let attempt = header("retry-attempt").map_or(0, |attempt| attempt.parse().unwrap());
    let bytes = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
    let mut received = receiver.0.lock().unwrap();
    received.requests.push((version.clone(), attempt));
    received.times.push(Instant::now());
    let then = received.then.clone();
    let answer = received.answers.pop_front().or(then).unwrap_or(Answer::Take);
    let status = match answer {
        Answer::Fail(status, headers) => {
            let mut response = (StatusCode::from_u16(status).unwrap(), "no").into_response();
            for (name, value) in headers {
                response.headers_mut().insert(*name, value.parse().unwrap());
            }
            return response;
        }
        Answer::TakeNothing => return StatusCode::NO_CONTENT.into_response(),
        Answer::TakeAndFail => StatusCode::INTERNAL_SERVER_ERROR,
        Answer::Take => StatusCode::NO_CONTENT,
    };
    let content_type = header("content-type").unwrap();
    match version.as_str() {
        "0.1.0" => {
            assert_eq!(content_type, "application/x-protobuf");
            received.add_v1(v1::WriteRequest::decode(&*bytes).unwrap());
        }
        _ => {
            assert_eq!(content_type, "application/x-protobuf;proto=io.prometheus.write.v2.Request");
            received.add_v2(v2::Request::decode(&*bytes).unwrap());
        }
    }
    (status, [("x-prometheus-remote-write-samples-written", "1")]).into_response()
}

/// A data folder whose samples are sent.
pub(super) struct World {
    pub(super) database: Arc<Database>,
    pub(super) registry: Registry,
    writer: Arc<RemoteWriter>,
    shutdown: Shutdown,
    task: tokio::task::JoinHandle<()>,
}

pub(super) fn config(to: SocketAddr) -> RemoteWriteConfig {
    let mut config = RemoteWriteConfig::new(format!("http://{to}/write"));
    config.name = Some("test".to_owned());
    config.queue.batch_send_deadline = Duration::from_millis(10);
    config.queue.min_backoff = Duration::from_millis(5);
    config.queue.max_backoff = Duration::from_millis(50);
    config
}

pub(super) fn external() -> Labels {
    Labels::from_pairs([("cluster", "eu-1")]).unwrap()
}

impl World {
    pub(super) fn start(dir: &Path, config: &RemoteWriteConfig) -> Self {
        let options = DatabaseOptions { out_of_order_window: LATE_WINDOW, ..DatabaseOptions::default() };
        let (database, _) = Database::open(dir, options).unwrap();
        let (database, mut registry) = (Arc::new(database), Registry::default());
        let metrics = RemoteWriteMetrics::new(&mut registry);
        let writer = Arc::new(RemoteWriter::new(dir, Arc::clone(&database), metrics));
        let shutdown = Shutdown::new();
        let task = tokio::spawn({
            let (writer, shutdown) = (Arc::clone(&writer), shutdown.clone());
            async move { writer.run(shutdown).await }
        });
        let world = Self { database, registry, writer, shutdown, task };
        world.apply(std::slice::from_ref(config));
        world
    }

    pub(super) fn apply(&self, configs: &[RemoteWriteConfig]) {
        self.writer.apply(RemoteWriter::prepare(configs, &external()).unwrap());
    }

    pub(super) async fn stop(self) {
        self.shutdown.trigger();
        self.task.await.unwrap();
        drop(self.writer);
        self.database.head().sync().unwrap();
        assert_eq!(Arc::strong_count(&self.database), 1, "nothing uses the folder any more");
    }

    /// As a process that is killed: what is under way ends where it is.
    pub(super) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
        drop(self.writer);
        until("nothing uses the folder any more", || Arc::strong_count(&self.database) == 1).await;
    }

    pub(super) fn append(&self, series: &[(&str, f64)], time: i64) {
        let head = self.database.head();
        let mut appender = head.appender();
        for (name, value) in series {
            let handle = head.series(&Labels::from_pairs([("__name__", *name)]).unwrap());
            appender.append_float(&handle, Timestamp::from_millis(time), Timestamp::EPOCH, *value).unwrap();
        }
        assert_eq!(appender.commit().unwrap().added, series.len());
    }

    /// The value of a metric of the queue; NaN before there is one.
    pub(super) fn metric(&self, start: &str) -> f64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let line = text.lines().find(|line| line.starts_with(start));
        line.map_or(f64::NAN, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    }

    /// Waits until a queue has begun: what comes before is not sent.
    pub(super) async fn begun(&self, dir: &Path) {
        let name = crate::position::path_of(&dir.join("remote_write"), "test");
        until("the queue has begun", || {
            std::fs::metadata(&name).is_ok_and(|file| file.len() == 8_192)
                && std::fs::read(&name).is_ok_and(|bytes| bytes.iter().any(|byte| *byte != 0))
        })
        .await;
    }
}

pub(super) fn now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64
}

pub(super) async fn until(what: &str, mut is_done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_done() {
        assert!(Instant::now() < deadline, "waited 60 s until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
