use model::Timestamp;
use promapi::{
    ActiveTarget, Alert, AlertState, AlertingRule, Alertmanager, AlertmanagerDiscovery, DroppedTarget,
    Exemplar, ExemplarSeries, HeadStats, RecordingRule, Rule, RuleGroup, RuleStrategy, TargetDiscovery,
    TargetHealth, TsdbStat, TsdbStatus,
};

use super::*;
use crate::TenantTsdbStatus;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

/// Writes an item as messages and reads them back.
fn pass<L: WireListing>(item: L) -> Listed<L> {
    let mut all = Listed::default();
    for message in item.to_wire() {
        let frame = Bytes::from(message.encode_to_vec());
        let listed = read::<L>(&frame, &AnswerMemory::unlimited()).unwrap();
        all.items.extend(listed.items);
    }
    all
}

fn group() -> RuleGroup {
    let alert = Alert {
        labels: labels(&[("alertname", "Up"), ("cluster", "eu-1")]),
        annotations: labels(&[("summary", "x")]),
        state: AlertState::Firing,
        active_at: Some(ApiTime::from_unix(1_700_000_000, 5)),
        keep_firing_since: Some(ApiTime::from_unix(1_700_000_001, 0)),
        value: "1e+00".to_owned(),
    };
    let alerting = AlertingRule {
        state: AlertState::Firing,
        name: "Up".to_owned(),
        query: "up == 1".to_owned(),
        duration_seconds: 60.0,
        keep_firing_seconds: 1.5,
        labels: labels(&[("severity", "page")]),
        annotations: labels(&[("summary", "{{ $value }}")]),
        alerts: vec![alert],
        health: "ok".to_owned(),
        last_error: String::new(),
        evaluation_seconds: 0.25,
        last_evaluation: ApiTime::from_unix(1_700_000_000, 999_999_999),
    };
    let recording = RecordingRule {
        name: "r".to_owned(),
        query: "sum(up)".to_owned(),
        labels: labels(&[("a", "b")]),
        health: "err".to_owned(),
        last_error: "boom".to_owned(),
        evaluation_seconds: 0.5,
        last_evaluation: ApiTime::NEVER,
    };
    RuleGroup {
        name: "g".to_owned(),
        file: "/r.yml".to_owned(),
        rules: vec![Rule::Alerting(alerting), Rule::Recording(recording)],
        interval: 15.0,
        limit: 7,
        evaluation_seconds: 0.75,
        last_evaluation: ApiTime::from_unix(1_700_000_002, 0),
        partial_response_strategy: RuleStrategy::Warn,
    }
}

#[test]
fn lists_pass_over_the_wire_unchanged() {
    assert_eq!(pass(group()).items, [group()]);
    let empty = RuleGroup { rules: Vec::new(), partial_response_strategy: RuleStrategy::Abort, ..group() };
    assert_eq!(pass(empty.clone()).items, [empty], "empty groups are listed");

    let active = ActiveTarget {
        discovered_labels: labels(&[("__address__", "a:1")]),
        labels: labels(&[("instance", "a:1")]),
        scrape_pool: "j".to_owned(),
        scrape_url: "http://a:1/metrics".to_owned(),
        global_url: "http://h:1/metrics".to_owned(),
        last_error: "refused".to_owned(),
        last_scrape: ApiTime::from_unix(1_700_000_000, 7),
        last_scrape_seconds: 0.125,
        health: TargetHealth::Up,
        scrape_interval: "15s".to_owned(),
        scrape_timeout: "10s".to_owned(),
    };
    let down = ActiveTarget { health: TargetHealth::Down, ..active.clone() };
    let dropped = DroppedTarget { discovered_labels: labels(&[("job", "j")]), scrape_pool: "j".to_owned() };
    let targets = pass(TargetDiscovery {
        active_targets: vec![active.clone(), down.clone()],
        dropped_targets: vec![dropped.clone()],
        alertmanagers: None,
    });
    let (actives, droppeds): (Vec<_>, Vec<_>) =
        targets.items.into_iter().map(|t| (t.active_targets, t.dropped_targets)).unzip();
    assert_eq!((actives.concat(), droppeds.concat()), (vec![active, down], vec![dropped]));

    assert_eq!(pass(TargetDiscovery::default()).items, [TargetDiscovery::default()]);
    let url = |url: &str| vec![Alertmanager { url: url.to_owned() }];
    let found = AlertmanagerDiscovery {
        active_alertmanagers: url("http://a:9093/api/v2/alerts"),
        dropped_alertmanagers: url("http://b:9093/api/v2/alerts"),
    };
    let alertmanagers = TargetDiscovery { alertmanagers: Some(found), ..TargetDiscovery::default() };
    assert_eq!(pass(alertmanagers.clone()).items, [alertmanagers]);

    let series = ExemplarSeries {
        series_labels: labels(&[("__name__", "m")]),
        exemplars: vec![Exemplar {
            labels: labels(&[("traceID", "x")]),
            value: f64::INFINITY,
            timestamp: Timestamp::from_millis(-5),
        }],
    };
    assert_eq!(pass(series.clone()).items, [series]);

    let stat = |name: &str| vec![TsdbStat { name: name.to_owned(), value: u64::MAX }];
    let status = TenantTsdbStatus {
        tenant: "t".to_owned(),
        status: TsdbStatus {
            head_stats: HeadStats {
                num_series: 1,
                num_label_pairs: 2,
                chunk_count: -3,
                min_time: 4,
                max_time: 5,
            },
            series_count_by_metric_name: stat("up"),
            label_value_count_by_label_name: stat("job"),
            memory_in_bytes_by_label_name: stat("a"),
            series_count_by_label_value_pair: stat("job=a"),
        },
    };
    assert_eq!(pass(status.clone()).items, [status]);
}

#[test]
fn large_group_is_split_into_groups_of_the_same_name() {
    let mut large = group();
    for n in 0..3000 {
        let rule =
            RecordingRule { name: format!("r{n}"), query: "x".repeat(1000), ..RecordingRule::default() };
        large.rules.push(Rule::Recording(rule));
    }
    let messages = large.clone().to_wire();
    assert!(messages.len() > 2 && messages.iter().all(|m| m.encoded_len() < 2 * MESSAGE_BYTES));
    let pieces = pass(large.clone()).items;
    assert!(pieces.iter().all(|piece| (&piece.name, &piece.file) == (&large.name, &large.file)));
    let rules: Vec<_> = pieces.into_iter().flat_map(|piece| piece.rules).collect();
    assert_eq!(rules, large.rules);
}

/// A message of a few bytes for each item must not become hundreds of bytes for each.
#[test]
fn small_message_cannot_become_a_large_structure() {
    let memory = AnswerMemory::unlimited().for_store(1 << 20, "");
    let alerts = wire::Alert { alerts: vec![Default::default(); 100_000], ..Default::default() };
    let rule = wire::Rule { result: Some(wire::rule::Result::Alert(alerts)) };
    let group = wire::RuleGroup { rules: vec![rule], ..Default::default() };
    let message = wire::RulesResponse { result: Some(wire::rules_response::Result::Group(group)) };
    let frame = Bytes::from(message.encode_to_vec());
    assert!(frame.len() < 300_000);
    let error = read::<RuleGroup>(&frame, &memory).unwrap_err();
    assert!(error.to_string().contains("more than 1048576 bytes"), "{error}");

    let labels = wire::LabelSet { labels: vec![Default::default(); 100_000] };
    let data = wire::ExemplarData { series_labels: Some(labels), exemplars: Vec::new() };
    let message = wire::ExemplarsResponse { result: Some(wire::exemplars_response::Result::Data(data)) };
    let frame = Bytes::from(message.encode_to_vec());
    let error = read::<ExemplarSeries>(&frame, &memory.for_store(1 << 20, "")).unwrap_err();
    assert!(error.to_string().contains("more than 1048576 bytes"), "{error}");
}

#[test]
fn damaged_messages_are_rejected_and_never_panic() {
    let frame = group().to_wire().remove(0).encode_to_vec();
    for at in 0..frame.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut damaged = frame.clone();
            damaged[at] ^= flip;
            let _ = read::<RuleGroup>(&Bytes::from(damaged), &AnswerMemory::unlimited());
        }
        let _ = read::<RuleGroup>(&Bytes::from(frame[..at].to_vec()), &AnswerMemory::unlimited());
    }
    let set = wire::LabelSet { labels: vec![wire::Label { name: "a".to_owned(), value: "1".to_owned() }; 2] };
    let target = wire::DroppedTarget { discovered_labels: Some(set), ..Default::default() };
    let targets = wire::TargetDiscovery { dropped_targets: vec![target], ..Default::default() };
    let message = wire::TargetsResponse { result: Some(wire::targets_response::Result::Targets(targets)) };
    let frame = Bytes::from(message.encode_to_vec());
    let error = read::<TargetDiscovery>(&frame, &AnswerMemory::unlimited()).unwrap_err();
    assert!(error.to_string().contains("\"a\" occurs twice"), "{error}");
}
