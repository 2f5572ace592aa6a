//! How soon an interrupted query stops. Measured by work and not by time: between two checks of the interrupt, no operator does
//! more work than one series needs.

use std::time::Duration;

use budget::Interrupt;
use model::{Labels, Sample, Timestamp};
use series::{AggrChunk, SelectedSeries};
use tsdb::XorEncoder;

use crate::eval::parts::PART;
use crate::{EngineOptions, ParseOptions, Query, QueryError, QueryOutput, QueryParams};

const SERIES: usize = 400;

/// Series of one counter in two jobs, and of an info metric; ten minutes at 15 s.
fn series() -> Vec<SelectedSeries> {
    let mut list = Vec::new();
    for name in ["requests_total", "target_info"] {
        for i in 0..SERIES {
            let (instance, job, le) = (format!("{i:04}"), format!("{}", i % 2), format!("{}", i % 4));
            let pairs = [("__name__", name), ("instance", &instance), ("job", &job), ("le", &le)];
            let mut encoder = XorEncoder::new();
            for n in 0..40 {
                encoder.append(Sample::new(n * 15_000, (n * (i as i64 + 1)) as f64)).unwrap();
            }
            let chunks = vec![AggrChunk::raw(encoder.finish().unwrap())];
            list.push(SelectedSeries { labels: Labels::from_pairs(pairs).unwrap(), replicas: vec![chunks] });
        }
    }
    list
}

fn evaluate(
    text: &str,
    all: &[SelectedSeries],
    interrupt: &Interrupt,
    params: &QueryParams,
) -> Result<QueryOutput, QueryError> {
    let engine = EngineOptions { parse: ParseOptions::ALL, workers: 1, ..EngineOptions::default() };
    let params = QueryParams { interrupt: interrupt.clone(), ..params.clone() };
    let query = Query::plan(text, &params, &engine)?;
    let mut evaluation = query.evaluation();
    while let Some(id) = evaluation.next_select() {
        let matchers = &evaluation.select(id).matchers;
        let fits = |s: &&SelectedSeries| matchers.iter().all(|m| m.matches_labels(&s.labels));
        evaluation.push(id, all.iter().filter(fits).cloned().collect())?;
        evaluation.end_select(id)?;
    }
    evaluation.finish()
}

#[test]
fn every_operator_checks_the_interrupt_at_least_once_per_series_and_stops() {
    let all = series();
    let end = Timestamp::from_millis(600_000);
    let instant = QueryParams::instant(end);
    let range = QueryParams::range(Timestamp::from_millis(300_000), end, Duration::from_secs(15));
    // For each query, how many operators each series passes, decoding included.
    for (text, params, passes) in [
        ("requests_total", &range, 2),
        ("rate(requests_total[1m])", &range, 2),
        ("sum by (job) (requests_total)", &range, 1),
        ("sum by (instance) (requests_total + 0)", &range, 2),
        ("topk by (instance) (1, requests_total)", &range, 3),
        ("limitk(300, requests_total)", &range, 2),
        ("limit_ratio(0.9, requests_total)", &range, 2),
        ("quantile by (instance) (0.5, requests_total)", &range, 3),
        ("count_values('v', requests_total)", &range, 2),
        ("requests_total / requests_total", &range, 3),
        ("requests_total * on (job, instance) group_left requests_total", &range, 3),
        ("requests_total + on (instance) fill (0) (requests_total > 1e9)", &range, 3),
        ("requests_total and requests_total", &range, 3),
        ("requests_total or requests_total", &range, 3),
        ("requests_total unless requests_total", &range, 3),
        ("sort(requests_total)", &instant, 2),
        ("sort_by_label(requests_total, 'job')", &instant, 2),
        ("absent(requests_total)", &range, 2),
        ("scalar(requests_total)", &range, 2),
        ("histogram_quantile(0.5, requests_total)", &range, 3),
        ("histogram_quantiles(requests_total, 'q', 0.5, time() / 1000)", &range, 4),
        ("histogram_fraction(0, 1, requests_total)", &range, 3),
        ("label_replace(requests_total, 'a', '$1', 'job', '(.*)')", &range, 2),
        ("sum(label_join(requests_total or requests_total, 'a', '-', 'job'))", &range, 4),
        ("max_over_time((requests_total or requests_total)[2m:15s])", &range, 4),
        ("info(requests_total)", &range, 4),
        ("abs(requests_total and requests_total)", &range, 4),
        ("timestamp(-requests_total)", &range, 2),
        ("requests_total[5m]", &instant, 1),
    ] {
        let count = Interrupt::counting();
        evaluate(text, &all, &count, params).unwrap_or_else(|error| panic!("{text}: {error}"));
        let checks = count.checks();
        assert!(checks >= passes * SERIES as u64, "{text}: only {checks} checks");
        for part in [0, 1, checks / 3, checks / 2, checks - checks / 8, checks - 1] {
            let interrupt = Interrupt::cancelled_after(part);
            let outcome = evaluate(text, &all, &interrupt, params);
            assert_eq!(outcome.unwrap_err(), QueryError::Canceled, "{text} at check {part} of {checks}");
            assert_eq!(interrupt.checks(), part + 1, "{text} did not stop at check {part} of {checks}");
        }
    }
}

#[test]
fn a_query_of_few_series_checks_the_interrupt_in_chains_of_operators_and_in_long_columns() {
    let all = series();
    let one = "requests_total{instance='0001'}";
    // The number of parts in which each column is processed.
    let parts = 3;
    let seconds = (PART * 2 + 1000) as i64;
    let end = Timestamp::from_millis(600_000);
    let instant = QueryParams::instant(end);
    let start = Timestamp::from_millis(600_000 - seconds * 1000);
    let range = QueryParams::range(start, end, Duration::from_secs(1));
    let over = |expr: &str| format!("count_over_time(({expr})[{seconds}s:1s])");
    let chain = |first: &str, next: &str, count: usize| format!("{first}{}", next.repeat(count));
    for (text, params, checks) in [
        (over(&chain(one, " + 1", 40)), &instant, 40 * parts),
        (over(&chain(one, " * time()", 40)), &instant, 40 * parts),
        (over(&chain(one, &format!(" / scalar({one})"), 10)), &instant, 10 * parts),
        (over(&format!("{}vector(1)", "-".repeat(10))), &instant, 10 * parts),
        (over(&format!("{}{one}{}", "abs(".repeat(10), ")".repeat(10))), &instant, 10 * parts),
        (over(&format!("{}{one}{}", "hour(".repeat(10), ")".repeat(10))), &instant, 10 * parts),
        (over(&format!("{}{one}{}", "timestamp(".repeat(10), ")".repeat(10))), &instant, 9 * parts),
        (chain("time()", " + time()", 40), &range, 40 * parts),
        (chain("time()", " % (time() + 1)", 20), &range, 40 * parts),
        (format!("{}time(){}", "max_of(".repeat(20), ", 5)".repeat(20)), &range, 20 * parts),
    ] {
        let count = Interrupt::counting();
        evaluate(&text, &all, &count, params).unwrap_or_else(|error| panic!("{text}: {error}"));
        let found = count.checks();
        assert!(found >= checks as u64, "{text}: only {found} checks, expected {checks}");
        for part in [found / 4, found / 2] {
            let interrupt = Interrupt::cancelled_after(part);
            assert_eq!(
                evaluate(&text, &all, &interrupt, params).unwrap_err(),
                QueryError::Canceled,
                "{text}"
            );
            assert_eq!(interrupt.checks(), part + 1, "{text} did not stop at check {part} of {found}");
        }
    }
}
