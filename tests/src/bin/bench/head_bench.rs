//! The head without other components: a million series with a dozen labels, scraped every 30 s for two hours.
//!
//! Each stage runs in its own process, so that its peak memory can be measured, on one thread, and reports its CPU time. The log is
//! in the same temporary folder as the head; it is not synced, because a scraper syncs it beside the scrapes.
//!
//! Thresholds, which the ratios of the rows refer to: 2 million samples appended a second; 2.5 GiB for a million series with two
//! hours of samples; 6 million samples a second replayed. While a block is cut, a query must not take longer than otherwise: by the
//! clock, waits for locks included, with a core for each.
//!
//! `ISTHMUS_BENCH_SERIES` sets the number of series.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use head::{Head, HeadOptions, SeriesHandle};
use model::{Labels, MatchOp, Matcher, TimeRange, Timestamp};
use serde_json::{Value, json};
use tests::Usage;
use tsdb::Ulid;

use crate::report::{BenchReport, BenchRow};
use crate::tsdb_bench::thread_time;

/// The first argument with which the benchmark program runs one stage and prints the measurement.
pub(crate) const ROLE: &str = "--head-stage";

/// Default number of series.
const SERIES: u64 = 1_000_000;
/// Series of one target, which are one batch.
const TARGET: u64 = 1_000;
const SCRAPES: i64 = 240;
const INTERVAL: i64 = 30_000;
/// A boundary of blocks.
const BEGIN: i64 = 1_699_992_000_000;
const MIB: f64 = 1_048_576.0;

pub(crate) fn run(report: &mut BenchReport) {
    let series = std::env::var("ISTHMUS_BENCH_SERIES").ok().and_then(|n| n.parse().ok()).unwrap_or(SERIES);
    let dir = tempfile::tempdir().expect("a temporary folder");
    let appended = stage("append", dir.path(), series);
    let list = |value: &Value, key: &str| -> Vec<f64> {
        value[key].as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
    };
    let peak = |value: &Value| value["peak"].as_u64().unwrap_or(0);
    let row = BenchRow::new("head/append", "M samples/s", list(&appended, "samples"));
    report.add(&row.versus("reach 2", 2.0).peak(peak(&appended)));
    report.add(&BenchRow::new("head/create series", "M series/s", list(&appended, "created")));
    let row = BenchRow::new("head/memory", "MiB", vec![peak(&appended) as f64 / MIB]);
    report.add(&row.versus("of 2.5 GiB", 2_560.0));
    report.add(&BenchRow::new("head/memory/series", "bytes", vec![peak(&appended) as f64 / series as f64]));
    let replayed = stage("replay", dir.path(), series);
    let row = BenchRow::new("head/replay", "M samples/s", list(&replayed, "samples"));
    report.add(&row.versus("reach 6", 6.0).peak(peak(&replayed)));
    let cut = stage("cut", dir.path(), series);
    report.add(&BenchRow::new("head/cut a block", "M samples/s", list(&cut, "samples")).peak(peak(&cut)));
    let before = list(&cut, "query before");
    let row = BenchRow::new("head/query while a block is cut", "ms", list(&cut, "query while"));
    report.add(&row.versus("otherwise", crate::report::median(&before)));
}

/// Runs a stage in its own process.
fn stage(name: &str, dir: &Path, series: u64) -> Value {
    let this = std::env::current_exe().expect("a running program has a file");
    let args = json!({"stage": name, "dir": dir, "series": series});
    let output = Command::new(this).args([ROLE, &args.to_string()]).output().expect("the stage runs");
    let told = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&told)
        .unwrap_or_else(|e| panic!("{name}: {e}: {told}{}", String::from_utf8_lossy(&output.stderr)))
}

/// Runs a stage in the child process and prints the measurement.
pub(crate) fn run_stage(args: &str) {
    let args: Value = serde_json::from_str(args).expect("a stage");
    let dir = PathBuf::from(args["dir"].as_str().expect("a directory"));
    let series = args["series"].as_u64().expect("a number");
    let mut out = match args["stage"].as_str().expect("a name") {
        "append" => append(&dir, series),
        "replay" => replay(&dir),
        _ => cut(&dir),
    };
    out["peak"] = json!(Usage::of(std::process::id()).peak_rss_bytes);
    println!("{out}");
}

/// The labels of a series of a target: twelve, as those of a pod.
fn labels(number: u64) -> Labels {
    let (target, own) = (number / TARGET, number % TARGET);
    let pairs = [
        ("__name__", format!("app_events_{:03}_total", own % 100)),
        ("cluster", "eu-1".to_owned()),
        ("code", format!("{}", 200 + own / 100 % 5)),
        ("container", "app".to_owned()),
        ("endpoint", "http-metrics".to_owned()),
        ("instance", format!("10.{}.{}.{}:9090", target >> 16, target >> 8 & 255, target & 255)),
        ("job", format!("job-{:03}", target % 50)),
        ("method", ["GET", "PUT"][(own / 500) as usize].to_owned()),
        ("namespace", format!("team-{:02}", target % 20)),
        ("node", format!("node-{:04}.internal", target % 200)),
        ("pod", format!("app-7d9f8b6c5-{target:05}")),
        ("service", format!("job-{:03}", target % 50)),
    ];
    Labels::from_pairs(pairs).expect("valid labels")
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn scrape(head: &Head, series: &[SeriesHandle], number: i64) -> usize {
    let mut added = 0;
    for (target, batch) in series.chunks(TARGET as usize).enumerate() {
        let time = at(BEGIN + number * INTERVAL + target as i64 % INTERVAL);
        let mut appender = head.appender();
        for (own, series) in batch.iter().enumerate() {
            // Half of the counters do not change, as is usual.
            let value = if own % 2 == 0 { own as f64 } else { (number * (own as i64 % 17)) as f64 };
            appender.append_float(series, time, Timestamp::EPOCH, value).expect("a later sample");
        }
        added += appender.commit().expect("the log is written").added;
    }
    added
}

fn append(dir: &Path, count: u64) -> Value {
    let (head, _) = Head::open(dir, HeadOptions::default()).expect("a head");
    let begun = thread_time();
    let series: Vec<SeriesHandle> = (0..count).map(|number| head.series(&labels(number))).collect();
    let created = count as f64 / 1e6 / (thread_time() - begun).as_secs_f64();
    let mut rates = Vec::new();
    for number in 0..SCRAPES {
        let begun = thread_time();
        let added = scrape(&head, &series, number);
        if number % 2 == 1 {
            head.store_chunks().expect("chunks are written");
        }
        rates.push(added as f64 / 1e6 / (thread_time() - begun).as_secs_f64());
    }
    json!({"samples": rates, "created": [created]})
}

fn replay(dir: &Path) -> Value {
    let begun = thread_time();
    let (_head, replay) = Head::open(dir, HeadOptions::default()).expect("a head");
    let seconds = (thread_time() - begun).as_secs_f64();
    json!({"samples": [(replay.samples + replay.known) as f64 / 1e6 / seconds]})
}

fn cut(dir: &Path) -> Value {
    let (head, _) = Head::open(dir, HeadOptions::default()).expect("a head");
    let matchers = [
        Matcher::equal("__name__", "app_events_050_total"),
        Matcher::new(MatchOp::Regex, "job", "job-01.*").expect("a matcher"),
    ];
    let query = |rounds: usize, until: Option<&AtomicBool>| -> Vec<f64> {
        let mut times = Vec::new();
        while times.len() < rounds || until.is_some_and(|until| !until.load(Ordering::Relaxed)) {
            let begun = Instant::now();
            let found = head.select(&matchers, TimeRange::ALL).filter(|series| series.is_ok()).count();
            assert!(found > 0);
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        times
    };
    let before = query(50, None);
    let is_done = Arc::new(AtomicBool::new(false));
    let (samples, during) = std::thread::scope(|scope| {
        let done = Arc::clone(&is_done);
        let head = &head;
        let cutting = scope.spawn(move || {
            let begun = Instant::now();
            let range = (at(BEGIN), at(BEGIN + 7_200_000));
            let meta = head.cut_block(dir, Ulid::from_parts(1, 1), range).expect("a block").expect("samples");
            done.store(true, Ordering::Relaxed);
            meta.stats.samples as f64 / 1e6 / begun.elapsed().as_secs_f64()
        });
        let during = query(1, Some(&is_done));
        (cutting.join().expect("the block is cut"), during)
    });
    json!({"samples": [samples], "query before": before, "query while": during})
}
