//! The store: how soon it is ready, how fast series leave it, and what that takes of memory and of the bucket.
//!
//! ```text
//! block     the blocks           running   a store and what is asked of it
//! ready     how soon it is ready            reach     series from a folder, and from moto with 20 ms more for each request
//! scattered series that are far apart in a block
//! large     a block of 1,000,000 series     prometheus   the same selects by a real Prometheus (a benchmark of its own)
//! ```
//!
//! `ISTHMUS_BENCH_SERIES` sets the number of series of the large block.

mod block;
mod large;
mod prometheus;
mod reach;
mod ready;
mod running;
mod scattered;

use std::time::Instant;

use model::Matcher;
use storeapi::{LabelValuesRequest, Store};
use tokio::runtime::Runtime;

use crate::report::{BenchReport, BenchRow};
use running::RunningStore;

pub(crate) use prometheus::run as run_versus;

const ROUNDS: usize = 5;

pub(crate) fn run(report: &mut BenchReport) {
    let runtime = Runtime::new().expect("a runtime");
    let _inside = runtime.enter();
    let dir = tempfile::tempdir().expect("a temporary folder");
    ready::run(report, dir.path());
    let bucket = dir.path().join("bucket");
    std::fs::create_dir_all(&bucket).expect("a folder");
    let block = block::write(&dir.path().join("source"), true);
    let local = running::folder_yaml(&bucket);
    runtime.block_on(running::upload(&local, &block));
    let warm = reach::run(report, &runtime, dir.path(), "folder", &local);
    labels(report, &runtime, &warm);
    concurrent(report, &runtime, &warm);
    drop(warm);
    reach::run_moto(report, &runtime, dir.path(), &block);
    scattered::run(report, &runtime, dir.path());
    large::run(report, &runtime, dir.path());
}

fn labels(report: &mut BenchReport, runtime: &Runtime, store: &RunningStore) {
    for (name, matchers) in
        [("all", vec![]), ("of 1000 series", vec![Matcher::equal("__name__", "thousand")])]
    {
        let mut values = Vec::new();
        for _ in 0..=ROUNDS {
            let begun = Instant::now();
            let request = LabelValuesRequest::new("pod", block::range(), matchers.clone());
            let answer = runtime.block_on(store.client.label_values(request)).expect("values");
            assert!(answer.values.len() >= 1_000);
            values.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        report.add(&BenchRow::new(format!("store/LabelValues/pod, {name}"), "ms", values[1..].to_vec()));
    }
}

/// Many requests at once stay within the memory of the store.
fn concurrent(report: &mut BenchReport, runtime: &Runtime, store: &RunningStore) {
    let begun = Instant::now();
    let all = (0..64).map(|_| store.select(block::range(), vec![Matcher::equal("__name__", "many")]));
    let bytes: usize =
        runtime.block_on(futures::future::join_all(all)).iter().map(|selected| selected.bytes).sum();
    let rate = bytes as f64 / 1e6 / begun.elapsed().as_secs_f64();
    let row = BenchRow::new("store/64 requests at once of 100000 series", "MB/s", vec![rate]);
    report.add(&row.peak(store.peak_bytes()));
}
