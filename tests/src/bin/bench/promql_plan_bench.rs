//! The effect of optimisations in the engine's plan. Each query is written once so that the optimisation applies, and once so
//! that it does not.
//!
//! The benchmark plays the role of stores: it provides the series that the matchers of a select allow, with the chunks that
//! overlap its range. Creating these series is not measured; removing labels is.

use std::time::Duration;

use model::{Labels, Sample, Timestamp};
use promql::{EngineOptions, Query, QueryParams, Stats};
use series::{AggrChunk, SelectedSeries};

use crate::load::{BEGIN, INTERVAL, SAMPLES, SERIES};
use crate::report::{BenchReport, BenchRow, median};
use crate::tsdb_bench::thread_time;

/// Number of series per push, as in the querier's fan-out.
const BATCH: usize = 64;
const ROUNDS: usize = 5;

/// A query and its options.
#[derive(Clone, Copy)]
struct PlanCase {
    query: &'static str,
    /// Whether matchers on one side of an operator also restrict the other side.
    propagate: bool,
    /// Whether labels that the query does not need are removed.
    trim: bool,
}

const fn plain(query: &'static str) -> PlanCase {
    PlanCase { query, propagate: false, trim: false }
}

const NARROWED: &str = "rate(bench_total{job=\"job-3\"}[5m]) / on (instance, job) \
                        sum by (instance, job) (rate(bench_total[5m]))";
const WIDE_SUM: &str = "sum by (job) (wide)";
const WIDE_QUANTILE: &str = "quantile by (job) (0.9, wide)";
const WIDE_SET: &str = "count by (job) (wide > 0 or on (pod) wide)";

/// A query without an optimisation and with it.
struct ComparedQueries {
    name: &'static str,
    hours: i64,
    /// Seconds between steps; `None` for one instant.
    step: Option<i64>,
    without: PlanCase,
    with: PlanCase,
}

const PAIRS: [ComparedQueries; 7] = [
    ComparedQueries {
        name: "matcher carried over a join",
        hours: 1,
        step: Some(15),
        without: plain(NARROWED),
        with: PlanCase { propagate: true, ..plain(NARROWED) },
    },
    ComparedQueries {
        name: "one select for two selectors",
        hours: 1,
        step: Some(15),
        // The other matcher allows the same series.
        without: plain("sum(rate(bench_total[5m])) / count(rate(bench_total{job!=\"\"}[5m]))"),
        with: plain("sum(rate(bench_total[5m])) / count(rate(bench_total[5m]))"),
    },
    ComparedQueries {
        name: "chunks between steps skipped",
        hours: 24,
        step: Some(10_800),
        // Its windows leave no gaps.
        without: plain("sum by (job) (last_over_time(bench_total[3h]))"),
        with: plain("sum by (job) (bench_total)"),
    },
    ComparedQueries {
        name: "pinned selector evaluated once",
        hours: 1,
        step: Some(15),
        without: plain("sum by (job) (rate(bench_total[30m]))"),
        with: plain("sum by (job) (rate(bench_total[30m] @ end()))"),
    },
    ComparedQueries {
        name: "20 labels left out of a sum",
        hours: 1,
        step: None,
        without: plain(WIDE_SUM),
        with: PlanCase { trim: true, ..plain(WIDE_SUM) },
    },
    ComparedQueries {
        name: "20 labels left out of a quantile",
        hours: 1,
        step: None,
        without: plain(WIDE_QUANTILE),
        with: PlanCase { trim: true, ..plain(WIDE_QUANTILE) },
    },
    ComparedQueries {
        name: "20 labels left out of a set",
        hours: 1,
        step: None,
        without: plain(WIDE_SET),
        with: PlanCase { trim: true, ..plain(WIDE_SET) },
    },
];

/// The measurements of all rounds of a case.
#[derive(Default)]
struct Rounds {
    millis: Vec<f64>,
    stats: Stats,
}

pub(crate) fn run(report: &mut BenchReport) {
    let mut series: Option<(i64, Vec<SelectedSeries>)> = None;
    for pair in &PAIRS {
        if series.as_ref().is_none_or(|(hours, _)| *hours != pair.hours) {
            series = Some((pair.hours, all_series(pair.hours)));
        }
        let (_, series) = series.as_ref().expect("it has just been made");
        let (mut without, mut with) = (Rounds::default(), Rounds::default());
        for _ in 0..ROUNDS {
            for (case, measured) in [(pair.without, &mut without), (pair.with, &mut with)] {
                let (took, stats) = evaluate(case, pair, series);
                measured.millis.push(took.as_secs_f64() * 1e3);
                measured.stats = stats;
            }
        }
        let name = |what: &str| format!("promql-plan/{}/{what}", pair.name);
        let base = median(&without.millis);
        report.add(&BenchRow::new(name("without"), "ms", without.millis));
        report.add(&BenchRow::new(name("with"), "ms", with.millis).versus("without", base));
        for (what, unit, value) in [
            ("samples decoded", "million", (|stats: &Stats| stats.samples as f64 / 1e6) as fn(&Stats) -> f64),
            ("held", "MiB", |stats| stats.peak_bytes as f64 / f64::from(1 << 20)),
        ] {
            let row = BenchRow::new(name(what), unit, vec![value(&with.stats)]);
            report.add(&row.versus("without", value(&without.stats)));
        }
    }
}

/// Evaluates a query on this thread. Returns the CPU time of the engine including the removal of labels.
fn evaluate(case: PlanCase, pair: &ComparedQueries, all: &[SelectedSeries]) -> (Duration, Stats) {
    let end = Timestamp::from_millis((BEGIN + (pair.hours * SAMPLES - 1) * INTERVAL) * 1000);
    let params = match pair.step {
        None => QueryParams::instant(end),
        Some(step) => {
            let step = Duration::from_secs(step.unsigned_abs());
            QueryParams::range(Timestamp::from_millis(BEGIN * 1000), end, step)
        }
    };
    let engine = EngineOptions {
        max_samples: u64::MAX,
        max_bytes: u64::MAX,
        propagate_matchers: case.propagate,
        workers: 1,
        ..EngineOptions::default()
    };
    let query = Query::plan(case.query, &params, &engine).expect("a query");
    let mut evaluation = query.evaluation();
    let mut took = Duration::ZERO;
    while let Some(id) = evaluation.next_select() {
        let select = evaluation.select(id).clone();
        let mut trimmer = select.hints.labels.trimmer();
        let mut series: Vec<SelectedSeries> =
            all.iter().filter_map(|series| served(series, &select)).collect();
        while !series.is_empty() {
            let later = series.split_off(BATCH.min(series.len()));
            let mut batch = std::mem::replace(&mut series, later);
            let begun = thread_time();
            if case.trim {
                for series in &mut batch {
                    let labels = std::mem::replace(&mut series.labels, Labels::empty());
                    series.labels = trimmer.trim(labels);
                }
            }
            evaluation.push(id, batch).expect("series are taken");
            took += thread_time() - begun;
        }
        let begun = thread_time();
        evaluation.end_select(id).expect("a select ends");
        took += thread_time() - begun;
    }
    let begun = thread_time();
    let output = evaluation.finish().expect("a value");
    (took + (thread_time() - begun), output.stats)
}

/// The part of a series that a store returns, or `None` if the select does not match it. Labels are created anew, like those that
/// come from a store.
fn served(series: &SelectedSeries, select: &promql::Select) -> Option<SelectedSeries> {
    if !select.matchers.iter().all(|matcher| matcher.matches_labels(&series.labels)) {
        return None;
    }
    let chunks = series.replicas.iter().flatten().filter(|chunk| chunk.range().overlaps(&select.range));
    Some(SelectedSeries { labels: series.labels.only(|_| true), replicas: vec![chunks.cloned().collect()] })
}

/// Series of a counter with three labels, and the same number with twenty labels of about 300 bytes, in label order.
fn all_series(hours: i64) -> Vec<SelectedSeries> {
    let chunks = chunks(hours * SAMPLES);
    let mut all = Vec::new();
    for (name, wide) in [("bench_total", false), ("wide", true)] {
        for number in 0..SERIES {
            let mut labels = vec![
                ("__name__".to_owned(), name.to_owned()),
                ("instance".to_owned(), format!("host-{number:05}")),
                ("job".to_owned(), format!("job-{}", number % 10)),
            ];
            if wide {
                labels.push(("pod".to_owned(), format!("api-{number:05}")));
                labels.extend((0..16).map(|n| (format!("label_{n:02}"), format!("value-{}", n * 7))));
            }
            let labels = Labels::from_pairs(labels).expect("a label set");
            all.push(SelectedSeries { labels, replicas: vec![chunks.clone()] });
        }
    }
    all
}

fn chunks(samples: i64) -> Vec<AggrChunk> {
    let mut total = 0;
    let sample = |i: i64| {
        total += i * 17 % 97;
        Sample::new((BEGIN + i * INTERVAL) * 1000, total as f64)
    };
    let samples: Vec<Sample> = (0..samples).map(sample).collect();
    AggrChunk::from_floats(&samples).expect("samples in order")
}
