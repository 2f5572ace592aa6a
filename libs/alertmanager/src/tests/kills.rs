//! Kills at random: no alert is lost, whatever its Alertmanagers do meanwhile.
//!
//! `ISTHMUS_KILLS` sets how often: 20 times by default.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::tests::real::{RealAlertmanager, Webhook};
use crate::tests::servers::{Answer, TestAlertmanager, World, config, firing, group, now, until};
use crate::{Alert, NotifierConfig};

const FOLDER: &str = "ISTHMUS_KILLED_FOLDER";
const URLS: &str = "ISTHMUS_KILLED_URLS";
const ROUND: &str = "ISTHMUS_KILLED_ROUND";
/// The URL of alerts that are resolved.
const RESOLVED: &str = "http://querier/resolved";

/// Each Alertmanager is a group, so that every one must have every alert.
fn each_a_group(urls: &str) -> NotifierConfig {
    let timeout = Duration::from_millis(300);
    let groups = urls.split(' ').map(|url| crate::AlertmanagerGroup { timeout, ..group(&[url]) });
    config(groups.collect())
}

/// Gives alerts and resolutions to a notifier, and prints what is on the disk, until it is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a child process of the test below, which kills it"]
async fn sends_until_it_is_killed() {
    let variable = |name| std::env::var(name).unwrap();
    let world = World::start(each_a_group(&variable(URLS)), Some(variable(FOLDER).as_ref()));
    let mut fires: Vec<Alert> = Vec::new();
    for number in 0.. {
        let alert = firing(&format!("r{}n{number}", variable(ROUND)));
        let mut alerts = vec![alert.clone()];
        fires.push(alert);
        // Every third alert is resolved when two others have come; all are sent again from time to time.
        if number % 3 == 2 {
            let alert = fires.remove(fires.len() - 3);
            alerts.push(Alert { ends_at: now(), generator_url: RESOLVED.to_owned(), ..alert });
        }
        if number % 20 == 19 {
            alerts.extend(fires.iter().cloned());
        }
        let lines: Vec<String> = alerts
            .iter()
            .map(|alert| {
                let what = if alert.is_resolved(now()) { "resolved" } else { "firing" };
                format!("saved {what} {}", alert.labels.value("alertname"))
            })
            .collect();
        world.send(alerts);
        world.notifier.saved().await;
        let mut out = std::io::stdout().lock();
        lines.iter().for_each(|line| writeln!(out, "{line}").unwrap());
    }
}

/// What was on the disk before a kill: names of alerts that fired and of those that were resolved.
#[derive(Default)]
struct Saved {
    fired: BTreeSet<String>,
    resolved: BTreeSet<String>,
}

impl Saved {
    fn note(&mut self, line: &str) -> bool {
        let Some((what, name)) = line.strip_prefix("saved ").and_then(|rest| rest.split_once(' ')) else {
            return false;
        };
        let names = if what == "resolved" { &mut self.resolved } else { &mut self.fired };
        names.insert(name.to_owned());
        true
    }
}

/// Starts the process, and kills it after some alerts and some time more.
fn kill_one(folder: &std::path::Path, urls: &str, round: usize, random: &mut StdRng, saved: &mut Saved) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tests::kills::sends_until_it_is_killed", "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .env(URLS, urls)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let wanted = random.random_range(1..60);
    let seen = lines.by_ref().filter(|line| saved.note(line)).take(wanted).count();
    let (began, pause) = (Instant::now(), Duration::from_micros(random.random_range(0..8_000)));
    while began.elapsed() < pause {
        std::hint::spin_loop();
    }
    child.kill().unwrap();
    for line in lines {
        saved.note(&line);
    }
    let output = child.wait_with_output().unwrap();
    assert!(seen == wanted, "round {round}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What an Alertmanager was sent: for each alert, whether it fired, and whether it was resolved last.
fn received(alertmanager: &TestAlertmanager) -> BTreeMap<String, (bool, bool)> {
    alertmanager.with(|received| {
        let mut states = BTreeMap::new();
        for alert in &received.alerts {
            let state: &mut (bool, bool) = states.entry(alert.labels["alertname"].clone()).or_default();
            let is_resolved = alert.generator_url.as_deref() == Some(RESOLVED);
            *state = (state.0 || !is_resolved, is_resolved);
        }
        states
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_alert_is_lost_by_kills_and_none_is_notified_twice() {
    let kills = std::env::var("ISTHMUS_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(20);
    let mut random = StdRng::seed_from_u64(16);
    let folder = tempfile::tempdir().unwrap();
    let (faulty, url) = TestAlertmanager::start().await;
    let (webhook, webhook_url) = Webhook::start().await;
    let real = RealAlertmanager::start(folder.path(), &webhook_url);
    let urls = match &real {
        Some(real) => format!("{url} {}", real.url()),
        None => url,
    };
    // Nothing listens there until the end.
    let late = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let urls = format!("{urls} http://{late}/prefix");
    let mut saved = Saved::default();
    for round in 0..kills {
        let answers = [Answer::Take, Answer::Fail(500), Answer::Hang, Answer::Html, Answer::Fail(503)];
        faulty.answers(answers[round % answers.len()]);
        (saved, random) = tokio::task::spawn_blocking({
            let (folder, urls) = (folder.path().to_owned(), urls.clone());
            move || {
                kill_one(&folder, &urls, round, &mut random, &mut saved);
                (saved, random)
            }
        })
        .await
        .unwrap();
    }
    faulty.answers(Answer::Take);
    let (late, _) = TestAlertmanager::start_at(late).await;
    let world = World::start(each_a_group(&urls), Some(folder.path()));
    world.is_sent().await;
    world.stop().await;
    let received = [received(&faulty), received(&late)];
    for (name, received) in saved.fired.iter().flat_map(|name| received.iter().map(move |own| (name, own))) {
        let (has_fired, is_resolved) = received.get(name).copied().unwrap_or_default();
        assert!(has_fired, "{name} was lost");
        if saved.resolved.contains(name) {
            assert!(is_resolved, "the resolution of {name} was lost");
        }
    }
    println!("{} alerts and {} resolutions were on the disk", saved.fired.len(), saved.resolved.len());
    let Some(real) = real else { return };
    let active: BTreeSet<String> = real.names().into_iter().collect();
    assert_eq!(active.len(), real.active().len(), "an alert is there twice");
    let mut unreported = BTreeSet::new();
    for name in &saved.fired {
        if saved.resolved.contains(name) {
            assert!(!active.contains(name), "{name} still fires");
        } else if active.contains(name) {
            until("the receiver knows the alert", || webhook.of(name)[0] > 0).await;
            assert_eq!(webhook.of(name), [1, 0], "{name}");
        } else {
            // The last alerts of a process were not reported any more. Their resolution, of which there is one, may have reached
            // this Alertmanager before it was on the disk.
            let (round, _) = name.split_once('n').unwrap();
            let is_known = received[0][name].1;
            assert!(is_known || unreported.insert(round), "{name} does not fire");
        }
        assert!(webhook.of(name)[0] <= 1 && webhook.of(name)[1] <= 1, "{name} was notified twice");
    }
}
