//! Endpoints that DNS and files list.

use std::collections::BTreeSet;

use runtime::{DnsResolver, DnsServer, Shutdown};

use super::directory::{answer, endpoint, refusal};
use super::*;
use crate::endpoints::{EndpointOptions, EndpointSet, EndpointSpec};

/// A running set with short intervals; it ends when it is dropped.
struct RunningSet {
    set: EndpointSet,
    shutdown: Shutdown,
}

impl RunningSet {
    fn start(options: EndpointOptions) -> Self {
        let (set, shutdown) = (EndpointSet::new(options), Shutdown::new());
        tokio::spawn(set.clone().run(|_| {}, shutdown.clone()));
        Self { set, shutdown }
    }

    /// Names of the endpoints that are healthy.
    fn healthy(&self) -> Vec<String> {
        let endpoints = self.set.endpoints();
        let healthy = endpoints.iter().filter(|endpoint| endpoint.state().last_error.is_none());
        healthy.map(|endpoint| endpoint.name().to_owned()).collect()
    }

    async fn until_healthy(&self, names: &[&str]) {
        wait_for(&format!("{names:?} to be the healthy endpoints"), || {
            let healthy: BTreeSet<String> = self.healthy().into_iter().collect();
            healthy.iter().map(String::as_str).eq(names.iter().copied().collect::<BTreeSet<_>>())
        })
        .await;
    }
}

impl Drop for RunningSet {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}

fn options(resolver: &DnsServer, addresses: &[&str]) -> EndpointOptions {
    EndpointOptions {
        endpoints: addresses.iter().map(|address| endpoint(address)).collect(),
        info_interval: Duration::from_millis(50),
        dns_interval: Duration::from_millis(50),
        resolver: Some(DnsResolver::with_servers(vec![resolver.address()])),
        unhealthy_timeout: Duration::ZERO,
        ..EndpointOptions::default()
    }
}

fn port(address: &str) -> &str {
    address.rsplit_once(':').unwrap().1
}

async fn two_stores() -> [String; 2] {
    [
        serve(memory(&[("cluster", "eu-1")], &["api"])).await,
        serve(memory(&[("cluster", "us-1")], &["db"])).await,
    ]
}

#[tokio::test]
async fn endpoints_follow_the_records_of_a_dns_server() {
    let [one, two] = two_stores().await;
    let service =
        |name: &str, host: &str, address: &str| format!("--srv-host={name},{host},{}", port(address));
    let host = "--host-record=s.test,127.0.0.1".to_owned();
    let (first, second) =
        (service("_grpc._tcp.a.test", "s.test", &one), service("_grpc._tcp.a.test", "s.test", &two));
    let unresolved = service("_grpc._tcp.noa.test", "localhost", &two);
    let Some(server) = DnsServer::start(&[host.clone(), first.clone(), unresolved]) else { return };
    let by_name = format!("dns+s.test:{}", port(&one));
    for (address, expected) in [
        (by_name.as_str(), one.clone()),
        ("dnssrv+_grpc._tcp.a.test", one.clone()),
        ("dnssrvnoa+_grpc._tcp.noa.test", format!("localhost:{}", port(&two))),
    ] {
        RunningSet::start(options(&server, &[address])).until_healthy(&[&expected]).await;
    }

    let running = RunningSet::start(options(&server, &["dnssrv+_grpc._tcp.a.test"]));
    running.until_healthy(&[&one]).await;
    let server = server.restart(&[host.clone(), first, second.clone()]);
    running.until_healthy(&[&one, &two]).await;
    assert_eq!(answer(&running.set).await, (vec!["api@eu-1".into(), "db@us-1".into()], vec![]));
    let server = server.restart(&[host, second]);
    running.until_healthy(&[&two]).await;

    // Without any record, and without a server, the known endpoints stay.
    let server = server.restart(&[]);
    drop(server);
    assert_eq!(answer(&running.set).await, (vec!["db@us-1".into()], vec![]));
}

#[tokio::test]
async fn name_that_dns_does_not_know_makes_answers_partial() {
    let Some(server) = DnsServer::start(&[]) else { return };
    let [one, _] = two_stores().await;
    let running = RunningSet::start(options(&server, &["dnssrv+_grpc._tcp.nothing.test", &one]));
    // It may have any stores, so it is waited for first.
    wait_for("requests to be answered", || running.set.unready().is_none()).await;
    let expected =
        "store endpoint dnssrv+_grpc._tcp.nothing.test: not healthy: DNS has no address for this name";
    assert_eq!(answer(&running.set).await, (vec!["api@eu-1".to_owned()], vec![expected.to_owned()]));
}

#[tokio::test]
async fn each_request_to_a_group_goes_to_a_replica_that_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = listener.local_addr().unwrap().to_string();
    drop(listener);
    let (one, two) =
        (memory(&[("cluster", "eu-1")], &["api"]), memory(&[("cluster", "eu-1")], &["api", "db"]));
    let addresses = [serve(one).await, serve(two).await, closed];
    let records =
        addresses.iter().map(|address| format!("--srv-host=_grpc._tcp.g.test,s.test,{}", port(address)));
    let records: Vec<String> = records.chain(["--host-record=s.test,127.0.0.1".to_owned()]).collect();
    let Some(server) = DnsServer::start(&records) else { return };
    let group = EndpointSpec { replicas: true, ..endpoint("dnssrv+_grpc._tcp.g.test") };
    let running = RunningSet::start(EndpointOptions { endpoints: vec![group], ..options(&server, &[]) });
    running.until_healthy(&["dnssrv+_grpc._tcp.g.test"]).await;
    let mut seen = BTreeSet::new();
    for _ in 0..30 {
        let (series, warnings) = answer(&running.set).await;
        assert_eq!(warnings, Vec::<String>::new());
        seen.insert(series.len());
    }
    assert_eq!(seen, [1, 2].into(), "both replicas answered, one at a time");
}

#[tokio::test]
async fn endpoints_follow_the_files_that_list_them() {
    let [one, two] = two_stores().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("stores.json");
    // A replacement in one step, as tools do it.
    let write = |targets: &[&str]| {
        let text = serde_json::json!([{"targets": targets, "labels": {"ignored": "x"}}]).to_string();
        std::fs::write(folder.path().join("new"), text).unwrap();
        std::fs::rename(folder.path().join("new"), &file).unwrap();
    };
    let pattern = file.display().to_string();
    let options = EndpointOptions {
        files: vec![pattern.parse().unwrap()],
        info_interval: Duration::from_millis(50),
        ..EndpointOptions::default()
    };
    let running = RunningSet::start(options);
    let noticed = || running.set.unready().is_some_and(|reason| reason.contains("No such file"));
    wait_for("the missing file to be noticed", noticed).await;
    let refused = refusal(&running.set).await;
    assert!(refused.contains(&format!("waiting for file {pattern} (No such file")), "{refused}");
    write(&[&one]);
    running.until_healthy(&[&one]).await;
    write(&[&two, &one]);
    running.until_healthy(&[&one, &two]).await;
    std::fs::write(&file, "not a list").unwrap();
    write(&[&two]);
    running.until_healthy(&[&two]).await;
    assert_eq!(answer(&running.set).await, (vec!["db@us-1".into()], vec![]));
}
