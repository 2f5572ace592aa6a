//! How soon a store is ready, with new blocks and with those that it knows from an earlier start.

use std::fs;
use std::path::Path;
use std::time::Instant;

use tsdb::Ulid;

use crate::report::{BenchReport, BenchRow};
use crate::store_bench::block;
use crate::store_bench::running::{RunningStore, folder_yaml};

pub(crate) fn run(report: &mut BenchReport, dir: &Path) {
    for blocks in [1_u64, 100, 1_000, 10_000] {
        let bucket = dir.join(format!("bucket-{blocks}"));
        let template = block::write(&bucket, false);
        let meta = fs::read_to_string(template.join("meta.json")).expect("a file");
        for number in 2..=blocks {
            let id = Ulid::from_parts(number, 1).to_string();
            let block = bucket.join(&id);
            fs::create_dir_all(block.join("chunks")).expect("a folder");
            for file in ["index", "chunks/000001"] {
                fs::hard_link(template.join(file), block.join(file)).expect("a link");
            }
            fs::write(block.join("meta.json"), meta.replace(&block::id().to_string(), &id)).expect("a file");
        }
        for state in ["new", "known"] {
            let begun = Instant::now();
            let store = RunningStore::start(dir, &folder_yaml(&bucket), &format!("data-{blocks}"), &[]);
            let took = begun.elapsed().as_secs_f64();
            let row = BenchRow::new(format!("store/ready/{blocks} {state} blocks"), "s", vec![took]);
            report.add(&row.peak(store.peak_bytes()));
        }
        fs::remove_dir_all(&bucket).expect("a folder");
    }
}
