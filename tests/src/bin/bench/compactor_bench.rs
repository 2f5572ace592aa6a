//! Downsampling of a block of 20,000 series over 48 hours at 30 s (115 million samples) to 5 minutes, and of the result to 1 hour.
//!
//! A block is read, downsampled and written, as the compactor does, by one thread, whose CPU time is reported. Each stage runs in its
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
