//! Alerts after a restart.

use std::sync::Arc;

use clap::Parser;
use model::{Labels, Sample};
use runtime::{CommonArgs, RoleInfo, Startup};
use storeapi::memory::MemoryStore;
use storeapi::{RequestLimits, StoreServer};

use super::*;

/// A port that is free now.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Seconds since the epoch at which an alert of a rule became active, by the label `job`.
async fn active_since(http: SocketAddr, rule_name: &str) -> Vec<(String, i64)> {
    let rule = rule(http, rule_name).await;
    let alerts = rule["alerts"].as_array().cloned().unwrap_or_default();
    let since = |alert: &Value| {
        let at = alert["activeAt"].as_str().unwrap();
        let output = std::process::Command::new("date").args(["-d", at, "+%s"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    };
    let mut all: Vec<(String, i64)> = alerts
        .iter()
        .map(|alert| (alert["labels"]["job"].as_str().unwrap_or_default().to_owned(), since(alert)))
        .collect();
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_goes_on_after_a_restart_and_in_a_replica_that_is_new() {
    let dir = TempDir::new().unwrap();
    let rules = "groups: [{name: g, interval: 500ms, rules: [{alert: A, expr: vector(1), for: 3s}]}]";
    write_rules(dir.path(), rules);
    let port = free_port();
    // The ruler is its own store.
    let own = [
        format!("--endpoint=127.0.0.1:{port}"),
        format!("--grpc-address=127.0.0.1:{port}"),
        "--label=replica=\"a\"".to_owned(),
        "--query.replica-label=replica".to_owned(),
        "--for-grace-period=1s".to_owned(),
        "--endpoint.info-timeout=200ms".to_owned(),
    ];
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    let first = start(dir.path(), &own).await;
    let state =
        async |http: SocketAddr| rule(http, "A").await["state"].as_str().unwrap_or_default().to_owned();
    until("the alert fires", async || state(first.http_address()).await == "firing").await;
    let since = active_since(first.http_address(), "A").await;

    println!("a replica without data takes over what the first one has stored");
    let other = TempDir::new().unwrap();
    write_rules(other.path(), rules);
    let flags = [own[0], "--label=replica=\"b\"", own[3], own[4], own[5]];
    let second = start(other.path(), &flags).await;
    until("it has the time of the first one", async || {
        active_since(second.http_address(), "A").await == since
    })
    .await;
    until("its alert fires", async || state(second.http_address()).await == "firing").await;
    stop(second).await;

    println!("after a restart the alert goes on");
    stop(first).await;
    let first = start(dir.path(), &own).await;
    until("the state is restored", async || active_since(first.http_address(), "A").await == since).await;
    until("the alert fires", async || state(first.http_address()).await == "firing").await;
    stop(first).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_with_a_short_for_fires_on_with_the_usual_grace_period() {
    let dir = TempDir::new().unwrap();
    write_rules(
        dir.path(),
        "groups: [{name: g, interval: 500ms, rules: [{alert: A, expr: vector(1), for: 1s}]}]",
    );
    let querier =
        super::querier::FakeQuerier::start(super::querier::Behaviour::Answers(vec![("a", 1.0)], vec![]))
            .await;
    let role = start(dir.path(), &[&querier.flag()]).await;
    until("the alert fires", async || rule(role.http_address(), "A").await["state"] == "firing").await;
    let since = active_since(role.http_address(), "A").await;
    until("it was stored as firing", async || {
        !stored(role.http_address(), "ALERTS{alertstate='firing'}").await.is_empty()
    })
    .await;
    stop(role).await;
    let role = start(dir.path(), &[&querier.flag()]).await;
    until("its state is restored", async || active_since(role.http_address(), "A").await == since).await;
    assert_eq!(rule(role.http_address(), "A").await["state"], "firing");
    stop(role).await;
}

#[derive(Parser)]
struct StoreCommand {
    #[command(flatten)]
    common: CommonArgs,
}

/// A store with these series.
async fn store(series: Vec<(Labels, Vec<Sample>)>) -> RunningRole {
    let flags = ["store", "--http-address=127.0.0.1:0", "--grpc-address=127.0.0.1:0"];
    let common = StoreCommand::try_parse_from(flags).unwrap().common;
    let role = RoleInfo { name: "store", descriptors: &[proto::DESCRIPTORS], ..RoleInfo::DEFAULT };
    let mut startup = Startup::bind(role, &common).await.unwrap();
    let store = MemoryStore::from_samples(Labels::empty(), series).unwrap();
    StoreServer::new(Arc::new(store), RequestLimits::default()).register(startup.services());
    startup.serve()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_other_rulers_have_stored_decides_since_when_an_alert_is_active() {
    let now = crate::now::now().as_millis();
    let minute = 60_000;
    let every = |from: i64, until: i64, value: &dyn Fn(i64) -> f64| -> Vec<Sample> {
        (from..=until).step_by(15_000).map(|at| Sample::new(at, value(at))).collect()
    };
    let labels = |pairs: &[(&str, &str)]| Labels::from_pairs(pairs.iter().copied()).unwrap();
    let mut series = Vec::new();
    for job in ["firing", "ended", "pending", "new"] {
        let x = labels(&[("__name__", "x"), ("job", job)]);
        series.push((x, every(now - 70 * minute, now + 30 * minute, &|_| 1.0)));
        let state =
            labels(&[("__name__", "ALERTS_FOR_STATE"), ("alertname", "A"), ("job", job), ("replica", "z")]);
        let since = |minutes: i64| (now / 1000 - minutes * 60) as f64;
        let samples = match job {
            // Its ruler has been away for 20 minutes.
            "firing" => every(now - 50 * minute, now - 20 * minute, &|_| since(60)),
            "ended" => {
                let mut samples = every(now - 50 * minute, now - 20 * minute, &|_| since(60));
                let end = samples.last().unwrap().timestamp.as_millis() + 15_000;
                samples.push(Sample::new(end, model::stale_nan()));
                samples
            }
            "pending" => every(now - 10 * minute, now + 30 * minute, &|_| since(10)),
            _ => continue,
        };
        series.push((state, samples));
    }
    series.sort_by(|a, b| a.0.cmp(&b.0));
    let store = store(series).await;
    let dir = TempDir::new().unwrap();
    write_rules(dir.path(), "groups: [{name: g, interval: 1s, rules: [{alert: A, expr: x, for: 30m}]}]");
    let flags = [
        &format!("--endpoint={}", store.grpc_address()),
        "--for-grace-period=1m",
        "--restore-ignored-label=replica",
        "--query.replica-label=replica",
        "--endpoint.info-timeout=200ms",
    ];
    let role = start(dir.path(), &flags).await;
    let http = role.http_address();
    let mut found = Vec::new();
    until("the states are restored", async || {
        found = active_since(http, "A").await;
        println!("{found:?} {}", rule(http, "A").await["lastError"]);
        found.iter().any(|(job, at)| job == "firing" && *at < now / 1000 - 30 * 60)
    })
    .await;
    let ago = |job: &str| now / 1000 - found.iter().find(|(found, _)| found == job).unwrap().1;
    assert_eq!(ago("firing"), 60 * 60);
    // The time since its last sample does not count.
    assert!((585..=600).contains(&ago("pending")), "{}", ago("pending"));
    assert!(ago("ended") <= 0 && ago("new") <= 0, "{found:?}");
    until("the restored alert fires", async || rule(http, "A").await["state"] == "firing").await;
    stop(role).await;
    stop(store).await;
}
