//! A real Prometheus and the groups of this crate evaluate the same rules on the same samples at the same instants, over a restart.
//!
//! Prometheus scrapes itself. What it has scraped is then evaluated again here, at the instants that a rule of it has recorded, and the
//! samples of all rules must be equal. Rules look at samples of two seconds ago, so that all of them were stored when Prometheus
//! evaluated the rules.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "the test starts a process and talks to it"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use model::{Labels, Sample, Timestamp};
use promql::SampleValue;
use promql::promqltest::Storage;
use rules::{Group, GroupOptions, RestoreOptions, RuleFile, RuleFileOptions, Simulation, StoredState};
use serde_json::Value;

const RULES: &str = r#"
groups:
- name: live
  rules:
  - record: instant
    expr: vector(1)
  - record: job:series:sum
    expr: sum by (job) (prometheus_tsdb_head_series offset 2s)
    labels: {kind: recorded, job: ""}
  - record: sometimes
    expr: up offset 2s and on () (vector(time() % 5) > 2)
  - record: from:sometimes
    expr: sometimes + 1
  - alert: Sometimes
    expr: vector(time() % 7) > 3
    for: 1s
    labels: {severity: page}
    annotations: {text: "value {{ $value | humanize }}"}
  - alert: Always
    expr: up{job="self"} offset 2s == 1
    for: 9s
    labels: {severity: "{{ $labels.job }}"}
  - alert: AtOnce
    expr: 'count(ALERTS) > 0'
    keep_firing_for: 2s
"#;

const CONFIG: &str = "
global: {scrape_interval: 500ms, evaluation_interval: 1s}
rule_files: [rules.yml]
scrape_configs:
- job_name: self
  static_configs: [{targets: ['127.0.0.1:PORT']}]
";

/// The names of what the rules write.
const WRITTEN: &str = "instant|job:series:sum|sometimes|from:sometimes|ALERTS|ALERTS_FOR_STATE";

/// Samples by series.
type SeriesSamples = BTreeMap<Labels, Vec<Sample>>;

/// A running Prometheus; it is ended when this is dropped.
struct Prometheus {
    process: Child,
    port: u16,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Prometheus {
    fn start(folder: &Path, port: u16) -> Self {
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .args(["--rules.alert.for-grace-period=3s", "--log.level=error"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let prometheus = Self { process, port };
        prometheus.wait("it is ready", |prometheus| prometheus.try_get("/-/ready").is_some());
        prometheus
    }

    /// Ends it as an operator does, so that everything is on the disk.
    fn stop(mut self) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        self.process.wait().unwrap();
    }

    fn wait(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !condition(self) {
            assert!(begun.elapsed() < Duration::from_secs(60), "waited a minute until {what}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The body of a successful answer.
    fn try_get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.lines().next()?.contains(" 200 ").then(|| body.to_owned())
    }

    fn data(&self, path: &str) -> Value {
        let body = self.try_get(path).unwrap_or_else(|| panic!("{path} has no answer"));
        serde_json::from_str::<Value>(&body).unwrap()["data"].take()
    }

    /// All samples of the series whose name matches, or does not match, the rules' names.
    fn samples(&self, operator: &str) -> SeriesSamples {
        let query: String = format!("{{__name__{operator}\"{WRITTEN}\",__name__!=\"\"}}[10m]")
            .bytes()
            .map(|byte| {
                if byte.is_ascii_alphanumeric() {
                    char::from(byte).to_string()
                } else {
                    format!("%{byte:02X}")
                }
            })
            .collect();
        let data = self.data(&format!("/api/v1/query?query={query}"));
        let series = data["result"].as_array().unwrap().iter().map(|series| {
            let labels = series["metric"].as_object().unwrap().iter();
            let labels =
                Labels::from_pairs(labels.map(|(name, value)| (name, value.as_str().unwrap()))).unwrap();
            let sample = |pair: &Value| {
                let seconds = pair[0].as_f64().unwrap();
                let value = promql::parse_float(pair[1].as_str().unwrap()).unwrap();
                Sample { timestamp: Timestamp::from_secs_f64(seconds), value }
            };
            (labels, series["values"].as_array().unwrap().iter().map(sample).collect())
        });
        series.collect()
    }

    /// The samples that it scraped, those that its rules wrote, and its rules, all of the same moment.
    fn snapshot(&self) -> (SeriesSamples, SeriesSamples, Value) {
        loop {
            let before = self.data("/api/v1/rules");
            let (scraped, written) = (self.samples("!~"), self.samples("=~"));
            if self.data("/api/v1/rules") == before {
                return (scraped, written, before);
            }
        }
    }
}

/// Samples by instant and labels, as text, to compare them.
type Written = BTreeMap<(Timestamp, String), String>;

fn flat(series: &SeriesSamples) -> Written {
    let samples =
        series.iter().flat_map(|(labels, samples)| samples.iter().map(move |sample| (labels, sample)));
    samples
        .map(|(labels, sample)| ((sample.timestamp, labels.to_string()), promql::go_g(sample.value)))
        .collect()
}

fn group() -> Group {
    let options = GroupOptions {
        interval: Duration::from_secs(1),
        query_offset: Duration::ZERO,
        resend_delay: Duration::from_secs(60),
        restore: RestoreOptions {
            outage_tolerance: Duration::from_secs(3600),
            grace_period: Duration::from_secs(3),
            keeps_firing: false,
            ignored_labels: Vec::new(),
        },
        restored: false,
    };
    let file = RuleFile::parse(RULES, &RuleFileOptions::default()).unwrap();
    Group::new("rules.yml", file.groups.into_iter().next().unwrap(), options)
}

/// What was recorded until now, to restore from.
fn stored(written: &SeriesSamples, until: Timestamp, alert: &str) -> Vec<StoredState> {
    let states = written.iter().filter(|(labels, _)| {
        labels.metric_name() == "ALERTS_FOR_STATE" && labels.get("alertname") == Some(alert)
    });
    states
        .filter_map(|(labels, samples)| {
            let last = samples.iter().rfind(|sample| sample.timestamp < until)?;
            Some(StoredState { labels: labels.clone(), at: last.timestamp, value: last.value })
        })
        .collect()
}

/// Stores what an earlier run has recorded before `until`, with the staleness markers, which no query returns.
fn store_recorded(storage: &mut Storage, written: &SeriesSamples, until: Timestamp) {
    let instants: Vec<Timestamp> = instants_of(written).into_iter().filter(|at| *at < until).collect();
    for (labels, samples) in written {
        let values: BTreeMap<Timestamp, f64> =
            samples.iter().map(|sample| (sample.timestamp, sample.value)).collect();
        let mut is_live = false;
        for &timestamp in &instants {
            let value = values.get(&timestamp).copied();
            if value.is_some() || is_live {
                let value = value.unwrap_or_else(model::stale_nan);
                storage.append_float(labels, Sample { timestamp, value }).unwrap();
            }
            is_live = value.is_some();
        }
    }
}

/// The instants at which the rules were evaluated.
fn instants_of(written: &SeriesSamples) -> Vec<Timestamp> {
    let samples = written.iter().filter(|(labels, _)| labels.metric_name() == "instant");
    samples.flat_map(|(_, samples)| samples.iter().map(|sample| sample.timestamp)).collect()
}

/// Evaluates the rules at `instants` on what was scraped. `before` is what was written in an earlier run.
fn evaluated(
    group: &mut Group,
    scraped: &SeriesSamples,
    before: &SeriesSamples,
    instants: &[Timestamp],
) -> Written {
    let mut simulation = Simulation::default();
    for (labels, samples) in scraped {
        for sample in samples {
            simulation.storage.append_float(labels, *sample).unwrap();
        }
    }
    store_recorded(&mut simulation.storage, before, instants[0]);
    let mut written = Written::new();
    for (number, at) in instants.iter().enumerate() {
        if number == 2 {
            // As in Prometheus: after the second evaluation.
            for rule in 0..group.rules().len() {
                if group.restore_query(rule, instants[1]).is_some() {
                    let states = stored(before, instants[0], &group.rules()[rule].name);
                    group.restore(rule, instants[1], &states);
                }
            }
        }
        simulation.evaluate(group, *at);
        // What an earlier run has recorded is no sample of this instant.
        let query = format!("last_over_time({{__name__=~\"{WRITTEN}\"}}[1ms])");
        for sample in simulation.query(&query, *at).unwrap() {
            let SampleValue::Float(value) = sample.value else { panic!("a histogram") };
            written.insert((*at, sample.labels.to_string()), promql::go_g(value));
        }
    }
    written
}

fn assert_equal(expected: &Written, found: &Written) {
    let keys: BTreeSet<_> = expected.keys().chain(found.keys()).collect();
    let differ: Vec<String> = keys
        .into_iter()
        .filter(|key| expected.get(*key) != found.get(*key))
        .map(|key| {
            format!("{} {}: Prometheus {:?}, here {:?}", key.0, key.1, expected.get(key), found.get(key))
        })
        .collect();
    assert!(differ.is_empty(), "{} samples differ\n{}", differ.len(), differ.join("\n"));
}

/// The rules without what depends on how fast they were evaluated.
fn comparable(mut rules: Value) -> Value {
    for rule in rules.as_array_mut().unwrap() {
        let rule = rule.as_object_mut().unwrap();
        for field in ["evaluationTime", "lastEvaluation"] {
            assert!(rule.remove(field).is_some(), "{field} is missing");
        }
        for alert in rule.get_mut("alerts").and_then(Value::as_array_mut).into_iter().flatten() {
            // Prometheus has nanoseconds, and 2.42 does not print this field.
            let at = alert["activeAt"].as_str().unwrap()[..19].to_owned();
            alert["activeAt"] = at.into();
            alert.as_object_mut().unwrap().remove("keepFiringSince");
        }
        let text = |alert: &Value| alert["labels"].to_string();
        if let Some(alerts) = rule.get_mut("alerts").and_then(Value::as_array_mut) {
            alerts.sort_by_key(text);
        }
        for field in ["duration", "keepFiringFor"] {
            if let Some(number) = rule.get_mut(field) {
                *number = number.as_f64().into();
            }
        }
        // Labels without a value, and empty objects, are left out by one of both.
        let labels = rule.entry("labels").or_insert_with(|| serde_json::json!({}));
        labels.as_object_mut().unwrap().retain(|_, value| value != "");
    }
    rules
}

#[test]
fn a_real_prometheus_records_the_same_and_has_the_same_alerts_over_a_restart() {
    if Command::new("prometheus").arg("--version").output().is_err() {
        println!("skipped: prometheus is not installed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    std::fs::write(folder.path().join("prometheus.yml"), CONFIG.replace("PORT", &port.to_string())).unwrap();
    std::fs::write(folder.path().join("rules.yml"), RULES).unwrap();

    let prometheus = Prometheus::start(folder.path(), port);
    let evaluations = |prometheus: &Prometheus, least: usize| {
        prometheus
            .samples("=~")
            .iter()
            .any(|(labels, samples)| labels.metric_name() == "instant" && samples.len() >= least)
    };
    prometheus.wait("it has evaluated the rules 12 times", |prometheus| evaluations(prometheus, 12));
    let (scraped, written, listed) = prometheus.snapshot();
    let instants = instants_of(&written);
    let mut first = group();
    let found = evaluated(&mut first, &scraped, &BTreeMap::new(), &instants);
    assert_equal(&flat(&written), &found);
    assert!(found.len() > 30 && found.keys().any(|(_, labels)| labels.contains("AtOnce")), "{found:?}");
    let ours = serde_json::to_value(first.to_api()).unwrap();
    assert_eq!(comparable(ours["rules"].clone()), comparable(listed["groups"][0]["rules"].clone()));

    // A series that ends while nothing runs: the first evaluations afterwards read the samples of the first process.
    prometheus.wait("`sometimes` is about to end", |prometheus| {
        let last = instants_of(&prometheus.samples("=~")).pop().unwrap();
        last.as_secs_f64().rem_euclid(5.0) >= 4.0
    });
    prometheus.stop();
    let prometheus = Prometheus::start(folder.path(), port);
    prometheus.wait("it has evaluated the rules 8 times more", |prometheus| {
        evaluations(prometheus, instants.len() + 8)
    });
    let (_, after, _) = prometheus.snapshot();
    let all = instants_of(&after);
    // Evaluations between the snapshot and the end are those of the first process.
    let runtime = prometheus.data("/api/v1/status/runtimeinfo");
    let started = promapi::parse_time("startTime", runtime["startTime"].as_str().unwrap()).unwrap();
    let gap = all.iter().position(|at| *at > started).unwrap();
    assert!(gap >= instants.len() && all.len() - gap > 2, "{started} {all:?}");
    let (scraped, before) = (prometheus.samples("!~"), after.clone());
    let found = evaluated(&mut group(), &scraped, &before, &all[gap..]);
    let late = |written: Written| -> Written {
        let is_state = |labels: &str| labels.contains("ALERTS");
        let keep = |key: &(Timestamp, String)| key.0 >= all[gap] && !is_state(&key.1);
        written.into_iter().filter(|(key, _)| keep(key)).collect()
    };
    assert_equal(&late(flat(&after)), &late(found.clone()));
    // Since when the alert is active was restored. Prometheus takes the instant at which it restores, which only
    // it knows: the second evaluation and the time that it took, cut to seconds.
    let since = |written: &Written| -> Vec<f64> {
        let of_always = |(at, labels): &(Timestamp, String)| {
            *at >= all[gap] && labels.starts_with("ALERTS_FOR_STATE") && labels.contains("\"Always\"")
        };
        written.iter().filter(|(key, _)| of_always(key)).map(|(_, value)| value.parse().unwrap()).collect()
    };
    let (theirs, ours) = (since(&flat(&after)), since(&found));
    assert!(!ours.is_empty() && ours.len().abs_diff(theirs.len()) <= 1, "{ours:?} {theirs:?}");
    assert!((ours[0] - theirs[0]).abs() <= 2.0, "{ours:?} {theirs:?}");
    assert!(ours[0] < all[gap].as_secs_f64(), "the alert began before the restart");
}
