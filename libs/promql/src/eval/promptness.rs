//! How soon a query ends that nobody waits for any more, told by the work that it still does and not by a clock: between
//! two looks at the flag, no operator does more than a series takes.

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
fn every_operator_looks_at_the_flag_at_least_once_a_series_and_ends_there() {
    let all = series();
    let end = Timestamp::from_millis(600_000);
    let instant = QueryParams::instant(end);
    let range = QueryParams::range(Timestamp::from_millis(300_000), end, Duration::from_secs(15));
    // For each query, how many series pass its operators, decoding included.
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
        let looks = count.checks();
        assert!(looks >= passes * SERIES as u64, "{text}: only {looks} looks at the flag");
        for part in [0, 1, looks / 3, looks / 2, looks - looks / 8, looks - 1] {
            let fused = Interrupt::cancelled_after(part);
            let outcome = evaluate(text, &all, &fused, params);
            assert_eq!(outcome.unwrap_err(), QueryError::Canceled, "{text} at look {part} of {looks}");
            assert_eq!(fused.checks(), part + 1, "{text} went on after look {part} of {looks}");
        }
    }
}

#[test]
fn a_query_of_few_series_looks_at_the_flag_while_they_pass_many_operators_and_steps() {
    let all = series();
    let one = "requests_total{instance='0001'}";
    // Each column is looked at in so many parts.
    let parts = 3;
    let seconds = (PART * 2 + 1000) as i64;
    let end = Timestamp::from_millis(600_000);
    let instant = QueryParams::instant(end);
    let start = Timestamp::from_millis(600_000 - seconds * 1000);
    let range = QueryParams::range(start, end, Duration::from_secs(1));
    let over = |expr: &str| format!("count_over_time(({expr})[{seconds}s:1s])");
    let chain = |first: &str, next: &str, count: usize| format!("{first}{}", next.repeat(count));
    for (text, params, looks) in [
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
        assert!(found >= looks as u64, "{text}: only {found} looks at the flag and not {looks}");
        for part in [found / 4, found / 2] {
            let fused = Interrupt::cancelled_after(part);
            assert_eq!(evaluate(&text, &all, &fused, params).unwrap_err(), QueryError::Canceled, "{text}");
            assert_eq!(fused.checks(), part + 1, "{text} went on after look {part} of {found}");
        }
    }
}
