//! Queries over two replicas of 10,000 series, compared with Prometheus on one of them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tests::{Process, Prometheus, free_port, get, isthmus, percent_encode, wait_for};

use crate::load::{self, BEGIN, END};
use crate::report::{BenchReport, BenchRow, median};

const ROUNDS: usize = 5;

const QUERIES: &[(&str, &str)] = &[
    ("rate, 1 h, step 15 s", "sum by (job) (rate(bench_total[5m]))"),
    ("selector, 1 h, step 60 s", "bench_total{job=\"job-3\"}"),
    ("join, 1 h, step 60 s", "sum(bench_total / on (instance, job) bench_total)"),
];

pub(crate) fn run(report: &mut BenchReport) {
    if !Prometheus::is_installed("the querier benchmark") {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    let blocks = dir.path().join("blocks");
    load::generate(&blocks);
    let scrapers: Vec<_> = ["scraper-0", "scraper-1"]
        .iter()
        .map(|replica| load::scraper(&dir.path().join(replica), &blocks, replica))
        .collect();
    let http = free_port();
    let mut args = vec![
        "query".to_owned(),
        "--query.replica-label=replica".to_owned(),
        format!("--http-address={http}"),
        format!("--grpc-address={}", free_port()),
    ];
    args.extend(scrapers.iter().map(|(_, _, grpc)| format!("--endpoint={grpc}")));
    let mut querier = Process::start(&isthmus(), &args, &dir.path().join("querier.log"));
    querier.wait_ready("querier", http);
    wait_for("both replicas", Duration::from_secs(30), || {
        let (_, body) = get(http, &format!("/api/v1/query?query=count(bench_total)&time={END}&dedup=false"))?;
        if body.contains("\"20000\"") { Ok(()) } else { Err(body) }
    });

    let reference = scrapers[0].0.address;
    for (name, query) in QUERIES {
        let step = if name.ends_with("15 s") { 15 } else { 60 };
        let path = format!(
            "/api/v1/query_range?query={}&start={BEGIN}&end={END}&step={step}",
            percent_encode(query)
        );
        let (mut theirs, mut ours, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            theirs.push(ask(reference, &path));
            let before = querier.usage().cpu_seconds;
            ours.push(ask(http, &path));
            cpu.push(querier.usage().cpu_seconds - before);
        }
        let base = median(&theirs);
        report.add(&BenchRow::new(format!("querier/{name}/Prometheus, one replica"), "ms", theirs));
        let peak = querier.usage().peak_rss_bytes;
        report.add(
            &BenchRow::new(format!("querier/{name}/two replicas"), "ms", ours)
                .versus("Prometheus", base)
                .peak(peak),
        );
        report.add(&BenchRow::new(format!("querier/{name}/cpu of the querier"), "s", cpu));
    }
}

/// Milliseconds until the whole response was received.
fn ask(at: SocketAddr, path: &str) -> f64 {
    let begun = Instant::now();
    let (status, body) = get(at, path).expect("an answer");
    assert_eq!(status, 200, "{body}");
    begun.elapsed().as_secs_f64() * 1e3
}
