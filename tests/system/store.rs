//! The store program: its answers, through a querier, are those of a real Prometheus on the same blocks.

use std::fs;
use std::path::Path;
use std::time::Duration;

use model::Timestamp;
use serde_json::Value;
use tests::{Prometheus, free_port, get, isthmus};
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

#[test]
fn answers_from_a_bucket_are_those_of_prometheus_on_the_same_blocks() {
    if !Prometheus::is_installed("the comparison of the store with Prometheus") {
        return;
    }
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
    for question in QUESTIONS {
        // Both steps do not divide the length of a chunk, so that steps fall on every place of it.
        for step in [60, 1_337] {
            let (expected, _) = ask(prometheus.address, question, END, step);
            let (found, warnings) = ask(http, question, END, step);
            assert!(warnings.is_null(), "{question}: {warnings}");
            assert!(
                is_near(&found, &expected),
                "{question}, step {step}: {}",
                first_difference(&found, &expected)
            );
        }
    }
    let (_, body) = get(store_http, "/api/v1/blocks").expect("an answer");
    let blocks: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(blocks["data"]["blocks"].as_array().map(Vec::len), Some(3), "{body}");
    drop((store, querier));
}

#[test]
fn a_bucket_or_a_data_folder_that_cannot_be_used_ends_the_start_with_one_line() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    fs::create_dir_all(dir.path().join("prometheus/wal")).expect("a folder");
    fs::create_dir_all(dir.path().join("bucket")).expect("a folder");
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
