//! The same rules on the same series and clock give the samples and alerts of Prometheus.
//!
//! Random rules are evaluated over two hours of simulated time. What they record and which alerts fire at several instants is written
//! into a file of unit tests, and `promtool test rules` of an installed Prometheus must agree with each line.
//! `ISTHMUS_DIFFERENTIAL=1000 ISTHMUS_SEED=7` runs more and other ones.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "the test starts promtool, and stops at every error"
)]

use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

use model::Timestamp;
use promql::promqltest::parse_series;
use promql::{SampleValue, go_g};
use rules::{
    AlertPhase, Group, GroupOptions, RestoreOptions, RuleFile, RuleFileOptions, Simulation, UnitTestFile,
    UnitTestOptions,
};

/// Random numbers from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }

    fn one_of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }
}

/// Time between samples in milliseconds. No sample but the first one, which is left out, is at the boundary of a range or of the
/// lookback, because version 3 of Prometheus has changed to which side these belong.
const INTERVAL: i64 = 59_007;

/// Series with gaps, staleness markers and steps, for two hours.
fn series(random: &mut Random) -> Vec<(String, String)> {
    let mut series = Vec::new();
    for metric in ["m", "n"] {
        for job in ["a", "b", "c"] {
            let mut values = String::from("_ ");
            let mut count = 1;
            while count < 125 {
                let repeat = random.below(12);
                let value = random.below(4);
                let item = match random.below(8) {
                    0 => format!("_x{}", repeat + 1),
                    1 => "stale".to_owned(),
                    2 => format!("{value}+{}x{repeat}", random.below(3)),
                    _ => format!("{value}x{repeat}"),
                };
                count += if item == "stale" { 1 } else { repeat + 1 };
                let _ = write!(values, "{item} ");
            }
            series.push((format!("{metric}{{job=\"{job}\",zone=\"z{}\"}}", random.below(2)), values));
        }
    }
    series
}

fn expression(random: &mut Random) -> String {
    let vector = random.one_of(&[
        "m",
        "n",
        "m{job=\"a\"}",
        "n{zone=\"z0\"}",
        "rec0",
        "rec1",
        "m + on (job) group_left n",
    ]);
    match random.below(8) {
        0 => format!("sum by (job) ({vector})"),
        1 => format!("max by (zone) ({vector})"),
        2 => format!("count_over_time(m[{}m30s])", 1 + random.below(9)),
        3 => format!("{vector} > {}", random.below(3)),
        4 => format!("changes(n[{}m30s] offset {}m)", 1 + random.below(9), 1 + random.below(3)),
        5 => format!("absent({})", random.one_of(&["m{job=\"a\"}", "n{job=\"c\"}", "rec0"])),
        6 => "ALERTS{alertstate=\"firing\"}".to_owned(),
        _ => vector.to_owned(),
    }
}

/// A rule file of two groups.
fn rules(random: &mut Random) -> String {
    let mut text = String::from("groups:\n");
    for group in 0..2 {
        let _ = writeln!(text, "- name: g{group}\n  rules:");
        for rule in 0..4 {
            let expr = expression(random);
            if random.below(2) == 0 {
                let _ = writeln!(text, "  - record: rec{}\n    expr: '{expr}'", random.below(3));
                if random.below(2) == 0 {
                    let _ = writeln!(text, "    labels: {{rule: r{group}{rule}}}");
                }
                continue;
            }
            let _ = writeln!(text, "  - alert: Alert{group}{rule}\n    expr: '{expr}'");
            if random.below(3) > 0 {
                let _ = writeln!(text, "    for: {}m", random.below(8));
            }
            if random.below(3) == 0 {
                let _ = writeln!(text, "    keep_firing_for: {}m", random.below(8));
            }
            // A template without any text would be the text of the template itself in Prometheus' series `ALERTS`.
            let label = random.one_of(&[
                "job {{ $labels.job }}",
                "fixed",
                "",
                "{{ .Labels.nope }}x{{ $externalLabels.cluster }}",
            ]);
            let _ = writeln!(text, "    labels: {{own: '{label}'}}");
            // An annotation without any text is absent here, and empty in Prometheus.
            let annotation = random.one_of(&[
                "{{ $value | humanize }} of {{ $labels.job }}",
                "{{ with query \"sum(m)\" }}{{ . | first | value | printf \"%.2f\" }}{{ end }}.",
                "{{ range query \"n\" | sortByLabel \"job\" }}{{ .Labels.job }}={{ .Value }} {{ end }}.",
                "{{ $externalURL }} {{ if gt $value 1.0 }}many{{ else }}few{{ end }}",
            ]);
            let _ = writeln!(text, "    annotations: {{text: '{annotation}'}}");
        }
    }
    text
}

fn groups(text: &str) -> Vec<Group> {
    let options = GroupOptions {
        interval: Duration::from_secs(60),
        query_offset: Duration::ZERO,
        resend_delay: Duration::from_secs(60),
        restore: RestoreOptions {
            outage_tolerance: Duration::ZERO,
            grace_period: Duration::ZERO,
            keeps_firing: false,
            ignored_labels: Vec::new(),
        },
        restored: true,
    };
    let file = RuleFile::parse(text, &RuleFileOptions::default())
        .unwrap_or_else(|errors| panic!("{errors:?}\n{text}"));
    file.groups.into_iter().map(|group| Group::new("rules.yml", group, options.clone())).collect()
}

/// A file of unit tests that expects what is simulated here; `None` if a rule fails, which ends a test.
fn unit_test(random: &mut Random, rules: &str) -> Option<String> {
    let series = series(random);
    let mut simulation = Simulation {
        external_labels: model::Labels::from_pairs([("cluster", "eu")]).unwrap(),
        external_url: "http://ruler.example".to_owned(),
        ..Simulation::default()
    };
    let loaded: Vec<_> =
        series.iter().map(|(name, values)| parse_series(&format!("{name} {values}")).unwrap()).collect();
    let mut groups = groups(rules);
    let (mut alert_tests, mut query_tests) = (String::new(), String::new());
    let mut next = 0;
    for minute in 0..120_i64 {
        let at = Timestamp::from_millis(minute * 60_000);
        while next * INTERVAL <= minute * 60_000 {
            for (labels, values) in &loaded {
                let value = &values[next as usize..=next as usize];
                simulation
                    .storage
                    .append_sequence(labels, Timestamp::from_millis(next * INTERVAL), 1, value)
                    .unwrap();
            }
            next += 1;
        }
        for group in &mut groups {
            simulation.evaluate(group, at);
            if group.states().iter().any(|state| state.last_error.is_some()) {
                return None;
            }
        }
        if random.below(6) == 0 || minute == 119 {
            expect_alerts(&mut alert_tests, minute, &groups);
        }
    }
    for minute in (0..120).step_by(3) {
        // Between two evaluations, and at the instant of one.
        for seconds in [minute * 60, minute * 60 + 30] {
            expect_samples(&mut query_tests, seconds, &simulation);
        }
    }
    let mut text = String::from(
        "rule_files: [rules.yml]\nevaluation_interval: 1m\ngroup_eval_order: [g0, g1]\ntests:\n- interval: 59s7ms\n  external_labels: {cluster: eu}\n  external_url: http://ruler.example\n  input_series:\n",
    );
    for (name, values) in &series {
        let _ = writeln!(text, "  - {{series: '{name}', values: '{values}'}}");
    }
    let _ = write!(text, "  alert_rule_test:\n{alert_tests}  promql_expr_test:\n{query_tests}");
    Some(text)
}

fn expect_alerts(text: &mut String, minute: i64, groups: &[Group]) {
    for group in groups {
        for (rule, state) in group.rules().iter().zip(group.states()) {
            if rule.alerting().is_none() {
                continue;
            }
            let _ = writeln!(text, "  - eval_time: {minute}m\n    alertname: {}\n    exp_alerts:", rule.name);
            for alert in state.alerts().filter(|alert| alert.phase == AlertPhase::Firing) {
                let map = |labels: &model::Labels| {
                    let pairs: Vec<String> =
                        labels.iter().map(|label| format!("{:?}: {:?}", label.name, label.value)).collect();
                    pairs.join(", ")
                };
                let _ = writeln!(
                    text,
                    "    - {{exp_labels: {{{}}}, exp_annotations: {{{}}}}}",
                    map(&alert.labels),
                    map(&alert.annotations)
                );
            }
        }
    }
}

fn expect_samples(text: &mut String, seconds: i64, simulation: &Simulation) {
    let query = "{__name__=~\"rec.|ALERTS|ALERTS_FOR_STATE\"}";
    let samples = simulation.query(query, Timestamp::from_millis(seconds * 1000)).unwrap();
    let _ = writeln!(text, "  - expr: '{query}'\n    eval_time: {seconds}s\n    exp_samples:");
    for sample in samples {
        let SampleValue::Float(value) = sample.value else { panic!("a histogram") };
        let _ = writeln!(text, "    - {{labels: '{}', value: {}}}", sample.labels, go_g(value));
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn promtool_expects_the_samples_and_alerts_that_are_simulated() {
    if Command::new("promtool").arg("--version").output().is_err() {
        println!("skipped: promtool is not installed");
        return;
    }
    let (count, seed) = (setting("ISTHMUS_DIFFERENTIAL", 20), setting("ISTHMUS_SEED", 1));
    let folder = tempfile::tempdir().unwrap();
    let (mut compared, mut at) = (0, seed * 1_000_003);
    while compared < count {
        at += 1;
        let mut random = Random(at.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let rules = rules(&mut random);
        let Some(test) = unit_test(&mut random, &rules) else { continue };
        compared += 1;
        std::fs::write(folder.path().join("rules.yml"), &rules).unwrap();
        let path = folder.path().join("test.yml");
        std::fs::write(&path, &test).unwrap();
        let output = Command::new("promtool").args(["test", "rules"]).arg(&path).output().unwrap();
        let answer = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "seed {at}\n{rules}\n{}",
            answer.chars().take(6000).collect::<String>()
        );
        // Our own runner reads the same file and agrees.
        let file = UnitTestFile::parse(&test).unwrap();
        let reports = file.run(&[("rules.yml".to_owned(), rules)], &UnitTestOptions::default(), |_| true);
        assert_eq!(reports[0].failures, [], "seed {at}");
        assert!(reports[0].checks >= 80, "{}", reports[0].checks);
    }
    println!(
        "{compared} pairs of rules and series gave equal results; {} were left out because a rule failed",
        at - seed * 1_000_003 - compared
    );
}
