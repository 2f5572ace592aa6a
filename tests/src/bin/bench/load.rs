//! The series for the sidecar and querier benchmarks: one counter with many instances and an hour of samples.

use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use tests::{Process, Prometheus, free_port, isthmus, openmetrics_blocks};

pub(crate) const SERIES: i64 = 10_000;
pub(crate) const SAMPLES: i64 = 240;
pub(crate) const INTERVAL: i64 = 15;
/// Time of the first sample in seconds since the epoch, at a two-hour boundary.
pub(crate) const BEGIN: i64 = 1_790_000_000 / 7200 * 7200;
pub(crate) const END: i64 = BEGIN + (SAMPLES - 1) * INTERVAL;

/// Writes blocks with all series into `dir/data`.
pub(crate) fn generate(dir: &Path) {
    fs::create_dir_all(dir).expect("a folder");
    let mut text = String::with_capacity(200 << 20);
    text.push_str("# TYPE bench counter\n");
    for series in 0..SERIES {
        let mut total = 0;
        for i in 0..SAMPLES {
            total += (series * 31 + i * 17) % 97;
            let (job, time) = (series % 10, BEGIN + i * INTERVAL);
            let _ = writeln!(
                text,
                "bench_total{{instance=\"host-{series:05}\",job=\"job-{job}\"}} {total} {time}"
            );
        }
    }
    text.push_str("# EOF\n");
    openmetrics_blocks(dir, &text);
    fs::remove_file(dir.join("input.om")).expect("the input");
}

/// A Prometheus on a copy of the blocks in `from`, and its sidecar.
pub(crate) fn scraper(dir: &Path, from: &Path, replica: &str) -> (Prometheus, Process, SocketAddr) {
    fs::create_dir_all(dir).expect("a folder");
    let copied = Command::new("cp").arg("-r").args([from.join("data"), dir.join("data")]).status();
    assert!(copied.is_ok_and(|status| status.success()), "copy the blocks");
    let labels = [("cluster", "bench-1"), ("environment", "testing"), ("replica", replica)];
    let prometheus = Prometheus::start(dir, &labels);
    let (http, grpc) = (free_port(), free_port());
    let args = [
        "sidecar".to_owned(),
        format!("--prometheus.url=http://{}", prometheus.address),
        format!("--http-address={http}"),
        format!("--grpc-address={grpc}"),
    ];
    let mut sidecar = Process::start(&isthmus(), &args, &dir.join("sidecar.log"));
    sidecar.wait_ready("sidecar", http);
    (prometheus, sidecar, grpc)
}
