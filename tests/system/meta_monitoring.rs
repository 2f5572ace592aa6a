//! The rules in `deploy/rules` with real processes: each cause is made to happen, its alert fires, and ends when it is healed.
//!
//! One cluster with a scraper, and a sidecar that reads it as if it were a Prometheus; a bucket with a store and a compactor, and a second
//! bucket with a store; a scraper that scrapes all processes, two rulers, and a real Alertmanager where it is installed (Debian package
//! `prometheus-alertmanager`). Times in the rules are made short.

mod causes;
mod files;
mod grafana;
mod thefts;
mod world;

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;

use serde_json::Value;
use tests::{Process, alertmanager, get, wait_for};

use crate::meta_monitoring::causes::{Refusing, check_damage, check_load, check_slow_compaction};
use crate::meta_monitoring::files::{damaged_segment, exchange, flip_bit, quick_rules, replaced};
use crate::meta_monitoring::grafana::check_grafana;
use crate::meta_monitoring::thefts::{
    check_altered_log, check_copied_certificate, check_planted_root, check_stolen_ca,
};
use crate::meta_monitoring::world::{PATIENCE, World};

/// A file of rules that cannot be evaluated, because both sides have several series.
const FAILING: &str = "groups: [{name: failing, rules: [{record: x, expr: up * on () up}]}]\n";

/// The metrics in the expressions of the shipped rules.
fn metrics(rules: &str) -> BTreeSet<&str> {
    let words = rules.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let prefixes = ["isthmus_", "thanos_", "prometheus_"];
    words.filter(|word| prefixes.iter().any(|prefix| word.starts_with(prefix))).collect()
}

#[test]
fn shipped_alerts_fire_when_their_cause_happens_and_end_when_it_is_healed() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut world = World::start(dir.path());

    println!("the scraper has a damaged block, which is old");
    world.wait_for_alerts(&["BucketGap", "UploadBehind"]);
    println!("the scraper is killed");
    world.scraper.kill();
    world.wait_for_alerts(&["ProcessDown", "ScraperUnreachable", "SidecarWithoutPrometheus"]);
    assert_eq!(world.label("ScraperUnreachable", "cluster"), "eu-1");
    println!("the block is repaired, and it is started again");
    flip_bit(&damaged_segment(&dir.path().join("scraper-data")));
    world.scraper.start_again();
    world.wait_for_alerts(&[]);

    println!("the gateway of the cluster is killed");
    world.mesh.clusters[0].kill();
    world.wait_for_alerts(&["ProcessDown", "ClusterDisconnected"]);
    assert_eq!(world.label("ClusterDisconnected", "cluster"), "eu-1");
    world.mesh.start_again(0);
    world.wait_for_alerts(&[]);

    println!("the bucket is away");
    // In its place is a link to itself, which cannot be read.
    let (bucket, away) = (dir.path().join("bucket"), dir.path().join("away"));
    std::os::unix::fs::symlink(&bucket, &away).expect("a link");
    exchange(&bucket, &away);
    world.wait_for_alerts(&["StoreOutOfSync", "CompactorStuck", "BucketOperationsFail"]);
    exchange(&bucket, &away);
    world.wait_for_alerts(&[]);
    check_damage(&world);
    check_load(&world);
    check_slow_compaction(&world);
    check_planted_root(&world);
    check_stolen_ca(&world);
    check_copied_certificate(&world);
    check_altered_log(&mut world);

    println!("each ruler is killed, which the other one notices");
    for ruler in 0..2 {
        world.rulers[ruler].kill();
        world.wait_for_alerts(&["ProcessDown", "RulerMissing", "StoreUnreachable"]);
        world.rulers[ruler].start_again();
        world.wait_for_alerts(&[]);
    }

    println!("rules fail, and then have mistakes");
    let failing = dir.path().join("rules/failing.yaml");
    fs::write(&failing, FAILING).expect("a file");
    world.reload(&quick_rules());
    world.wait_for_alerts(&["RulerEvaluationFails"]);
    fs::write(&failing, "groups: {}").expect("a file");
    world.reload(&quick_rules());
    world.wait_for_alerts(&["RulerEvaluationFails", "RulerReloadFailed"]);
    fs::remove_file(&failing).expect("a file");
    world.reload(&quick_rules());
    world.wait_for_alerts(&[]);

    println!(
        "a day is soon for certificates, a month for the issuing CA, and each denylist is old, and each wait long"
    );
    let soon = [
        ("< 8 * 3600", "< 25 * 3600"),
        ("< 10 * 86400", "< 31 * 86400"),
        ("> 3 * 3600", "> 0"),
        ("          > 10\n", "          >= 0\n"),
    ];
    world.reload(&replaced(&quick_rules(), &soon));
    world.wait_for_alerts(&["CertificateExpires", "IssuingCaExpires", "DenylistOld", "QueriesWait"]);
    world.reload(&quick_rules());
    world.wait_for_alerts(&[]);

    if let Some((process, at)) = world.alertmanager.take() {
        check_alertmanager(&world, process, at);
    }
    check_metrics(&world);
    check_grafana(&world);
}

/// Both rulers make one alert in Alertmanager, and notice when it is away.
fn check_alertmanager(world: &World, mut process: Process, at: SocketAddr) {
    let alerts = || -> Result<Vec<Value>, String> {
        let (_, body) = get(at, "/api/v2/alerts")?;
        serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))
    };
    println!("Alertmanager has one alert of two rulers");
    let is_one = || {
        let alerts = alerts()?;
        let names: Vec<&str> =
            alerts.iter().filter_map(|alert| alert["labels"]["alertname"].as_str()).collect();
        if names == ["IsthmusWatchdog"] { Ok(()) } else { Err(format!("{alerts:?}")) }
    };
    wait_for("one alert in Alertmanager", PATIENCE, is_one);
    println!("Alertmanager is away");
    process.kill();
    world.wait_for_alerts(&["AlertsNotSent", "AlertmanagerUnreachable"]);
    println!("another server is at the address of Alertmanager, which refuses alerts");
    let garbage = Refusing::start(at);
    world.wait_for_alerts(&["AlertsDropped", "AlertmanagerUnreachable"]);
    garbage.stop();
    let _again = alertmanager(&world.dir, at, None);
    world.wait_for_alerts(&[]);
    wait_for("one alert in Alertmanager after its restart", PATIENCE, is_one);
}

/// Every metric in the rules was scraped from a process of this test.
fn check_metrics(world: &World) {
    let names = world.ask("/api/v1/label/__name__/values").expect("names");
    let names: BTreeSet<&str> = names.as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    let rules = quick_rules();
    let missing: Vec<&str> = metrics(&rules).into_iter().filter(|metric| !names.contains(metric)).collect();
    assert!(missing.is_empty(), "{missing:?} are metrics that no process has");
}
