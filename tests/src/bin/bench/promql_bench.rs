//! The engine without other components: from XOR chunks to the result of a query. The unit is CPU time of the single thread that
//! evaluates the query, unless stated otherwise.
//!
//! Thresholds, in decoded samples per second and core: `sum by (job) (rate(m[5m]))` over 10,000 series, 1 h at 15 s, step 15 s:
//! 40 million. A self-join of these series, with the samples of each side counted: 12 million. The memory for the sum over
//! 100,000 series: less than twice that over 10,000.

mod case;
mod data;

pub(crate) use case::{ROLE, run_case};

use case::{BenchCase, CaseMeasurement, DAY, HOUR, INSTANT, TimeSpan};
use tests::{Prometheus, get, percent_encode};

use crate::load::{self, BEGIN, END, SAMPLES, SERIES};
use crate::report::{BenchReport, BenchRow, median};

/// Ten times the usual number of series.
const MANY: i64 = 100_000;

/// Queries over the series that a real Prometheus also has.
const QUERIES: &[(&str, &str)] = &[
    ("selector", "bench_total"),
    ("rate", "rate(bench_total[5m])"),
    ("sum by rate", SUM_BY_RATE),
    ("histogram_quantile", "histogram_quantile(0.9, sum by (instance, le) (rate(bench_bucket[5m])))"),
    ("self-join", SELF_JOIN),
    ("topk", TOPK),
    ("quantile", QUANTILE),
    ("subquery", "max_over_time(rate(bench_total[5m])[10m:1m])"),
];
const SUM_BY_RATE: &str = "sum by (job) (rate(bench_total[5m]))";
const SELF_JOIN: &str = "sum(bench_total / on (instance, job) bench_total)";
const TOPK: &str = "topk(10, rate(bench_total[5m]))";
const QUANTILE: &str = "quantile by (job) (0.9, rate(bench_total[5m]))";

/// Queries over series like those of a real cluster.
const REAL: &[(&str, &str)] = &[
    ("selector", "requests_total"),
    ("rate", "rate(requests_total[5m])"),
    ("sum by rate", "sum by (job) (rate(requests_total[5m]))"),
    ("histogram_quantile", "histogram_quantile(0.9, sum by (job, le) (rate(latency_bucket[5m])))"),
    ("histogram_quantile of each", "histogram_quantile(0.9, rate(latency_bucket[5m]))"),
    ("count by (le)", "count by (le) (latency_bucket)"),
    ("self-join", "sum by (job) (rate(requests_total[5m]) / ignoring (x) increase(requests_total[5m]))"),
    ("group_left", GROUP_LEFT),
    ("or", "requests_total > 1e6 or requests_total"),
    ("unless", "requests_total unless requests_total > 1e6"),
    ("topk", "topk(10, rate(requests_total[5m]))"),
    ("topk by (job)", "topk by (job) (5, rate(requests_total[5m]))"),
    ("quantile", "quantile by (job) (0.9, rate(requests_total[5m]))"),
    ("subquery", "max_over_time(rate(requests_total[5m])[10m:1m])"),
];
const GROUP_LEFT: &str = "sum by (version) (rate(requests_total[5m]) \
     * on (instance, job) group_left (version, owner, region, os_image) instance_info)";

/// Queries over native histograms, in histograms per second.
const NATIVE: &[(&str, &str)] = &[
    ("native rate", "rate(latency[5m])"),
    ("native histogram_quantile", "histogram_quantile(0.9, sum by (job) (rate(latency[5m])))"),
];

/// Joins and set operators over many series, with the number of series on the left.
const LARGE: &[(&str, i64, &str)] = &[
    ("one to one", MANY, "sum(bench_total / bench_total offset 1m)"),
    ("group_left of one", MANY, "sum(bench_total / on () group_left () sum(bench_total))"),
    ("ones in turn", 240, "sum(bench_total * on () group_left () leader_info)"),
    (
        "ones in turn with labels",
        240,
        "sum by (leader) (bench_total * on () group_left (leader) leader_info)",
    ),
    ("and", MANY, "count(bench_total and bench_total offset 1m)"),
    ("unless", MANY, "count(bench_total unless bench_total offset 1m)"),
    ("or", MANY, "count(bench_total or bench_total offset 1m)"),
];

/// Queries that should use the same memory for ten times as many series, because their results have the same size.
const CONSTANT: &[(&str, &str)] = &[
    ("sum by", SUM_BY_RATE),
    ("avg by", "avg by (job) (rate(bench_total[5m]))"),
    ("max", "max(rate(bench_total[5m]))"),
    ("stddev", "stddev(bench_total)"),
    ("topk", TOPK),
    ("limitk", "limitk(10, bench_total)"),
    ("absent", "absent(bench_total)"),
    ("scalar", "scalar(bench_total)"),
    ("subquery", "max(max_over_time(rate(bench_total[5m])[10m:1m]))"),
    ("and", "sum(bench_total and on (job) sum by (job) (bench_total offset 1m) > 0)"),
];
/// Queries that must use more memory for more series: each value may still matter, or the other side is read later.
const GROWING: &[(&str, &str)] = &[
    ("quantile", QUANTILE),
    ("count_values", "count_values(\"v\", round(rate(bench_total[5m])))"),
    ("self-join", SELF_JOIN),
    // The steps at which each result exists are stored, with one bit each.
    ("group_left of one", "sum(bench_total > on () group_left () sum(bench_total offset 1m))"),
    // Both sides are read from one select, so the values of the left side are stored until the right side is complete.
    ("part of a sum", "sum(bench_total / on () group_left () sum(bench_total))"),
    ("count unless", "count(bench_total unless bench_total offset 1m)"),
    ("histogram_quantile of each", "max(histogram_quantile(0.9, rate(bench_bucket[5m])))"),
];

pub(crate) fn run(report: &mut BenchReport) {
    let mut ours = Vec::new();
    for span in [INSTANT, HOUR, DAY] {
        for series in [1_000, SERIES, MANY] {
            for (name, query) in QUERIES {
                // Over a day of 100,000 series, only queries whose result or columns do not take gigabytes.
                if series == MANY && span.samples > SAMPLES && ![SUM_BY_RATE, TOPK].contains(query) {
                    continue;
                }
                let measured = BenchCase::new(query, series, span).measure();
                let name = format!("promql/{name}/{}k, {}", series / 1000, span.name);
                report.add(&throughput(name, &measured, span));
                if series == SERIES && span.step == HOUR.step {
                    ours.push((*query, median(&measured.rates)));
                }
            }
        }
    }
    real(report);
    large(report);
    growth(report);
    two_workers(report);
    prometheus(report, &ours);
}

/// Ranges are reported in samples per second. Instants, which decode few samples, are reported in milliseconds.
fn throughput(name: String, measured: &CaseMeasurement, span: TimeSpan) -> BenchRow {
    let row = match span.step {
        None => BenchRow::new(name, "ms", measured.millis.clone()),
        Some(_) => BenchRow::new(name, "M samples/s", measured.rates.clone()),
    };
    row.peak(measured.peak_rss_bytes)
}

/// Series with many labels, varying scrape times, and counter resets.
fn real(report: &mut BenchReport) {
    for (name, query) in REAL {
        let measured = BenchCase::new(query, SERIES, HOUR).measure();
        report.add(&throughput(format!("promql/real/{name}"), &measured, HOUR));
    }
    let twice = BenchCase { replicas: 2, ..BenchCase::new(REAL[2].1, SERIES, HOUR) }.measure();
    report.add(&throughput("promql/real/sum by rate of two replicas".to_owned(), &twice, HOUR));
    for (name, query) in NATIVE {
        let measured = BenchCase::new(query, 1_000, HOUR).measure();
        let histograms = |millis: &f64| (1_000 * SAMPLES) as f64 / 1e3 / millis;
        let rates = measured.millis.iter().map(histograms).collect();
        let row = BenchRow::new(format!("promql/real/{name}"), "M hist./s", rates);
        report.add(&row.peak(measured.peak_rss_bytes));
    }
}

fn large(report: &mut BenchReport) {
    for (name, series, query) in LARGE {
        let measured = BenchCase::new(query, *series, HOUR).measure();
        report.add(&throughput(format!("promql/large/{name}"), &measured, HOUR));
    }
}

/// The memory for more series and more steps, as reserved by the engine and as used by the process in addition to the series.
fn growth(report: &mut BenchReport) {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    for (queries, ratio) in [(CONSTANT, "10k (reach < 2)"), (GROWING, "10k")] {
        for (name, query) in queries {
            let [few, many] = [SERIES, MANY].map(|series| BenchCase::new(query, series, HOUR).measure());
            let row = BenchRow::new(
                format!("promql/growth/{name}/100k/held"),
                "MiB",
                vec![mib(many.peak_held_bytes)],
            );
            report.add(&row.versus(ratio, mib(few.peak_held_bytes)));
            let row = BenchRow::new(
                format!("promql/growth/{name}/100k/rss"),
                "MiB",
                vec![mib(many.engine_rss_bytes)],
            );
            report.add(&row.versus(ratio, mib(few.engine_rss_bytes)));
        }
    }
    for (span, name, step) in
        [(HOUR, "1 h", 15), (HOUR, "1 h", 60), (HOUR, "1 h", 300), (DAY, "24 h", 300), (DAY, "24 h", 10_800)]
    {
        let measured = BenchCase::new(SUM_BY_RATE, SERIES, TimeSpan { step: Some(step), ..span }).measure();
        let row = BenchRow::new(format!("promql/growth/{name}/{step} s/time"), "ms", measured.millis);
        report.add(&row.peak(measured.peak_rss_bytes));
    }
}

/// The speed with a second worker, and the share of the work that the thread that drives the engine does, which limits the speed
/// with any number of workers.
fn two_workers(report: &mut BenchReport) {
    for (name, query) in REAL {
        let one = BenchCase::new(query, SERIES, HOUR).measure();
        let two = BenchCase { workers: 2, ..BenchCase::new(query, SERIES, HOUR) }.measure();
        let row = BenchRow::new(format!("promql/two workers/{name}"), "M samples/s", two.rates);
        report.add(&row.versus("one", median(&one.rates)).peak(two.peak_rss_bytes));
        report.add(&BenchRow::new(
            format!("promql/two workers/{name}/driver"),
            "%",
            vec![100.0 * two.driver],
        ));
    }
}

/// The same series in a real Prometheus, queried through its HTTP API, in samples per second of CPU time.
fn prometheus(report: &mut BenchReport, ours: &[(&str, f64)]) {
    if !Prometheus::is_installed("the comparison of the engine with Prometheus") {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    load::generate(dir.path());
    let prometheus = Prometheus::start(dir.path(), &[]);
    for (name, query, sides) in [
        ("sum by rate (reach 40)", SUM_BY_RATE, 1.0),
        // Samples that both sides of a join read are decoded once here and twice there. They are counted twice.
        ("self-join, both sides (reach 12)", SELF_JOIN, 2.0),
        ("topk", TOPK, 1.0),
        ("quantile", QUANTILE, 1.0),
    ] {
        let ours = ours.iter().find(|(asked, _)| *asked == query).map_or(f64::NAN, |(_, rate)| rate * sides);
        let query = percent_encode(query);
        let path = format!("/api/v1/query_range?query={query}&start={BEGIN}&end={END}&step=15");
        let mut theirs = Vec::new();
        for _ in 0..3 {
            let before = prometheus.usage().cpu_seconds;
            let (status, body) = get(prometheus.address, &path).expect("an answer");
            assert_eq!(status, 200, "{body}");
            let took = prometheus.usage().cpu_seconds - before;
            theirs.push(sides * (SERIES * SAMPLES) as f64 / 1e6 / took);
        }
        let base = median(&theirs);
        report.add(&BenchRow::new(format!("promql/{name}/Prometheus"), "M samples/s", theirs));
        let row = BenchRow::new(format!("promql/{name}/engine"), "M samples/s", vec![ours]);
        report.add(&row.versus("Prometheus", base));
    }
}
