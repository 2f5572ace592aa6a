//! A block of 1,000,000 series: memory while it is served.

use std::path::Path;
use std::time::Instant;

use model::{MatchOp, Matcher, TimeRange};
use tokio::runtime::Runtime;
use tsdb::{BlockOptions, Ulid, Workload};

use crate::report::{BenchReport, BenchRow};
use crate::store_bench::block;
use crate::store_bench::running::{MAX_MEMORY, RunningStore, folder_yaml};

const SERIES: u64 = 1_000_000;
/// Requests at once, each for the series of one job or of all jobs.
const AT_ONCE: usize = 64;

pub(crate) fn run(report: &mut BenchReport, runtime: &Runtime, dir: &Path) {
    let series = std::env::var("ISTHMUS_BENCH_SERIES").ok().and_then(|number| number.parse().ok());
    let series: u64 = series.unwrap_or(SERIES);
    // Wide: each series has a pod of its own, so that symbols and tables are large.
    for (shape, series_per_target) in [("", 100), (" of as many pods", 1)] {
        let bucket = dir.join("large");
        std::fs::create_dir_all(&bucket).expect("a folder");
        let workload = Workload { series, series_per_target, ..Workload::default() };
        let options = BlockOptions {
            thanos: Some(block::thanos()),
            ..BlockOptions::new(Ulid::from_parts(1_736_000_000_000, u128::from(series_per_target)))
        };
        let meta = workload.write(&bucket, options, &mut |_| {}).expect("a block");
        let range = TimeRange::new(meta.min_time, meta.max_time);
        let name = format!("store/block of {series} series{shape}");
        serve(report, runtime, dir, &name, range);
        std::fs::remove_dir_all(&bucket).expect("a folder");
    }
}

fn serve(report: &mut BenchReport, runtime: &Runtime, dir: &Path, name: &str, range: TimeRange) {
    let all = || vec![Matcher::new(MatchOp::Regex, "__name__", ".+").expect("a matcher")];
    let store = RunningStore::start(dir, &folder_yaml(&dir.join("large")), "data-large", &[MAX_MEMORY]);
    for state in ["cold", "again"] {
        let selected = runtime.block_on(store.select(range, all()));
        let rate = selected.bytes as f64 / 1e6 / selected.seconds;
        let row = BenchRow::new(format!("{name}/all series, {state}"), "MB/s", vec![rate]);
        report.add(&row.peak(store.peak_bytes()));
    }
    let begun = Instant::now();
    // Every fourth one is for all series.
    let at_once = (0..AT_ONCE).map(|number| {
        let matchers = match number % 4 {
            0 => all(),
            _ => vec![Matcher::equal("job", JOBS[number % JOBS.len()])],
        };
        store.select(range, matchers)
    });
    let answers = runtime.block_on(futures::future::join_all(at_once));
    let bytes: usize = answers.iter().map(|selected| selected.bytes).sum();
    let rate = bytes as f64 / 1e6 / begun.elapsed().as_secs_f64();
    let row = BenchRow::new(format!("{name}/{AT_ONCE} requests at once"), "MB/s", vec![rate]);
    report.add(&row.peak(store.peak_bytes()));
}

/// Some jobs of a generated block.
const JOBS: [&str; 5] = ["api", "billing", "kafka", "search", "web"];
