//! Scrapes: one target with 100,000 series on one thread, and the load of ten targets with 20,000 series each beside a real Prometheus.
//!
//! All processes of a load run one after the other, each with the same targets, which send text with gzip. Measured is the CPU time of the
//! scraping process from the second scrape of all targets on, and its peak memory; queries and rules are not part of it.
//!
//! Thresholds, which the ratios of the rows refer to: 80 ms for fetching, parsing and appending 100,000 series; half the memory of
//! Prometheus. `ISTHMUS_BENCH_SECONDS` sets how long each load runs.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use exposition::TextFormat;
use flate2::Compression;
use flate2::write::GzEncoder;
use head::{Database, DatabaseOptions, Head, HeadOptions};
use model::{Labels, Timestamp};
use scraper::{
    Exposition, ExpositionFormat, PrometheusConfig, ScrapeManager, ScrapeOptions, ScrapeRules, TargetSeries,
};
use serde_json::{Value, json};
use tests::{Process, Usage};

use crate::report::{BenchReport, BenchRow};
use crate::tsdb_bench::thread_time;

/// The first argument with which the benchmark program runs one stage.
pub(crate) const ROLE: &str = "--scrape-stage";

const MIB: f64 = 1_048_576.0;
/// Scrapes of the target with 100,000 series.
const SCRAPES: i64 = 20;
/// The targets of a load, their series, and the interval of their scrapes.
const TARGETS: usize = 10;
const TARGET_SERIES: usize = 20_000;
const INTERVAL: Duration = Duration::from_secs(5);
/// Different expositions of a target, which are sent one after the other.
const VARIANTS: usize = 4;

pub(crate) fn run(report: &mut BenchReport) {
    let this = std::env::current_exe().expect("a running program has a file");
    let output = Command::new(&this).args([ROLE, "append"]).output().expect("the stage runs");
    let appended: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
    let list = |key: &str| -> Vec<f64> {
        appended[key].as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
    };
    report.add(&BenchRow::new("scrape/parse and append 100,000 series", "ms", list("known")));
    report.add(&BenchRow::new("scrape/parse and append 100,000 new series", "ms", list("new")));

    let seconds = std::env::var("ISTHMUS_BENCH_SECONDS").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    let dir = tempfile::tempdir().expect("a temporary folder");
    let target =
        Process::start(&this, &[ROLE.to_owned(), "target".to_owned()], &dir.path().join("target.log"));
    let address: SocketAddr = tests::wait_for("the target", Duration::from_secs(30), || {
        target.output().lines().next().and_then(|line| line.parse().ok()).ok_or_else(|| target.output())
    });
    let addresses: Vec<String> =
        (1..=TARGETS).map(|at| format!("'127.0.0.{at}:{}'", address.port())).collect();
    let config = dir.path().join("prometheus.yml");
    let text = format!(
        "global: {{scrape_interval: {}s, scrape_timeout: {}s}}\nscrape_configs:\n- job_name: load\n  static_configs: [{{targets: [{}]}}]\n",
        INTERVAL.as_secs(),
        INTERVAL.as_secs(),
        addresses.join(", ")
    );
    std::fs::write(&config, text).expect("a file");
    let ours = load(
        &this,
        &[ROLE.to_owned(), "scrape".to_owned(), config.display().to_string()],
        dir.path(),
        seconds,
    );
    let row = BenchRow::new("scrape/load per 100,000 series", "ms", vec![ours.0]);
    report.add(&row.versus("reach 80", 80.0).peak(ours.1.peak_rss_bytes));
    if !tests::Prometheus::is_installed("the load of a real Prometheus") {
        return;
    }
    let args = [
        format!("--config.file={}", config.display()),
        format!("--storage.tsdb.path={}", dir.path().join("prometheus").display()),
        format!("--web.listen-address={}", tests::free_port()),
    ];
    let theirs = load(Path::new("prometheus"), &args, dir.path(), seconds);
    let row = BenchRow::new("scrape/load per 100,000 series: Prometheus", "ms", vec![theirs.0]);
    report.add(&row.versus("ours", ours.0).peak(theirs.1.peak_rss_bytes));
    let row = BenchRow::new("scrape/load memory", "MiB", vec![ours.1.peak_rss_bytes as f64 / MIB]);
    report.add(&row.versus("half of Prometheus", theirs.1.peak_rss_bytes as f64 / MIB / 2.0));
}

/// Runs a program that scrapes; the milliseconds of CPU time for 100,000 series, and its usage.
fn load(program: &Path, args: &[String], dir: &Path, seconds: u64) -> (f64, Usage) {
    let process = Process::start(program, args, &dir.join("load.log"));
    // All targets were scraped, and their series are known.
    std::thread::sleep(INTERVAL * 2);
    let before = process.usage();
    let intervals = (seconds / INTERVAL.as_secs()).max(1);
    std::thread::sleep(INTERVAL * u32::try_from(intervals).expect("a few intervals"));
    let after = process.usage();
    assert!(after.cpu_seconds > 0.0, "the process ended: {}", process.output());
    let series = (intervals as usize * TARGETS * TARGET_SERIES) as f64;
    ((after.cpu_seconds - before.cpu_seconds) * 1_000.0 / (series / 100_000.0), after)
}

/// Runs a stage in a child process.
pub(crate) fn run_stage(args: &[String]) {
    match args {
        [stage] if stage == "append" => append(),
        [stage] if stage == "target" => serve(),
        [stage, config] if stage == "scrape" => scrape(Path::new(config)),
        _ => panic!("unknown stage {args:?}"),
    }
}

/// An exposition with so many series: counters with five labels, a hundred each.
fn exposition(series: usize, variant: usize) -> Vec<u8> {
    let mut body = Vec::with_capacity(series * 110);
    for number in 0..series {
        if number % 100 == 0 {
            let family = number / 100;
            let head = format!(
                "# HELP app_events_{family:04}_total Events of the application.\n# TYPE app_events_{family:04}_total counter\n"
            );
            body.extend_from_slice(head.as_bytes());
        }
        let line = format!(
            "app_events_{:04}_total{{code=\"{}\",method=\"{}\",path=\"/api/v1/things/{:03}\",shard=\"{}\",zone=\"eu-1\"}} {}\n",
            number / 100,
            200 + number % 5,
            ["GET", "PUT", "POST", "HEAD"][number / 5 % 4],
            number % 100,
            number % 7,
            number * 17 % 100_000 + variant * (number % 13),
        );
        body.extend_from_slice(line.as_bytes());
    }
    body
}

/// Parses and appends the expositions of one target on one thread.
fn append() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (head, _) = Head::open(dir.path(), HeadOptions::default()).expect("a head");
    let bodies: Vec<Vec<u8>> = (0..VARIANTS).map(|variant| exposition(100_000, variant)).collect();
    let labels = Labels::from_pairs([("instance", "127.0.0.1:9090"), ("job", "load")]).expect("labels");
    let mut target = TargetSeries::new(labels, Arc::new(ScrapeRules::default()));
    let (mut new, mut known) = (Vec::new(), Vec::new());
    for scrape in 0..SCRAPES {
        let body = &bodies[scrape as usize % VARIANTS];
        let before = thread_time();
        let exposition = Exposition { body, format: ExpositionFormat::Text(TextFormat::Prometheus) };
        let time = Timestamp::from_millis(1_700_000_000_000 + scrape * 15_000);
        let report =
            target.append(&head, time, Ok(exposition), &|| Duration::ZERO).expect("the scrape is stored");
        let millis = (thread_time() - before).as_secs_f64() * 1_000.0;
        assert_eq!((report.failure, report.kept), (None, 100_000));
        if scrape == 0 { new.push(millis) } else { known.push(millis) }
    }
    println!("{}", json!({"new": new, "known": known}));
}

/// Answers scrapes with compressed expositions.
fn serve() {
    let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
    let answers: Vec<Vec<u8>> = (0..VARIANTS)
        .map(|variant| {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(&exposition(TARGET_SERIES, variant)).expect("memory can be written");
            let body = encoder.finish().expect("memory can be written");
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            [head.into_bytes(), body].concat()
        })
        .collect();
    let (answers, count) = (Arc::new(answers), Arc::new(AtomicUsize::new(0)));
    println!("{}", listener.local_addr().expect("an address"));
    for connection in listener.incoming().flatten() {
        let (answers, count) = (Arc::clone(&answers), Arc::clone(&count));
        std::thread::spawn(move || answer(connection, &answers, &count));
    }
}

fn answer(mut connection: TcpStream, answers: &[Vec<u8>], count: &AtomicUsize) {
    let mut requests = BufReader::new(connection.try_clone().expect("a second handle"));
    let mut line = String::new();
    while requests.read_line(&mut line).is_ok_and(|read| read > 0) {
        if line == "\r\n" {
            // Each target sends the next variant in its next scrape.
            let number = count.fetch_add(1, Ordering::Relaxed) / TARGETS;
            if connection.write_all(&answers[number % answers.len()]).is_err() {
                return;
            }
        }
        line.clear();
    }
}

/// Scrapes until the process is killed.
fn scrape(config: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let dir = config.parent().expect("a folder").join("ours");
        let (database, _) = Database::open(&dir, DatabaseOptions::default()).expect("a database");
        let database = Arc::new(database);
        let manager = ScrapeManager::new(Arc::clone(&database), ScrapeOptions::default());
        manager.apply(&PrometheusConfig::load(config).expect("a configuration")).expect("it can be used");
        let mut seconds = 0;
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            seconds += 5;
            let database = Arc::clone(&database);
            let work = tokio::task::spawn_blocking(move || {
                database.head().sync().expect("the disk can be written");
                if seconds % 60 == 0 {
                    database.maintain(database_time()).expect("the disk can be written");
                }
            });
            work.await.expect("no panic");
        }
    });
}

fn database_time() -> Timestamp {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    Timestamp::from_millis(i64::try_from(now.as_millis()).expect("before the year 3000"))
}
