//! Tests the evaluation through its public interface: batches of any size, selects in any order, any number
//! of workers, limits, and cancellation.

use budget::{Budget, BudgetLimits, Interrupt, LimitKind, Reservation, TotalBudget};
use bytes::Bytes;
use model::{Labels, Sample, TimeRange, Timestamp};
use series::{AggrChunk, SelectedSeries};
use tsdb::{Chunk, Encoding, XorEncoder};

use crate::select::SelectId;
use crate::{
    EngineOptions, Evaluation, ParseOptions, QUERIES, Query, QueryError, QueryOutput, QueryParams,
    QueryValue, SampleValue,
};
use std::time::Duration;

mod info;
mod joins;
mod language;
mod limits;

const STEP: i64 = 15_000;
const SAMPLES: i64 = 60;

/// `count` series of a counter in label order, with one sample every 15 s for 15 minutes.
fn counters(count: usize) -> Vec<SelectedSeries> {
    (0..count)
        .map(|i| {
            let instance = format!("{i:05}");
            let job = format!("{}", i % 3);
            let pairs =
                [("__name__", "requests_total"), ("instance", instance.as_str()), ("job", job.as_str())];
            let labels = Labels::from_pairs(pairs).unwrap();
            let mut encoder = XorEncoder::new();
            for n in 0..SAMPLES {
                // The sums of these values depend on the order of addition.
                encoder.append(Sample::new(n * STEP, n as f64 * (0.1 + i as f64 / 7.0))).unwrap();
            }
            let chunk = encoder.finish().unwrap();
            SelectedSeries { labels, replicas: vec![vec![AggrChunk::raw(chunk)]] }
        })
        .collect()
}

fn params() -> QueryParams {
    let end = Timestamp::from_millis(SAMPLES * STEP);
    QueryParams::range(Timestamp::from_millis(300_000), end, Duration::from_secs(15))
}

fn engine() -> EngineOptions {
    EngineOptions { parse: ParseOptions::ALL, workers: 1, ..EngineOptions::default() }
}

/// Evaluates `text`. Every select receives all of `series`, in batches of `batch`.
fn evaluate(
    text: &str,
    series: &[SelectedSeries],
    batch: usize,
    params: &QueryParams,
    engine: &EngineOptions,
) -> Result<QueryOutput, QueryError> {
    let query = Query::plan(text, params, engine)?;
    let mut evaluation = query.evaluation();
    while let Some(id) = evaluation.next_select() {
        for part in series.chunks(batch.max(1)) {
            evaluation.push(id, part.to_vec())?;
        }
        evaluation.end_select(id)?;
    }
    evaluation.finish()
}

const TEXTS: [&str; 16] = [
    "sum by (job) (rate(requests_total[5m]))",
    "avg without (instance) (rate(requests_total[5m]))",
    "stddev(requests_total)",
    "topk(3, rate(requests_total[1m]))",
    "quantile by (job) (0.9, requests_total)",
    "requests_total / on(instance) rate(requests_total[2m]) > 100",
    "max_over_time(sum by (job) (rate(requests_total[1m]))[3m:30s])",
    "requests_total / scalar(sum(requests_total))",
    "count_values('v', requests_total % 2) or absent(nothing)",
    "bottomk by (job) (2, requests_total % 7)",
    "topk by (job) (scalar(count(requests_total) % 7), -requests_total % 3)",
    "limitk(4, requests_total)",
    "limit_ratio(-0.3, requests_total)",
    HISTOGRAMS,
    "requests_total * on (job) group_left () count by (job) (requests_total unless requests_total > 50)",
    "requests_total > 500 or requests_total and on (job) requests_total > 3000",
];

/// Ten neighbouring series each are used as the buckets of a histogram.
const HISTOGRAMS: &str = "histogram_quantile(0.5, label_replace(label_replace(label_replace(label_replace(\
    requests_total, 'job', '', '', ''), 'le', '$1', 'instance', '....(.)'), 'instance', '$1', 'instance', \
    '(....).'), 'le', '+Inf', 'le', '9') > 1)";

#[test]
fn results_are_independent_of_workers_and_batch_size() {
    // Enough series that the final results are also divided among workers.
    let series = counters(2000);
    for text in TEXTS {
        let expected = evaluate(text, &series, usize::MAX, &params(), &engine()).unwrap();
        let QueryValue::Matrix(matrix) = &expected.value else { panic!("{text} does not return a matrix") };
        assert!(!matrix.is_empty(), "{text} returns nothing");
        for (workers, batch) in [(1, 1), (2, 1000), (3, 7), (8, 128)] {
            let engine = EngineOptions { workers, ..engine() };
            let found = evaluate(text, &series, batch, &params(), &engine).unwrap();
            let same = found.value == expected.value && found.annotations == expected.annotations;
            assert!(same, "{text} differs with {workers} workers and batches of {batch}");
        }
    }
}

#[test]
fn threads_are_started_for_queries_that_are_worth_them() {
    let now = QueryParams::instant(params().end);
    for (series, params, expected) in
        [(300, &now, false), (2000, &now, false), (300, &params(), false), (2000, &params(), true)]
    {
        let engine = EngineOptions { workers: 2, ..engine() };
        let mut evaluation = Query::plan("rate(requests_total[5m])", params, &engine).unwrap().evaluation();
        let id = evaluation.next_select().unwrap();
        evaluation.push(id, counters(series)).unwrap();
        evaluation.end_select(id).unwrap();
        assert_eq!(evaluation.pool.has_threads(), expected, "{series} series");
        evaluation.finish().unwrap();
    }
}

#[test]
fn selects_may_be_pushed_in_any_order() {
    let series = counters(300);
    for text in TEXTS {
        let expected = evaluate(text, &series, 100, &params(), &engine()).unwrap().value;
        let query = Query::plan(text, &params(), &engine()).unwrap();
        let selects = query.selects().len();
        let mut evaluation = query.evaluation();
        // In reverse order and interleaved.
        for part in series.chunks(50) {
            for select in (0..selects).rev() {
                evaluation.push(SelectId(select), part.to_vec()).unwrap();
            }
        }
        for select in (0..selects).rev() {
            evaluation.end_select(SelectId(select)).unwrap();
        }
        assert!(evaluation.finish().unwrap().value == expected, "{text}");
    }
}

#[test]
fn series_with_equal_labels_fail_only_if_they_overlap() {
    for text in [
        "max(label_replace(requests_total, 'instance', '', 'instance', '.*'))",
        "absent(label_join(requests_total, 'instance', '', 'job'))",
        "sum(label_replace(requests_total, 'instance', '$1', 'instance', '.(.*)'))",
    ] {
        let apart = text.starts_with("sum");
        for params in [params(), QueryParams::instant(Timestamp::from_millis(300_000))] {
            match evaluate(text, &counters(30), 7, &params, &engine()) {
                Ok(_) => assert!(apart, "{text}"),
                Err(error) => {
                    assert!(!apart && error.to_string().contains("same labelset"), "{text}: {error}")
                }
            }
        }
    }
}

#[test]
fn aggregations_keep_groups_in_memory_and_not_series() {
    let peak = |count| {
        let text = "sum by (job) (rate(requests_total[5m]))";
        evaluate(text, &counters(count), 128, &params(), &engine()).unwrap().stats.peak_bytes
    };
    assert!(peak(4000) < 2 * peak(400), "{} and {}", peak(4000), peak(400));
}

#[test]
fn equal_selectors_are_fetched_once() {
    let selects = |text| {
        let query = Query::plan(text, &params(), &engine()).unwrap();
        query.selects().len()
    };
    assert_eq!(selects("sum(rate(x[5m])) / count(rate(x[5m]))"), 1);
    assert_eq!(selects("x / sum(x)"), 1);
    assert_eq!(selects("rate(x[5m]) / rate(x[1m])"), 2, "different ranges");
    assert_eq!(selects("x / x offset 5m"), 2);
    assert_eq!(selects("quantile_over_time(scalar(q), x[5m])"), 2);
}

#[test]
fn a_shared_select_requests_the_finest_resolution_of_its_selectors() {
    let hints = |text| {
        let query = Query::plan(text, &params(), &engine()).unwrap();
        query.selects().iter().map(|select| select.hints.resolution.map(|r| r.as_secs())).collect::<Vec<_>>()
    };
    assert_eq!(hints("avg_over_time(x[1h])"), [None]);
    assert_eq!(hints("delta(x[1h])"), [Some(1800)]);
    assert_eq!(hints("avg_over_time(x[1h]) + delta(x[1h])"), [Some(1800)]);
    assert_eq!(hints("delta(x[1h]) + avg_over_time(x[1h])"), [Some(1800)]);
    // The lookback of the first equals the range of the second.
    assert_eq!(hints("x + deriv(x[5m])"), [Some(150)]);
    assert_eq!(hints("rate(x[1h]) + increase(x[10m] offset 50m)"), [Some(300), Some(1800)]);
}

#[test]
fn selects_describe_the_samples_they_need() {
    let query = Query::plan("sum by (job) (rate(x[5m] offset 1m))", &params(), &engine()).unwrap();
    let select = &query.selects()[0];
    let range =
        TimeRange::new(Timestamp::from_millis(300_000 - 360_000 + 1), Timestamp::from_millis(840_000));
    assert_eq!(select.range, range);
    // Deduplication needs earlier samples: those of its windows of seven and a half minutes that contain the first sample, and
    // of the one before.
    let replicas = QueryParams { replica_labels: vec!["replica".to_owned()], ..params() };
    let query = Query::plan("rate(x[5m] offset 1m)", &replicas, &engine()).unwrap();
    let earlier = TimeRange { min: Timestamp::from_millis(-900_000), ..range };
    assert_eq!(query.selects()[0].range, earlier);
    // Without deduplication it does not.
    let all = QueryParams { dedup: series::Dedup::Off, ..replicas };
    let query = Query::plan("rate(x[5m] offset 1m)", &all, &engine()).unwrap();
    assert_eq!(query.selects()[0].range, range);
    assert_eq!((select.hints.func.as_str(), select.hints.range), ("rate", Duration::from_secs(300)));
    let query = Query::plan("sum by (job) (x)", &params(), &engine()).unwrap();
    let hints = &query.selects()[0].hints;
    assert_eq!(
        (hints.func.as_str(), hints.by, hints.grouping.as_slice()),
        ("sum", true, &["job".to_owned()][..])
    );
}

#[test]
fn exceeding_a_limit_fails_with_its_name_and_value() {
    let series = counters(200);
    let samples = EngineOptions { max_samples: 1000, ..engine() };
    let error = evaluate("sum(requests_total)", &series, 64, &params(), &samples).unwrap_err();
    assert!(
        matches!(&error, QueryError::Limit(limit) if limit.kind == LimitKind::Samples && limit.needed > 1000),
        "{error}"
    );
    let bytes = EngineOptions { max_bytes: 50_000, ..engine() };
    let error = evaluate("requests_total", &series, 64, &params(), &bytes).unwrap_err();
    assert!(matches!(&error, QueryError::Limit(limit) if limit.kind == LimitKind::Bytes), "{error}");
}

#[test]
fn queries_that_exceed_limits_for_any_data_are_rejected_when_planned() {
    let check = |text: &str, parts: &[&str]| {
        let params = QueryParams::instant(Timestamp::EPOCH);
        let error = Query::plan(text, &params, &engine()).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "{:.60}: {error}", text);
        }
    };
    check(&format!("x + {}", "a".repeat(1_000_000)), &["expression of 1000004 bytes", "1:"]);
    check(&format!("x{{a=\"{}\"}}", "a".repeat(1_000_000)), &["expression of 1000007 bytes", "1:"]);
    check(&format!("{}1{}", "(".repeat(100_000), ")".repeat(100_000)), &["nested deeper", "1:"]);
    check(&format!("{}x", "-".repeat(100_000)), &["nested deeper", "1:"]);
    let billion = "max_over_time(\n  x[1000000000s:1s])";
    check(billion, &["2:3: subquery of 1000000000 steps", "max_samples=200000000", "1000000000 samples"]);
    check("x + rate(y[100y:1ms])", &["1:10: subquery", "max_samples"]);
    check("x{a=~\"((a{100}){100}){100}\"}", &["1:3: ", "repeat"]);
    let large = format!("x{{a=~\"{}\"}}", ".{0,1000}".repeat(4000));
    check(&large, &["1:3: ", "expression too large"]);
    let params = QueryParams::range(Timestamp::EPOCH, Timestamp::MAX, Duration::from_millis(1));
    let error = Query::plan("x", &params, &engine()).unwrap_err().to_string();
    assert!(error.contains("range of") && error.contains("max_samples=200000000"), "{error}");
    let small = EngineOptions { max_bytes: 1000, ..engine() };
    let error = Query::plan("x[1h:1s]", &QueryParams::instant(Timestamp::EPOCH), &small).unwrap_err();
    assert!(
        error.to_string().contains("1:1: subquery of 3600 steps: query would use 28800 bytes"),
        "{error}"
    );
}

#[test]
fn queries_reserve_from_the_total_budget_and_release() {
    let series = counters(400);
    let total = TotalBudget::new(&QUERIES, BudgetLimits::bytes(1_000_000));
    let engine = EngineOptions { total: total.clone(), ..engine() };
    let text = "requests_total / on(instance, job) requests_total";
    let first = Query::plan(text, &params(), &engine).unwrap();
    let mut first = first.evaluation();
    let select = first.next_select().unwrap();
    first.push(select, series.clone()).unwrap();
    first.end_select(select).unwrap();
    drop(first);
    assert_eq!(total.reserved_bytes(), 0);

    let other = Budget::new(&total, BudgetLimits::UNLIMITED, Interrupt::new());
    let mut reserved = Reservation::new(&other);
    reserved.add(950_000).unwrap();
    let error = evaluate(text, &series, 64, &params(), &engine).unwrap_err();
    let QueryError::Limit(limit) = &error else { panic!("{error}") };
    assert_eq!((limit.kind, limit.limit), (LimitKind::TotalBytes, 1_000_000));
    assert!(limit.used_by_others >= Some(950_000), "{error}");
    drop(reserved);
    evaluate("sum(requests_total)", &series, 64, &params(), &engine).unwrap();
    assert_eq!(total.reserved_bytes(), 0);
}

#[test]
fn joins_reserve_memory_for_finding_duplicates() {
    let series = counters(300);
    let peak = |text| evaluate(text, &series, 64, &params(), &engine()).unwrap().stats.peak_bytes;
    let plain = peak("requests_total * on(job) group_left sum by (job) (requests_total)");
    let bits = 300 * (params().end.as_millis() / STEP) as u64 / 8;
    assert!(plain > bits, "{plain} and {bits}");
}

#[test]
fn series_read_ahead_by_the_driver_are_reserved() {
    let engine = EngineOptions { max_bytes: 200_000, ..engine() };
    let query = Query::plan("sum(requests_total)", &params(), &engine).unwrap();
    let mut ahead = Reservation::new(query.budget());
    ahead.add(190_000).unwrap();
    let mut evaluation = query.evaluation();
    let select = evaluation.next_select().unwrap();
    let error = evaluation.push(select, counters(200)).unwrap_err();
    assert!(matches!(&error, QueryError::Limit(limit) if limit.kind == LimitKind::Bytes), "{error}");
}

/// A clock that advances by a microsecond at each reading.
fn ticking() -> Duration {
    static TICKS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    Duration::from_micros(TICKS.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
}

#[test]
fn measuring_reports_each_operator_and_keeps_the_result() {
    let series = counters(300);
    let text = "sum by (job) (-rate(requests_total[5m])) / on(job) group_right quantile(0.5, requests_total)";
    for (workers, text) in [(1, text), (3, text), (2, TEXTS[6])] {
        let engine = EngineOptions { workers, ..engine() };
        let plain = evaluate(text, &series, 100, &params(), &engine).unwrap();
        assert_eq!(plain.analysis, None);
        let mut evaluation = Query::plan(text, &params(), &engine).unwrap().measured_evaluation(ticking);
        while let Some(id) = evaluation.next_select() {
            evaluation.push(id, series.clone()).unwrap();
            evaluation.end_select(id).unwrap();
        }
        let output = evaluation.finish().unwrap();
        assert!(output.value == plain.value, "{text}");
        let plan = output.analysis.unwrap();
        assert_eq!(plan.total_samples(), output.stats.samples, "{plan}");
        assert!(plan.total_time() > Duration::ZERO, "{plan}");
        let mut open = vec![&plan];
        while let Some(node) = open.pop() {
            open.extend(&node.children);
            let measured = node.measured.unwrap();
            if node.select.is_some() {
                assert!(measured.series == 300 && measured.peak_bytes > 0, "{plan}");
                assert!(measured.time >= Duration::from_micros(300), "{plan}");
            }
            if node.name == "sum by (job)" {
                assert_eq!(measured.series, 3, "{plan}");
            }
        }
    }
}

#[test]
fn plans_are_printed_as_a_tree() {
    let text = "topk(3, sum by (a) (rate(x{b=~\"c|d\"}[5m] offset 1m))) > bool 2 and on (a) -y @ 0";
    let plan = Query::plan(text, &params(), &engine()).unwrap().explain().to_string();
    let expected = "and on (a)  steps=41
├─ > bool 2
│  └─ topk (3)
│     └─ sum by (a)
│        └─ rate of x{b=~\"c|d\"}[5m] offset 1m  (select 1, labels: a)
└─ the same at all steps
   └─ -  steps=1
      └─ y @ 1970-01-01T00:00:00Z  (select 0, labels: a)
";
    assert_eq!(plan, expected, "{plan}");
    let text = "0.5 * clamp(x, -1, scalar(y)) > 2 - scalar(z)";
    let plan =
        Query::plan(text, &QueryParams::instant(Timestamp::EPOCH), &engine()).unwrap().explain().to_string();
    assert!(plan.contains("├─ 0.5 *\n") && plan.contains("└─ clamp (-1, …)\n"), "{plan}");
}

#[test]
fn a_cancelled_query_stays_cancelled() {
    for (workers, text) in [(1, "sum(requests_total)"), (3, "requests_total + requests_total")] {
        let interrupt = Interrupt::new();
        let params = QueryParams { interrupt: interrupt.clone(), ..params() };
        let engine = EngineOptions { workers, ..engine() };
        let query = Query::plan(text, &params, &engine).unwrap();
        let mut evaluation = query.evaluation();
        let id = evaluation.next_select().unwrap();
        evaluation.push(id, counters(300)).unwrap();
        interrupt.time_out();
        assert_eq!(evaluation.end_select(id), Err(QueryError::Timeout));
        assert_eq!(evaluation.finish().unwrap_err(), QueryError::Timeout);
    }
}

#[test]
fn a_query_is_cancelled_within_a_single_series() {
    // The query is cancelled while the thousandth of half a million windows, with up to 50,000 values each,
    // waits to be sorted.
    let interrupt = Interrupt::cancelled_after(1000);
    let params =
        QueryParams::range(Timestamp::EPOCH, Timestamp::from_millis(500_000), Duration::from_millis(1));
    let params = QueryParams { interrupt: interrupt.clone(), ..params };
    let text = "quantile_over_time(0.5, vector(time())[50s:1ms])";
    let query = Query::plan(text, &params, &engine()).unwrap();
    assert_eq!(query.evaluation().finish().unwrap_err(), QueryError::Canceled);
    assert_eq!(interrupt.checks(), 1001);
}

#[test]
fn a_damaged_chunk_fails_the_query_and_names_the_series() {
    let mut series = counters(1);
    series[0].replicas[0][0].raw =
        Some(Chunk { range: TimeRange::ALL, encoding: Encoding::Xor, data: Bytes::from_static(&[0xff; 3]) });
    let error = evaluate("sum(requests_total)", &series, 1, &params(), &engine()).unwrap_err().to_string();
    assert!(error.contains("instance=\"00000\""), "{error}");
}

#[test]
fn a_query_with_an_unfinished_select_fails() {
    let query = Query::plan("a + b", &params(), &engine()).unwrap();
    let mut evaluation = query.evaluation();
    let id = evaluation.next_select().unwrap();
    evaluation.end_select(id).unwrap();
    assert!(evaluation.end_select(id).is_err(), "a select can be ended only once");
    let query = Query::plan("a + b", &params(), &engine()).unwrap();
    let error = query.evaluation().finish().unwrap_err().to_string();
    assert!(error.contains("not read to its end"), "{error}");
}

#[test]
fn invalid_parameters_are_rejected() {
    let rejected = |text: &str, params: QueryParams, expected: &str| {
        let error = Query::plan(text, &params, &engine()).unwrap_err();
        assert!(
            matches!(error, QueryError::BadParameter(_)) && error.to_string().contains(expected),
            "{error}"
        );
    };
    let at = Timestamp::from_millis;
    rejected(
        "x",
        QueryParams::range(at(10), at(0), Duration::from_secs(1)),
        "end timestamp must not be before start",
    );
    rejected("x", QueryParams::range(at(0), at(10), Duration::ZERO), "zero query resolution step");
    rejected("x[5m]", QueryParams::range(at(0), at(10), Duration::from_secs(1)), "invalid expression type");
}

#[test]
fn the_deepest_expressions_fit_an_ordinary_stack() {
    let deep = |open: &str, close: &str, levels: usize| {
        format!("{}requests_total{}", open.repeat(levels), close.repeat(levels))
    };
    let series = counters(1);
    let chains = ["+1", " > bool 0", " or requests_total", "*on(instance)requests_total"];
    let chains = chains.map(|link| format!("requests_total{}", link.repeat(450)));
    let nested =
        [("abs(", ")", 480), ("-(", ")", 240), ("sum(", ")", 480), ("max_over_time(", "[5m:1m])", 240)];
    let nested = nested.map(|(open, close, levels)| deep(open, close, levels));
    for text in chains.iter().chain(&nested) {
        let output = evaluate(text, &series, 1, &params(), &engine());
        assert!(output.is_ok(), "{:.40}... {:?}", text, output.err());
    }
}

#[test]
fn propagated_matchers_save_series_and_keep_the_result() {
    let series = counters(300);
    let plain = engine();
    let propagating = EngineOptions { propagate_matchers: true, ..engine() };
    // Like a store: only the series that the matchers of each select allow.
    let evaluate = |text: &str, engine: &EngineOptions| {
        let query = Query::plan(text, &params(), engine).unwrap();
        let mut evaluation = query.evaluation();
        while let Some(id) = evaluation.next_select() {
            let matchers = &evaluation.select(id).matchers;
            let wanted = series.iter().filter(|s| matchers.iter().all(|m| m.matches_labels(&s.labels)));
            evaluation.push(id, wanted.cloned().collect()).unwrap();
            evaluation.end_select(id).unwrap();
        }
        evaluation.finish().unwrap()
    };
    for text in [
        "requests_total{job=\"1\"} / requests_total",
        "requests_total and on (job) rate(requests_total{job=~\"0|2\"}[5m])",
        "requests_total{job!=\"1\", instance=~\"000.*\"} unless requests_total > 5",
        "rate(requests_total{job=\"1\"}[5m]) * on (job) group_left sum by (job) (requests_total)",
        "sum without (instance) (requests_total) > 2 * sum by (job) (requests_total{job=\"2\"})",
    ] {
        let (expected, found) = (evaluate(text, &plain), evaluate(text, &propagating));
        assert!(found.value == expected.value, "{text}");
        assert_eq!(found.annotations, expected.annotations, "{text}");
        assert!(found.stats.series < expected.stats.series, "{text}");
    }
}

/// `count` series of 1000 samples in chunks of 20, 15 s apart, with stale periods.
fn long_series(count: usize) -> Vec<SelectedSeries> {
    let chunk = |series: usize, from: i64| {
        let mut encoder = XorEncoder::new();
        for n in (from..from + 20).filter(|n| n % 37 != series as i64) {
            let stale = n % 41 == series as i64;
            let value = if stale { model::stale_nan() } else { (n * (series as i64 + 1) % 101) as f64 };
            encoder.append(Sample::new(n * STEP + series as i64, value)).unwrap();
        }
        AggrChunk::raw(encoder.finish().unwrap())
    };
    (0..count)
        .map(|series| {
            let instance = format!("{series:05}");
            let labels = Labels::from_pairs([("__name__", "x_total"), ("instance", &instance)]).unwrap();
            let chunks = (0..50).map(|at| chunk(series, at * 20)).collect();
            SelectedSeries { labels, replicas: vec![chunks] }
        })
        .collect()
}

#[test]
fn chunks_that_no_step_reads_are_skipped() {
    let series = long_series(20);
    // With all samples in one chunk, nothing can be skipped.
    let whole: Vec<SelectedSeries> = series
        .iter()
        .map(|series| {
            let mut samples = series::Samples::new();
            let options = series::DecodeOptions {
                range: TimeRange::ALL,
                dedup: series::Dedup::Off,
                counter: false,
                aggregate: series::Aggregate::Raw,
                starts: false,
                window: 0,
            };
            series.decode(&options, &mut samples).unwrap();
            let mut encoder = XorEncoder::new();
            for (time, value) in samples.timestamps.iter().zip(&samples.values) {
                encoder.append(Sample::new(*time, *value)).unwrap();
            }
            let chunk = AggrChunk::raw(encoder.finish().unwrap());
            SelectedSeries { labels: series.labels.clone(), replicas: vec![vec![chunk]] }
        })
        .collect();
    let at = Timestamp::from_millis;
    for (text, skips) in [
        ("x_total", true),
        ("x_total offset 7m", true),
        ("timestamp(x_total)", true),
        ("sum(rate(x_total[3m]))", true),
        ("max_over_time(x_total[10m]) - x_total offset -3m", true),
        ("increase(x_total[1h])", false),
        ("changes(x_total[3m])", true),
        ("resets(x_total[9m] offset 1m)", true),
        ("irate(x_total[2m])", true),
        ("max_over_time(x_total[20m:10m])", true),
        ("rate(x_total[3m] anchored)", false),
        ("increase(x_total[3m] smoothed)", false),
        ("x_total smoothed", false),
        ("xincrease(x_total[3m])", false),
        ("x_total @ 3000", false),
    ] {
        for (start, step) in [(0, 1800), (1234, 1801), (600, 2000)] {
            let params = QueryParams::range(at(start * 1000), at(15_000_000), Duration::from_secs(step));
            let found = evaluate(text, &series, 7, &params, &engine()).unwrap();
            let expected = evaluate(text, &whole, 7, &params, &engine()).unwrap();
            assert!(format!("{:?}", found.value) == format!("{:?}", expected.value), "{text}, step {step}");
            assert_eq!(found.annotations, expected.annotations, "{text}");
            let less = found.stats.samples < expected.stats.samples * 3 / 4;
            assert_eq!(less, skips, "{text}: {} of {}", found.stats.samples, expected.stats.samples);
        }
    }
}

#[test]
fn a_change_of_replica_is_not_a_counter_reset() {
    let replica = |samples: std::ops::Range<i64>, first: f64| {
        let mut encoder = XorEncoder::new();
        for n in samples {
            encoder.append(Sample::new(n * STEP, first + 10.0 * n as f64)).unwrap();
        }
        vec![AggrChunk::raw(encoder.finish().unwrap())]
    };
    // The second replica starts later and continues after the first has ended.
    let replicas = vec![replica(0..30, 1000.0), replica(0..SAMPLES, 500.0)];
    let labels = Labels::from_pairs([("__name__", "requests_total")]).unwrap();
    let series = [SelectedSeries { labels, replicas }];
    let at = QueryParams::instant(Timestamp::from_millis((SAMPLES - 1) * STEP));
    for function in ["increase", "xincrease"] {
        let text = format!("{function}(requests_total[14m])");
        let output = evaluate(&text, &series, 1, &at, &engine()).unwrap();
        let QueryValue::Vector(samples) = output.value else { panic!("{text} does not return a vector") };
        let SampleValue::Float(value) = samples[0].value else { panic!("{text} does not return a float") };
        assert!((500.0..620.0).contains(&value), "{text} is {value}");
    }
}

#[test]
fn start_timestamps_are_used_only_if_enabled() {
    let mut storage = crate::promqltest::Storage::new();
    let (labels, values) = crate::promqltest::parse_series("requests_total 0+60x5").unwrap();
    let starts = [Some(-1_000); 6];
    storage.append_sequence_with_starts(&labels, Timestamp::EPOCH, 60_000, &values, &starts).unwrap();
    let ask = |query: &str, use_start_timestamps| {
        let engine = EngineOptions { use_start_timestamps, ..engine() };
        let params = QueryParams::instant(Timestamp::from_millis(300_000));
        let query = Query::plan(query, &params, &engine).unwrap();
        let mut evaluation = query.evaluation();
        while let Some(id) = evaluation.next_select() {
            let select = evaluation.select(id);
            evaluation.push(id, storage.select(&select.matchers, select.range)).unwrap();
            evaluation.end_select(id).unwrap();
        }
        let QueryValue::Vector(samples) = evaluation.finish().unwrap().value else { panic!("no vector") };
        samples.first().map(|sample| match sample.value {
            SampleValue::Float(value) => value,
            SampleValue::Histogram(_) => f64::NAN,
        })
    };
    // Each sample has counted since one second before it: 60, 120, 180, 240 and 300 instead of five times 60.
    assert_eq!(ask("resets(requests_total[5m])", true), Some(4.0));
    assert_eq!(ask("resets(requests_total[5m])", false), Some(0.0));
    assert_eq!(ask("round(increase(requests_total[5m]))", true), Some(900.0));
    assert_eq!(ask("round(increase(requests_total[5m]))", false), Some(300.0));
    assert_eq!(ask("irate(requests_total[5m])", true), Some(5.0));
    assert_eq!(ask("irate(requests_total[5m])", false), Some(1.0));
    assert_eq!(ask("start_timestamp(requests_total)", true), Some(299.0));
    assert_eq!(ask("start_timestamp(requests_total)", false), None);
    assert_eq!(ask("start_timestamp(requests_total * 1)", true), None);
}
