//! The ruler: 10,000 rules in 500 groups over a store with 1,000,000 series, and the restore of 100,000 pending alerts.
//!
//! The rules are those of a dashboard: for each metric of each job, four aggregations of one rate. So four rules share a select, and all of
//! them read each series four times. The groups are spread over an interval of 30 s. Measured is the CPU time of all processes for
//! an interval, once with the ruler's own engine over the store, and once over a querier.
//!
//! The threshold is half of an interval on 2 cores. `ISTHMUS_BENCH_SERIES` sets the number of series, `ISTHMUS_BENCH_RULES` that of rules.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use model::Timestamp;
use tests::{Process, free_port, get, isthmus, wait_for};
use tsdb::{BlockOptions, ThanosMeta, Ulid, Workload};

use crate::report::{BenchReport, BenchRow};

const SERIES: u64 = 1_000_000;
const RULES: usize = 10_000;
const RULES_OF_A_GROUP: usize = 20;
const INTERVAL: Duration = Duration::from_secs(30);
/// Intervals that are measured.
const INTERVALS: u32 = 2;
/// Longest time until all groups were evaluated once, or alerts restored.
const LIMIT: Duration = Duration::from_secs(300);
/// Jobs and metrics of the workload.
const JOBS: [&str; 8] = ["api", "auth", "billing", "cart", "kafka", "orders", "search", "web"];
const FUNCTIONS: [&str; 4] = ["sum", "avg", "max", "count"];

fn number(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

pub(crate) fn run(report: &mut BenchReport) {
    let series = number("ISTHMUS_BENCH_SERIES", SERIES);
    let rules = number("ISTHMUS_BENCH_RULES", RULES as u64) as usize;
    let dir = tempfile::tempdir().expect("a temporary folder");
    write_block(&dir.path().join("bucket"), series);
    let store = Role::start(
        dir.path(),
        "store",
        &[
            format!(
                "--objstore.config={{type: FILESYSTEM, config: {{directory: {}/bucket}}}}",
                dir.path().display()
            ),
            "--store.max-memory=1GiB".to_owned(),
        ],
    );
    std::fs::write(dir.path().join("rules.yaml"), rule_file(rules)).expect("rules");
    let endpoint = format!("--endpoint={}", store.grpc);
    evaluation(report, dir.path(), "own engine", rules, &[&store], &endpoint);
    let querier = Role::start(dir.path(), "query", std::slice::from_ref(&endpoint));
    let over = format!("--query=http://{}", querier.http);
    evaluation(report, dir.path(), "over a querier", rules, &[&store, &querier], &over);
    restore(report, dir.path(), series, &endpoint);
}

/// A block from an hour ago to an hour from now.
fn write_block(bucket: &Path, series: u64) {
    std::fs::create_dir_all(bucket).expect("a folder");
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("a clock").as_millis() as i64;
    let workload = Workload {
        series,
        start: Timestamp::from_millis((now - 3_600_000) / 1_000 * 1_000),
        ..Workload::default()
    };
    let labels = [("cluster", "bench"), ("replica", "0")].map(|(n, v)| (n.to_owned(), v.to_owned()));
    let thanos =
        ThanosMeta { labels: labels.into(), source: "compactor".to_owned(), ..ThanosMeta::default() };
    let options =
        BlockOptions { thanos: Some(thanos), ..BlockOptions::new(Ulid::from_parts(1_700_006_400_000, 1)) };
    workload.write(bucket, options, &mut |_| {}).expect("a block");
}

/// Groups of recording rules.
fn rule_file(rules: usize) -> String {
    let mut text = "groups:\n".to_owned();
    for rule in 0..rules {
        if rule % RULES_OF_A_GROUP == 0 {
            let group = rule / RULES_OF_A_GROUP;
            let _ = write!(text, "- name: g{group}\n  interval: {}s\n  rules:\n", INTERVAL.as_secs());
        }
        let (function, select) = (FUNCTIONS[rule % FUNCTIONS.len()], rule / FUNCTIONS.len());
        let (job, metric) = (JOBS[select % JOBS.len()], 30 + select / JOBS.len() % 70);
        let _ = writeln!(
            text,
            "  - {{record: 'r:{rule}', expr: '{function} by (zone) (rate(app_events_{metric:03}_total{{job=\"{job}\"}}[5m]))'}}"
        );
    }
    text
}

/// A role as a process.
struct Role {
    process: Process,
    http: SocketAddr,
    grpc: SocketAddr,
}

impl Role {
    fn start(dir: &Path, command: &str, own: &[String]) -> Self {
        let (http, grpc) = (free_port(), free_port());
        let mut args = vec![command.to_owned()];
        args.extend([format!("--http-address={http}"), format!("--grpc-address={grpc}")]);
        if command != "query" {
            args.push(format!("--data-dir={}", dir.join(command).display()));
        }
        args.extend_from_slice(own);
        let mut process = Process::start(&isthmus(), &args, &dir.join(format!("{command}.log")));
        process.wait_ready(command, http);
        Self { process, http, grpc }
    }

    fn ruler(dir: &Path, rules: &Path, source: &str) -> Self {
        let labels = ["replica=\"a\"", "cluster=\"obs\""].map(|label| format!("--label={label}"));
        let mut own = vec![source.to_owned(), format!("--rule-file={}", rules.display())];
        own.extend(labels);
        Self::start(dir, "rule", &own)
    }

    /// The values of a metric, with any labels.
    fn metric(&self, name: &str) -> Vec<f64> {
        let (_, metrics) = get(self.http, "/metrics").expect("metrics");
        let of_metric = |line: &&str| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '))
        };
        metrics.lines().filter(of_metric).filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect()
    }

    fn sum(&self, name: &str) -> f64 {
        self.metric(name).iter().sum()
    }
}

fn evaluation(
    report: &mut BenchReport,
    dir: &Path,
    name: &str,
    rules: usize,
    others: &[&Role],
    source: &str,
) {
    let data = dir.join(name.replace(' ', "-"));
    std::fs::create_dir_all(&data).expect("a folder");
    let ruler = Role::ruler(&data, &dir.join("rules.yaml"), source);
    let evaluations = || ruler.sum("prometheus_rule_evaluations_total");
    wait_for("the first evaluation of all groups", LIMIT, || match evaluations() {
        count if count >= rules as f64 => Ok(()),
        count => Err(format!("{count} evaluations")),
    });
    let cpu = || {
        others
            .iter()
            .chain(std::iter::once(&&ruler))
            .map(|role| role.process.usage().cpu_seconds)
            .sum::<f64>()
    };
    let (begun, before, count) = (Instant::now(), cpu(), evaluations());
    std::thread::sleep(INTERVAL * INTERVALS);
    let intervals = begun.elapsed().as_secs_f64() / INTERVAL.as_secs_f64();
    let (spent, count) = ((cpu() - before) / intervals, (evaluations() - count) / intervals);
    let failures = ruler.sum("prometheus_rule_evaluation_failures_total");
    assert!(failures == 0.0, "{failures} evaluations failed: {}", ruler.process.output());
    let name = format!("ruler/{rules} rules, {name}");
    let row = BenchRow::new(format!("{name}/CPU of an interval"), "s", vec![spent]);
    let reach = INTERVAL.as_secs_f64();
    report.add(&row.versus("half of 2 cores", reach).peak(ruler.process.usage().peak_rss_bytes));
    report.add(&BenchRow::new(format!("{name}/rules evaluated of all"), "", vec![count / rules as f64]));
    let missed = ruler.sum("prometheus_rule_group_iterations_missed_total");
    report.add(&BenchRow::new(format!("{name}/evaluations missed"), "", vec![missed]));
    let slowest = ruler.metric("prometheus_rule_group_last_duration_seconds").into_iter().fold(0.0, f64::max);
    report.add(&BenchRow::new(format!("{name}/slowest group"), "s", vec![slowest]));
}

/// How long a ruler with 100,000 pending alerts takes until they are as old as before its restart.
fn restore(report: &mut BenchReport, dir: &Path, series: u64, source: &str) {
    let rules = dir.join("alerts.yaml");
    let expr = r#"label_replace({__name__=~"app_pool_00._in_use"}, "metric", "$1", "__name__", "(.*)") >= 0"#;
    let text =
        format!("groups:\n- name: g\n  interval: 30s\n  rules:\n  - {{alert: A, expr: '{expr}', for: 2h}}\n");
    std::fs::write(&rules, text).expect("rules");
    let data: PathBuf = dir.join("alerts");
    std::fs::create_dir_all(&data).expect("a folder");
    let alerts = |ruler: &Role| ruler.metric("ALERTS").len();
    let ruler = Role::ruler(&data, &rules, source);
    let iterated = |ruler: &Role, count: f64| {
        wait_for("an evaluation", LIMIT, || match ruler.sum("prometheus_rule_group_iterations_total") {
            done if done >= count => Ok(()),
            done => Err(format!("{done} of {count}; {} alerts", alerts(ruler))),
        });
    };
    iterated(&ruler, 2.0);
    let mut ruler = ruler;
    assert_eq!(ruler.process.terminate(), Some(0), "{}", ruler.process.output());
    let begun = Instant::now();
    let ruler = Role::ruler(&data, &rules, source);
    let ready = begun.elapsed().as_secs_f64();
    // The states are restored after the second evaluation, as in Prometheus.
    iterated(&ruler, 2.0);
    let usage = ruler.process.usage();
    let name = format!("ruler/restart with {} pending alerts", series / 10);
    report.add(&BenchRow::new(format!("{name}/ready"), "s", vec![ready]).peak(usage.peak_rss_bytes));
    report.add(&BenchRow::new(
        format!("{name}/CPU of two evaluations and the restore"),
        "s",
        vec![usage.cpu_seconds],
    ));
    let (_, body) = get(ruler.http, "/api/v1/alerts").expect("alerts");
    let count = body.matches("\"alertname\":\"A\"").count();
    assert_eq!(count as u64, series / 10, "alerts");
}
