//! Series requests for 10, 1,000 and 100,000 series, in three states:
//!
//! ```text
//! new     a new process that knows the blocks and nothing of their content
//! cold    a new process with the index headers of the one before it
//! warm    what was read before is in memory
//! ```

use std::fs;
use std::path::Path;
use std::time::Duration;

use model::Matcher;
use tokio::runtime::Runtime;

use crate::delay;
use crate::moto::Moto;
use crate::report::{BenchReport, BenchRow};
use crate::store_bench::ROUNDS;
use crate::store_bench::block::{self, METRICS};
use crate::store_bench::running::{BucketReads, MAX_MEMORY, RunningStore, Selected, upload};

/// What is added to each request to moto.
const DELAY: Duration = Duration::from_millis(20);

/// Measurements of one request in one state.
#[derive(Default)]
struct Measured {
    ms: Vec<f64>,
    first_ms: Vec<f64>,
    rate: Vec<f64>,
    requests: Vec<f64>,
    ratio: Vec<f64>,
    peak: u64,
}

impl Measured {
    fn add(&mut self, selected: Selected, reads: BucketReads, peak: u64) {
        self.ms.push(selected.seconds * 1e3);
        self.first_ms.push(selected.first * 1e3);
        self.rate.push(selected.bytes as f64 / 1e6 / selected.seconds);
        self.requests.push(reads.requests);
        self.ratio.push(reads.bytes / selected.bytes as f64);
        self.peak = self.peak.max(peak);
    }

    fn report(self, report: &mut BenchReport, name: &str, reads_bucket: bool) {
        report.add(&BenchRow::new(name, "ms", self.ms).peak(self.peak));
        report.add(&BenchRow::new(format!("{name}/first frame after"), "ms", self.first_ms));
        report.add(&BenchRow::new(format!("{name}/chunks"), "MB/s", self.rate));
        if reads_bucket {
            report.add(&BenchRow::new(format!("{name}/requests to the bucket"), "", self.requests));
            report.add(&BenchRow::new(format!("{name}/bytes read per byte of chunks"), "", self.ratio));
        }
    }
}

/// Measures a store of the bucket that `yaml` configures. Returns the store whose caches are full.
pub(crate) fn run(
    report: &mut BenchReport,
    runtime: &Runtime,
    dir: &Path,
    source: &str,
    yaml: &str,
) -> RunningStore {
    let select = |store: &RunningStore, metric: &str, count: u32| {
        let matchers = vec![Matcher::equal("__name__", metric)];
        let selected = runtime.block_on(store.select(block::range(), matchers));
        assert_eq!(selected.series, count as usize);
        selected
    };
    let folder = |state: &str| format!("data-{source}-{state}");
    let warm_store = RunningStore::start(dir, yaml, &folder("warm"), &[MAX_MEMORY]);
    for (metric, count) in METRICS {
        let (mut new, mut cold, mut warm) = <(Measured, Measured, Measured)>::default();
        for (measured, state, headers) in [(&mut new, "new", false), (&mut cold, "cold", true)] {
            for round in 0..ROUNDS {
                let data = folder(state);
                if !headers && dir.join(&data).exists() {
                    fs::remove_dir_all(dir.join(&data)).expect("a folder");
                }
                let store = RunningStore::start(dir, yaml, &data, &[MAX_MEMORY]);
                let before = store.reads();
                let selected = select(&store, metric, count);
                // In the first round, the index header is built.
                if round > 0 || !headers {
                    measured.add(selected, store.reads().since(before), store.peak_bytes());
                }
            }
        }
        for round in 0..=ROUNDS {
            let selected = select(&warm_store, metric, count);
            if round > 0 {
                warm.add(selected, BucketReads::default(), warm_store.peak_bytes());
            }
        }
        let name = format!("store/Series/{source}/{count}");
        new.report(report, &format!("{name}/new"), true);
        cold.report(report, &format!("{name}/cold"), true);
        warm.report(report, &format!("{name}/warm"), false);
    }
    warm_store
}

/// Measures a store of the same block in moto.
pub(crate) fn run_moto(report: &mut BenchReport, runtime: &Runtime, dir: &Path, block: &Path) {
    let Some(moto) = Moto::start() else { return };
    runtime.block_on(upload(&moto.yaml(moto.address()), block));
    let relay = delay::start(runtime, moto.address(), DELAY);
    drop(run(report, runtime, dir, "moto + 20 ms", &moto.yaml(relay)));
}
