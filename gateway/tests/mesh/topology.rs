//! Both directions of dialling, both transports, and the directory.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use proto::isthmus::mesh::v1::{WatchRequest, directory_client::DirectoryClient};
use proto::thanos::LabelNamesRequest;
use tonic::Code;

use crate::{
    stores::TestStore,
    world::{MeshWorld, client, cluster, count, directory, healthy, messages, observability, within},
};

const EU_1: &[(&str, &str)] = &[("cluster", "eu-1"), ("environment", "test"), ("replica", "0")];
const US_1: &[(&str, &str)] = &[("cluster", "us-1"), ("environment", "test")];

async fn reads(dials: &str, transport: &str) {
    let world = MeshWorld::new();
    let store = TestStore::start(EU_1).await;
    let targets: &[(&str, SocketAddr)] = &[("scraper-0", store.address)];
    let by = format!("transport: {transport}\n");
    let (obs, gateway) = match dials {
        "cluster" => {
            let obs = world.observability("").await;
            let gateway = world.cluster("eu-1", targets, &obs, &by).await;
            (obs, gateway)
        }
        _ => {
            // Joins first. Then another observability gateway dials it.
            let issuing = world.observability("").await;
            let gateway = world.cluster("eu-1", targets, &issuing, "listen: 127.0.0.1:0\n").await;
            issuing.stop().await;
            let at = gateway.addresses.mesh.unwrap();
            let obs = world.observability(&format!("{by}clusters: [{{name: eu-1, dial: ['{at}']}}]\n")).await;
            (obs, gateway)
        }
    };
    let entry = healthy(&obs, "scraper-0.eu-1").await;
    assert_eq!(entry.transport, transport, "{dials} dials");
    assert_eq!(entry.info.unwrap().label_sets[0].labels.len(), 3);

    let mut client = client(&obs, "scraper-0.eu-1");
    let stream = client.series(messages(1000, Duration::ZERO)).await.unwrap().into_inner();
    assert_eq!(count(stream).await.unwrap(), 1000, "{dials} dials, {transport}");
    let names = client.label_names(LabelNamesRequest::default()).await.unwrap().into_inner().names;
    assert_eq!(names, ["cluster", "environment", "replica"]);
    let status = client.label_values(proto::thanos::LabelValuesRequest::default()).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, "no values here"));
    drop(client);
    gateway.stop().await;
    let entries =
        directory(&obs, "the target is unhealthy", |entries| entries.iter().all(|e| !e.healthy)).await;
    let why = &entries[0].last_error;
    assert!(why.starts_with("cluster eu-1 is not connected: ") && !why.contains("no longer needed"), "{why}");
    obs.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_dials_over_quic_can_be_read() {
    reads("cluster", "quic").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_dials_over_tcp_can_be_read() {
    reads("cluster", "tcp").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_dialled_over_quic_can_be_read() {
    reads("observability", "quic").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_dialled_over_tcp_can_be_read() {
    reads("observability", "tcp").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_directory_shows_when_targets_and_clusters_connect_and_disconnect() {
    let world = MeshWorld::new();
    let obs = world.observability("").await;
    assert!(directory(&obs, "no cluster is registered", |entries| entries.is_empty()).await.is_empty());

    // A cluster for which a token was made is only expected: no answer misses it.
    world.token("us-1", &[obs.addresses.mesh.unwrap()]);
    let (store, second) = (TestStore::start(EU_1).await, TestStore::start(EU_1).await);
    let targets: &[_] = &[("scraper-0", store.address), ("scraper-1", second.address)];
    let gateway = world.cluster("eu-1", targets, &obs, "").await;
    healthy(&obs, "scraper-0.eu-1").await;
    healthy(&obs, "scraper-1.eu-1").await;
    let entries = directory(&obs, "both targets are listed", |entries| entries.len() >= 2).await;
    assert!(entries.iter().all(|entry| entry.cluster == "eu-1"), "{entries:?}");

    drop(second);
    let entries = directory(&obs, "the stopped store is unhealthy", |entries| {
        entries.iter().any(|e| e.name == "scraper-1.eu-1" && !e.healthy)
    })
    .await;
    let lost = entries.iter().find(|e| e.name == "scraper-1.eu-1").unwrap();
    assert!(lost.info.is_some() && lost.last_error.contains("connect"), "{lost:?}");
    assert!(entries.iter().any(|e| e.name == "scraper-0.eu-1" && e.healthy));

    gateway.stop().await;
    let entries =
        directory(&obs, "all entries are unhealthy", |entries| entries.iter().all(|e| !e.healthy)).await;
    assert!(entries.iter().any(|e| e.name == "scraper-0.eu-1" && e.info.is_some()), "{entries:?}");
    let status = client(&obs, "scraper-0.eu-1").series(messages(1, Duration::ZERO)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("cluster eu-1 is not connected"), "{}", status.message());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_is_unhealthy_with_the_first_request_that_it_does_not_answer() {
    let world = MeshWorld::new();
    let obs = world.observability("").await;
    let store = TestStore::start(EU_1).await;
    let yaml = cluster("eu-1", &[("scraper-0", store.address)], "");
    // Longer than the patience of this test.
    let yaml = yaml.replace("info_interval: 100ms", "info_interval: 60s");
    let token = world.token("eu-1", &[obs.addresses.mesh.unwrap()]);
    let _gateway = world.try_start("eu-1", &yaml, Some(&token)).await.unwrap();
    healthy(&obs, "scraper-0.eu-1").await;
    drop(store);
    let status = client(&obs, "scraper-0.eu-1").series(messages(1, Duration::ZERO)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    directory(&obs, "the target is unhealthy", |entries| entries.iter().all(|e| !e.healthy)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_with_labels_of_another_cluster_is_unhealthy() {
    let world = MeshWorld::new();
    let obs = world.observability("").await;
    let (honest, spoofing) = (TestStore::start(EU_1).await, TestStore::start(US_1).await);
    let targets: &[_] = &[("scraper-0", honest.address), ("scraper-1", spoofing.address)];
    let _gateway = world.cluster("eu-1", targets, &obs, "").await;
    let entries = directory(&obs, "the spoofing store is rejected", |entries| {
        entries.iter().any(|e| e.last_error.contains("cluster=\"us-1\""))
            && entries.iter().any(|e| e.name == "scraper-0.eu-1" && e.healthy)
    })
    .await;
    let refused = entries.iter().find(|e| e.name == "scraper-1.eu-1").unwrap();
    assert!(!refused.healthy && refused.info.is_none(), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_keeps_a_connection_to_each_observability_gateway() {
    let world = MeshWorld::new();
    let obs = world.observability("").await;
    let second =
        world.try_start("obs-2", &observability("").replace("obs-data", "obs-2-data"), None).await.unwrap();
    let store = TestStore::start(EU_1).await;
    let dial = format!("dial: ['{}', '{}']\n", obs.addresses.mesh.unwrap(), second.addresses.mesh.unwrap());
    let _gateway = world.cluster("eu-1", &[("scraper-0", store.address)], &obs, &dial).await;
    healthy(&obs, "scraper-0.eu-1").await;
    healthy(&second, "scraper-0.eu-1").await;

    // One observability gateway restarts. The cluster reconnects to it, and the other one is not affected.
    let address = obs.addresses.mesh.unwrap();
    obs.stop().await;
    let stream = client(&second, "scraper-0.eu-1").series(messages(5, Duration::ZERO)).await.unwrap();
    assert_eq!(count(stream.into_inner()).await.unwrap(), 5);
    let yaml = observability("").replace("listen: 127.0.0.1:0", &format!("listen: {address}"));
    let obs = within("the port is free again", async {
        loop {
            // QUIC keeps the port open for a moment after its last connection.
            if let Ok(obs) = world.try_start("obs", &yaml, None).await {
                return obs;
            }
        }
    })
    .await;
    healthy(&obs, "scraper-0.eu-1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_changes_targets_and_ports_and_interrupts_no_stream() {
    let world = MeshWorld::new();
    let obs = world.observability("targets: [{name: scraper-0.eu-1, listen: 127.0.0.1:0}]\n").await;
    let (store, second) = (TestStore::start(EU_1).await, TestStore::start(EU_1).await);
    let gateway = world.cluster("eu-1", &[("scraper-0", store.address)], &obs, "").await;
    healthy(&obs, "scraper-0.eu-1").await;
    let stream =
        client(&obs, "scraper-0.eu-1").series(messages(20, Duration::from_millis(50))).await.unwrap();
    let running = tokio::spawn(count(stream.into_inner()));

    let targets: &[_] = &[("scraper-0", store.address), ("scraper-1", second.address)];
    world.write("eu-1.yaml", &cluster("eu-1", targets, ""));
    gateway.reload.run().await.unwrap();
    healthy(&obs, "scraper-1.eu-1").await;
    world.write("obs.yaml", &observability("targets: []\n"));
    obs.reload.run().await.unwrap();

    world.write("eu-1.yaml", "role: cluster\nnonsense: 1\n");
    let error = gateway.reload.run().await.unwrap_err().to_string();
    assert!(error.contains("nonsense"), "{error}");
    world.write("eu-1.yaml", &cluster("eu-1", targets, "listen: 127.0.0.1:0\n"));
    let error = gateway.reload.run().await.unwrap_err().to_string();
    assert!(error.contains("listen: the value has changed; restart"), "{error}");
    healthy(&obs, "scraper-1.eu-1").await;
    assert_eq!(running.await.unwrap().unwrap(), 20);
}

/// Two gateways of one cluster serve different stores. A store is missing visibly while its gateway is away.
#[tokio::test(flavor = "multi_thread")]
async fn each_gateway_of_a_cluster_serves_its_own_targets() {
    let world = MeshWorld::new();
    let obs = world.observability("").await;
    let (common, one, two) =
        (TestStore::start(EU_1).await, TestStore::start(EU_1).await, TestStore::start(EU_1).await);
    let first = world.cluster("eu-1", &[("common", common.address), ("one", one.address)], &obs, "").await;
    let yaml = cluster("eu-1-b", &[("common", common.address), ("two", two.address)], "");
    let token = world.token("eu-1", &[obs.addresses.mesh.unwrap()]);
    let second = world.try_start("eu-1-b", &yaml, Some(&token)).await.unwrap();
    let ask = async |target: &str| {
        let mut client = client(&obs, target);
        client.label_names(LabelNamesRequest::default()).await
    };
    for _ in 0..5 {
        for target in ["common.eu-1", "one.eu-1", "two.eu-1"] {
            healthy(&obs, target).await;
            ask(target).await.unwrap();
        }
    }
    let status = ask("three.eu-1").await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status}");
    second.stop().await;
    let entries = directory(&obs, "the target of the second gateway is unhealthy", |entries| {
        entries.iter().any(|entry| entry.name == "two.eu-1" && !entry.healthy)
    })
    .await;
    let lost = entries.iter().find(|entry| entry.name == "two.eu-1").unwrap();
    assert!(lost.last_error.contains("that serves it is not connected"), "{lost:?}");
    assert_eq!(ask("two.eu-1").await.unwrap_err().code(), Code::Unavailable);
    for target in ["common.eu-1", "one.eu-1"] {
        ask(target).await.unwrap();
    }
    // It comes back and serves the store again.
    let second = world.try_start("eu-1-b", &yaml, None).await.unwrap();
    healthy(&obs, "two.eu-1").await;
    ask("two.eu-1").await.unwrap();
    drop((first, second));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_in_use_is_refused() {
    let world = MeshWorld::new();
    let obs = world.observability("").await;
    let store = TestStore::start(EU_1).await;
    let _gateway = world.cluster("eu-1", &[("scraper-0", store.address)], &obs, "").await;
    let yaml = cluster("eu-1", &[("scraper-0", store.address)], "");
    let error = world.try_start("eu-1", &yaml, None).await.err().unwrap().to_string();
    assert!(error.contains("eu-1-data") && error.contains("another process uses it"), "{error}");
    let error = world.try_start("obs", &observability(""), None).await.err().unwrap().to_string();
    assert!(error.contains("obs-data") && error.contains("another process uses it"), "{error}");
}

/// The answers to Info together are larger than a message may be.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_targets_with_large_answers_are_announced() {
    let world = MeshWorld::new();
    let obs = world.observability("").await;
    let long = "x".repeat(6_000);
    let store =
        TestStore::start(&[("cluster", "eu-1"), ("environment", "test"), ("padding", long.as_str())]).await;
    let names: Vec<String> = (0..1000).map(|i| format!("store-{i}")).collect();
    let targets: Vec<(&str, SocketAddr)> = names.iter().map(|name| (name.as_str(), store.address)).collect();
    let yaml = cluster("eu-1", &targets, "").replace("info_interval: 100ms", "info_interval: 2s");
    let token = world.token("eu-1", &[obs.addresses.mesh.unwrap()]);
    let _gateway = world.try_start("eu-1", &yaml, Some(&token)).await.unwrap();
    let entries = directory(&obs, "all targets are healthy", |entries| {
        entries.len() == 1000 && entries.iter().all(|entry| entry.healthy)
    })
    .await;
    assert!(entries.iter().all(|entry| entry.info.is_some()));
    for target in ["store-0.eu-1", "store-999.eu-1"] {
        client(&obs, target).label_names(LabelNamesRequest::default()).await.unwrap();
    }
}

/// A querier watches the directory for as long as the gateway lives, which must not delay its end. Requests finish.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_stops_finishes_its_requests_and_ends_watches() {
    for stops in ["observability", "cluster"] {
        let world = MeshWorld::new();
        let obs = world.observability("").await;
        let store = TestStore::start(EU_1).await;
        let gateway = world.cluster("eu-1", &[("scraper-0", store.address)], &obs, "").await;
        healthy(&obs, "scraper-0.eu-1").await;
        let mut watcher = DirectoryClient::new(mesh::direct(&obs.addresses.grpc.to_string()).unwrap());
        let mut watched = watcher.watch(WatchRequest { changes: true }).await.unwrap().into_inner();
        watched.message().await.unwrap().unwrap();
        let mut reader = client(&obs, "scraper-0.eu-1");
        let stream = reader.series(messages(15, Duration::from_millis(100))).await.unwrap().into_inner();
        let reading = tokio::spawn(count(stream));
        let began = Instant::now();
        match stops {
            "observability" => obs.stop().await,
            _ => gateway.stop().await,
        }
        let took = began.elapsed();
        assert_eq!(reading.await.unwrap().unwrap(), 15, "{stops}");
        // The grace period is 5 s.
        assert!(took < Duration::from_secs(4), "{stops}: stopped after {took:?}");
    }
}
