//! The engine alone: from XOR chunks to the value of a query, in processor time of the one thread that evaluates it unless
//! it says otherwise.
//!
//! Each case runs in a process of its own, so that its peak memory is its own. Chunks are made before the clock starts and
//! are shared by series that differ in their labels only, so that what a case holds is what the engine holds.
//!
//! Thresholds that are to be reached, in decoded samples per second and core: `sum by (job) (rate(m[5m]))` over 10,000
//! series, 1 h at 15 s, step 15 s: 40 million; a self-join of them: 12 million; the peak memory of the sum over 100,000
//! series less than twice that over 10,000.

use std::process::Command;
use std::time::{Duration, Instant};

use model::{Labels, Sample, Timestamp};
use promql::{EngineOptions, Query, QueryParams};
use serde_json::{Value, json};
use series::{AggrChunk, SelectedSeries};
use tests::{Prometheus, Usage, get, percent_encode};
use tsdb::XorEncoder;

use crate::load::{self, BEGIN, END, INTERVAL, SAMPLES, SERIES};
use crate::report::{Report, Row, median};

/// The first argument that makes the benchmark program run one case and print what it measured.
pub(crate) const ROLE: &str = "--promql-case";

/// Samples in a chunk, as Prometheus cuts them.
const CHUNK: i64 = 120;
/// Series with samples of their own. The samples repeat every 97 series, so this is a multiple of it.
const DISTINCT: i64 = 970;
/// Series offered at once, as the fan-out offers them.
const BATCH: i64 = 64;
/// Upper bounds of buckets in the order of labels.
const BOUNDS: [&str; 10] = ["+Inf", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5"];
/// Series that are ten times as many.
const MANY: i64 = 100_000;
/// A case is repeated until it has taken this long, at most `ROUNDS` times.
const LONG_ENOUGH: Duration = Duration::from_millis(700);
const ROUNDS: usize = 5;

const QUERIES: &[(&str, &str)] = &[
    ("selector", "bench_total"),
    ("rate", "rate(bench_total[5m])"),
    ("sum by rate", SUM_BY_RATE),
    ("histogram_quantile", "histogram_quantile(0.9, sum by (instance, le) (rate(bench_bucket[5m])))"),
    ("self-join", SELF_JOIN),
    ("topk", "topk(10, rate(bench_total[5m]))"),
    ("quantile", "quantile by (job) (0.9, rate(bench_total[5m]))"),
    ("subquery", "max_over_time(rate(bench_total[5m])[10m:1m])"),
];
const SUM_BY_RATE: &str = "sum by (job) (rate(bench_total[5m]))";
const SELF_JOIN: &str = "sum(bench_total / on (instance, job) bench_total)";

/// A stretch of time that is asked for.
#[derive(Clone, Copy)]
struct Span {
    name: &'static str,
    /// Samples of each series.
    samples: i64,
    /// Seconds between steps; `None` for one instant.
    step: Option<i64>,
}

const INSTANT: Span = Span { name: "instant", samples: SAMPLES, step: None };
const HOUR: Span = Span { name: "1 h/15 s", samples: SAMPLES, step: Some(15) };
const DAY: Span = Span { name: "24 h/60 s", samples: 24 * SAMPLES, step: Some(60) };

/// What a child measured.
struct Measured {
    /// Million decoded samples a second, one value a round.
    rates: Vec<f64>,
    /// Milliseconds, one value a round.
    millis: Vec<f64>,
    peak_rss_bytes: u64,
    peak_held_bytes: u64,
}

pub(crate) fn run(report: &mut Report) {
    let mut sum = None;
    let mut join = None;
    for span in [INSTANT, HOUR, DAY] {
        for series in [1_000, SERIES, MANY] {
            // A day of a hundred thousand series says nothing that an hour of them does not.
            if series == MANY && span.samples > SAMPLES {
                continue;
            }
            for (name, query) in QUERIES {
                let measured = measure(query, series, span, 1);
                let name = format!("promql/{name}/{}k, {}", series / 1000, span.name);
                let row = throughput(name, &measured, span);
                report.add(&row);
                let rate = median(&measured.rates);
                if series == SERIES && span.step == HOUR.step {
                    sum = sum.or((*query == SUM_BY_RATE).then_some(rate));
                    join = join.or((*query == SELF_JOIN).then_some(rate));
                }
            }
        }
    }
    growth(report);
    let both = measure(SUM_BY_RATE, SERIES, HOUR, 2);
    report.add(&Row::new("promql/sum by rate/10k, 1 h/15 s/two workers", "M samples/s", both.rates));
    prometheus(report, sum.unwrap_or(f64::NAN), join.unwrap_or(f64::NAN));
}

/// A range is told in samples a second; an instant, which decodes few of them, in milliseconds.
fn throughput(name: String, measured: &Measured, span: Span) -> Row {
    let row = match span.step {
        None => Row::new(name, "ms", measured.millis.clone()),
        Some(_) => Row::new(name, "M samples/s", measured.rates.clone()),
    };
    row.peak(measured.peak_rss_bytes)
}

/// What more series and more steps cost.
fn growth(report: &mut Report) {
    let mut small = 0.0;
    for series in [1_000, SERIES, MANY] {
        let measured = measure(SUM_BY_RATE, series, HOUR, 1);
        let held = measured.peak_held_bytes as f64 / f64::from(1 << 20);
        let row = Row::new(format!("promql/growth/{}k/held", series / 1000), "MiB", vec![held]);
        report.add(&match series {
            MANY => row.versus("10k (reach < 2)", small),
            _ => row,
        });
        small = held;
        let row = Row::new(format!("promql/growth/{}k/time", series / 1000), "ms", measured.millis);
        report.add(&row.peak(measured.peak_rss_bytes));
    }
    for (span, name, step) in
        [(HOUR, "1 h", 15), (HOUR, "1 h", 60), (HOUR, "1 h", 300), (DAY, "24 h", 300), (DAY, "24 h", 10_800)]
    {
        let measured = measure(SUM_BY_RATE, SERIES, Span { step: Some(step), ..span }, 1);
        let row = Row::new(format!("promql/growth/{name}/{step} s/time"), "ms", measured.millis);
        report.add(&row.peak(measured.peak_rss_bytes));
    }
}

/// The same series in a Prometheus, read through its HTTP API; in samples per second of processor time.
fn prometheus(report: &mut Report, sum: f64, join: f64) {
    if !Prometheus::is_installed("the comparison of the engine with Prometheus") {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    load::generate(dir.path());
    let prometheus = Prometheus::start(dir.path(), &[]);
    for (name, query, decoded, ours) in [
        ("sum by rate (reach 40)", SUM_BY_RATE, SERIES * SAMPLES, sum),
        // Prometheus reads both sides.
        ("self-join (reach 12)", SELF_JOIN, 2 * SERIES * SAMPLES, join),
    ] {
        let query = percent_encode(query);
        let path = format!("/api/v1/query_range?query={query}&start={BEGIN}&end={END}&step=15");
        let mut theirs = Vec::new();
        for _ in 0..3 {
            let before = prometheus.usage().cpu_seconds;
            let (status, body) = get(prometheus.address, &path).expect("an answer");
            assert_eq!(status, 200, "{body}");
            theirs.push(decoded as f64 / 1e6 / (prometheus.usage().cpu_seconds - before));
        }
        let base = median(&theirs);
        report.add(&Row::new(format!("promql/{name}/Prometheus"), "M samples/s", theirs));
        report.add(
            &Row::new(format!("promql/{name}/engine"), "M samples/s", vec![ours]).versus("Prometheus", base),
        );
    }
}

/// Runs a case in a process of its own.
fn measure(query: &str, series: i64, span: Span, workers: usize) -> Measured {
    let this = std::env::current_exe().expect("a running program has a file");
    let case = json!({
        "query": query, "series": series, "samples": span.samples, "step": span.step, "workers": workers,
    });
    let output = Command::new(this).args([ROLE, &case.to_string()]).output().expect("the case runs");
    let told = String::from_utf8_lossy(&output.stdout);
    let value: Value = serde_json::from_str(&told)
        .unwrap_or_else(|e| panic!("{query}: {e}: {told}{}", String::from_utf8_lossy(&output.stderr)));
    let list = |key: &str| -> Vec<f64> {
        value[key].as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
    };
    let bytes = |key: &str| value[key].as_u64().unwrap_or(0);
    // Samples that both sides of a join read are decoded once and count twice, as they do for Prometheus.
    let sides = if query == SELF_JOIN { 2.0 } else { 1.0 };
    Measured {
        rates: list("rates").iter().map(|rate| rate * sides).collect(),
        millis: list("millis"),
        peak_rss_bytes: bytes("peak_rss_bytes"),
        peak_held_bytes: bytes("peak_held_bytes"),
    }
}

/// The child: runs the case and prints what it measured.
pub(crate) fn run_case(case: &str) {
    let case: Value = serde_json::from_str(case).expect("a case");
    let number = |key: &str| case[key].as_i64();
    let (series, samples) = (number("series").expect("series"), number("samples").expect("samples"));
    let end = Timestamp::from_millis((BEGIN + (samples - 1) * INTERVAL) * 1000);
    let params = match number("step") {
        None => QueryParams::instant(end),
        Some(step) => {
            let step = Duration::from_secs(step.unsigned_abs());
            QueryParams::range(Timestamp::from_millis(BEGIN * 1000), end, step)
        }
    };
    let engine = EngineOptions {
        max_samples: u64::MAX,
        max_bytes: u64::MAX,
        workers: usize::try_from(number("workers").unwrap_or(1)).unwrap_or(1),
        ..EngineOptions::default()
    };
    let text = case["query"].as_str().expect("a query");
    let data = Data::new(samples, series);
    let begun = Instant::now();
    let (mut rates, mut millis, mut held) = (Vec::new(), Vec::new(), 0);
    while rates.is_empty() || (rates.len() < ROUNDS && begun.elapsed() < LONG_ENOUGH) {
        let (took, stats) = evaluate(text, &params, &engine, &data);
        rates.push(stats.samples as f64 / 1e6 / took.as_secs_f64());
        millis.push(took.as_secs_f64() * 1e3);
        held = stats.peak_bytes;
    }
    let peak = Usage::of(std::process::id()).peak_rss_bytes;
    println!(
        "{}",
        json!({"rates": rates, "millis": millis, "peak_rss_bytes": peak, "peak_held_bytes": held})
    );
}

/// Evaluates and tells the time that the engine took; making the series is not its work.
fn evaluate(
    text: &str,
    params: &QueryParams,
    engine: &EngineOptions,
    data: &Data,
) -> (Duration, promql::Stats) {
    let query = Query::plan(text, params, engine).expect("a query");
    let selects = query.selects().to_vec();
    let mut evaluation = query.evaluation();
    let now = || if engine.workers > 1 { wall_time() } else { thread_time() };
    let mut took = Duration::ZERO;
    while let Some(select) = evaluation.next_select() {
        let buckets = selects[select.index()].matchers.iter().any(|m| m.value() == "bench_bucket");
        // As far as stores look: chunks that overlap the range.
        let range = selects[select.index()].range;
        for first in (0..data.series).step_by(BATCH as usize) {
            let batch = (first..data.series.min(first + BATCH)).map(|s| data.series(s, buckets, range));
            let batch: Vec<SelectedSeries> = batch.collect();
            let begun = now();
            evaluation.push(select, batch).expect("series are taken");
            took += now() - begun;
        }
        let begun = now();
        evaluation.end_select(select).expect("a select ends");
        took += now() - begun;
    }
    let begun = now();
    let output = evaluation.finish().expect("a value");
    (took + (now() - begun), output.stats)
}

/// Processor time of this thread: with one worker the engine runs on it, and what else runs on the machine does not count.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("processor time is not negative")
}

fn wall_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::try_from(time).expect("this clock begins at zero")
}

/// The samples of all series: those of [`load`], and the same as buckets.
struct Data {
    series: i64,
    chunks: Vec<Vec<AggrChunk>>,
}

impl Data {
    fn new(samples: i64, series: i64) -> Self {
        let chunks = (0..DISTINCT.min(series)).map(|series| {
            let mut total = 0;
            let mut chunks = Vec::new();
            let mut encoder = XorEncoder::new();
            for i in 0..samples {
                total += (series * 31 + i * 17) % 97;
                let sample = Sample::new((BEGIN + i * INTERVAL) * 1000, total as f64);
                encoder.append(sample).expect("samples in order");
                if (i + 1) % CHUNK == 0 || i + 1 == samples {
                    let full = std::mem::replace(&mut encoder, XorEncoder::new());
                    chunks.push(AggrChunk::raw(full.finish().expect("a chunk")));
                }
            }
            chunks
        });
        Data { series, chunks: chunks.collect() }
    }

    fn series(&self, number: i64, buckets: bool, range: model::TimeRange) -> SelectedSeries {
        let per_instance = if buckets { BOUNDS.len() as i64 } else { 1 };
        let (instance, bound) = (number / per_instance, number % per_instance);
        let (host, job) = (format!("host-{instance:05}"), format!("job-{}", instance % 10));
        let name = if buckets { "bench_bucket" } else { "bench_total" };
        let mut labels = vec![("__name__", name), ("instance", host.as_str()), ("job", job.as_str())];
        if buckets {
            labels.push(("le", BOUNDS[usize::try_from(bound).unwrap_or(0)]));
        }
        let labels = Labels::from_pairs(labels).expect("a label set");
        let chunks = &self.chunks[usize::try_from(number % DISTINCT).unwrap_or(0)];
        let wanted = chunks.iter().filter(|chunk| chunk.range().overlaps(&range));
        SelectedSeries { labels, replicas: vec![wanted.cloned().collect()] }
    }
}
