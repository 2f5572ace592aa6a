use promql::promqltest::parse_series;
use promql::{SampleValue, go_g};

use super::*;
use crate::alerts::AlertPhase;
use crate::file::{RuleFile, RuleFileOptions};
use crate::restore::StoredState;
use crate::simulation::Simulation;

fn options() -> GroupOptions {
    GroupOptions {
        interval: Duration::from_secs(60),
        query_offset: Duration::ZERO,
        resend_delay: Duration::from_secs(60),
        restore: RestoreOptions {
            outage_tolerance: Duration::from_secs(3600),
            grace_period: Duration::from_secs(600),
            keeps_firing: false,
            ignored_labels: vec!["cluster".to_owned(), "replica".to_owned()],
        },
        restored: true,
    }
}

/// A group with the rules of `text`, in the flow notation of YAML; fields of the group come after a bar.
fn group_with(text: &str, options: GroupOptions) -> Group {
    let (rules, fields) = text.split_once("|,").unwrap_or((text, ""));
    let comma = if fields.is_empty() { "" } else { "," };
    let text = format!("groups: [{{name: g, rules: [{rules}]{comma}{fields}}}]");
    let file =
        RuleFile::parse(&text, &RuleFileOptions::default()).unwrap_or_else(|errors| panic!("{errors:?}"));
    Group::new("f", file.groups.into_iter().next().unwrap(), options)
}

fn group(text: &str) -> Group {
    group_with(text, options())
}

fn minute(minutes: i64) -> Timestamp {
    Timestamp::from_millis(minutes * 60_000)
}

/// Series with a sample each minute.
fn simulation(series: &[&str]) -> Simulation {
    let mut simulation = Simulation::default();
    for line in series {
        let (labels, values) = parse_series(line).unwrap();
        simulation.storage.append_sequence(&labels, minute(0), 60_000, &values).unwrap();
    }
    simulation
}

/// The samples of a query, sorted, as text.
fn shown(simulation: &Simulation, query: &str, at: Timestamp) -> String {
    let samples = simulation.query(query, at).unwrap();
    let mut lines: Vec<String> = samples
        .iter()
        .map(|sample| match &sample.value {
            SampleValue::Float(value) => format!("{} {}", sample.labels, go_g(*value)),
            SampleValue::Histogram(_) => format!("{} histogram", sample.labels),
        })
        .collect();
    lines.sort();
    lines.join("; ").replace(", ", ",")
}

/// Phases of all alerts, with their labels.
fn phases(group: &Group) -> Vec<(String, AlertPhase)> {
    let alerts = group.states().iter().flat_map(RuleState::alerts);
    alerts.map(|alert| (alert.labels.value("job").to_owned(), alert.phase)).collect()
}

#[test]
fn an_alert_is_pending_then_firing_then_resolved_and_forgotten() {
    let mut simulation = simulation(&[r#"up{job="a"} 1 0x9 1x60"#]);
    let mut group = group("{alert: Down, expr: up == 0, for: 3m, labels: {team: x}}");
    let mut history = Vec::new();
    for at in 0..40 {
        let sent = simulation.evaluate(&mut group, minute(at)).alerts;
        let phase = phases(&group).first().map(|(_, phase)| *phase);
        history.push((phase, sent.len()));
        let states = shown(&simulation, "ALERTS", minute(at));
        let state = match phase {
            Some(AlertPhase::Pending) => "pending",
            Some(AlertPhase::Firing) => "firing",
            Some(AlertPhase::Resolved) | None => {
                assert_eq!(states, "", "minute {at}");
                continue;
            }
        };
        assert_eq!(
            states,
            format!(r#"ALERTS{{alertname="Down",alertstate="{state}",job="a",team="x"}} 1"#),
            "minute {at}"
        );
        let since = r#"ALERTS_FOR_STATE{alertname="Down",job="a",team="x"} 60"#;
        assert_eq!(shown(&simulation, "ALERTS_FOR_STATE", minute(at)), since);
    }
    let mut expected = vec![(None, 0)];
    expected.extend([(Some(AlertPhase::Pending), 0); 3]);
    // Firing from minute 4 to 10; sent again only when more than the resend delay has passed.
    expected.extend([1, 0, 1, 0, 1, 0, 1].map(|sent| (Some(AlertPhase::Firing), sent)));
    // Resolved at minute 11 and kept for 15 minutes.
    expected.extend([1, 0].repeat(8).into_iter().map(|sent| (Some(AlertPhase::Resolved), sent)));
    expected.resize(40, (None, 0));
    assert_eq!(history, expected);
}

#[test]
fn sent_alerts_say_when_they_began_and_until_when_they_hold() {
    let mut simulation = simulation(&["up 0x3 1x10"]);
    let mut group =
        group("{alert: Down, expr: up == 0, annotations: {text: 'value {{ $value }}'}}|, interval: 2m");
    let firing = simulation.evaluate(&mut group, minute(1)).alerts;
    assert_eq!((firing[0].starts_at, firing[0].ends_at, firing[0].resolved), (minute(1), minute(9), false));
    assert_eq!(firing[0].annotations.to_string(), r#"{text="value 0"}"#);
    let resolved = simulation.evaluate(&mut group, minute(5)).alerts;
    assert_eq!(
        (resolved[0].starts_at, resolved[0].ends_at, resolved[0].resolved),
        (minute(1), minute(5), true)
    );
}

#[test]
fn an_alert_keeps_firing_for_the_time_that_its_rule_says() {
    let mut simulation = simulation(&[r#"up{job="a"} 0 0 1 1 0 1x30"#]);
    let mut group = group("{alert: Down, expr: up == 0, keep_firing_for: 3m}");
    let mut firing = Vec::new();
    for at in 0..12 {
        simulation.evaluate(&mut group, minute(at));
        let alert = group.states()[0].alerts().next().unwrap();
        firing.push(alert.phase == AlertPhase::Firing);
        let since = match at {
            2 | 3 => Some(minute(2)),
            5.. => Some(minute(5)),
            _ => None,
        };
        assert_eq!(alert.keep_firing_since, since, "minute {at}");
    }
    assert_eq!(firing, (0..12).map(|at| at < 8).collect::<Vec<_>>());
}

#[test]
fn a_longer_for_makes_a_firing_alert_pending_again() {
    let mut simulation = simulation(&[r#"up{job="a"} 0x30"#]);
    let mut old = group("{alert: Down, expr: up == 0, for: 1m}");
    for at in 0..3 {
        simulation.evaluate(&mut old, minute(at));
    }
    assert_eq!(phases(&old), [("a".to_owned(), AlertPhase::Firing)]);
    let mut new = group("{alert: Down, expr: up == 0, for: 5m}");
    new.take_state(old);
    let mut sent = Vec::new();
    for at in 3..7 {
        sent.push(simulation.evaluate(&mut new, minute(at)).alerts.len());
    }
    assert_eq!(sent, [0, 0, 1, 0]);
}

#[test]
fn labels_of_rules_replace_those_of_samples_and_empty_ones_remove_them() {
    let mut simulation = simulation(&[r#"x{job="a",zone="z"} 1x9"#]);
    let rules = "{record: r, expr: x, labels: {zone: '', job: b, new: n}},
        {alert: A, expr: x, labels: {zone: '', job: '{{ $labels.job }}{{ .Value }}', alertname: no, gone: '{{ $labels.nope }}'}}
        |, labels: {group: yes, new: old}";
    let mut group = group(rules);
    simulation.evaluate(&mut group, minute(1));
    assert_eq!(shown(&simulation, "r", minute(1)), r#"r{group="yes",job="b",new="n"} 1"#);
    let alert = r#"ALERTS{alertname="A",alertstate="firing",group="yes",job="a1",new="old"} 1"#;
    assert_eq!(shown(&simulation, "ALERTS", minute(1)), alert);
}

#[test]
fn a_failed_evaluation_keeps_the_state_and_is_reported() {
    let mut simulation = simulation(&[r#"up{job="a"} 0x30"#]);
    let mut group = group("{alert: Down, expr: up == 0, for: 2m}, {record: r, expr: up}");
    simulation.evaluate(&mut group, minute(0));
    for rule in 0..2 {
        let applied = group.apply(rule, minute(1), Err("no store answers".to_owned()));
        assert_eq!(
            (applied.samples, applied.alerts, applied.errors),
            (vec![], vec![], vec!["no store answers".to_owned()])
        );
        assert_eq!(group.states()[rule].health, RuleHealth::Bad);
        assert_eq!(group.states()[rule].last_error.as_deref(), Some("no store answers"));
    }
    simulation.evaluate(&mut group, minute(2));
    assert_eq!(phases(&group), [("a".to_owned(), AlertPhase::Firing)]);
    assert_eq!((group.states()[1].health, &group.states()[1].last_error), (RuleHealth::Good, &None));
}

#[test]
fn alerts_are_sent_again_while_evaluations_fail() {
    let mut simulation = simulation(&[r#"up{job="a"} 0x1 1x30"#]);
    let mut group = group("{alert: Down, expr: up == 0}");
    let first = simulation.evaluate(&mut group, minute(0)).alerts;
    let mut sent = Vec::new();
    for at in 1..60 {
        let applied = group.apply(0, minute(at), Err("no store answers".to_owned()));
        assert_eq!(applied.samples, vec![]);
        sent.extend(applied.alerts);
    }
    let is_same = |alert: &SentAlert| !alert.resolved && alert.starts_at == first[0].starts_at;
    assert!(sent.len() == 29 && sent.iter().all(is_same), "{sent:?}");
    let mut until = first[0].ends_at;
    for (alert, at) in sent.iter().zip((2..60).step_by(2)) {
        assert!(minute(at) < until, "Alertmanager resolved it before minute {at}");
        until = alert.ends_at;
    }
    let resolved = simulation.evaluate(&mut group, minute(60)).alerts;
    assert!(resolved.len() == 1 && resolved[0].resolved, "{resolved:?}");
}

#[test]
fn equal_labels_and_exceeded_limits_fail_the_rule() {
    let series = [r#"up{job="a"} 0x9"#, r#"up{job="b"} 0x9"#];
    let check = |rules: &str, expected: &str| {
        let mut simulation = simulation(&series);
        let mut group = group(rules);
        simulation.evaluate(&mut group, minute(1));
        assert_eq!(group.states()[0].last_error.as_deref(), Some(expected), "{rules}");
        assert_eq!(shown(&simulation, "{__name__=~'ALERTS|r'}", minute(1)), "");
        assert_eq!(phases(&group), []);
    };
    let same = "vector contains metrics with the same labelset after applying";
    check("{record: r, expr: up, labels: {job: x}}", &format!("{same} rule labels"));
    check("{alert: A, expr: up, labels: {job: x}}", &format!("{same} alert labels"));
    check("{record: r, expr: up}|, limit: 1", "exceeded limit of 1 with 2 series");
    check("{alert: A, expr: up, for: 5m}|, limit: 1", "exceeded limit of 1 with 2 alerts");
    check("{record: r, expr: 'up[5m]'}", "rule result is not a vector or scalar");
    let mut fits = group("{record: r, expr: up}, {alert: A, expr: up}|, limit: 2");
    simulation(&series).evaluate(&mut fits, minute(1));
    assert!(fits.states().iter().all(|state| state.health == RuleHealth::Good));
}

#[test]
fn series_that_vanish_are_ended_at_once() {
    let mut simulation = simulation(&[r#"x{job="a"} 1 1 stale"#, r#"x{job="b"} 1x9"#]);
    let mut group = group("{record: r, expr: x}");
    for at in 0..3 {
        simulation.evaluate(&mut group, minute(at));
    }
    assert_eq!(shown(&simulation, "r", minute(1)), r#"r{job="a"} 1; r{job="b"} 1"#);
    assert_eq!(shown(&simulation, "r", minute(2)), r#"r{job="b"} 1"#);
}

#[test]
fn samples_that_cannot_be_stored_are_no_series_of_the_rule() {
    let mut group = group("{record: r, expr: x}");
    let sample = |job: &str| RuleSample {
        labels: Labels::from_pairs([("__name__", "r"), ("job", job)]).unwrap(),
        at: minute(0),
        value: SampleValue::Float(1.0),
    };
    let samples = [sample("a"), sample("b"), sample("c")];
    assert_eq!(group.stored(0, minute(0), &samples, &[]), []);
    let ended = group.stored(0, minute(1), &samples[..2], &[(1, "out of order".to_owned())]);
    let jobs: Vec<&str> = ended.iter().map(|sample| sample.labels.value("job")).collect();
    assert_eq!(jobs, ["b", "c"]);
    assert_eq!(group.states()[0].last_error.as_deref(), Some("out of order"));
    group.not_stored(0, "the disk is full");
    assert_eq!(group.states()[0].last_error.as_deref(), Some("the disk is full"));
    assert_eq!(group.stored(0, minute(3), &[], &[]).len(), 1);
}

#[test]
fn a_reload_keeps_the_state_of_rules_that_did_not_change() {
    let mut simulation = simulation(&[r#"up{job="a"} 0x60"#]);
    let rules = "{alert: Down, expr: up == 0, for: 5m}, {record: old, expr: up}, {record: twice, expr: up}, {record: twice, expr: up + 1, labels: {l: x}}";
    let mut old = group(rules);
    assert!(old.is_same(&group(rules)));
    for at in 0..4 {
        simulation.evaluate(&mut old, minute(at));
    }
    let changed = "{record: twice, expr: up * 3, labels: {l: x}}, {record: new, expr: up}, {alert: Down, expr: up < 1, for: 5m}";
    let mut new = group(changed);
    assert!(!old.is_same(&new));
    new.take_state(old);
    for at in 4..6 {
        simulation.evaluate(&mut new, minute(at));
    }
    assert_eq!(phases(&new), [("a".to_owned(), AlertPhase::Firing)]);
    let recorded = |at: i64| shown(&simulation, "{__name__=~'old|new|twice'}", minute(at));
    assert_eq!(recorded(3), r#"old{job="a"} 0; twice{job="a",l="x"} 1; twice{job="a"} 0"#);
    assert_eq!(recorded(4), r#"new{job="a"} 0; twice{job="a",l="x"} 0"#);
    let ended = new.removed(minute(7));
    assert_eq!(ended.len(), 4);
    assert!(ended.iter().all(|sample| sample.at == minute(7)));
}

#[test]
fn every_setting_of_a_group_makes_another_group() {
    let base = "{alert: A, expr: up, for: 1m}";
    for other in [
        "{alert: A, expr: up, for: 2m}",
        "{alert: B, expr: up, for: 1m}",
        "{alert: A, expr: up + 1, for: 1m}",
        "{alert: A, expr: up, for: 1m, keep_firing_for: 1m}",
        "{alert: A, expr: up, for: 1m, labels: {a: b}}",
        "{alert: A, expr: up, for: 1m, annotations: {a: b}}",
        "{alert: A, expr: up, for: 1m}|, limit: 1",
        "{alert: A, expr: up, for: 1m}|, interval: 5m",
        "{alert: A, expr: up, for: 1m}|, query_offset: 5m",
        "{alert: A, expr: up, for: 1m}|, partial_response_strategy: warn",
        "{alert: A, expr: up, for: 1m}, {record: r, expr: up}",
        "{record: A, expr: up}",
    ] {
        assert!(!group(base).is_same(&group(other)), "{other}");
    }
    assert!(group(base).is_same(&group("{for: 60s, alert: A, expr: ' up'}|, interval: 1m")));
}

#[test]
fn a_query_offset_moves_expressions_and_samples_but_not_alerts() {
    let mut simulation = simulation(&["x 0+1x30"]);
    let mut group = group("{record: r, expr: x}, {alert: A, expr: x, for: 1m}|, query_offset: 2m");
    simulation.evaluate(&mut group, minute(10));
    assert_eq!(shown(&simulation, "timestamp(r)", minute(12)), "{} 480");
    assert_eq!(shown(&simulation, "r", minute(12)), "r 8");
    let alert = group.states()[1].alerts().next().unwrap().clone();
    assert_eq!((alert.active_at, alert.value), (minute(10), 8.0));
    assert_eq!(
        shown(&simulation, "timestamp(ALERTS)", minute(12)),
        r#"{alertname="A",alertstate="pending"} 480"#
    );
    assert_eq!(shown(&simulation, "ALERTS_FOR_STATE", minute(8)), r#"ALERTS_FOR_STATE{alertname="A"} 600"#);
}

#[test]
fn templates_that_fail_are_reported_and_the_alert_goes_on() {
    let mut simulation = simulation(&["x 1x9"]);
    let mut group = group(
        "{alert: A, expr: x, annotations: {a: '{{ humanize \"z\" }}', b: '{{ query \"x\" | first | value }}'}}",
    );
    let simulated = simulation.evaluate(&mut group, minute(1));
    let error = "error executing template __alert_A: template: __alert_A:1:115: executing \"__alert_A\" at <humanize \"z\">: \
        error calling humanize: strconv.ParseFloat: parsing \"z\": invalid syntax";
    assert_eq!(simulated.template_errors, [error]);
    let annotations = &simulated.alerts[0].annotations;
    assert_eq!(annotations.get("a"), Some(format!("<error expanding template: {error}>").as_str()));
    assert_eq!(annotations.get("b"), Some("1"));
    assert_eq!(group.states()[0].health, RuleHealth::Good);
}

/// What `stored` restores of an alert with `for: 30m` at minute 100: since when it is active.
fn restored(stored: &[(&str, i64, f64)]) -> Timestamp {
    let mut simulation = simulation(&[r#"up{job="a"} 0x200"#]);
    let mut group = group_with(
        "{alert: Down, expr: up == 0, for: 30m, labels: {t: '{{ $labels.job }}', s: x}}",
        GroupOptions { restored: false, ..options() },
    );
    simulation.evaluate(&mut group, minute(99));
    assert_eq!(
        shown(&simulation, "ALERTS_FOR_STATE", minute(99)),
        "",
        "nothing is stored before the state is restored"
    );
    let query = group.restore_query(0, minute(100)).unwrap();
    let matchers: Vec<String> = query.matchers.iter().map(ToString::to_string).collect();
    assert_eq!(matchers.join(","), r#"__name__="ALERTS_FOR_STATE",alertname="Down",s="x""#);
    assert_eq!((query.range.min, query.range.max), (minute(40), minute(100)));
    let states: Vec<StoredState> = stored
        .iter()
        .map(|(labels, at, value)| StoredState {
            labels: parse_series(&format!("ALERTS_FOR_STATE{labels}")).unwrap().0,
            at: minute(*at),
            value: *value,
        })
        .collect();
    group.restore(0, minute(100), &states);
    let active = group.states()[0].alerts().next().unwrap().active_at;
    simulation.evaluate(&mut group, minute(101));
    assert_ne!(shown(&simulation, "ALERTS_FOR_STATE", minute(101)), "");
    assert!(group.restore_query(0, minute(101)).is_some());
    assert_eq!(group.restore(0, minute(101), &states), Applied::default());
    assert_eq!(group.restore_query(0, minute(102)), None);
    active
}

#[test]
fn the_state_of_alerts_is_restored_from_what_was_stored() {
    const LABELS: &str = r#"{alertname="Down",job="a",s="x",t="a"}"#;
    let seconds = |minutes: i64| (minutes * 60) as f64;
    // It was firing when the program went down.
    assert_eq!(restored(&[(LABELS, 90, seconds(50))]), minute(50));
    // It had 5 of 30 minutes left; it gets the grace period of 10 minutes.
    assert_eq!(restored(&[(LABELS, 90, seconds(65))]), minute(100 + 10 - 30));
    // It had 20 minutes left; the outage of 10 minutes does not count.
    assert_eq!(restored(&[(LABELS, 90, seconds(80))]), minute(90));
    // Nothing was stored, or the alert had ended.
    assert_eq!(restored(&[]), minute(99));
    assert_eq!(restored(&[(LABELS, 90, model::stale_nan())]), minute(99));
    // Another alert.
    assert_eq!(restored(&[(r#"{alertname="Down",job="b",s="x",t="b"}"#, 90, seconds(50))]), minute(99));
    // Over the global view: external labels were added, and the replica that wrote last counts.
    let view = |replica: &str| {
        format!(r#"{{alertname="Down",cluster="obs",job="a",replica="{replica}",s="x",t="a"}}"#)
    };
    let (first, second) = (view("0"), view("1"));
    assert_eq!(restored(&[(&first, 80, seconds(50)), (&second, 90, seconds(55))]), minute(55));
    assert_eq!(restored(&[(&first, 90, seconds(55)), (&second, 80, seconds(50))]), minute(55));
    // Values that are no times.
    for value in [f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 1e300] {
        restored(&[(LABELS, 90, value)]);
    }
}

#[test]
fn rules_with_a_short_for_are_not_restored() {
    let mut group = group_with(
        "{alert: A, expr: up, for: 5m}, {record: r, expr: up}",
        GroupOptions { restored: false, ..options() },
    );
    assert_eq!((group.restore_query(0, minute(1)), group.restore_query(1, minute(1))), (None, None));
    let mut simulation = simulation(&["up 1x9"]);
    simulation.evaluate(&mut group, minute(2));
    assert_ne!(shown(&simulation, "ALERTS_FOR_STATE", minute(2)), "");
}

#[test]
fn an_alert_that_fired_goes_on_also_where_for_is_short() {
    let check = |keeps_firing: bool, stored: f64, expected: Option<(Timestamp, AlertPhase)>| {
        let restore = RestoreOptions { keeps_firing, ..options().restore };
        let options = GroupOptions { restored: false, restore, ..options() };
        let mut simulation = simulation(&[r#"up{job="a"} 0x200"#]);
        let mut group = group_with("{alert: Down, expr: up == 0, for: 5m}", options);
        simulation.evaluate(&mut group, minute(99));
        let found = group.restore_query(0, minute(99)).map(|_| {
            let (labels, _) = parse_series(r#"ALERTS_FOR_STATE{alertname="Down",job="a"}"#).unwrap();
            group.restore(0, minute(99), &[StoredState { labels, at: minute(90), value: stored }]);
            let alert = group.states()[0].alerts().next().unwrap();
            (alert.active_at, alert.phase)
        });
        assert_eq!(found, expected);
    };
    let seconds = |minutes: i64| (minutes * 60) as f64;
    check(true, seconds(80), Some((minute(80), AlertPhase::Firing)));
    check(true, seconds(86), Some((minute(99), AlertPhase::Pending)));
    check(true, model::stale_nan(), Some((minute(99), AlertPhase::Pending)));
    check(false, seconds(80), None);
}

/// A group after a start, with an alert for each job that is down for five minutes.
fn started_group() -> Group {
    let restore = RestoreOptions { keeps_firing: true, ..options().restore };
    let options = GroupOptions { restored: false, restore, ..options() };
    group_with("{alert: Down, expr: up == 0, for: 5m}", options)
}

/// What was stored at minute 90 of the alert of a job, which is active since minute 80.
fn fired(job: &str) -> StoredState {
    let labels = format!(r#"ALERTS_FOR_STATE{{alertname="Down",job="{job}"}}"#);
    StoredState { labels: parse_series(&labels).unwrap().0, at: minute(90), value: (80 * 60) as f64 }
}

#[test]
fn an_alert_that_is_restored_as_firing_is_sent_and_stored_in_the_first_evaluation() {
    let mut simulation = simulation(&[r#"up{job="a"} 0x200"#, r#"up{job="b"} 0x200"#]);
    let mut group = started_group();
    assert_eq!(simulation.evaluate(&mut group, minute(99)).alerts, []);
    assert!(group.restore_query(0, minute(99)).is_some());

    let applied = group.restore_some(0, minute(99), &[fired("a")]);
    let sent: Vec<_> = applied.alerts.iter().map(|alert| alert.labels.value("job")).collect();
    assert_eq!(sent, ["a"]);
    let mut stored: Vec<_> = applied.samples.iter().map(|sample| sample.labels.to_string()).collect();
    stored.sort();
    let expected = [
        r#"ALERTS_FOR_STATE{alertname="Down", job="a"}"#,
        r#"ALERTS{alertname="Down", alertstate="firing", job="a"}"#,
    ];
    assert_eq!(stored, expected);
    assert!(applied.samples.iter().all(|sample| sample.at == minute(99)));
    group.stored_besides(0, &applied.samples, &[]);

    // The other alert waits, and its state is not stored.
    simulation.evaluate(&mut group, minute(100));
    assert_eq!(
        shown(&simulation, "ALERTS_FOR_STATE", minute(100)),
        r#"ALERTS_FOR_STATE{alertname="Down",job="a"} 4800"#
    );
    let applied = group.restore(0, minute(100), &[fired("b")]);
    assert_eq!((applied.alerts.len(), applied.samples.len()), (1, 2));
    assert_eq!(group.restore_query(0, minute(101)), None);
}

#[test]
fn the_series_of_a_restored_alert_are_ended_when_it_is_resolved() {
    let mut simulation = simulation(&[r#"up{job="a"} 0x100"#]);
    let mut group = started_group();
    simulation.evaluate(&mut group, minute(100));
    let applied = group.restore(0, minute(100), &[fired("a")]);
    group.stored_besides(0, &applied.samples, &[(1, "out of order".to_owned())]);
    assert_eq!(group.states()[0].last_error.as_deref(), Some("out of order"));
    let ended = group.stored(0, minute(101), &[], &[]);
    let ended: Vec<&Labels> = ended.iter().map(|sample| &sample.labels).collect();
    assert_eq!(ended, [&applied.samples[0].labels]);
}

#[test]
fn an_alert_that_appears_in_the_second_evaluation_is_restored() {
    // What it depends on is recorded by another group, after the first evaluation.
    let mut simulation = simulation(&[r#"up{job="a"} _x99 0x100"#]);
    let mut group = started_group();
    simulation.evaluate(&mut group, minute(98));
    assert_eq!(group.restore(0, minute(98), &[]), Applied::default());
    assert_eq!(simulation.evaluate(&mut group, minute(100)).alerts, []);
    assert_eq!(shown(&simulation, "ALERTS_FOR_STATE", minute(100)), "");
    let applied = group.restore(0, minute(100), &[fired("a")]);
    assert_eq!(applied.alerts.len(), 1);
    assert_eq!(group.states()[0].alerts().next().unwrap().active_at, minute(80));
    assert_eq!(group.restore_query(0, minute(101)), None);
}

#[test]
fn a_group_is_printed_as_by_the_api_of_prometheus() {
    let mut simulation = simulation(&[r#"up{job="a"} 0x30"#]);
    let mut group = group(
        "{alert: Down, expr: up==0, for: 2m, keep_firing_for: 1m, labels: {s: '{{ $value }}'}, annotations: {t: 'a<b'}}, {record: r, expr: sum(up)}|, limit: 5",
    );
    let json = |group: &Group| serde_json::to_value(group.to_api()).unwrap();
    assert_eq!(json(&group)["rules"][0]["state"], "unknown");
    assert_eq!(json(&group)["rules"][1]["lastEvaluation"], "0001-01-01T00:00:00Z");
    simulation.evaluate(&mut group, minute(1));
    group.rule_took(0, Duration::from_millis(250));
    group.finish(minute(1), Duration::from_millis(500));
    let alert = serde_json::json!({
        "labels": {"alertname": "Down", "job": "a", "s": "0"}, "annotations": {"t": "a<b"},
        "state": "pending", "activeAt": "1970-01-01T00:01:00Z", "value": "0e+00",
    });
    let expected = serde_json::json!({
        "name": "g", "file": "f", "interval": 60.0, "limit": 5, "evaluationTime": 0.5,
        "lastEvaluation": "1970-01-01T00:01:00Z", "partialResponseStrategy": "ABORT",
        "rules": [
            {"state": "pending", "name": "Down", "query": "up == 0", "duration": 120.0, "keepFiringFor": 60.0,
             "labels": {"s": "{{ $value }}"}, "annotations": {"t": "a<b"}, "alerts": [alert], "health": "ok",
             "evaluationTime": 0.25, "lastEvaluation": "1970-01-01T00:01:00Z", "type": "alerting"},
            {"name": "r", "query": "sum(up)", "labels": {}, "health": "ok", "evaluationTime": 0.0,
             "lastEvaluation": "1970-01-01T00:01:00Z", "type": "recording"},
        ],
    });
    assert_eq!(json(&group), expected);
    assert_eq!(serde_json::to_value(group.api_alerts()).unwrap(), serde_json::json!([alert]));
}
