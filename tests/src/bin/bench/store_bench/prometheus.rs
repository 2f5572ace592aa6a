//! The same selects by the store and by a real Prometheus on the same block: remote read, alternately.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use model::Matcher;
use promapi::{ClientOptions, PrometheusClient, ReadQuery};
use tests::Prometheus;
use tokio::runtime::Runtime;

use crate::report::{BenchReport, BenchRow, median};
use crate::store_bench::ROUNDS;
use crate::store_bench::block::{self, METRICS};
use crate::store_bench::running::{MAX_MEMORY, RunningStore, folder_yaml, upload};

pub(crate) fn run(report: &mut BenchReport) {
    if !Prometheus::is_installed("the comparison of the store with Prometheus") {
        return;
    }
    let runtime = Runtime::new().expect("a runtime");
    let _inside = runtime.enter();
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (dir, bucket) = (dir.path(), dir.path().join("bucket"));
    fs::create_dir_all(&bucket).expect("a folder");
    let block = block::write(&dir.join("source"), true);
    runtime.block_on(upload(&folder_yaml(&bucket), &block));
    copy(&block, &dir.join("prometheus/data").join(block::id().to_string()));
    for (metric, count) in METRICS {
        let name = |state: &str| format!("store-vs-prometheus/{count} series/{state}");
        let start = || {
            let store = RunningStore::start(dir, &folder_yaml(&bucket), "data", &[MAX_MEMORY]);
            (store, Prometheus::start(&dir.join("prometheus"), &[("cluster", "bench")]))
        };
        let ask = |store: &RunningStore, prometheus: &Prometheus, both: &mut Both| {
            let ours = runtime.block_on(store.select(block::range(), matchers(metric)));
            assert_eq!(ours.series, count as usize);
            let theirs = runtime.block_on(remote_read(prometheus.address, metric, count));
            both.ours.add(ours.seconds, store.peak_bytes());
            both.theirs.add(theirs, prometheus.usage().peak_rss_bytes);
        };
        let mut restarted = Both::default();
        for round in 0..=ROUNDS {
            let (store, prometheus) = start();
            // In the first round, index headers are built and files come into the page cache.
            let mut first = Both::default();
            ask(&store, &prometheus, if round == 0 { &mut first } else { &mut restarted });
        }
        restarted.report(report, &name("after a restart"));
        let (store, prometheus) = start();
        let mut warm = Both::default();
        ask(&store, &prometheus, &mut Both::default());
        (0..2 * ROUNDS).for_each(|_| ask(&store, &prometheus, &mut warm));
        warm.report(report, &name("warm"));
    }
}

/// Times and memory of one of both.
#[derive(Default)]
struct Side {
    ms: Vec<f64>,
    peak_mib: Vec<f64>,
}

#[derive(Default)]
struct Both {
    ours: Side,
    theirs: Side,
}

impl Side {
    fn add(&mut self, seconds: f64, peak_bytes: u64) {
        self.ms.push(seconds * 1e3);
        self.peak_mib.push(peak_bytes as f64 / (1 << 20) as f64);
    }
}

impl Both {
    fn report(self, report: &mut BenchReport, name: &str) {
        let Self { ours, theirs } = self;
        report.add(&BenchRow::new(name, "ms", ours.ms).versus("Prometheus", median(&theirs.ms)));
        let row = BenchRow::new(format!("{name}/peak memory"), "MiB", ours.peak_mib);
        report.add(&row.versus("Prometheus", median(&theirs.peak_mib)));
    }
}

fn matchers(metric: &str) -> Vec<Matcher> {
    vec![Matcher::equal("__name__", metric)]
}

/// Copies a block, so that each has files of its own.
fn copy(block: &Path, to: &Path) {
    fs::create_dir_all(to.join("chunks")).expect("a folder");
    for file in ["meta.json", "index", "chunks/000001"] {
        fs::copy(block.join(file), to.join(file)).expect("a copy");
    }
}

async fn remote_read(address: SocketAddr, metric: &str, count: u32) -> f64 {
    let client =
        PrometheusClient::new(&format!("http://{address}"), ClientOptions::default()).expect("a URL");
    let begun = Instant::now();
    let query = ReadQuery { matchers: matchers(metric), range: block::range() };
    let mut stream = client.read(&query).await.expect("an answer");
    let mut found = 0;
    while stream.next().await.expect("a series").is_some() {
        found += 1;
    }
    assert_eq!(found, count);
    begun.elapsed().as_secs_f64()
}
