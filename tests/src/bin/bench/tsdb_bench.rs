//! Blocks without other components. A block of 1,000,000 series over two hours at 30 s (240 million samples) is generated,
//! written, opened, searched and read. XOR chunks are encoded and decoded.
//!
//! Each stage runs in its own process, so that its peak memory can be measured. All stages run on one thread and report its CPU
//! time. The page cache is warm, so a stage never waits for the disk.
//!
//! Thresholds, which the ratios of the rows refer to: 3 million samples per second written within 1 GiB; opened in 100 ms within
//! 64 MiB; `{job="api",pod=~"a.*"}` evaluated in 20 ms (the postings of all matching series, 1 in 24); XOR decoded at 120 and
//! encoded at 60 million samples per second. A second block has a different pod for every series and few samples, which is the
//! worst case for an index.
//!
//! `ISTHMUS_BENCH_SERIES` sets the number of series.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use model::{MatchOp, Matcher, Sample, TimeRange};
use serde_json::{Value, json};
use tests::Usage;
use tsdb::{
    Block, BlockOptions, Chunk, Index, IndexMemory, LocalFile, SAMPLES_PER_CHUNK, Ulid, Workload, XorEncoder,
};

use crate::report::{BenchReport, BenchRow};

/// The first argument with which the benchmark program runs one stage and prints the measurement.
pub(crate) const ROLE: &str = "--tsdb-stage";

/// Default number of series.
const SERIES: u64 = 1_000_000;
/// Number of rounds of short stages.
const ROUNDS: usize = 5;
/// Number of chunks that are encoded and decoded. All are full.
const CHUNKS: usize = 20_000;
const MIB: f64 = 1_048_576.0;

/// The selector of the threshold.
const REACH: &str = "job=api,pod=~a.*";

/// The name of a selector in the report, and its matchers.
type NamedSelector = (&'static str, &'static [(&'static str, MatchOp, &'static str)]);

const SELECTORS: &[NamedSelector] = &[
    ("job=api", &[("job", MatchOp::Equal, "api")]),
    (REACH, &[("job", MatchOp::Equal, "api"), ("pod", MatchOp::Regex, "a.*")]),
    ("job=api,pod=~api-7.*", &[("job", MatchOp::Equal, "api"), ("pod", MatchOp::Regex, "api-7.*")]),
    ("job=api,pod=~.*8", &[("job", MatchOp::Equal, "api"), ("pod", MatchOp::Regex, ".*8")]),
    ("job=~api|auth|web", &[("job", MatchOp::Regex, "api|auth|web")]),
    ("job!=api", &[("job", MatchOp::NotEqual, "api")]),
    ("pod=~.+", &[("pod", MatchOp::Regex, ".+")]),
    ("name and pod", &[("__name__", MatchOp::Equal, "app_events_050_total"), ("pod", MatchOp::Regex, "a.*")]),
];

pub(crate) fn run(report: &mut BenchReport) {
    let series = std::env::var("ISTHMUS_BENCH_SERIES").ok().and_then(|n| n.parse().ok()).unwrap_or(SERIES);
    let dir = tempfile::tempdir().expect("a temporary folder");
    let stage = |name: &str| stage(name, dir.path(), series);

    let written = stage("write");
    report.add(&written.row("tsdb/write", "M samples/s").versus("reach 3", 3.0));
    report.add(&memory("tsdb/write/memory", &written, "of 1 GiB", 1024.0));
    report.add(&BenchRow::new("tsdb/write/size", "bytes/sample", written.list("bytes_per_sample")));
    let opened = stage("open");
    report.add(&opened.row("tsdb/open", "ms").versus("of 100 ms", 100.0));
    report.add(&memory("tsdb/open/memory", &opened, "of 64 MiB", 64.0));
    let searched = stage("search");
    for (name, _) in SELECTORS {
        let found = searched.value["found"][name].as_u64().unwrap_or(0);
        let row = BenchRow::new(format!("tsdb/search/{name}/{found}"), "ms", searched.list(name));
        report.add(&if *name == REACH { row.versus("of 20 ms", 20.0) } else { row }.peak(searched.peak()));
    }
    report.add(&stage("series").row("tsdb/read/labels and chunk places", "M series/s"));
    report.add(&stage("read").row("tsdb/read/samples", "M samples/s"));
    report.add(&stage("verify").row("tsdb/verify", "M samples/s"));
    wide(report, dir.path(), series);
    for (name, jitter) in [("regular", 0), ("jittered", 1)] {
        let coded = self::stage(&format!("xor {name}"), dir.path(), jitter);
        let row = BenchRow::new(format!("tsdb/xor/{name}/encode"), "M samples/s", coded.list("encode"));
        report.add(&row.versus("reach 60", 60.0).peak(coded.peak()));
        let row = BenchRow::new(format!("tsdb/xor/{name}/decode"), "M samples/s", coded.list("decode"));
        report.add(&row.versus("reach 120", 120.0).peak(coded.peak()));
    }
}

/// A block in which every series has a different pod and few samples: the worst case for an index.
fn wide(report: &mut BenchReport, dir: &Path, series: u64) {
    let dir = dir.join("wide");
    std::fs::create_dir(&dir).expect("a folder");
    let stage = |name: &str| stage(name, &dir, series);
    let written = stage("write wide");
    report.add(&written.row("tsdb/a pod a series/write", "M series/s"));
    report.add(&memory("tsdb/a pod a series/write/memory", &written, "of 1 GiB", 1024.0));
    let opened = stage("open");
    report.add(&opened.row("tsdb/a pod a series/open", "ms").versus("of 100 ms", 100.0));
    report.add(&memory("tsdb/a pod a series/open/memory", &opened, "of 64 MiB", 64.0));
    let searched = stage("search");
    for (name, _) in SELECTORS {
        let found = searched.value["found"][name].as_u64().unwrap_or(0);
        let row =
            BenchRow::new(format!("tsdb/a pod a series/search/{name}/{found}"), "ms", searched.list(name));
        report.add(&if *name == REACH { row.versus("of 20 ms", 20.0) } else { row }.peak(searched.peak()));
    }
    report.add(&stage("series").row("tsdb/a pod a series/read/labels", "M series/s"));
}

/// The measurement of a stage.
struct StageMeasurement {
    value: Value,
}

impl StageMeasurement {
    fn list(&self, key: &str) -> Vec<f64> {
        self.value[key].as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
    }

    fn peak(&self) -> u64 {
        self.value["peak"].as_u64().unwrap_or(0)
    }

    fn row(&self, name: &str, unit: &'static str) -> BenchRow {
        BenchRow::new(name, unit, self.list("values")).peak(self.peak())
    }
}

fn memory(name: &str, measured: &StageMeasurement, versus: &str, mib: f64) -> BenchRow {
    BenchRow::new(name, "MiB", vec![measured.peak() as f64 / MIB]).versus(versus, mib)
}

/// Settings of glibc's allocator: it keeps freed memory, whatever its size. By default it returns a large buffer to the kernel
/// until the program has freed a larger one, so a row would depend on what an earlier stage happened to free: a search that
/// returns a million series takes 0.8 ms, or 2.2 ms when each of its two buffers is mapped again.
const ALLOCATOR: [(&str, &str); 2] =
    [("MALLOC_MMAP_THRESHOLD_", "1073741824"), ("MALLOC_TRIM_THRESHOLD_", "2147483648")];

/// Runs a stage in its own process.
fn stage(name: &str, dir: &Path, number: u64) -> StageMeasurement {
    let this = std::env::current_exe().expect("a running program has a file");
    let args = json!({"stage": name, "dir": dir, "number": number});
    let mut command = Command::new(this);
    let output = command.args([ROLE, &args.to_string()]).envs(ALLOCATOR).output().expect("the stage runs");
    let told = String::from_utf8_lossy(&output.stdout);
    let value = serde_json::from_str(&told)
        .unwrap_or_else(|e| panic!("{name}: {e}: {told}{}", String::from_utf8_lossy(&output.stderr)));
    StageMeasurement { value }
}

/// Runs a stage in the child process and prints the measurement.
pub(crate) fn run_stage(args: &str) {
    let args: Value = serde_json::from_str(args).expect("a stage");
    let dir = PathBuf::from(args["dir"].as_str().expect("a directory"));
    let number = args["number"].as_u64().expect("a number");
    let mut out = match args["stage"].as_str().expect("a name") {
        "write" => write(&dir, number),
        "write wide" => write_wide(&dir, number),
        "open" => open(&dir),
        "search" => search(&dir),
        "series" => series(&dir),
        "read" => read(&dir),
        "verify" => verify(&dir),
        name => xor(name, number),
    };
    out["peak"] = json!(Usage::of(std::process::id()).peak_rss_bytes);
    println!("{out}");
}

fn block_id() -> Ulid {
    Ulid::from_parts(1, 1)
}

fn block(dir: &Path) -> PathBuf {
    dir.join(block_id().to_string())
}

fn write(dir: &Path, series: u64) -> Value {
    let workload = Workload { series, ..Workload::default() };
    let begun = thread_time();
    let meta = workload.write(dir, BlockOptions::new(block_id()), &mut |_| {}).expect("a block");
    let seconds = (thread_time() - begun).as_secs_f64();
    let chunks = std::fs::read_dir(block(dir).join("chunks")).expect("segments");
    let bytes: u64 = chunks.map(|file| file.expect("a segment").metadata().expect("its size").len()).sum();
    json!({
        "values": [meta.stats.samples as f64 / 1e6 / seconds],
        "bytes_per_sample": [bytes as f64 / meta.stats.samples as f64],
    })
}

fn write_wide(dir: &Path, series: u64) -> Value {
    let interval = Duration::from_secs(3600);
    let workload = Workload { series, series_per_target: 1, interval, ..Workload::default() };
    let begun = thread_time();
    workload.write(dir, BlockOptions::new(block_id()), &mut |_| {}).expect("a block");
    json!({"values": [series as f64 / 1e6 / (thread_time() - begun).as_secs_f64()]})
}

fn open(dir: &Path) -> Value {
    let mut values = Vec::new();
    for _ in 0..ROUNDS {
        let begun = thread_time();
        let opened = Block::open(&block(dir)).expect("a block");
        values.push((thread_time() - begun).as_secs_f64() * 1e3);
        drop(opened);
    }
    json!({"values": values})
}

fn search(dir: &Path) -> Value {
    let file = LocalFile::open(&block(dir).join("index")).expect("an index");
    let index = Index::open(block_id(), Arc::new(file), IndexMemory::default()).expect("an index");
    let mut out = json!({"found": {}});
    for (name, matchers) in SELECTORS {
        let matchers: Vec<Matcher> = matchers
            .iter()
            .map(|(label, op, value)| Matcher::new(*op, label, value).expect("a matcher"))
            .collect();
        let mut values = Vec::new();
        for _ in 0..ROUNDS {
            let begun = thread_time();
            let found = index.matching(&matchers).expect("postings");
            values.push((thread_time() - begun).as_secs_f64() * 1e3);
            out["found"][name] = json!(found.len());
        }
        out[name] = json!(values);
    }
    out
}

fn series(dir: &Path) -> Value {
    let block = Block::open(&block(dir)).expect("a block");
    let begun = thread_time();
    let select = block.select(&[], TimeRange::ALL).expect("series");
    let count = select.inspect(|series| assert!(series.is_ok(), "{series:?}")).count();
    json!({"values": [count as f64 / 1e6 / (thread_time() - begun).as_secs_f64()]})
}

fn read(dir: &Path) -> Value {
    let block = Block::open(&block(dir)).expect("a block");
    let begun = thread_time();
    let (mut samples, mut timestamps, mut values) = (0, Vec::new(), Vec::new());
    for series in block.select(&[], TimeRange::ALL).expect("series") {
        for chunk in block.chunks(&series.expect("a series").chunks).expect("chunks") {
            timestamps.clear();
            values.clear();
            chunk.decode_floats(&mut timestamps, &mut values).expect("samples");
            samples += timestamps.len();
        }
    }
    json!({"values": [samples as f64 / 1e6 / (thread_time() - begun).as_secs_f64()]})
}

fn verify(dir: &Path) -> Value {
    let begun = thread_time();
    let found = tsdb::verify_dir(&block(dir), &mut |_| {});
    assert_eq!(found.problems, 0, "the block has no problems");
    json!({"values": [found.stats.samples as f64 / 1e6 / (thread_time() - begun).as_secs_f64()]})
}

/// Chunks of counters whose times are regular or vary by a few milliseconds.
fn xor(_name: &str, jitter: u64) -> Value {
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let series: Vec<Vec<Sample>> = (0..CHUNKS)
        .map(|_| {
            let mut total = 0;
            let sample = |i: usize| {
                total += next() % 100;
                let off = if jitter > 0 { next() % 20 } else { 0 };
                Sample::new(1_735_689_600_000 + i as i64 * 30_000 + off as i64, total as f64)
            };
            (0..SAMPLES_PER_CHUNK).map(sample).collect()
        })
        .collect();
    let million = (CHUNKS * SAMPLES_PER_CHUNK) as f64 / 1e6;
    let (mut encode, mut decode) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let begun = thread_time();
        let chunks: Vec<Chunk> = series
            .iter()
            .map(|samples| {
                let mut encoder = XorEncoder::new();
                samples.iter().for_each(|sample| encoder.append(*sample).expect("samples in order"));
                encoder.finish().expect("samples")
            })
            .collect();
        encode.push(million / (thread_time() - begun).as_secs_f64());
        let begun = thread_time();
        let (mut timestamps, mut values) = (Vec::new(), Vec::new());
        for chunk in &chunks {
            timestamps.clear();
            values.clear();
            chunk.decode_floats(&mut timestamps, &mut values).expect("samples");
        }
        decode.push(million / (thread_time() - begun).as_secs_f64());
    }
    json!({"encode": encode, "decode": decode})
}

/// CPU time of this thread, which is independent of other load on the machine.
pub(crate) fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("processor time is not negative")
}
