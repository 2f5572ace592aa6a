//! The ruler is killed at random under load.
//!
//! `ISTHMUS_KILLS` sets how often: 15 times by default. `ISTHMUS_SEED` repeats the pauses between the kills.

use std::collections::BTreeSet;
use std::fmt::Write;

use tests::{Fault, FaultyAlertmanager, Notifications, Seeded, alertmanager, number};

use super::*;

/// Rules that record a series each, in groups of ten.
const RECORDING: usize = 30;
/// Rules of which one has a new alert each second.
const ALERTING: usize = 12;
/// Most milliseconds from the start of a ruler until it is killed. Alerts are evaluated each 200 ms, so that many rulers live for one or
/// two evaluations.
const LONGEST_LIFE_MILLIS: u64 = 700;

/// Recording rules, and alerts that begin at different seconds and end [`ALERTING`] seconds later.
fn rules() -> String {
    let mut text = "groups:\n".to_owned();
    for rule in 0..RECORDING {
        if rule % 10 == 0 {
            let _ = write!(text, "- name: g{rule}\n  interval: 500ms\n  rules:\n");
        }
        let _ = writeln!(text, "  - {{record: 'load:{rule}', expr: vector(time())}}");
    }
    text.push_str("- name: alerts\n  interval: 200ms\n  rules:\n");
    for rule in 0..ALERTING {
        let hold = if rule % 2 == 0 { "" } else { ", for: 1s" };
        let _ = writeln!(
            text,
            "  - {{alert: A{rule}, expr: 'count_values(\"n\", floor(vector((time() + {rule}) / {ALERTING})))'{hold}}}"
        );
    }
    text
}

/// A querier over the ruler, and the ruler, which sends to both Alertmanagers, each of which is a group.
fn roles(dir: &Path, real: SocketAddr, faulty: &FaultyAlertmanager) -> (Role, Role) {
    let mut querier = Role::new(dir, "querier", "query", &["--endpoint.info-timeout=300ms".to_owned()]);
    let group = |at: SocketAddr| format!("- {{static_configs: ['{at}'], timeout: 1s, api_version: v2}}\n");
    let targets = format!("alertmanagers:\n{}{}", group(real), group(faulty.address()));
    let ruler = Role::new(
        dir,
        "ruler",
        "rule",
        &[
            format!("--query=http://{}", querier.http),
            format!("--rule-file={}", write(dir, "rules.yaml", &rules())),
            format!("--data-dir={}", dir.join("data").display()),
            format!("--alertmanagers.config-file={}", write(dir, "alertmanagers.yaml", &targets)),
            "--label=replica=\"a\"".to_owned(),
            "--alert.label-drop=replica".to_owned(),
            "--for-grace-period=0s".to_owned(),
            "--resend-delay=5s".to_owned(),
        ],
    );
    querier.args.push(format!("--endpoint={}", ruler.grpc));
    (querier, ruler)
}

/// An alert as Alertmanager has it.
fn sent(mut labels: AlertLabels) -> AlertLabels {
    labels.remove("replica");
    labels
}

#[test]
fn kills_lose_no_sample_and_no_alert_and_none_is_notified_twice() {
    let (kills, mut random) = (number("ISTHMUS_KILLS", 15), Seeded::from_environment(16));
    println!("{kills} kills (ISTHMUS_KILLS)");
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let (notified, faulty, at) = (Notifications::start(), FaultyAlertmanager::start(), free_port());
    let Some(_alertmanager) = alertmanager(dir, at, Some(&notified)) else { return };
    let (querier, ruler) = roles(dir, at, &faulty);
    let _querier = querier.launch();
    let mut process = ruler.start();
    let (mut fired, mut count) = (BTreeSet::new(), 0);
    for kill in 0..kills {
        faulty.set([Fault::Fails, Fault::Hangs, Fault::None][kill as usize % 3]);
        std::thread::sleep(Duration::from_millis(random.below(LONGEST_LIFE_MILLIS)));
        let seen = ruler.samples("{__name__=~\"load:.*\"}[20s]").expect("samples");
        fired.extend(ruler.firing().expect("alerts").into_iter().map(sent));
        process.kill();
        process = ruler.start();
        let after = ruler.samples("{__name__=~\"load:.*\"}[5m]").expect("samples");
        let lost: Vec<_> = seen.iter().filter(|(at, value)| after.get(*at) != Some(value)).collect();
        assert!(lost.is_empty(), "kill {kill}: {} samples were lost: {lost:?}", lost.len());
        count += seen.len();
    }
    faulty.set(Fault::None);
    println!("{count} samples were compared; waiting until {} alerts have ended", fired.len());
    assert!(fired.len() as u64 > kills / 3, "{fired:?}");
    wait_for("each alert to be notified once, and resolved once", PATIENCE, || {
        let counts = notified.counts();
        let twice: Vec<_> = counts.iter().filter(|(_, count)| count.iter().any(|n| *n > 1)).collect();
        assert!(twice.is_empty(), "notified twice: {twice:?}");
        let missing: Vec<_> = fired
            .iter()
            .map(|alert| (alert, counts.get(alert)))
            .filter(|(_, count)| *count != Some(&[1, 1]))
            .collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?}")) }
    });
    wait_for("the Alertmanager that failed to have all alerts", PATIENCE, || {
        let taken: BTreeSet<AlertLabels> = faulty.taken().into_iter().collect();
        let missing: Vec<_> = fired.difference(&taken).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?}")) }
    });
    assert_eq!(process.terminate(), Some(0), "{}", process.output());
}
