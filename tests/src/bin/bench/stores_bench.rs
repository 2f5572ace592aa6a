//! Queries over many stores: memory and time by number of stores, and requests lost while connections age out.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tests::{Process, free_port, get, isthmus, wait_for};

use crate::report::{BenchReport, BenchRow};
use crate::stores::{END, RunningStores, StoresShape};

const MIB: f64 = (1 << 20) as f64;
const ROUNDS: usize = 3;
const START: Duration = Duration::from_secs(60);
/// Queries while connections age out, and how many clients ask them.
const AGING: (usize, usize) = (10_000, 3);

/// Memory of a query by number of stores. Each store has more than one megabyte, so that it could fill any buffer.
pub(crate) fn run(report: &mut BenchReport) {
    for stores in [10, 40, 70, 250, 1000] {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let shape = StoresShape { stores, series: 500, samples: 240, age: Duration::ZERO };
        let running = RunningStores::start(shape, dir.path());
        let (mut querier, http) = querier(dir.path(), &running.addresses, &[]);
        wait_complete(&mut querier, http);
        let idle = querier.usage();
        let times: Vec<f64> = (0..ROUNDS)
            .map(|_| {
                let begun = Instant::now();
                let (status, body) = get(http, &path("sum(bench)")).expect("an answer");
                assert!(status == 200 && !body.contains("warnings"), "{body}");
                begun.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        let usage = querier.usage();
        let held = usage.peak_rss_bytes.saturating_sub(idle.rss_bytes) as f64 / MIB;
        report.add(
            &BenchRow::new(format!("stores/sum of {stores} stores"), "ms", times).peak(usage.peak_rss_bytes),
        );
        report.add(&BenchRow::new(format!("stores/memory of {stores} stores"), "MiB", vec![held]));
    }
}

/// Answers that lack a store while the connections of all stores end every two seconds. The querier asks for Info every second,
/// so that it meets the ends as often in this short time as it otherwise does in minutes.
pub(crate) fn run_aging(report: &mut BenchReport) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let shape = StoresShape { stores: 30, series: 10, samples: 20, age: Duration::from_secs(2) };
    let running = RunningStores::start(shape, dir.path());
    let (mut querier, http) = querier(dir.path(), &running.addresses, &["--endpoint.info-timeout=1s"]);
    wait_complete(&mut querier, http);
    let (total, clients) = AGING;
    let (asked, lost) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let begun = Instant::now();
    let expected = format!("\"{}\"", shape.stores * shape.series);
    std::thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                while asked.fetch_add(1, Ordering::Relaxed) < total {
                    let whole = match get(http, &path("count(bench)")) {
                        Ok((200, body)) => !body.contains("warnings") && body.contains(&expected),
                        _ => false,
                    };
                    if !whole && lost.fetch_add(1, Ordering::Relaxed) == 0 {
                        eprintln!("first partial answer after {:?}", begun.elapsed());
                    }
                }
            });
        }
    });
    let lost = lost.into_inner() as f64;
    report.add(&BenchRow::new(format!("aging/partial of {total} answers"), "answers", vec![lost]));
    report.add(&BenchRow::new("aging/time", "s", vec![begun.elapsed().as_secs_f64()]));
}

fn path(query: &str) -> String {
    format!("/api/v1/query?query={}&time={END}", tests::percent_encode(query))
}

fn querier(dir: &Path, stores: &[SocketAddr], flags: &[&str]) -> (Process, SocketAddr) {
    let http = free_port();
    let mut args = vec![
        "query".to_owned(),
        format!("--http-address={http}"),
        format!("--grpc-address={}", free_port()),
        "--query.max-samples=1000000000".to_owned(),
    ];
    args.extend(flags.iter().map(ToString::to_string));
    args.extend(stores.iter().map(|store| format!("--endpoint={store}")));
    let mut querier = Process::start(&isthmus(), &args, &dir.join("querier.log"));
    querier.wait_ready("querier", http);
    (querier, http)
}

/// Waits until the querier has asked every store for its labels.
fn wait_complete(querier: &mut Process, http: SocketAddr) {
    wait_for("all stores", START, || {
        assert!(querier.is_running(), "{}", querier.output());
        let (_, body) = get(http, "/api/v1/label/cluster/values")?;
        if body.contains("warnings") { Err(body) } else { Ok(()) }
    });
}
