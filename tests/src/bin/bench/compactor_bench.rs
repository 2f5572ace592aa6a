//! Merges by the program `isthmus compact`, and downsampling of a block.
//!
//! Merges: four blocks of 2 h into one of 8 h, and two replicas of four blocks into one, from and to a bucket in a local directory.
//! `ISTHMUS_BENCH_MERGE_SERIES` sets the number of series of each block; the goal is for 1,000,000. Planning: a bucket of 10,000 blocks
//! without anything to do.
//!
//! Downsampling: 20,000 series over 48 hours at 30 s (115 million samples) to 5 minutes, and the result to 1 hour. A block is read, downsampled and written, as the compactor does, by one thread, whose CPU time is reported. Each stage runs in its
//! own process, so that its peak memory can be measured. The page cache is warm.
//!
//! The threshold is 40 million raw samples per second. `ISTHMUS_BENCH_SERIES` sets the number of series.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use model::TimeRange;
use serde_json::{Value, json};
use series::Downsampler;
use tests::Usage;
use tsdb::{Block, BlockOptions, BlockWriter, Ulid, Workload};

use crate::report::{BenchReport, BenchRow};
use crate::tsdb_bench::thread_time;

/// The first argument with which the benchmark program runs one stage and prints the measurement.
pub(crate) const ROLE: &str = "--compactor-stage";

/// Default number of series.
const SERIES: u64 = 20_000;
/// Number of times that a block is downsampled.
const ROUNDS: u64 = 3;
const FIVE_MINUTES: Duration = Duration::from_secs(300);
const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn run(report: &mut BenchReport) {
    merges(report);
    planning(report);
    downsampling(report);
}

/// Default number of series of a block that is merged.
const MERGE_SERIES: u64 = 300_000;
/// Blocks of a bucket in which nothing is to be done.
const PLANNED_BLOCKS: u64 = 10_000;

/// What a run of `isthmus compact` took.
struct CompactRun {
    seconds: f64,
    cpu_seconds: f64,
    peak_bytes: u64,
}

fn merges(report: &mut BenchReport) {
    let series =
        std::env::var("ISTHMUS_BENCH_MERGE_SERIES").ok().and_then(|n| n.parse().ok()).unwrap_or(MERGE_SERIES);
    for (name, replicas, series) in
        [("four blocks", 1, series), ("two replicas of four blocks", 2, series / 3)]
    {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let bucket = dir.path().join("bucket");
        std::fs::create_dir(&bucket).expect("a bucket");
        for replica in 0..replicas {
            upload(dir.path(), &bucket, replica, series);
        }
        let flags = ["--deduplication.replica-label=replica", "--deduplication.func=penalty"];
        let run = compact(dir.path(), &bucket, &flags);
        let samples = (series * 4 * 240 * replicas) as f64 / 1e6;
        let name = format!("compactor/merge/{name} of {series} series");
        report.add(&BenchRow::new(&name, "s", vec![run.seconds]).peak(run.peak_bytes));
        report.add(&BenchRow::new(format!("{name}/CPU"), "s", vec![run.cpu_seconds]));
        report.add(&BenchRow::new(format!("{name}/rate"), "M samples/s", vec![samples / run.seconds]));
    }
}

/// The time until a bucket with many blocks is known, and planned, and nothing is to be done.
fn planning(report: &mut BenchReport) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let bucket = dir.path().join("bucket");
    for number in 0..PLANNED_BLOCKS {
        let hours = i64::try_from(number).expect("few blocks") * 24 * 14;
        let at = |hours: i64| model::Timestamp::from_millis(hours * 3_600_000);
        let mut meta = tsdb::BlockMeta::new(id(number + 1), at(hours), at(hours + 24 * 14));
        let mut thanos = tsdb::ThanosMeta::default();
        thanos.labels.insert("cluster".to_owned(), format!("c-{}", number % 100));
        meta.thanos = Some(thanos);
        let folder = bucket.join(meta.ulid.to_string());
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join("meta.json"), meta.to_json()).expect("a meta");
    }
    let flags = ["--downsampling.disable", "--block-discovery-strategy=recursive"];
    let run = compact(dir.path(), &bucket, &flags);
    let row = BenchRow::new(format!("compactor/plan/{PLANNED_BLOCKS} blocks"), "s", vec![run.seconds]);
    report.add(&row.peak(run.peak_bytes));
    report.add(&BenchRow::new("compactor/plan/CPU", "s", vec![run.cpu_seconds]).versus("reach 1", 1.0));
}

/// Four blocks of 2 h of one replica.
fn upload(dir: &Path, bucket: &Path, replica: u64, series: u64) {
    let blocks = dir.join("blocks");
    let text = |path: &Path| path.display().to_string();
    let command = |args: &[String]| {
        let output = Command::new(tests::isthmus()).args(args).output().expect("isthmus runs");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    command(
        &[
            vec![
                "tools".into(),
                "block".into(),
                "generate".into(),
                "--blocks=4".into(),
                "--labels=12".into(),
            ],
            vec![
                format!("--output-dir={}", text(&blocks)),
                format!("--series={series}"),
                "--histograms=0".into(),
            ],
            vec![format!("--seed={replica}"), format!("--jitter={}s", 2 * replica)],
        ]
        .concat(),
    );
    command(
        &[
            vec!["tools".into(), "bucket".into(), "upload-blocks".into(), objstore(bucket)],
            vec![format!("--path={}", text(&blocks)), "--label=cluster=a".into()],
            vec![format!("--label=replica={replica}")],
        ]
        .concat(),
    );
    std::fs::remove_dir_all(&blocks).expect("the blocks are uploaded");
}

fn objstore(bucket: &Path) -> String {
    format!("--objstore.config={{type: FILESYSTEM, config: {{directory: {}}}}}", bucket.display())
}

/// Runs `isthmus compact` once.
fn compact(dir: &Path, bucket: &Path, flags: &[&str]) -> CompactRun {
    let mut args = vec![
        "compact".to_owned(),
        objstore(bucket),
        format!("--data-dir={}", dir.join("data").display()),
        "--consistency-delay=0s".to_owned(),
        format!("--http-address={}", tests::free_port()),
        format!("--grpc-address={}", tests::free_port()),
    ];
    args.extend(flags.iter().map(|flag| (*flag).to_owned()));
    let begun = std::time::Instant::now();
    let mut process = tests::Process::start(&tests::isthmus(), &args, &dir.join("compact.log"));
    let mut usage = Usage::of(process.id());
    while process.is_running() {
        let now = Usage::of(process.id());
        if now.peak_rss_bytes > 0 {
            usage = now;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let seconds = begun.elapsed().as_secs_f64();
    let log = process.output();
    assert!(!log.contains("level=error"), "{log}");
    CompactRun { seconds, cpu_seconds: usage.cpu_seconds, peak_bytes: usage.peak_rss_bytes }
}

fn downsampling(report: &mut BenchReport) {
    let series = std::env::var("ISTHMUS_BENCH_SERIES").ok().and_then(|n| n.parse().ok()).unwrap_or(SERIES);
    let dir = tempfile::tempdir().expect("a temporary folder");
    let workload = Workload { series, duration: Duration::from_secs(48 * 3600), ..Workload::default() };
    let options = BlockOptions { thanos: Some(tsdb::ThanosMeta::default()), ..BlockOptions::new(id(0)) };
    workload.write(dir.path(), options, &mut |_| {}).expect("a block");
    for (name, from, to, resolution) in [("raw to 5m", 0, 1, FIVE_MINUTES), ("5m to 1h", 1, 1 + ROUNDS, HOUR)]
    {
        let measured = stage(&json!({
            "dir": dir.path(), "from": from, "to": to, "resolution": resolution.as_secs(),
        }));
        let values =
            |key: &str| measured[key].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
        let peak = measured["peak"].as_u64().unwrap_or(0);
        let unit = if from == 0 { "M samples/s" } else { "M windows/s" };
        let row = BenchRow::new(format!("compactor/downsample/{name}"), unit, values("rates")).peak(peak);
        report.add(&if from == 0 { row.versus("reach 40", 40.0) } else { row });
        report.add(&BenchRow::new(
            format!("compactor/downsample/{name}/size"),
            "of its source",
            values("sizes"),
        ));
    }
}

fn id(number: u64) -> Ulid {
    Ulid::from_parts(1, u128::from(number))
}

/// Runs a stage in its own process.
fn stage(args: &Value) -> Value {
    let this = std::env::current_exe().expect("a running program has a file");
    let output = Command::new(this).args([ROLE, &args.to_string()]).output().expect("the stage runs");
    let told = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&told)
        .unwrap_or_else(|e| panic!("{args}: {e}: {told}{}", String::from_utf8_lossy(&output.stderr)))
}

/// Runs a stage in the child process and prints the measurement.
pub(crate) fn run_stage(args: &str) {
    let args: Value = serde_json::from_str(args).expect("a stage");
    let dir = PathBuf::from(args["dir"].as_str().expect("a directory"));
    let number = |key: &str| args[key].as_u64().expect("a number");
    let resolution = Duration::from_secs(number("resolution"));
    let (mut rates, mut sizes) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let begun = thread_time();
        let (from, to) = (id(number("from")), id(number("to") + round));
        let samples = downsample(&dir, from, to, resolution);
        rates.push(samples as f64 / 1e6 / (thread_time() - begun).as_secs_f64());
        sizes.push(chunk_bytes(&dir, to) / chunk_bytes(&dir, from));
    }
    let peak = Usage::of(std::process::id()).peak_rss_bytes;
    println!("{}", json!({"rates": rates, "sizes": sizes, "peak": peak}));
}

/// Writes a downsampled copy of a block, and returns the number of samples or windows of the source.
fn downsample(dir: &Path, from: Ulid, to: Ulid, resolution: Duration) -> u64 {
    let source = Block::open(&dir.join(from.to_string())).expect("a block");
    let meta = source.meta();
    let mut downsampler = Downsampler::new(meta.resolution(), resolution);
    let options = BlockOptions::downsampled(to, meta, resolution);
    let mut writer = BlockWriter::create(dir, options).expect("a new block");
    for series in source.select(&[], TimeRange::ALL).expect("series") {
        let series = series.expect("a series");
        let chunks = source.chunks(&series.chunks).expect("chunks");
        let chunks = downsampler.series(&chunks).expect("samples");
        writer.add_series(&series.labels, chunks).expect("a series in order");
    }
    writer.finish().expect("a block");
    meta.stats.samples
}

/// Bytes of the chunks of a block.
fn chunk_bytes(dir: &Path, block: Ulid) -> f64 {
    let files = std::fs::read_dir(dir.join(block.to_string()).join("chunks")).expect("segments");
    files.map(|file| file.expect("a segment").metadata().expect("its size").len()).sum::<u64>() as f64
}
