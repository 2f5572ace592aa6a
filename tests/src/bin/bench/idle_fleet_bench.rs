//! A fleet in which nothing changes: ten clusters with 1,000 targets each, and a querier that watches the directory.
//!
//! Measured is the CPU time that each kind of process takes for a second. `ISTHMUS_BENCH_TARGETS` sets the number of targets of a
//! cluster.

use std::path::Path;
use std::time::{Duration, Instant};

use tests::{Cluster, Mesh, Process, Reach, Usage, free_port, get, isthmus, wait_for};

use crate::report::{BenchReport, BenchRow};
use crate::source;

const CLUSTERS: [&str; 10] = [
    "bench-1", "bench-2", "bench-3", "bench-4", "bench-5", "bench-6", "bench-7", "bench-8", "bench-9",
    "bench-10",
];
const TARGETS: usize = 1_000;
/// Longest time until the querier knows all targets.
const START: Duration = Duration::from_secs(120);
/// Time in which what the start has caused ends. Nothing says that it has ended: a fleet at rest has no event to wait for.
const SETTLING: Duration = Duration::from_secs(20);
/// How long the fleet is measured. Nothing happens in this time, on purpose.
const MEASURED: Duration = Duration::from_secs(60);

pub(crate) fn run(report: &mut BenchReport) {
    let targets = std::env::var("ISTHMUS_BENCH_TARGETS").ok().and_then(|text| text.parse().ok());
    let targets = targets.unwrap_or(TARGETS);
    for transport in ["tcp", "quic"] {
        let dir = tempfile::tempdir().expect("a temporary folder");
        measure(report, dir.path(), transport, targets);
    }
}

fn measure(report: &mut BenchReport, dir: &Path, transport: &str, targets: usize) {
    let sources = CLUSTERS.map(|cluster| source::start(dir, cluster));
    let clusters: Vec<Cluster> = CLUSTERS
        .iter()
        .zip(&sources)
        .map(|(name, (_, address))| Cluster {
            name,
            reach: Reach::DialsOut,
            targets: (0..targets).map(|target| (format!("source-{target}"), *address)).collect(),
        })
        .collect();
    let mesh = Mesh::start(&dir.join("mesh"), transport, &clusters);
    let (http, grpc) = (free_port(), free_port());
    let args = [
        "query".to_owned(),
        format!("--gateway={}", mesh.grpc),
        format!("--http-address={http}"),
        format!("--grpc-address={grpc}"),
    ];
    let querier = Process::start(&isthmus(), &args, &dir.join("querier.log"));
    let all = targets * CLUSTERS.len();
    wait_for(&format!("{all} stores"), START, || {
        let (_, body) = get(http, "/api/v1/stores").map_err(|error| error.to_string())?;
        match body.matches("\"lastError\":null").count() {
            healthy if healthy == all => Ok(()),
            healthy => Err(format!("{healthy} of {all}")),
        }
    });
    std::thread::sleep(SETTLING);
    let gateways: Vec<u32> = mesh.clusters.iter().map(Process::id).collect();
    let kinds = [
        ("gateways of the clusters, each", gateways),
        ("gateway of the observability cluster", vec![mesh.observability.id()]),
        ("querier", vec![querier.id()]),
    ];
    let spent = |ids: &[u32]| ids.iter().map(|id| Usage::of(*id).cpu_seconds).sum::<f64>() / ids.len() as f64;
    let (begun, before) = (Instant::now(), kinds.each_ref().map(|(_, ids)| spent(ids)));
    std::thread::sleep(MEASURED);
    let seconds = begun.elapsed().as_secs_f64();
    for ((kind, ids), before) in kinds.iter().zip(before) {
        let name = format!("idle-fleet/{transport}/{} clusters of {targets} targets/{kind}", CLUSTERS.len());
        let peak = ids.iter().map(|id| Usage::of(*id).peak_rss_bytes).max().unwrap_or(0);
        report.add(&BenchRow::new(name, "ms CPU/s", vec![1e3 * (spent(ids) - before) / seconds]).peak(peak));
    }
}
