//! Endpoints that come and go.

use std::sync::Mutex;

use futures::stream::BoxStream;
use proto::isthmus::mesh::v1 as wire;
use runtime::Shutdown;
use storeapi::{info_to_wire, labels_to_wire};
use tokio::sync::watch;

use super::*;
use crate::endpoints::{Endpoint, EndpointOptions, EndpointSet};

/// A gateway's local port: a directory that the test writes, and the stores behind it.
struct Gateway {
    snapshots: watch::Receiver<wire::DirectorySnapshot>,
}

#[tonic::async_trait]
impl wire::directory_server::Directory for Gateway {
    type WatchStream = BoxStream<'static, Result<wire::DirectorySnapshot, tonic::Status>>;

    async fn watch(
        &self,
        _: tonic::Request<wire::WatchRequest>,
    ) -> Result<tonic::Response<Self::WatchStream>, tonic::Status> {
        let snapshots = tokio_stream::wrappers::WatchStream::new(self.snapshots.clone());
        Ok(tonic::Response::new(snapshots.map(Ok).boxed()))
    }
}

/// Serves the directory, and `store` for whatever else is asked of that port, in a runtime of its own: dropping that is
/// how a gateway goes away with all its connections.
fn gateway(
    store: Arc<dyn Store>,
    snapshots: watch::Receiver<wire::DirectorySnapshot>,
) -> (String, tokio::runtime::Runtime) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut routes = RoutesBuilder::default();
    StoreServer::new(store, RequestLimits::default()).register(&mut routes);
    routes.add_service(wire::directory_server::DirectoryServer::new(Gateway { snapshots }));
    let server = tonic::transport::Server::builder().add_routes(routes.routes());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.spawn(async move {
        let listener = TcpListener::from_std(listener).unwrap();
        server.serve_with_incoming(TcpListenerStream::new(listener)).await
    });
    (address, runtime)
}

async fn entry(name: &str, store: &dyn Store, bound: &[(&str, &str)]) -> wire::DirectoryEntry {
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

fn set(endpoints: &[String], gateways: &[String]) -> EndpointSet {
    EndpointSet::new(EndpointOptions {
        endpoints: endpoints.iter().map(|e| (e.parse().unwrap(), false)).collect(),
        gateways: gateways.to_vec(),
        info_interval: Duration::from_millis(50),
        unhealthy_timeout: Duration::from_secs(300),
    })
}

async fn answer(set: &EndpointSet) -> (Vec<String>, Vec<String>) {
    let metrics = FanoutMetrics::new(&mut Registry::default());
    let proxy = ProxyStore::new(Arc::new(set.clone()), ProxyOptions::default(), metrics);
    let (series, warnings) = storeapi::collect_series(proxy.series(up()).await.unwrap()).await.unwrap();
    (short(&series), warnings)
}

#[tokio::test]
async fn stores_follow_the_directory_and_are_missed_when_they_or_the_gateway_are_away() {
    let store = memory(&[("cluster", "eu-1")], &["api"]);
    let first = entry("scraper-0.eu-1", &*store, &[("cluster", "eu-1")]).await;
    let snapshot = |entries: Vec<wire::DirectoryEntry>| wire::DirectorySnapshot { entries };
    let (sender, receiver) = watch::channel(snapshot(vec![first.clone()]));
    let (address, server) = gateway(store, receiver);
    let set = set(&[], std::slice::from_ref(&address));
    let shutdown = Shutdown::new();
    let ready = Arc::new(Mutex::new(false));
    let task = tokio::spawn({
        let (set, ready, shutdown) = (set.clone(), Arc::clone(&ready), shutdown.clone());
        set.run(move || *ready.lock().unwrap() = true, shutdown)
    });

    // Before anything is known, an answer must not look whole.
    let (_, warnings) = answer(&set).await;
    assert!(
        warnings.iter().any(|w| w.contains("directory of gateway")) || *ready.lock().unwrap(),
        "{warnings:?}"
    );

    wait_for("the first snapshot", || set.endpoints().len() == 1).await;
    assert_eq!(answer(&set).await, (vec!["api@eu-1".to_owned()], vec![]));
    let state = set.endpoints()[0].state();
    assert_eq!((state.transport.as_str(), state.round_trip), ("quic", Some(Duration::from_millis(20))));

    // Registered and away: missed by name, unless its labels exclude it.
    let away =
        wire::DirectoryEntry { healthy: false, last_error: "connection lost".to_owned(), ..first.clone() };
    sender.send(snapshot(vec![away])).unwrap();
    wait_for("the store to be away", || set.endpoints()[0].state().last_error.is_some()).await;
    let (series, warnings) = answer(&set).await;
    assert!(series.is_empty());
    assert_eq!(warnings, ["store scraper-0.eu-1: not healthy: connection lost"]);

    // A cluster that is registered and was never heard of is missed as a whole, unless its labels exclude it.
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

    // A name that this querier cannot reach is missed too.
    let odd = wire::DirectoryEntry { name: "a..b".to_owned(), healthy: true, ..Default::default() };
    sender.send(snapshot(vec![first.clone(), odd])).unwrap();
    wait_for("the odd name", || set.endpoints().iter().any(|e| e.name() == "a..b")).await;
    let (series, warnings) = answer(&set).await;
    assert_eq!(series, ["api@eu-1"]);
    assert!(warnings[0].starts_with("store a..b: not healthy: "), "{warnings:?}");

    // Its series must be of its own cluster, whatever it says.
    let other = wire::DirectoryEntry {
        bound_labels: Some(labels_to_wire(&labels(&[("cluster", "us-1")]))),
        ..first.clone()
    };
    sender.send(snapshot(vec![other])).unwrap();
    wait_for("another binding", || set.endpoints()[0].state().bound.get("cluster") == Some("us-1")).await;
    let (series, warnings) = answer(&set).await;
    assert!(series.is_empty() && warnings[0].contains("must carry cluster=\"us-1\""), "{warnings:?}");

    // The gateway is gone: its stores are asked, and fail visibly.
    sender.send(snapshot(vec![first])).unwrap();
    wait_for("the store to be back", || set.endpoints()[0].state().bound.get("cluster") == Some("eu-1"))
        .await;
    server.shutdown_background();
    wait_for("the gateway to be gone", || std::net::TcpStream::connect(&address).is_err()).await;
    let (_, warnings) = answer(&set).await;
    assert!(warnings.iter().any(|w| w.starts_with("store scraper-0.eu-1: ")), "{warnings:?}");

    shutdown.trigger();
    task.await.unwrap();
}

#[tokio::test]
async fn given_endpoints_are_asked_for_info_and_missed_while_they_are_away() {
    let good = serve(memory(&[("cluster", "eu-1")], &["api"])).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = listener.local_addr().unwrap().to_string();
    drop(listener);
    let set = set(&[good.clone(), nobody.clone()], &[]);
    let shutdown = Shutdown::new();
    let task = tokio::spawn(set.clone().run(|| {}, shutdown.clone()));
    wait_for("both to be asked", || {
        let all = set.endpoints();
        all.len() == 2 && all.iter().all(|endpoint| endpoint.state().last_check.is_some())
    })
    .await;
    let (series, warnings) = answer(&set).await;
    assert_eq!(series, ["api@eu-1"]);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with(&format!("store {nobody}: not healthy: ")), "{warnings:?}");
    shutdown.trigger();
    task.await.unwrap();
}

#[tokio::test]
async fn a_name_stands_for_all_its_addresses() {
    let address = serve(memory(&[("cluster", "eu-1")], &["api"])).await;
    let port = address.rsplit_once(':').unwrap().1;
    let set = set(&[format!("dns+127.0.0.1:{port}"), "dns+no-such-host.invalid:1".to_owned()], &[]);
    let shutdown = Shutdown::new();
    let task = tokio::spawn(set.clone().run(|| {}, shutdown.clone()));
    wait_for("the name to be resolved and asked", || {
        set.endpoints().iter().any(|endpoint| endpoint.state().last_error.is_none())
    })
    .await;
    let (series, warnings) = answer(&set).await;
    assert_eq!(series, ["api@eu-1"]);
    // Nobody knows which stores the other name stands for, so the answer may lack some.
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with("store endpoint dns+no-such-host.invalid:1: "), "{warnings:?}");
    shutdown.trigger();
    task.await.unwrap();
}

/// However long a store is away, an answer without it is not whole; only the list of stores may leave it out.
#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_for_long_is_no_longer_listed_unless_it_is_strict() {
    let timeout = Duration::from_secs(300);
    for (strict, listed) in [(false, false), (true, true)] {
        let channel = mesh::direct("127.0.0.1:1").unwrap();
        let endpoint = Endpoint::new("127.0.0.1:1", channel, strict);
        endpoint.checked(Ok(StoreInfo::new("sidecar", vec![], TimeRange::ALL)));
        tokio::time::advance(timeout * 2).await;
        assert!(endpoint.is_listed(timeout), "a healthy endpoint always is");
        endpoint.checked(Ok(StoreInfo::new("sidecar", vec![], TimeRange::ALL)));
        endpoint.checked(Err(StoreError::unavailable("gone")));
        tokio::time::advance(timeout / 2).await;
        assert!(endpoint.is_listed(timeout));
        assert!(endpoint.state().info.is_some(), "what it last said is kept");
        tokio::time::advance(timeout).await;
        assert_eq!(endpoint.is_listed(timeout), listed);
    }
}

#[tokio::test]
async fn a_store_that_is_away_for_long_is_still_missed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = listener.local_addr().unwrap().to_string();
    drop(listener);
    let set = EndpointSet::new(EndpointOptions {
        endpoints: vec![(nobody.parse().unwrap(), false)],
        gateways: Vec::new(),
        info_interval: Duration::from_millis(50),
        unhealthy_timeout: Duration::ZERO,
    });
    let shutdown = Shutdown::new();
    let task = tokio::spawn(set.clone().run(|| {}, shutdown.clone()));
    wait_for("it to be asked and not listed any more", || {
        set.endpoints().iter().any(|endpoint| endpoint.state().last_check.is_some())
            && set.listed().is_empty()
    })
    .await;
    let (_, warnings) = answer(&set).await;
    assert!(warnings[0].starts_with(&format!("store {nobody}: not healthy: ")), "{warnings:?}");
    shutdown.trigger();
    task.await.unwrap();
}
