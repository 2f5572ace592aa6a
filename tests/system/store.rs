//! The store program: its answers, through a querier, are those of a real Prometheus on the same blocks.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use model::{Matcher, TimeRange, Timestamp};
use serde_json::Value;
use tempfile::TempDir;
use tests::{Process, Prometheus, free_port, get, isthmus, percent_encode};
use tsdb::{BlockOptions, ThanosMeta, Ulid, Workload};

use crate::answers::{BEGIN, QUESTIONS, ask, first_difference, is_near, role};

const END: i64 = BEGIN + 3 * 7200;

/// Three blocks of two hours, with histograms, jitter and targets that come and go, in a bucket and in the folder of a Prometheus.
fn write_blocks(bucket: &Path, data: &Path) {
    fs::create_dir_all(data).expect("a folder");
    fs::create_dir_all(bucket).expect("a folder");
    for number in 0..3_u64 {
        let start = Timestamp::from_millis((BEGIN + number as i64 * 7200) * 1000);
        let workload = Workload {
            series: 2_000,
            series_per_target: 20,
            churn: 0.3,
            start,
            jitter: Duration::from_millis(700),
            histograms: 0.1,
            ..Workload::default()
        };
        let labels = [("cluster", "eu-1"), ("replica", "a")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        let thanos = ThanosMeta { labels: labels.into(), source: "test".to_owned(), ..ThanosMeta::default() };
        let id = Ulid::from_parts(1_735_696_800_000 + number * 7_200_000, u128::from(number));
        let options = BlockOptions { thanos: Some(thanos), ..BlockOptions::new(id) };
        workload.write(bucket, options, &mut |_| {}).expect("a block");
        let (from, to) = (bucket.join(id.to_string()), data.join(id.to_string()));
        fs::create_dir_all(to.join("chunks")).expect("a folder");
        for file in ["meta.json", "index", "tombstones", "chunks/000001"] {
            if from.join(file).exists() {
                fs::copy(from.join(file), to.join(file)).expect("a copy");
            }
        }
    }
}

/// A bucket, a Prometheus on the same blocks, and a querier of a store of the bucket.
struct Compared {
    prometheus: Prometheus,
    store: SocketAddr,
    querier: SocketAddr,
    _processes: [Process; 2],
    dir: TempDir,
}

impl Compared {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let bucket = dir.path().join("bucket");
        write_blocks(&bucket, &dir.path().join("prometheus/data"));
        let prometheus = Prometheus::start(&dir.path().join("prometheus"), &[]);
        let (store_http, store_grpc, http) = (free_port(), free_port(), free_port());
        let flags = [
            format!("--objstore.config={{type: FILESYSTEM, config: {{directory: {}}}}}", bucket.display()),
            format!("--data-dir={}", dir.path().join("store").display()),
            format!("--grpc-address={store_grpc}"),
        ];
        let store = role(dir.path(), "store", &flags, store_http);
        let flags = [
            format!("--endpoint={store_grpc}"),
            format!("--grpc-address={}", free_port()),
            "--query.replica-label=replica".to_owned(),
        ];
        let querier = role(dir.path(), "query", &flags, http);
        Self { prometheus, store: store_http, querier: http, _processes: [store, querier], dir }
    }
}

#[test]
fn answers_from_a_bucket_are_those_of_prometheus_on_the_same_blocks() {
    if !Prometheus::is_installed("the comparison of the store with Prometheus") {
        return;
    }
    let compared = Compared::start();
    for question in QUESTIONS {
        // Both steps do not divide the length of a chunk, so that steps fall on every place of it.
        for step in [60, 1_337] {
            let (expected, _) = ask(compared.prometheus.address, question, END, step);
            let (found, warnings) = ask(compared.querier, question, END, step);
            assert!(warnings.is_null(), "{question}: {warnings}");
            assert!(
                is_near(&found, &expected),
                "{question}, step {step}: {}",
                first_difference(&found, &expected)
            );
        }
    }
    let (_, body) = get(compared.store, "/api/v1/blocks").expect("an answer");
    let blocks: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(blocks["data"]["blocks"].as_array().map(Vec::len), Some(3), "{body}");
}

/// The samples of a selector with a range at an instant in milliseconds, sorted by series, without the labels of the bucket.
fn samples_at(address: SocketAddr, selector: &str, at: i64) -> Vec<(String, Value)> {
    let query = percent_encode(selector);
    let path = format!("/api/v1/query?query={query}&time={}.{:03}", at / 1000, at % 1000);
    let (status, body) = get(address, &path).expect("an answer");
    let mut answer: Value = serde_json::from_str(&body).expect("JSON");
    assert!(status == 200 && answer["warnings"].is_null(), "{selector} at {at}: {body}");
    let result = answer["data"]["result"].as_array_mut().expect("a matrix");
    let mut all: Vec<(String, Value)> = result
        .iter_mut()
        .map(|series| {
            let labels = series["metric"].as_object_mut().expect("labels");
            labels.remove("cluster");
            (series["metric"].to_string(), series["values"].take())
        })
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

#[test]
fn samples_around_the_ends_of_chunks_and_blocks_are_those_of_prometheus() {
    if !Prometheus::is_installed("the comparison of the ends of chunks with Prometheus") {
        return;
    }
    let compared = Compared::start();
    let metric = "app_events_012_total";
    let mut instants = BTreeSet::new();
    for entry in fs::read_dir(compared.dir.path().join("bucket")).expect("the bucket") {
        let entry = entry.expect("an entry");
        // The store writes beside the blocks which of them it reads.
        if entry.file_name().to_str().and_then(tsdb::parse_block_id).is_none() {
            continue;
        }
        let block = tsdb::Block::open(&entry.path()).expect("a block");
        let selected = block.select(&[Matcher::equal("__name__", metric)], TimeRange::ALL).expect("series");
        let chunks = selected.take(20).flat_map(|series| series.expect("a series").chunks);
        for end in chunks.flat_map(|chunk| [chunk.range.min, chunk.range.max]) {
            instants.extend((-1..=1).map(|offset| end.as_millis() + offset));
        }
    }
    // Ranges of Prometheus 2 include the sample at their begin, if there is one in that millisecond.
    let (_, build) = get(compared.prometheus.address, "/api/v1/status/buildinfo").expect("an answer");
    let includes_begin = build.contains("\"version\":\"2.");
    assert!(instants.len() > 30, "{} instants", instants.len());
    for at in instants {
        // The range begins, or ends, at the end of a chunk.
        for (range, shorter, shift) in
            [("20s", "19s999ms", 0), ("20s", "19s999ms", 20_000), ("31m", "30m59s999ms", 0)]
        {
            let selector = |range: &str| format!("{metric}[{range}]");
            let of_prometheus = selector(if includes_begin { shorter } else { range });
            let expected = samples_at(compared.prometheus.address, &of_prometheus, at + shift);
            let found = samples_at(compared.querier, &selector(range), at + shift);
            assert_eq!(found, expected, "{range} at {}", at + shift);
        }
    }
}

#[test]
fn a_bucket_or_a_data_folder_that_cannot_be_used_ends_the_start_with_one_line() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    fs::create_dir_all(dir.path().join("prometheus/wal")).expect("a folder");
    fs::create_dir_all(dir.path().join("bucket")).expect("a folder");
    fs::write(dir.path().join("file"), "").expect("a file");
    let bucket = |name: &str| {
        format!(
            "--objstore.config={{type: FILESYSTEM, config: {{directory: {}}}}}",
            dir.path().join(name).display()
        )
    };
    let data = |name: &str| format!("--data-dir={}", dir.path().join(name).display());
    for (flags, words, code) in [
        (vec![bucket("absent"), data("d1")], "absent", 2),
        (vec![bucket("bucket"), data("prometheus")], "belongs to a Prometheus", 2),
        (vec![data("d2")], "no bucket is configured", 2),
        (
            vec![bucket("bucket"), data("d3"), "--index-cache.config={type: DISK}".to_owned()],
            "\"DISK\" is unknown",
            2,
        ),
        (
            vec![bucket("bucket"), data("d4"), "--selector.relabel-config=- {action: replace}".to_owned()],
            "\"replace\" is unknown",
            2,
        ),
        (vec![bucket("bucket"), data("d4"), "--selector.relabel-config={a: [".to_owned()], "line 1", 2),
        (vec![bucket("bucket"), data("file")], "is not a folder", 2),
        (vec!["--objstore.config={type: S4}".to_owned(), data("d5")], "\"S4\" is unknown", 2),
    ] {
        let output = std::process::Command::new(isthmus())
            .arg("store")
            .args(&flags)
            .args([format!("--http-address={}", free_port()), format!("--grpc-address={}", free_port())])
            .output()
            .expect("isthmus runs");
        let text = String::from_utf8_lossy(&output.stderr);
        let errors: Vec<&str> = text.lines().filter(|line| line.starts_with("error: ")).collect();
        assert!(errors.len() == 1 && errors[0].contains(words), "{flags:?}: {text}");
        assert_eq!(output.status.code(), Some(code), "{flags:?}: {text}");
    }
}
