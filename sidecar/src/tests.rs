//! Tests of the sidecar with a real Prometheus.

mod folder;
mod lists;

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::{Labels, MatchOp, Matcher, TimeRange, Timestamp};
use promapi::{ClientOptions, PrometheusClient};
use runtime::{Probes, Registry, Shutdown};
use storeapi::acceptance::{self, Dataset};
use storeapi::{
    LabelNamesRequest, LabelValuesRequest, LabelsAnswer, MetadataRequest, MetadataStore, PartialResponse,
    SeriesRequest, Store, collect_series,
};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::metrics::SidecarMetrics;
use crate::store::PrometheusStore;
use crate::upstream::{Heartbeat, PrometheusState, StateReporter, first_answer};
use shipper::testing::{Prometheus, free_port, installed, labels};

/// Creates blocks from the data set, through an OpenMetrics file.
fn load(dir: &Path, dataset: &Dataset) {
    let data = dir.join("data");
    fs::create_dir_all(&data).expect("a folder");
    if dataset.series.is_empty() {
        return;
    }
    let escape = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let mut text = String::new();
    for (labels, samples) in &dataset.series {
        let pairs: Vec<String> = labels
            .iter()
            .filter(|l| l.name != "__name__")
            .map(|l| format!("{}=\"{}\"", l.name, escape(l.value)))
            .collect();
        for sample in samples {
            let seconds = sample.timestamp.as_secs_f64();
            let _ =
                writeln!(text, "{}{{{}}} {} {seconds}", labels.metric_name(), pairs.join(","), sample.value);
        }
    }
    text.push_str("# EOF\n");
    fs::write(dir.join("input.om"), text).expect("a file");
    let output = Command::new("promtool")
        .args(["tsdb", "create-blocks-from", "openmetrics"])
        .args([dir.join("input.om"), data])
        .output()
        .expect("promtool runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The store of a sidecar, with its heartbeat.
struct Sidecar {
    store: Arc<PrometheusStore>,
    /// The time from which the sidecar must serve.
    serve_from: watch::Sender<Timestamp>,
    state: watch::Receiver<PrometheusState>,
    probes: Probes,
    shutdown: Shutdown,
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}

fn sidecar(prometheus: SocketAddr, min_time: &str) -> Sidecar {
    sidecar_with(prometheus, min_time, Duration::from_millis(200))
}

fn sidecar_with(prometheus: SocketAddr, min_time: &str, interval: Duration) -> Sidecar {
    let client =
        PrometheusClient::new(&format!("http://{prometheus}"), ClientOptions::default()).expect("a URL");
    let metrics = SidecarMetrics::new(&mut Registry::default());
    let (sender, state) = watch::channel(Err("not asked yet".to_owned()));
    let min_time = min_time.parse().expect("a time");
    let (serve_from, receiver) = watch::channel(Timestamp::MIN);
    let (probes, shutdown) = (Probes::new(), Shutdown::new());
    let timeout = Duration::from_secs(5);
    let reporter = StateReporter::new(client.clone(), timeout, sender, probes.clone(), metrics.clone());
    let store = PrometheusStore::new(client, state.clone(), reporter.clone(), min_time, receiver, metrics);
    let store = Arc::new(store);
    let heartbeat = Heartbeat { interval, tsdb_path: "./data".into(), preflight: None, reporter };
    tokio::spawn(heartbeat.run(shutdown.clone()));
    Sidecar { store, serve_from, state, probes, shutdown }
}

async fn until(what: &str, sidecar: &Sidecar, condition: impl Fn(&PrometheusState) -> bool) {
    let mut state = sidecar.state.clone();
    let waited = tokio::time::timeout(Duration::from_secs(30), state.wait_for(|s| condition(s))).await;
    assert!(waited.is_ok(), "waited for {what}; the state is {:?}", sidecar.state.borrow());
}

fn start(dir: &Path, external: &Labels, address: SocketAddr) -> Prometheus {
    Prometheus::start(dir, external, address, &[])
}

#[tokio::test(flavor = "multi_thread")]
async fn sidecar_passes_the_store_acceptance_suite() {
    if !installed() {
        return;
    }
    acceptance::run(|dataset| async move {
        let dir = TempDir::new().expect("a folder");
        load(dir.path(), &dataset);
        let prometheus = start(dir.path(), &dataset.external, free_port());
        let sidecar = sidecar(prometheus.address, "0000-01-01T00:00:00Z");
        until("Prometheus", &sidecar, Result::is_ok).await;
        let store: Arc<dyn Store> = Arc::clone(&sidecar.store) as Arc<dyn Store>;
        (store, (sidecar, prometheus, dir))
    })
    .await;
}

/// Without stored labels that require sorting in memory, the same answers are streamed.
#[tokio::test(flavor = "multi_thread")]
async fn streamed_answer_is_sorted_and_complete() {
    if !installed() {
        return;
    }
    let mut dataset = acceptance::dataset();
    dataset.series.retain(|(labels, _)| labels.get("cluster").is_none());
    let dir = TempDir::new().expect("a folder");
    load(dir.path(), &dataset);
    let prometheus = start(dir.path(), &dataset.external, free_port());
    let sidecar = sidecar(prometheus.address, "0000-01-01T00:00:00Z");
    until("Prometheus", &sidecar, Result::is_ok).await;
    for without in [&[][..], &["replica"], &["replica", "cluster"]] {
        let everything = Matcher::new(model::MatchOp::Regex, "__name__", ".+").expect("a matcher");
        let mut request = SeriesRequest::new(TimeRange::ALL, vec![everything]);
        request.without_replica_labels = without.iter().map(|n| (*n).to_owned()).collect();
        let stream = sidecar.store.series(request).await.expect("a stream");
        let (series, warnings) = collect_series(stream).await.expect("an answer");
        let kept = dataset.external.without(|name| without.contains(&name));
        let mut expected: Vec<Labels> = dataset.series.iter().map(|(l, _)| l.extended(&kept)).collect();
        expected.sort();
        assert_eq!(series.iter().map(|s| s.labels.clone()).collect::<Vec<_>>(), expected, "{without:?}");
        assert!(warnings.is_empty() && series.iter().all(|s| !s.chunks.is_empty()));
        // The producer is known even where the replica label is removed.
        let producer = series::Producer::of(&dataset.external);
        assert!(series.iter().flat_map(|s| &s.chunks).all(|chunk| chunk.producer == producer));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_and_labels_follow_prometheus() {
    if !installed() {
        return;
    }
    let dir = TempDir::new().expect("a folder");
    fs::create_dir_all(dir.path().join("data")).expect("a folder");
    let address = free_port();
    let sidecar = sidecar(address, "-2w");
    until("a first failure", &sidecar, |s| matches!(s, Err(reason) if reason != "not asked yet")).await;
    assert!(!sidecar.probes.health().is_ready());
    assert!(sidecar.store.info().await.is_err());

    let first = labels(&[("cluster", "eu-1"), ("replica", "a")]);
    let prometheus = start(dir.path(), &first, address);
    until("Prometheus", &sidecar, Result::is_ok).await;
    let info = sidecar.store.info().await.expect("info");
    assert_eq!((info.label_sets, info.component.as_str()), (vec![first], "sidecar"));
    assert!(info.range.min > Timestamp::EPOCH, "--min-time applies: {:?}", info.range);
    let metadata = sidecar.store.metric_metadata(MetadataRequest::default()).await.expect("metadata");
    assert!(metadata.metadata.is_empty(), "nothing is scraped: {metadata:?}");

    drop(prometheus);
    until("the loss", &sidecar, Result::is_err).await;
    assert!(!sidecar.probes.health().is_ready());
    let second = labels(&[("cluster", "eu-1"), ("replica", "b")]);
    let prometheus = start(dir.path(), &second, address);
    until("the new labels", &sidecar, |s| matches!(s, Ok(facts) if facts.external == second)).await;
    drop(prometheus);
}

/// Names and values of a store for matchers, with their warnings, and the label sets of its series.
async fn everything_for(sidecar: &Sidecar, matchers: &[Matcher]) -> (Vec<String>, Vec<Labels>, Vec<String>) {
    let names = LabelNamesRequest::new(TimeRange::ALL, matchers.to_vec());
    let names = sidecar.store.label_names(names).await.expect("names");
    let values = LabelValuesRequest::new("job", TimeRange::ALL, matchers.to_vec());
    let values = sidecar.store.label_values(values).await.expect("values");
    let mut request = SeriesRequest::new(TimeRange::ALL, matchers.to_vec());
    let stream = sidecar.store.series(request.clone()).await.expect("a stream");
    let (series, warnings) = collect_series(stream).await.expect("series");
    request.skip_chunks = true;
    let stream = sidecar.store.series(request).await.expect("a stream");
    let (sets, more) = collect_series(stream).await.expect("label sets");
    let sets: Vec<Labels> = sets.into_iter().map(|series| series.labels).collect();
    assert_eq!(series.into_iter().map(|series| series.labels).collect::<Vec<_>>(), sets);
    assert_eq!(names.values.is_empty(), sets.is_empty());
    (values.values, sets, [names.warnings, values.warnings, warnings, more].concat())
}

/// Prometheus 2.42 rejects requests with such names.
#[tokio::test(flavor = "multi_thread")]
async fn label_names_that_an_old_prometheus_cannot_have_are_empty() {
    if !installed() {
        return;
    }
    let dataset = acceptance::dataset();
    let dir = TempDir::new().expect("a folder");
    load(dir.path(), &dataset);
    let prometheus = start(dir.path(), &dataset.external, free_port());
    let sidecar = sidecar(prometheus.address, "0000-01-01T00:00:00Z");
    until("Prometheus", &sidecar, Result::is_ok).await;
    let up = Matcher::equal("__name__", "up");
    let matcher = |op, value| Matcher::new(op, "http.route", value).expect("a matcher");
    for (matcher, expected) in [
        (matcher(MatchOp::Equal, ""), true),
        (matcher(MatchOp::NotEqual, "/"), true),
        (matcher(MatchOp::Regex, ".*"), true),
        (matcher(MatchOp::NotRegex, ".+"), true),
        (matcher(MatchOp::Equal, "/"), false),
        (matcher(MatchOp::NotEqual, ""), false),
        (matcher(MatchOp::Regex, "/.*"), false),
    ] {
        let (values, sets, warnings) = everything_for(&sidecar, &[up.clone(), matcher.clone()]).await;
        assert_eq!((values.len(), sets.len()), (usize::from(expected), usize::from(expected)), "{matcher}");
        assert!(warnings.is_empty(), "{matcher}: {warnings:?}");
        let external = Matcher::equal("cluster", "eu-1");
        let (_, sets, warnings) = everything_for(&sidecar, &[external, matcher.clone()]).await;
        assert_eq!(sets.len(), if expected { dataset.series.len() } else { 0 }, "{matcher}");
        assert!(warnings.is_empty(), "{matcher}: {warnings:?}");
    }
    let values = LabelValuesRequest::new("http.route", TimeRange::ALL, vec![up]);
    assert_eq!(sidecar.store.label_values(values).await, Ok(LabelsAnswer::default()));
}

#[tokio::test(flavor = "multi_thread")]
async fn series_that_external_labels_make_equal_are_counted_and_warned_about() {
    if !installed() {
        return;
    }
    let mut dataset = acceptance::dataset();
    let sample = dataset.series[0].1.clone();
    for (name, cluster) in [("mixed", "a"), ("mixed", "b"), ("mixed", ""), ("alone", "a")] {
        let set = labels(&[("__name__", name), ("cluster", cluster), ("job", "x")]);
        dataset.series.push((set, sample.clone()));
    }
    let dir = TempDir::new().expect("a folder");
    load(dir.path(), &dataset);
    let prometheus = start(dir.path(), &dataset.external, free_port());
    let sidecar = sidecar(prometheus.address, "0000-01-01T00:00:00Z");
    until("Prometheus", &sidecar, Result::is_ok).await;
    let ask = async |matcher: Matcher| {
        let request = SeriesRequest::new(TimeRange::ALL, vec![matcher]);
        let stream = sidecar.store.series(request).await.expect("a stream");
        collect_series(stream).await.expect("series")
    };
    let (series, warnings) = ask(Matcher::equal("job", "x")).await;
    assert_eq!(series.len(), 2, "{series:?}");
    assert!(warnings.len() == 1 && warnings[0].contains("2 series became equal"), "{warnings:?}");
    let (names, example) = ("override their labels cluster,", "mixed{cluster=\"eu-1\"");
    assert!(warnings[0].contains(names) && warnings[0].contains(example), "{warnings:?}");
    assert!(ask(Matcher::equal("__name__", "alone")).await.1.is_empty());
    // A strict query would fail with any warning, but nothing is missing: each chunk is sent.
    let mut strict = SeriesRequest::new(TimeRange::ALL, vec![Matcher::equal("job", "x")]);
    strict.partial_response = PartialResponse::Abort;
    let stream = sidecar.store.series(strict).await.expect("a stream");
    let (complete, warnings) = collect_series(stream).await.expect("series");
    assert_eq!(complete, series);
    assert!(warnings.is_empty(), "{warnings:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sidecar_is_not_ready_with_the_first_failed_read_or_probe() {
    if !installed() {
        return;
    }
    let external = labels(&[("cluster", "eu-1")]);
    let dir = TempDir::new().expect("a folder");
    fs::create_dir_all(dir.path().join("data")).expect("a folder");
    let address = free_port();
    let hour = Duration::from_secs(3600);
    let up = vec![Matcher::equal("__name__", "up")];

    println!("a failed read");
    let prometheus = start(dir.path(), &external, address);
    let read = sidecar_with(address, "0000-01-01T00:00:00Z", hour);
    let names = sidecar_with(address, "0000-01-01T00:00:00Z", hour);
    let probed = sidecar_with(address, "0000-01-01T00:00:00Z", hour);
    for sidecar in [&read, &names, &probed] {
        until("Prometheus", sidecar, Result::is_ok).await;
    }
    drop(prometheus);
    assert!(read.store.series(SeriesRequest::new(TimeRange::ALL, up.clone())).await.is_err());
    assert!(!read.probes.health().is_ready() && read.store.info().await.is_err());
    assert!(names.store.label_names(LabelNamesRequest::new(TimeRange::ALL, up)).await.is_err());
    assert!(!names.probes.health().is_ready() && names.store.info().await.is_err());

    println!("a failed probe");
    until("the loss", &probed, Result::is_err).await;
    assert!(!probed.probes.health().is_ready());

    println!("it returns");
    let _prometheus = start(dir.path(), &external, address);
    for sidecar in [&read, &probed] {
        until("Prometheus", sidecar, Result::is_ok).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_without_external_labels_is_rejected() {
    if !installed() {
        return;
    }
    let dir = TempDir::new().expect("a folder");
    fs::create_dir_all(dir.path().join("data")).expect("a folder");
    let prometheus = start(dir.path(), &Labels::empty(), free_port());
    let sidecar = sidecar(prometheus.address, "0000-01-01T00:00:00Z");
    let named = |s: &PrometheusState| matches!(s, Err(reason) if reason.contains("global.external_labels"));
    until("the complaint", &sidecar, named).await;
    let begun = Instant::now();
    let refused = sidecar.store.series(SeriesRequest::new(TimeRange::ALL, vec![])).await;
    assert!(refused.is_err() && begun.elapsed() < Duration::from_secs(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn data_before_serve_from_is_not_served() {
    if !installed() {
        return;
    }
    let dataset = acceptance::dataset();
    let dir = TempDir::new().expect("a folder");
    load(dir.path(), &dataset);
    let prometheus = start(dir.path(), &dataset.external, free_port());
    let sidecar = sidecar(prometheus.address, "0000-01-01T00:00:00Z");
    until("Prometheus", &sidecar, Result::is_ok).await;
    let last = dataset.series.iter().flat_map(|(_, samples)| samples).map(|sample| sample.timestamp).max();
    let last = last.expect("samples");
    let ask = async |range| {
        let everything = Matcher::new(model::MatchOp::Regex, "__name__", ".+").expect("a matcher");
        let stream =
            sidecar.store.series(SeriesRequest::new(range, vec![everything])).await.expect("a stream");
        collect_series(stream).await.expect("an answer").0.len()
    };
    assert!(ask(TimeRange::ALL).await > 0);
    sidecar.serve_from.send_replace(last);
    assert_eq!(sidecar.store.info().await.expect("info").range.min, last);
    assert!(ask(TimeRange::ALL).await > 0, "the last sample is still here");
    assert_eq!(ask(TimeRange::new(Timestamp::MIN, last.offset_millis(-1))).await, 0);
    sidecar.serve_from.send_replace(last.offset_millis(1));
    assert_eq!(ask(TimeRange::ALL).await, 0);
}

#[tokio::test]
async fn wait_for_prometheus_ends_at_the_ready_timeout() {
    let (sender, state) = watch::channel(Err("Prometheus compacts its blocks".to_owned()));
    let error = first_answer(state.clone(), Duration::from_millis(20)).await.expect_err("a limit");
    assert!(error.contains("--prometheus.ready_timeout=20ms: Prometheus compacts its blocks"), "{error}");
    let forever = first_answer(state, Duration::ZERO);
    assert!(tokio::time::timeout(Duration::from_millis(50), forever).await.is_err());
    drop(sender);
}
