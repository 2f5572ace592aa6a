//! Runs each case in its own process, so that its peak memory can be measured. The parent starts it and reads the measurement.

use std::process::Command;
use std::time::{Duration, Instant};

use model::Timestamp;
use promql::{EngineOptions, Evaluation, ParseOptions, Query, QueryParams, SelectId, Stats};
use serde_json::{Value, json};
use series::SelectedSeries;
use tests::Usage;

use crate::load::{BEGIN, INTERVAL, SAMPLES};
use crate::promql_bench::data::{Data, Metric};
use crate::report::median;

/// The first argument with which the benchmark program runs one case and prints the measurement.
pub(crate) const ROLE: &str = "--promql-case";

/// Number of series per push, as in the querier's fan-out.
const BATCH: i64 = 64;
/// A case is repeated until it has taken this long, at most `ROUNDS` times.
const LONG_ENOUGH: Duration = Duration::from_millis(400);
const ROUNDS: usize = 5;

/// The time range of a query.
#[derive(Clone, Copy)]
pub(super) struct TimeSpan {
    pub(super) name: &'static str,
    /// Number of scrapes of each series.
    pub(super) samples: i64,
    /// Seconds between steps; `None` for an instant query.
    pub(super) step: Option<i64>,
}

pub(super) const INSTANT: TimeSpan = TimeSpan { name: "instant", samples: SAMPLES, step: None };
pub(super) const HOUR: TimeSpan = TimeSpan { name: "1 h/15 s", samples: SAMPLES, step: Some(15) };
pub(super) const DAY: TimeSpan = TimeSpan { name: "24 h/60 s", samples: 24 * SAMPLES, step: Some(60) };

/// A query and the amount of data.
#[derive(Clone, Copy)]
pub(super) struct BenchCase<'a> {
    pub(super) query: &'a str,
    pub(super) series: i64,
    pub(super) span: TimeSpan,
    pub(super) workers: usize,
    pub(super) replicas: u64,
}

/// The measurement of a case.
pub(super) struct CaseMeasurement {
    /// Million decoded samples per second, one value per round.
    pub(super) rates: Vec<f64>,
    /// Milliseconds, one value per round.
    pub(super) millis: Vec<f64>,
    /// The share of the CPU time that the thread that drives the engine used, from 0 to 1.
    pub(super) driver: f64,
    pub(super) peak_rss_bytes: u64,
    /// The peak memory minus the memory after creating the series.
    pub(super) engine_rss_bytes: u64,
    /// The peak of the memory that the engine reserved.
    pub(super) peak_held_bytes: u64,
}

impl<'a> BenchCase<'a> {
    /// A case with one worker, over series without replicas.
    pub(super) fn new(query: &'a str, series: i64, span: TimeSpan) -> Self {
        BenchCase { query, series, span, workers: 1, replicas: 1 }
    }

    /// Runs the case in its own process.
    pub(super) fn measure(&self) -> CaseMeasurement {
        let this = std::env::current_exe().expect("a running program has a file");
        let case = json!({
            "query": self.query, "series": self.series, "samples": self.span.samples, "step": self.span.step,
            "workers": self.workers, "replicas": self.replicas,
        });
        let output = Command::new(this).args([ROLE, &case.to_string()]).output().expect("the case runs");
        let told = String::from_utf8_lossy(&output.stdout);
        let value: Value = serde_json::from_str(&told).unwrap_or_else(|e| {
            panic!("{}: {e}: {told}{}", self.query, String::from_utf8_lossy(&output.stderr))
        });
        let list = |key: &str| -> Vec<f64> {
            value[key].as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
        };
        let bytes = |key: &str| value[key].as_u64().unwrap_or(0);
        CaseMeasurement {
            rates: list("rates"),
            millis: list("millis"),
            driver: median(&list("driver")),
            peak_rss_bytes: bytes("peak_rss_bytes"),
            engine_rss_bytes: bytes("engine_rss_bytes"),
            peak_held_bytes: bytes("peak_held_bytes"),
        }
    }
}

/// Runs the case in the child process and prints the measurement.
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
        parse: ParseOptions::ALL,
        workers: usize::try_from(number("workers").unwrap_or(1)).unwrap_or(1),
        ..EngineOptions::default()
    };
    let asked = Asked { text: case["query"].as_str().expect("a query"), params, engine };
    let replicas = number("replicas").unwrap_or(1).unsigned_abs();
    let data: Vec<Data> =
        asked.metrics().into_iter().map(|m| Data::new(m, series, samples, replicas)).collect();
    let before = Usage::of(std::process::id()).peak_rss_bytes;
    let begun = Instant::now();
    let (mut rates, mut millis, mut driver, mut held) = (Vec::new(), Vec::new(), Vec::new(), 0);
    while rates.is_empty() || (rates.len() < ROUNDS && begun.elapsed() < LONG_ENOUGH) {
        let (time, stats) = asked.evaluate(&data);
        // With one worker the engine runs on this thread, whose CPU time is independent of other load on the machine.
        let took = if asked.engine.workers > 1 { time.wall } else { time.driver };
        rates.push(stats.samples as f64 / 1e6 / took.as_secs_f64());
        millis.push(took.as_secs_f64() * 1e3);
        driver.push(time.driver.as_secs_f64() / time.process.as_secs_f64());
        held = stats.peak_bytes;
    }
    let peak = Usage::of(std::process::id()).peak_rss_bytes;
    println!(
        "{}",
        json!({
            "rates": rates, "millis": millis, "driver": driver, "peak_held_bytes": held,
            "peak_rss_bytes": peak, "engine_rss_bytes": peak - before,
        })
    );
}

struct Asked<'a> {
    text: &'a str,
    params: QueryParams,
    engine: EngineOptions,
}

impl Asked<'_> {
    fn plan(&self) -> Query {
        Query::plan(self.text, &self.params, &self.engine).expect("a query")
    }

    /// The metric of each select.
    fn metrics(&self) -> Vec<Metric> {
        let named = |select: &promql::Select| {
            let name = select.matchers.iter().find(|matcher| matcher.name() == "__name__");
            name.and_then(|name| Metric::named(name.value())).expect("a metric of the benchmark")
        };
        self.plan().selects().iter().map(named).collect()
    }

    /// Evaluates the query. Returns the time of the engine, without the time for creating the series.
    fn evaluate(&self, data: &[Data]) -> (Time, Stats) {
        let query = self.plan();
        let ranges: Vec<_> = query.selects().iter().map(|select| select.range).collect();
        let mut evaluation = query.evaluation();
        let mut took = Time::default();
        while let Some(select) = evaluation.next_select() {
            let (data, range) = (&data[select.index()], ranges[select.index()]);
            let batches = (0..data.series).step_by(BATCH as usize).map(|first| -> Vec<SelectedSeries> {
                (first..data.series.min(first + BATCH)).map(|number| data.series(number, range)).collect()
            });
            if self.engine.workers > 1 {
                // Workers would run while this thread creates series, so the series are created before.
                let batches: Vec<_> = batches.collect();
                took.of(|| batches.into_iter().for_each(|batch| push(&mut evaluation, select, batch)));
            } else {
                batches.for_each(|batch| took.of(|| push(&mut evaluation, select, batch)));
            }
            took.of(|| evaluation.end_select(select).expect("a select ends"));
        }
        let output = took.of(|| evaluation.finish().expect("a value"));
        (took, output.stats)
    }
}

fn push(evaluation: &mut Evaluation, select: SelectId, batch: Vec<SelectedSeries>) {
    evaluation.push(select, batch).expect("series are taken");
}

/// Time according to three clocks.
#[derive(Default)]
struct Time {
    /// CPU time of this thread.
    driver: Duration,
    /// CPU time of all threads.
    process: Duration,
    wall: Duration,
}

impl Time {
    /// Adds the time of `work`.
    fn of<T>(&mut self, work: impl FnOnce() -> T) -> T {
        use rustix::time::{ClockId, clock_gettime};
        let now = || {
            [ClockId::ThreadCPUTime, ClockId::ProcessCPUTime, ClockId::Monotonic].map(|clock| {
                Duration::try_from(clock_gettime(clock)).expect("these clocks do not go below zero")
            })
        };
        let before = now();
        let result = work();
        let after = now();
        self.driver += after[0] - before[0];
        self.process += after[1] - before[1];
        self.wall += after[2] - before[2];
        result
    }
}
