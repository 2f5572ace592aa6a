//! Endpoints that appear and disappear.

use std::sync::Mutex;

use futures::stream::BoxStream;
use proto::isthmus::mesh::v1 as wire;
use runtime::Shutdown;
use storeapi::{LabelLimits, info_to_wire, labels_to_wire};
use tokio::sync::watch;

use super::*;
use crate::endpoints::{Endpoint, EndpointOptions, EndpointSet, EndpointSpec};
use crate::metrics::StoreNodes;

/// The local port of a gateway: a directory that the test writes, and its stores.
struct FakeGateway {
    snapshots: watch::Receiver<wire::DirectorySnapshot>,
}

#[tonic::async_trait]
impl wire::directory_server::Directory for FakeGateway {
    type WatchStream = BoxStream<'static, Result<wire::DirectorySnapshot, tonic::Status>>;

    async fn watch(
        &self,
        _: tonic::Request<wire::WatchRequest>,
    ) -> Result<tonic::Response<Self::WatchStream>, tonic::Status> {
        let snapshots = tokio_stream::wrappers::WatchStream::new(self.snapshots.clone());
        Ok(tonic::Response::new(snapshots.map(Ok).boxed()))
    }
}

/// Serves the directory, and `store` for all other requests, in a separate runtime. Dropping the runtime
/// closes all connections of the gateway.
pub(super) fn gateway(
    store: Arc<dyn Store>,
    snapshots: watch::Receiver<wire::DirectorySnapshot>,
) -> (String, tokio::runtime::Runtime) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (address, gateway_at(listener, store, snapshots))
}

/// The same at this listener.
pub(super) fn gateway_at(
    listener: std::net::TcpListener,
    store: Arc<dyn Store>,
    snapshots: watch::Receiver<wire::DirectorySnapshot>,
) -> tokio::runtime::Runtime {
    listener.set_nonblocking(true).unwrap();
    let mut routes = RoutesBuilder::default();
    StoreServer::new(store, RequestLimits::default()).register(&mut routes);
    routes.add_service(wire::directory_server::DirectoryServer::new(FakeGateway { snapshots }));
    let server = tonic::transport::Server::builder().add_routes(routes.routes());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.spawn(async move {
        let listener = TcpListener::from_std(listener).unwrap();
        server.serve_with_incoming(TcpListenerStream::new(listener)).await
    });
    runtime
}

pub(super) async fn entry(name: &str, store: &dyn Store, bound: &[(&str, &str)]) -> wire::DirectoryEntry {
    wire::DirectoryEntry {
        name: name.to_owned(),
        healthy: true,
        info: Some(info_to_wire(&store.info().await.unwrap())),
        transport: "quic".to_owned(),
        round_trip_seconds: 0.02,
        bound_labels: Some(labels_to_wire(&labels(bound))),
        ..Default::default()
    }
}

/// An endpoint as `--endpoint` gives it.
pub(super) fn endpoint(address: &str) -> EndpointSpec {
    EndpointSpec { address: address.parse().unwrap(), strict: false, replicas: false }
}

pub(super) fn set(endpoints: &[String], gateways: &[String]) -> EndpointSet {
    EndpointSet::new(EndpointOptions {
        endpoints: endpoints.iter().map(|e| endpoint(e)).collect(),
        gateways: gateways.to_vec(),
        info_interval: Duration::from_millis(50),
        gateway_patience: Duration::from_millis(50),
        ..EndpointOptions::default()
    })
}

pub(super) async fn answer(set: &EndpointSet) -> (Vec<String>, Vec<String>) {
    let frames = ask(set).await.unwrap();
    let (series, warnings) = storeapi::collect_series(frames).await.unwrap();
    (short(&series), warnings)
}

async fn ask(set: &EndpointSet) -> Result<SeriesStream, StoreError> {
    let metrics = FanoutMetrics::new(&mut Registry::default());
    let proxy = ProxyStore::new(Arc::new(set.clone()), ProxyOptions::default(), metrics);
    proxy.series(up()).await
}

/// Why requests are refused.
pub(super) async fn refusal(set: &EndpointSet) -> String {
    ask(set).await.err().expect("the request is refused").message().to_owned()
}

/// The labels of the metric that says which stores are not healthy.
fn unhealthy(set: &EndpointSet) -> Vec<String> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(StoreNodes::new(set.clone())));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("isthmus_query_store_unhealthy{"));
    lines.map(|line| format!("{{{}", line.strip_suffix(" 1").unwrap())).collect()
}

#[tokio::test]
async fn stores_follow_the_directory_and_are_reported_missing_when_they_or_the_gateway_are_unreachable() {
    let store = memory(&[("cluster", "eu-1")], &["api"]);
    let first = entry("scraper-0.eu-1", &*store, &[("cluster", "eu-1")]).await;
    let snapshot =
        |entries: Vec<wire::DirectoryEntry>| wire::DirectorySnapshot { entries, ..Default::default() };
    let (sender, receiver) = watch::channel(snapshot(vec![first.clone()]));
    let (address, server) = gateway(store, receiver);
    let set = set(&[], std::slice::from_ref(&address));
    let shutdown = Shutdown::new();
    // Before the first snapshot an answer would lack all stores.
    let refused = refusal(&set).await;
    assert!(refused.contains(&format!("directory of gateway {address} (not asked yet)")), "{refused}");
    let reported = Arc::<Mutex<Vec<Option<String>>>>::default();
    let task = tokio::spawn({
        let (set, reported, shutdown) = (set.clone(), Arc::clone(&reported), shutdown.clone());
        set.run(move |reason| reported.lock().unwrap().push(reason.map(str::to_owned)), shutdown)
    });
    wait_for("the report that requests are answered", || reported.lock().unwrap().contains(&None)).await;
    wait_for("the first snapshot", || set.endpoints().len() == 1).await;
    assert_eq!(answer(&set).await, (vec!["api@eu-1".to_owned()], vec![]));
    let state = set.endpoints()[0].state();
    assert_eq!((state.transport.as_str(), state.round_trip), ("quic", Some(Duration::from_millis(20))));

    // A registered, unreachable store is reported by name, unless its labels exclude it.
    let away =
        wire::DirectoryEntry { healthy: false, last_error: "connection lost".to_owned(), ..first.clone() };
    sender.send(snapshot(vec![away])).unwrap();
    wait_for("the store to be away", || set.endpoints()[0].state().last_error.is_some()).await;
    let (series, warnings) = answer(&set).await;
    assert!(series.is_empty());
    assert_eq!(warnings, ["store scraper-0.eu-1: not healthy: connection lost"]);
    assert_eq!(unhealthy(&set), [r#"{store="scraper-0.eu-1",peer="eu-1",component="sidecar"}"#]);

    // A registered cluster that never connected is reported as a whole, unless its labels exclude it.
    let unheard = |cluster: &str| wire::DirectoryEntry {
        name: cluster.to_owned(),
        last_error: "not connected yet".to_owned(),
        bound_labels: Some(labels_to_wire(&labels(&[("cluster", cluster)]))),
        ..Default::default()
    };
    sender.send(snapshot(vec![first.clone(), unheard("us-1")])).unwrap();
    wait_for("the cluster to be known", || set.endpoints().len() == 2).await;
    let (series, warnings) = answer(&set).await;
    assert_eq!(series, ["api@eu-1"]);
    assert_eq!(warnings, ["store us-1: not healthy: not connected yet"]);
    assert_eq!(unhealthy(&set), [r#"{store="us-1",peer="us-1"}"#]);

    // An invalid name is reported too.
    let odd = wire::DirectoryEntry { name: "a..b".to_owned(), healthy: true, ..Default::default() };
    sender.send(snapshot(vec![first.clone(), odd])).unwrap();
    wait_for("the odd name", || set.endpoints().iter().any(|e| e.name() == "a..b")).await;
    let (series, warnings) = answer(&set).await;
    assert_eq!(series, ["api@eu-1"]);
    assert!(warnings[0].starts_with("store a..b: not healthy: "), "{warnings:?}");

    // Its series must have the labels of its own cluster.
    let other = wire::DirectoryEntry {
        bound_labels: Some(labels_to_wire(&labels(&[("cluster", "us-1")]))),
        ..first.clone()
    };
    sender.send(snapshot(vec![other])).unwrap();
    wait_for("another binding", || set.endpoints()[0].state().bound.get("cluster") == Some("us-1")).await;
    let (series, warnings) = answer(&set).await;
    assert!(series.is_empty() && warnings[0].contains("must carry cluster=\"us-1\""), "{warnings:?}");

    // When the gateway is unreachable, its stores are still asked, and fail visibly.
    sender.send(snapshot(vec![first])).unwrap();
    wait_for("the store to be back", || set.endpoints()[0].state().bound.get("cluster") == Some("eu-1"))
        .await;
    server.shutdown_background();
    assert!(unhealthy(&set).is_empty());
    wait_for("the gateway to be gone", || std::net::TcpStream::connect(&address).is_err()).await;
    let (_, warnings) = answer(&set).await;
    assert!(warnings.iter().any(|w| w.starts_with("store scraper-0.eu-1: ")), "{warnings:?}");

    shutdown.trigger();
    task.await.unwrap();
}

/// A gateway sends a large directory in several messages, and then what changes.
#[tokio::test]
async fn a_directory_arrives_in_parts_and_in_changes() {
    let store = memory(&[("cluster", "eu-1")], &["api"]);
    let entries = async |names: &[&str]| {
        let mut entries = Vec::new();
        for name in names {
            entries.push(entry(name, &*store, &[]).await);
        }
        entries
    };
    let part = |entries, continues| wire::DirectorySnapshot { entries, continues, ..Default::default() };
    let change = |entries, removed: &[&str]| wire::DirectorySnapshot {
        entries,
        is_change: true,
        removed: removed.iter().map(|name| (*name).to_owned()).collect(),
        continues: false,
    };
    let (sender, receiver) = watch::channel(part(entries(&["a.eu-1"]).await, true));
    let (address, server) = gateway(store.clone(), receiver);
    let set = set(&[], &[address]);
    let shutdown = Shutdown::new();
    let task = tokio::spawn(set.clone().run(|_| {}, shutdown.clone()));
    let names = || {
        let mut names: Vec<String> = set.endpoints().iter().map(|e| e.name().to_owned()).collect();
        names.sort();
        names
    };
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(names().is_empty(), "the rest is missing");
    let refused = refusal(&set).await;
    assert!(refused.contains("directory of gateway"), "{refused}");
    sender.send(part(entries(&["b.eu-1"]).await, false)).unwrap();
    wait_for("the whole directory", || names() == ["a.eu-1", "b.eu-1"]).await;
    let kept = set.endpoints();
    sender.send(change(entries(&["b.eu-1", "c.eu-1"]).await, &["a.eu-1", "z.eu-1"])).unwrap();
    wait_for("the changes", || names() == ["b.eu-1", "c.eu-1"]).await;
    let same = |name: &str| {
        let of = |list: &[Arc<Endpoint>]| list.iter().find(|e| e.name() == name).cloned().unwrap();
        Arc::ptr_eq(&of(&kept), &of(&set.endpoints()))
    };
    assert!(same("b.eu-1"), "it keeps its connection");
    sender.send(part(entries(&["d.eu-1"]).await, false)).unwrap();
    wait_for("another whole directory", || names() == ["d.eu-1"]).await;
    server.shutdown_background();
    shutdown.trigger();
    task.await.unwrap();
}

#[tokio::test]
async fn fixed_endpoints_are_reported_missing_while_they_are_unreachable() {
    let good = serve(memory(&[("cluster", "eu-1")], &["api"])).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed_port = listener.local_addr().unwrap().to_string();
    drop(listener);
    let set = set(&[good.clone(), closed_port.clone()], &[]);
    let shutdown = Shutdown::new();
    let task = tokio::spawn(set.clone().run(|_| {}, shutdown.clone()));
    wait_for("both to be asked", || {
        let all = set.endpoints();
        all.len() == 2 && all.iter().all(|endpoint| endpoint.state().last_check.is_some())
    })
    .await;
    let (series, warnings) = answer(&set).await;
    assert_eq!(series, ["api@eu-1"]);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with(&format!("store {closed_port}: not healthy: ")), "{warnings:?}");
    shutdown.trigger();
    task.await.unwrap();
}

#[tokio::test]
async fn dns_name_is_resolved_to_all_its_addresses() {
    let address = serve(memory(&[("cluster", "eu-1")], &["api"])).await;
    let port = address.rsplit_once(':').unwrap().1;
    let set = set(&[format!("dns+127.0.0.1:{port}"), "dns+no-such-host.invalid:1".to_owned()], &[]);
    let shutdown = Shutdown::new();
    let task = tokio::spawn(set.clone().run(|_| {}, shutdown.clone()));
    wait_for("the name to be resolved and asked", || {
        set.endpoints().iter().any(|endpoint| endpoint.state().last_error.is_none())
    })
    .await;
    // The other name may have any stores, so it is waited for first.
    wait_for("requests to be answered", || set.unready().is_none()).await;
    let (series, warnings) = answer(&set).await;
    assert_eq!(series, ["api@eu-1"]);
    // The stores of the other name are unknown, so the answer may be partial.
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with("store endpoint dns+no-such-host.invalid:1: "), "{warnings:?}");
    shutdown.trigger();
    task.await.unwrap();
}

/// An answer without an unreachable store is always partial. Only the list of stores may omit it.
#[tokio::test(start_paused = true)]
async fn unreachable_store_is_not_listed_after_the_timeout_unless_strict() {
    let timeout = Duration::from_secs(300);
    for (strict, listed) in [(false, false), (true, true)] {
        let channel = mesh::direct("127.0.0.1:1").unwrap();
        let endpoint = Endpoint::new("127.0.0.1:1", channel, strict, LabelLimits::OFF);
        endpoint.checked(Ok(StoreInfo::new("sidecar", vec![], TimeRange::ALL)));
        tokio::time::advance(timeout * 2).await;
        assert!(endpoint.is_listed(timeout), "a healthy endpoint is always listed");
        endpoint.checked(Ok(StoreInfo::new("sidecar", vec![], TimeRange::ALL)));
        endpoint.checked(Err(StoreError::unavailable("gone")));
        tokio::time::advance(timeout / 2).await;
        assert!(endpoint.is_listed(timeout));
        assert!(endpoint.state().info.is_some(), "its last answer is kept");
        tokio::time::advance(timeout).await;
        assert_eq!(endpoint.is_listed(timeout), listed);
    }
}

/// Connections end at any time. The requests that need the store find out themselves whether it is away.
#[tokio::test]
async fn only_the_second_info_without_an_answer_in_a_row_makes_a_store_unhealthy() {
    let channel = mesh::direct("127.0.0.1:1").unwrap();
    let endpoint = Endpoint::new("127.0.0.1:1", channel, false, LabelLimits::OFF);
    let healthy = || endpoint.state().last_error.is_none();
    let answered = || Ok(StoreInfo::new("sidecar", vec![], TimeRange::ALL));
    let unanswered = || Err(StoreError::unanswered("connection closed"));
    endpoint.checked(unanswered());
    assert!(!healthy(), "it has never answered");
    for round in [vec![answered(), unanswered()], vec![answered(), unanswered(), answered()]] {
        round.into_iter().for_each(|answer| endpoint.checked(answer));
        assert!(healthy());
    }
    endpoint.checked(unanswered());
    endpoint.checked(unanswered());
    assert!(!healthy());
    endpoint.checked(unanswered());
    assert!(!healthy(), "it stays unhealthy");
    endpoint.checked(answered());
    endpoint.checked(Err(StoreError::unavailable("Prometheus is away")));
    assert!(!healthy(), "an error that the store reports itself counts at once");
}

#[tokio::test]
async fn unlisted_store_is_still_reported_missing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed_port = listener.local_addr().unwrap().to_string();
    drop(listener);
    let good = serve(memory(&[("cluster", "eu-1")], &["api"])).await;
    let set = EndpointSet::new(EndpointOptions {
        endpoints: vec![endpoint(&closed_port), endpoint(&good)],
        info_interval: Duration::from_millis(50),
        unhealthy_timeout: Duration::ZERO,
        ..EndpointOptions::default()
    });
    let shutdown = Shutdown::new();
    let task = tokio::spawn(set.clone().run(|_| {}, shutdown.clone()));
    wait_for("it to be asked and not listed any more", || {
        let asked = set.endpoints().iter().all(|endpoint| endpoint.state().last_check.is_some());
        asked && set.endpoints().len() == 2 && set.listed().iter().all(|(listed, _)| listed.name() == good)
    })
    .await;
    let (_, warnings) = answer(&set).await;
    assert!(warnings[0].starts_with(&format!("store {closed_port}: not healthy: ")), "{warnings:?}");
    shutdown.trigger();
    task.await.unwrap();
}
