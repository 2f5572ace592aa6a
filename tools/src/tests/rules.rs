//! `tools rules ...`

use std::fs;

use super::*;

/// A folder with rule files and unit tests.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write(
        "good.yml",
        "groups:
- name: g
  rules:
  - {record: r, expr: sum(up)}
  - {alert: Down, expr: up == 0, for: 1m, annotations: {text: '{{ $labels.job }}'}}
  - {record: r, expr: max(up)}
",
    );
    write(
        "bad.yml",
        "groups:\n- name: g\n  rules:\n  - {record: r, expr: sum(}\n  - {alert: A, expr: up, fro: 5m}\n",
    );
    write("new.yml", "groups: [{name: g, rules: [{record: 'ä', expr: 'limitk(1, up)', owner: me}]}]");
    write("rules_a.yml", "groups: [{name: g, rules: [{alert: Down, expr: up == 0, for: 1m}]}]");
    write(
        "passes.yml",
        "rule_files: [rules_*.yml]
tests:
- name: first
  input_series: [{series: 'up{job=\"a\"}', values: 0x5}]
  alert_rule_test: [{eval_time: 1m, alertname: Down, exp_alerts: [{exp_labels: {job: a}}]}]
  promql_expr_test: [{expr: sum(up), eval_time: 1m, exp_samples: [{value: 0}]}]
- name: second
",
    );
    write(
        "fails.yml",
        "tests:
- name: right
  promql_expr_test: [{expr: '1', exp_samples: [{value: 1}]}]
- name: wrong
  promql_expr_test:
  - {expr: '1', eval_time: 5m, exp_samples: [{value: 2}]}
",
    );
    write("broken.yml", "rule_files: [nope.yml]\ntests: []\n");
    folder
}

fn with(folder: &Path, args: &[&str], names: &[&str]) -> Done {
    let paths: Vec<String> = names.iter().map(|name| folder.join(name).display().to_string()).collect();
    let all: Vec<&str> = args.iter().copied().chain(paths.iter().map(String::as_str)).collect();
    tools(&all)
}

/// The output without the path of the folder.
fn relative(folder: &Path, text: &str) -> String {
    text.replace(&format!("{}/", folder.display()), "")
}

#[test]
fn checked_rule_files_are_good_or_have_their_mistakes_listed() {
    let folder = folder();
    let check =
        |args: &[&str], names: &[&str]| with(folder.path(), &[&["rules", "check"], args].concat(), names);
    let good = relative(folder.path(), &check(&[], &["good.yml"]).fine());
    assert_eq!(
        good,
        "good.yml: good: 1 group, 1 alerting rule, 2 recording rules\n  \
         line 6: group \"g\", rule 3 \"r\": has the name and the labels of the rule at line 4; give one of them another name or another label\n"
    );
    check(&["--fail-on-duplicates"], &["good.yml"]).found();
    let bad = relative(folder.path(), &check(&[], &["*ad.yml"]).found());
    assert_eq!(
        bad,
        "bad.yml: 2 mistakes\n  \
         line 4: group \"g\", rule 1 \"r\": expr: could not parse expression: 1:5: parse error: unclosed left parenthesis\n  \
         line 5: group \"g\", rule 2 \"A\": fro: unknown field; known fields: record, alert, expr, for, keep_firing_for, labels, annotations\n"
    );
    let flags = ["--enable-feature=promql-experimental-functions", "--ignore-unknown-fields"];
    check(&flags, &["new.yml"]).fine();
    check(&[&flags[..], &["--legacy-names"]].concat(), &["new.yml"]).found();
    check(&flags[..1], &["new.yml"]).found();
    let json: serde_json::Value =
        serde_json::from_str(&check(&["--output=json"], &["bad.yml", "good.yml"]).found()).unwrap();
    assert_eq!(json[0]["mistakes"][1]["rule"], serde_json::json!({"number": 2, "name": "A"}));
    assert_eq!(
        (&json[1]["mistakes"], &json[1]["duplicates"][0]["line"]),
        (&serde_json::json!([]), &6.into())
    );
    check(&[], &["nope.yml"]).failed(Cause::Missing);
    check(&[], &["nope*.yml"]).failed(Cause::Missing);
}

#[test]
fn unit_tests_pass_or_say_what_differs() {
    let folder = folder();
    let test =
        |args: &[&str], names: &[&str]| with(folder.path(), &[&["rules", "test"], args].concat(), names);
    let passed = relative(folder.path(), &test(&[], &["passes.yml"]).fine());
    assert_eq!(passed, "passes.yml: passed: 2 tests, 2 checks\n");
    let failed = relative(folder.path(), &test(&[], &["passes.yml", "fails.yml"]).found());
    let expected = "passes.yml: passed: 2 tests, 2 checks\nfails.yml: failed: 1 of 2 tests\n  wrong:\n    \
        line 6: 1 after 5m\n      - {} 2\n      + {} 1\n";
    assert_eq!(failed, expected);
    let selected = relative(folder.path(), &test(&["--run=^ri", "--run=x"], &["fails.yml"]).fine());
    assert_eq!(selected, "fails.yml: passed: 1 test, 1 check\n");
    test(&["--run=("], &["fails.yml"]).failed(Cause::Usage);
    let broken = relative(folder.path(), &test(&[], &["broken.yml"]).found());
    assert!(broken.starts_with("broken.yml: 1 mistake\n  rule_files: nope.yml: "), "{broken}");
    let json: serde_json::Value =
        serde_json::from_str(&test(&["--output=json"], &["fails.yml"]).found()).unwrap();
    assert_eq!(json[0]["tests"][1]["failures"][0]["differences"], serde_json::json!(["- {} 2", "+ {} 1"]));
    test(&[], &["nope.yml"]).failed(Cause::Missing);
}

/// A Prometheus on a folder of blocks; it is ended when this is dropped.
struct Prometheus {
    process: std::process::Child,
    url: String,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Prometheus {
    fn start(folder: &Path) -> Self {
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = folder.join("prometheus.yml");
        fs::write(&config, "").unwrap();
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .args(["--storage.tsdb.retention.time=100y", "--log.level=error"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let url = format!("http://{address}");
        let begun = std::time::Instant::now();
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = promapi::PrometheusClient::new(&url, promapi::ClientOptions::default()).unwrap();
        while tokio.block_on(client.ready()).is_err() {
            assert!(begun.elapsed().as_secs() < 60, "Prometheus is not ready after a minute");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        Self { process, url }
    }
}

/// The samples of all blocks of a folder, without staleness markers, and the number of these. Times are cut to minutes, the
/// interval of the rules, because promtool rounds the instants that it asks for.
fn samples(folder: &Path) -> (std::collections::BTreeSet<String>, usize) {
    let (mut samples, mut stale) = (std::collections::BTreeSet::new(), 0);
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if !path.join("meta.json").exists() {
            continue;
        }
        for line in tools(&["block", "dump", path.to_str().unwrap()]).fine().lines() {
            match line.contains(" NaN ") {
                true => stale += 1,
                false => {
                    let (sample, millis) = line.rsplit_once(' ').unwrap();
                    samples.insert(format!("{sample} {}", millis.parse::<i64>().unwrap() / 60_000));
                }
            }
        }
    }
    (samples, stale)
}

#[test]
fn backfilled_blocks_have_what_promtool_records_and_staleness_markers() {
    if Command::new("promtool").arg("--version").output().is_err()
        || Command::new("prometheus").arg("--version").output().is_err()
    {
        println!("skipped: prometheus and promtool are not installed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (start, end) = (1_735_689_600, 1_735_689_600 + 5 * 3600);
    let mut text = "# TYPE up gauge\n".to_owned();
    for (job, minutes) in [("a", 0..330), ("b", 20..150)] {
        for minute in minutes {
            text += &format!("up{{job=\"{job}\"}} {} {}\n", minute % 7, start + minute * 60);
        }
    }
    fs::write(folder.path().join("up.om"), text + "# EOF\n").unwrap();
    let rules = "groups:
- name: g
  rules:
  - {record: job:up:max, expr: 'max by (job) (up)'}
  - {record: up:twice, expr: up * 2 > 2, labels: {kind: twice}}
  - {alert: Left, expr: up}
";
    fs::write(folder.path().join("rules.yml"), rules.replace("  - {alert: Left, expr: up}\n", "")).unwrap();
    let promtool = |args: &[&str]| {
        let output = Command::new("promtool").current_dir(folder.path()).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    promtool(&["tsdb", "create-blocks-from", "openmetrics", "up.om", "data"]);
    let prometheus = Prometheus::start(folder.path());

    let path = |name: &str| folder.path().join(name).display().to_string();
    let (url, from, until) =
        (format!("--url={}", prometheus.url), format!("--start={start}"), format!("--end={end}"));
    let file = path("rules.yml");
    // The path sets the second of the minute at which promtool evaluates. This one is constant: promtool leaves out the last
    // evaluation of each block when that second is 59, which the path of a new folder gives once in sixty runs.
    let rules_file = "rules.yml";
    promtool(&[
        "tsdb",
        "create-blocks-from",
        "rules",
        &url,
        &from,
        &until,
        "--output-dir=theirs",
        rules_file,
    ]);
    fs::write(&file, rules).unwrap();
    let output_dir = format!("--output-dir={}", path("ours"));
    let [start, end] = ["--start=2025-01-01T00:00:00Z", "--end=2025-01-01T05:00:00Z"];
    let args = [
        "rules",
        "backfill",
        &file,
        &url,
        start,
        end,
        &output_dir,
        "--label=cluster=\"eu\"",
        "--output=json",
    ];
    let blocks = tools(&args).json();
    assert_eq!(blocks.as_array().unwrap().len(), 3, "{blocks}");
    assert_eq!(
        (&blocks[0]["from"], &blocks[0]["until"]),
        (&"2025-01-01T00:00:00Z".into(), &"2025-01-01T02:00:00Z".into())
    );

    let ((ours, stale), (theirs, none)) =
        (samples(&folder.path().join("ours")), samples(&folder.path().join("theirs")));
    let differ: Vec<_> = ours.symmetric_difference(&theirs).take(10).collect();
    assert!(differ.is_empty() && ours.len() > 700, "{} samples: {differ:#?}", ours.len());
    assert!(stale > 50 && none == 0, "{stale} and {none} staleness markers");
    // The same again: the blocks exist.
    tools(&args).failed(Cause::Conflict);
    let far = ["rules", "backfill", &file, "--url=http://127.0.0.1:1", start, end, &output_dir];
    tools(&far).failed(Cause::Unreachable);
    tools(&["rules", "backfill", &file, &url, start, "--end=2024-01-01T00:00:00Z", &output_dir])
        .failed(Cause::Usage);
}
