//! Series that are far apart: those of one job, a run of 42 series in each of 100 metrics.

use std::path::Path;

use model::{Matcher, TimeRange};
use tokio::runtime::Runtime;
use tsdb::{BlockOptions, Ulid, Workload};

use crate::report::{BenchReport, BenchRow};
use crate::store_bench::block;
use crate::store_bench::running::{MAX_MEMORY, RunningStore, folder_yaml};

const SERIES: u64 = 100_000;

pub(crate) fn run(report: &mut BenchReport, runtime: &Runtime, dir: &Path) {
    let bucket = dir.join("scattered");
    std::fs::create_dir_all(&bucket).expect("a folder");
    let options = BlockOptions {
        thanos: Some(block::thanos()),
        ..BlockOptions::new(Ulid::from_parts(1_736_000_000_000, 7))
    };
    let workload = Workload { series: SERIES, ..Workload::default() };
    let meta = workload.write(&bucket, options, &mut |_| {}).expect("a block");
    let range = TimeRange::new(meta.min_time, meta.max_time);
    let store = RunningStore::start(dir, &folder_yaml(&bucket), "data-scattered", &[MAX_MEMORY]);
    let select = |job| runtime.block_on(store.select(range, vec![Matcher::equal("job", job)]));
    // The block is opened.
    select("none");
    let before = store.reads();
    let selected = select("cart");
    let reads = store.reads().since(before);
    let name = format!("store/Series/folder/{} in 100 metrics/cold", selected.series);
    report.add(&BenchRow::new(&name, "ms", vec![selected.seconds * 1e3]).peak(store.peak_bytes()));
    report.add(&BenchRow::new(format!("{name}/requests to the bucket"), "", vec![reads.requests]));
    let ratio = reads.bytes / selected.bytes as f64;
    let row = BenchRow::new(format!("{name}/bytes read per byte of chunks"), "", vec![ratio]);
    report.add(&row.versus("reach 1.5", 1.5));
    std::fs::remove_dir_all(&bucket).expect("a folder");
}
