//! The compactor program: what it merges has every sample, and a real Prometheus reads it; mistakes are one line.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tests::{Process, Prometheus, free_port, isthmus};

use crate::answers::{BEGIN, QUESTIONS, ask, first_difference, is_near, role};

/// Blocks of two hours of each replica, which fill a window of eight hours.
const BLOCKS: i64 = 4;
const END: i64 = BEGIN + BLOCKS * 7200;

/// Samples by series and time, as text.
type SamplesBySeries = BTreeMap<(String, i64), String>;

/// A bucket in a folder, and the folders of the compactors that work on it.
struct World {
    dir: tempfile::TempDir,
}

impl World {
    /// Two replicas with their own jitter and with native histograms, and a late block of replica `a` that overlaps one of its
    /// blocks.
    fn new(series: u32, interval: &str) -> Self {
        let world = Self { dir: tempfile::tempdir().expect("a temporary folder") };
        let blocks = format!("--blocks={BLOCKS}");
        let all = [blocks.as_str(), "--start=2025-01-01T00:00:00Z", interval];
        world.generate(series, "a", &[&all[..], &["--jitter=700ms"]].concat());
        world.generate(series, "b", &[&all[..], &["--jitter=900ms"]].concat());
        let late = ["--start=2025-01-01T00:30:00Z", "--duration=40m", "--interval=47s", "--jitter=5s"];
        world.generate(series, "a", &late);
        world
    }

    fn generate(&self, series: u32, replica: &str, flags: &[&str]) {
        let output = Command::new(isthmus())
            .args(["tools", "block", "generate", "--histograms=0.1", "--label=cluster=eu-1"])
            .arg(format!("--output-dir={}", self.bucket().display()))
            .arg(format!("--label=replica={replica}"))
            .args([format!("--series={series}"), format!("--series-per-target={}", series / 24)])
            .args(flags)
            .output()
            .expect("isthmus runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn bucket(&self) -> PathBuf {
        self.dir.path().join("bucket")
    }

    fn bucket_flag(&self) -> String {
        format!(
            "--objstore.config={{type: FILESYSTEM, config: {{directory: '{}'}}}}",
            self.bucket().display()
        )
    }

    /// The command `isthmus compact` with a data folder of this name.
    fn compact(&self, name: &str) -> Command {
        let mut command = Command::new(isthmus());
        command
            .args(["compact", &self.bucket_flag(), "--consistency-delay=0s"])
            .arg(format!("--data-dir={}", self.dir.path().join(name).display()))
            .args([format!("--http-address={}", free_port()), format!("--grpc-address={}", free_port())]);
        command
    }

    /// The blocks that are not marked for deletion, with their `meta.json`, sorted by id.
    fn blocks(&self) -> Vec<(PathBuf, Value)> {
        let entries = fs::read_dir(self.bucket()).expect("the bucket");
        let mut dirs: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
        dirs.retain(|dir| dir.join("meta.json").exists() && !dir.join("deletion-mark.json").exists());
        dirs.sort();
        let meta = |dir: PathBuf| {
            let text = fs::read_to_string(dir.join("meta.json")).expect("a meta.json");
            (dir, serde_json::from_str(&text).expect("JSON"))
        };
        dirs.into_iter().map(meta).collect()
    }

    /// A store of the bucket, and a querier of it that deduplicates the replicas. The first is the address of the querier.
    fn querier(&self, name: &str, of_store: &[&str]) -> (std::net::SocketAddr, Process, Process) {
        let dir = self.dir.path().join(name);
        fs::create_dir_all(&dir).expect("a folder");
        let (store_http, store_grpc, http) = (free_port(), free_port(), free_port());
        let data = format!("--data-dir={}", dir.join("store").display());
        let mut store = vec![self.bucket_flag(), data, format!("--grpc-address={store_grpc}")];
        store.extend(of_store.iter().map(|flag| (*flag).to_owned()));
        let store = role(&dir, "store", &store, store_http);
        let querier = [
            format!("--endpoint={store_grpc}"),
            format!("--grpc-address={}", free_port()),
            "--query.replica-label=replica".to_owned(),
        ];
        let querier = role(&dir, "query", &querier, http);
        (http, store, querier)
    }

    /// The decisions of a compactor to merge blocks.
    fn merges(&self, name: &str) -> usize {
        let history =
            fs::read_to_string(self.dir.path().join(name).join("history.jsonl")).unwrap_or_default();
        let decisions = history.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        decisions.filter(|decision| decision["action"] == "compacted").count()
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The samples of a block, from `isthmus tools block dump`.
fn dumped(block: &Path) -> SamplesBySeries {
    let output = Command::new(isthmus()).args(["tools", "block", "dump"]).arg(block).output();
    let output = output.expect("isthmus runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).expect("UTF-8");
    let sample = |line: &str| {
        let (series, rest) = line.split_once("} ").expect("labels");
        let (value, at) = rest.rsplit_once(' ').expect("a value and a time");
        ((series.to_owned(), at.parse().expect("a time")), value.to_owned())
    };
    printed.lines().map(sample).collect()
}

fn copy_block(from: &Path, to: &Path) {
    fs::create_dir_all(to.join("chunks")).expect("a folder");
    for file in ["meta.json", "index", "tombstones"] {
        if from.join(file).exists() {
            fs::copy(from.join(file), to.join(file)).expect("a copy");
        }
    }
    for segment in fs::read_dir(from.join("chunks")).expect("segments") {
        let segment = segment.expect("an entry");
        fs::copy(segment.path(), to.join("chunks").join(segment.file_name())).expect("a copy");
    }
}

/// An answer without the points whose ranges contain late samples: those have other values than the samples around them, so that a
/// replica with them cannot be told from one without.
fn without_late(mut data: Value) -> Value {
    for series in data["result"].as_array_mut().into_iter().flatten() {
        if let Some(points) = series["values"].as_array_mut() {
            points.retain(|point| point[0].as_i64() > Some(BEGIN + 4 * 3600));
        }
    }
    data
}

#[test]
fn a_real_prometheus_and_our_store_answer_alike_from_a_block_merged_of_replicas() {
    if !Prometheus::is_installed("the comparison of a merged block with Prometheus") {
        return;
    }
    let world = World::new(480, "--interval=30s");
    let (at, store, querier) = world.querier("before", &[]);
    let before: Vec<Value> = QUESTIONS.iter().map(|question| ask(at, question, END, 60).0).collect();
    drop((store, querier));

    let flags = ["--deduplication.replica-label=replica", "--deduplication.func=penalty"];
    let output = world.compact("compactor").args(flags).output().expect("isthmus runs");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let blocks = world.blocks();
    let [(merged, meta)] = &blocks[..] else { panic!("{blocks:?}: {}", text(&output)) };
    assert!(meta["compaction"]["level"].as_u64() >= Some(2), "{meta}");
    assert_eq!(meta["thanos"]["labels"], serde_json::json!({ "cluster": "eu-1" }));

    let dir = world.dir.path().join("prometheus");
    copy_block(merged, &dir.join("data").join(merged.file_name().expect("an id")));
    let prometheus = Prometheus::start(&dir, &[]);
    // Without the replicas, which a store serves for a day after they were marked.
    let (at, _store, _querier) = world.querier("after", &["--ignore-deletion-marks-delay=0s"]);
    for (question, before) in QUESTIONS.iter().zip(&before) {
        for step in [60, 1_337] {
            let (expected, _) = ask(prometheus.address, question, END, step);
            let (found, warnings) = ask(at, question, END, step);
            assert!(warnings.is_null(), "{question}: {warnings}");
            let difference = || first_difference(&found, &expected);
            assert!(is_near(&found, &expected), "{question}, step {step}: {}", difference());
        }
        let (found, _) = ask(at, question, END, 60);
        let (found, before) = (without_late(found), without_late(before.clone()));
        assert!(is_near(&found, &before), "{question}, before: {}", first_difference(&found, &before));
    }
}

#[test]
fn every_sample_of_every_replica_is_in_the_merged_blocks_once_and_answers_stay_the_same() {
    let world = World::new(480, "--interval=60s");
    let mut expected: BTreeMap<String, SamplesBySeries> = BTreeMap::new();
    let mut sources = world.blocks();
    // Of two values for one time, that of the earlier block is kept.
    sources.sort_by_key(|(_, meta)| (meta["minTime"].as_i64(), meta["maxTime"].as_i64()));
    for (dir, meta) in &sources {
        let samples = expected.entry(meta["thanos"]["labels"].to_string()).or_default();
        for (key, value) in dumped(dir) {
            samples.entry(key).or_insert(value);
        }
    }
    assert_eq!(sources.len(), 9);
    let (at, store, querier) = world.querier("before", &[]);
    let before: Vec<Value> = QUESTIONS.iter().map(|question| ask(at, question, END, 60).0).collect();
    drop((store, querier));

    let output = world.compact("compactor").output().expect("isthmus runs");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let merged = world.blocks();
    assert_eq!(merged.len(), 2, "{merged:?}");
    for (dir, meta) in &merged {
        let (found, wanted) = (dumped(dir), &expected[&meta["thanos"]["labels"].to_string()]);
        let different = wanted.iter().find(|(key, value)| found.get(*key) != Some(*value));
        assert_eq!(different, None, "{meta}");
        assert_eq!(
            (found.len(), meta["stats"]["numSamples"].as_u64()),
            (wanted.len(), Some(wanted.len() as u64))
        );
    }

    let (at, _store, _querier) = world.querier("after", &[]);
    for (question, before) in QUESTIONS.iter().zip(&before) {
        let (found, warnings) = ask(at, question, END, 60);
        assert!(warnings.is_null(), "{question}: {warnings}");
        assert!(is_near(&found, before), "{question}: {}", first_difference(&found, before));
    }

    let output = world.compact("compactor").output().expect("isthmus runs");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert_eq!(world.blocks(), merged, "a second run has nothing to do");
}

/// Asks until the answer is as wanted, for at most a minute.
fn until(what: &str, is_done: impl Fn() -> bool) {
    let begin = std::time::Instant::now();
    while !is_done() {
        assert!(begin.elapsed() < std::time::Duration::from_secs(60), "after a minute: not {what}");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

#[test]
fn a_deleted_series_is_masked_by_a_running_store_and_gone_after_the_next_run_of_the_compactor() {
    let world = World::new(240, "--interval=60s");
    let flags = ["--sync-block-duration=200ms", "--ignore-deletion-marks-delay=0s"];
    let (at, _store, _querier) = world.querier("store", &flags);
    let (deleted, other) = ("{job=\"api\"}", "{job!=\"api\", job!=\"\"}");
    let series = |question: &str| {
        let (found, warnings) = ask(at, question, END, 60);
        assert!(warnings.is_null(), "{question}: {warnings}");
        found["result"].clone()
    };
    let before = series(other);
    assert!(!series(deleted).as_array().expect("a list").is_empty());
    let delete = |more: &[&str]| {
        let mut command = Command::new(isthmus());
        command.args(["tools", "bucket", "delete-series", &world.bucket_flag(), "--match", deleted]);
        command.args(more).output().expect("isthmus runs")
    };
    let dry = delete(&["--dry-run"]);
    assert!(dry.status.success() && text(&dry).contains("would be masked"), "{}", text(&dry));
    assert!(delete(&["--details=test"]).status.success());
    until("masked", || series(deleted) == serde_json::json!([]));
    assert_eq!(series(other), before);
    let (_, jobs) = tests::get(at, "/api/v1/label/job/values").expect("an answer");
    assert!(!jobs.contains("\"api\""), "{jobs}");

    let output = world.compact("compactor").output().expect("isthmus runs");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let gone = |dir: &Path| dumped(dir).keys().all(|(series, _)| !series.contains("job=\"api\""));
    assert!(world.blocks().iter().all(|(dir, _)| gone(dir)), "the files still have the samples");
    let verify = Command::new(isthmus()).args(["tools", "bucket", "verify", &world.bucket_flag()]).output();
    let verify = verify.expect("isthmus runs");
    assert!(!text(&verify).contains("deleted_series"), "{}", text(&verify));
    assert_eq!((series(deleted), is_near(&series(other), &before)), (serde_json::json!([]), true));
}

#[test]
fn two_compactors_on_one_bucket_share_the_work() {
    let world = World::new(240, "--interval=60s");
    let start = |name: &str| {
        let mut command = world.compact(name);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("isthmus runs")
    };
    let (first, second) = (start("first"), start("second"));
    for child in [first, second] {
        let output = child.wait_with_output().expect("an end");
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    }
    let blocks = world.blocks();
    let merged = blocks.iter().filter(|(_, meta)| meta["compaction"]["level"].as_u64() >= Some(2)).count();
    // A group that one of them works on is left to it by the other one.
    assert_eq!((blocks.len(), merged), (2, 2), "{blocks:?}");
    assert_eq!(world.merges("first") + world.merges("second"), 2);
}

#[test]
fn mistakes_end_the_start_with_one_line_and_leave_the_bucket_alone() {
    let world = World { dir: tempfile::tempdir().expect("a temporary folder") };
    world.generate(24, "a", &["--blocks=2"]);
    fs::create_dir_all(world.dir.path().join("prometheus/wal")).expect("a folder");
    let before = world.blocks();
    let absent =
        format!("--objstore.config={{type: FILESYSTEM, config: {{directory: '{}'}}}}", "/no/such/bucket");
    let bucket = world.bucket_flag();
    for (flags, data, words) in [
        (vec![absent.as_str()], "d1", "/no/such/bucket"),
        (vec![&bucket, "--retention.resolution-raw=1d"], "d2", "must be at least 40h"),
        (vec![&bucket], "prometheus", "belongs to a Prometheus"),
        (vec![&bucket, "--deduplication.func=average"], "d3", "\"average\" is unknown, expected \"penalty\""),
    ] {
        let output = Command::new(isthmus())
            .arg("compact")
            .args(&flags)
            .arg(format!("--data-dir={}", world.dir.path().join(data).display()))
            .args([format!("--http-address={}", free_port()), format!("--grpc-address={}", free_port())])
            .output()
            .expect("isthmus runs");
        let error = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = error.lines().filter(|line| line.starts_with("error: ")).collect();
        assert!(lines.len() == 1 && lines[0].contains(words), "{flags:?}: {error}");
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {error}");
    }
    assert_eq!(world.blocks(), before);
}
