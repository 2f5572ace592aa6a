//! The admin socket: what an owner sees and may change, over both transports.

use std::{
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    time::Duration,
};

use serde_json::Value;
use tonic::Code;

use crate::{
    stores::TestStore,
    world::{MeshWorld, RunningGateway, client, cluster, count, directory, healthy, messages, within},
};

const EU_1: &[(&str, &str)] = &[("cluster", "eu-1"), ("environment", "test"), ("replica", "0")];
const US_1: &[(&str, &str)] = &[("cluster", "us-1"), ("environment", "test")];

impl MeshWorld {
    /// Asks the gateway with this data directory; returns the status of HTTP and the answer.
    async fn ask(&self, data_dir: &str, request: &str) -> (u16, Value) {
        let socket = self.dir.path().join(data_dir).join("admin.sock");
        let request = format!("{request} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n");
        let answer = tokio::task::spawn_blocking(move || {
            let mut stream = UnixStream::connect(socket).unwrap();
            stream.set_read_timeout(Some(crate::world::PATIENCE)).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        })
        .await
        .unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap())
    }

    pub(crate) async fn show(&self, data_dir: &str, what: &str) -> Value {
        let (status, answer) = self.ask(data_dir, &format!("GET /v1/{what}")).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    pub(crate) async fn change(&self, data_dir: &str, to: &str) -> Value {
        let (status, answer) = self.ask(data_dir, &format!("POST /v1/{to}")).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }
}

pub(crate) async fn metrics(gateway: &RunningGateway) -> String {
    let address = gateway.addresses.http;
    tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_see_connections_targets_and_certificates() {
    for transport in ["quic", "tcp"] {
        let world = MeshWorld::new();
        let obs = world.observability("").await;
        let (good, foreign) = (TestStore::start(EU_1).await, TestStore::start(US_1).await);
        let targets = &[("scraper-0", good.address), ("scraper-1", foreign.address)];
        let gateway = world.cluster("eu-1", targets, &obs, &format!("transport: {transport}\n")).await;
        healthy(&obs, "scraper-0.eu-1").await;
        let what = "the labels of the other one are refused";
        directory(&obs, what, |entries| {
            entries.iter().any(|entry| entry.last_error.contains("registered with"))
        })
        .await;

        let refusal = async {
            loop {
                let targets = world.show("eu-1-data", "targets").await;
                if targets[1]["refused"].as_str().is_some_and(|reason| reason.contains("registered with")) {
                    return targets;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let own = within("the cluster knows that a target is refused", refusal).await;
        assert_eq!(own[0]["address"], good.address.to_string());
        assert_eq!((&own[0]["healthy"], &own[1]["healthy"]), (&true.into(), &true.into()), "{own}");
        let shown = metrics(&gateway).await;
        assert!(shown.contains("isthmus_gateway_target_healthy{target=\"scraper-0\"} 1"), "{shown}");
        assert!(shown.contains("isthmus_gateway_target_healthy{target=\"scraper-1\"} 0"), "{shown}");

        let far = within("the peer is a metric", async {
            loop {
                let shown = metrics(&obs).await;
                if shown.contains("peer_certificate_expiry_timestamp_seconds{peer=\"eu-1\"}") {
                    return shown;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        let far = far.await.contains("isthmus_gateway_peer_round_trip_seconds{peer=\"eu-1\"}");
        assert_eq!(far, transport == "quic");

        let seen = world.show("obs-data", "targets").await;
        assert_eq!(seen[0]["name"], "scraper-0.eu-1");
        assert!(seen[0].get("address").is_none(), "the address left the cluster: {seen}");

        for (data_dir, peer, dialled) in [("eu-1-data", "obs", true), ("obs-data", "eu-1", false)] {
            let peers = world.show(data_dir, "peers").await;
            assert_eq!(peers[0]["peer"], format!("spiffe://test.isthmus.example/cluster/{peer}/gateway"));
            assert_eq!((&peers[0]["transport"], &peers[0]["dialled"]), (&transport.into(), &dialled.into()));
            assert_eq!(peers[0]["round_trip_seconds"].is_number(), transport == "quic", "{peers}");
            let carried = within("the largest datagram is known", async {
                loop {
                    let peers = world.show(data_dir, "peers").await;
                    match peers[0]["datagram_bytes"].as_u64() {
                        Some(bytes) if bytes < 6_500 => tokio::time::sleep(Duration::from_millis(20)).await,
                        known => return known,
                    }
                }
            });
            // The loopback interface carries larger ones than a network.
            assert_eq!(carried.await.is_some(), transport == "quic", "{peers}");
            let status = world.show(data_dir, "status").await;
            assert_eq!(
                (&status["connections"], &status["healthy_targets"]),
                (&1.into(), &1.into()),
                "{status}"
            );
            assert_eq!(status["streams"], 0, "{status}");
            let certs = world.show(data_dir, "certs").await;
            assert_eq!((&certs[0]["kind"], &certs[1]["kind"]), (&"leaf".into(), &"root".into()), "{certs}");
        }
        let socket = world.dir.path().join("eu-1-data/admin.sock");
        assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
        let (status, answer) = world.ask("obs-data", "POST /v1/pause").await;
        assert!(
            status == 409 && answer["error"].as_str().unwrap().contains("isthmus pki cluster"),
            "{answer}"
        );
        gateway.stop().await;
        assert!(!socket.exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_cuts_requests_and_outlives_a_restart() {
    for transport in ["quic", "tcp"] {
        let world = MeshWorld::new();
        let obs = world.observability("").await;
        let store = TestStore::start(EU_1).await;
        let by = format!("transport: {transport}\n");
        let gateway = world.cluster("eu-1", &[("scraper-0", store.address)], &obs, &by).await;
        healthy(&obs, "scraper-0.eu-1").await;
        let mut reader = client(&obs, "scraper-0.eu-1");
        let slow = messages(1000, Duration::from_millis(100));
        let mut stream = reader.series(slow).await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap();
        assert_eq!(world.show("eu-1-data", "status").await["streams"], 1);

        assert_eq!(world.change("eu-1-data", "pause").await["serving"], "paused");
        let cut = within("the end of the stream", count(stream)).await.unwrap_err();
        assert_eq!(cut.code(), Code::Unavailable, "{cut}");
        let paused = |entries: &[proto::isthmus::mesh::v1::DirectoryEntry]| {
            entries.iter().all(|entry| !entry.healthy && entry.last_error.contains("has paused it"))
        };
        directory(&obs, "the cluster is paused", paused).await;
        let refused = reader.series(messages(1, Duration::ZERO)).await.unwrap_err();
        // It may not be connected again yet.
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");

        gateway.stop().await;
        let yaml = cluster("eu-1", &[("scraper-0", store.address)], &by);
        let _gateway = world.try_start("eu-1", &yaml, None).await.unwrap();
        directory(&obs, "it is connected and still paused", |entries| {
            paused(entries) && entries.iter().all(|entry| !entry.transport.is_empty())
        })
        .await;
        let refused = reader.series(messages(1, Duration::ZERO)).await.unwrap_err();
        assert!(refused.message().contains("paused it"), "{refused}");
        world.change("eu-1-data", "resume").await;
        healthy(&obs, "scraper-0.eu-1").await;
        let stream = reader.series(messages(3, Duration::ZERO)).await.unwrap().into_inner();
        assert_eq!(count(stream).await.unwrap(), 3);
    }
}

/// New requests go to the other gateway; the running one finishes, and so does one that comes nevertheless.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_drained_loses_no_request() {
    let world = MeshWorld::new();
    let obs = world.observability("").await;
    let store = TestStore::start(EU_1).await;
    let targets = &[("scraper-0", store.address)];
    let first = world.cluster("eu-1", targets, &obs, "").await;
    healthy(&obs, "scraper-0.eu-1").await;
    let mut reader = client(&obs, "scraper-0.eu-1");
    let stream = reader.series(messages(15, Duration::from_millis(100))).await.unwrap().into_inner();
    let reading = tokio::spawn(count(stream));
    let yaml = cluster("eu-1", targets, "").replace("eu-1-data", "eu-1-b-data");
    let token = world.token("eu-1", &[obs.addresses.mesh.unwrap()]);
    let _second = world.try_start("eu-1-b", &yaml, Some(&token)).await.unwrap();
    within("the second gateway is connected", async {
        while world.show("obs-data", "status").await["connections"] != 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(world.change("eu-1-data", "drain").await["serving"], "draining");
    // The target stays healthy, because the second gateway serves it.
    healthy(&obs, "scraper-0.eu-1").await;
    for _ in 0..20 {
        let stream = reader.series(messages(2, Duration::ZERO)).await.unwrap().into_inner();
        assert_eq!(count(stream).await.unwrap(), 2);
    }
    assert_eq!(reading.await.unwrap().unwrap(), 15);
    within("no request runs on the drained gateway", async {
        while world.show("eu-1-data", "status").await["streams"] != 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    first.stop().await;
    let stream = reader.series(messages(2, Duration::ZERO)).await.unwrap().into_inner();
    assert_eq!(count(stream).await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_test_tries_each_transport() {
    let world = MeshWorld::new();
    let obs = world.observability("").await;
    let store = TestStore::start(EU_1).await;
    let dead = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let (alive, dead) = (obs.addresses.mesh.unwrap(), dead.local_addr().unwrap());
    let dial = format!("dial: ['{alive}', '{dead}']\n");
    let _gateway = world.cluster("eu-1", &[("scraper-0", store.address)], &obs, &dial).await;
    healthy(&obs, "scraper-0.eu-1").await;
    let attempts = world.change("eu-1-data", "connect-test").await;
    let of = |address: std::net::SocketAddr, transport: &str| {
        let found = attempts.as_array().unwrap().iter();
        let found = found
            .filter(|attempt| attempt["dial"] == address.to_string() && attempt["transport"] == transport);
        let found: Vec<_> = found.collect();
        assert_eq!(found.len(), 1, "{attempts}");
        found[0]["error"].as_str().unwrap().to_owned()
    };
    assert_eq!((of(alive, "quic"), of(alive, "tcp")), (String::new(), String::new()));
    assert!(of(dead, "quic").contains("no answer"), "{attempts}");
    assert!(!of(dead, "tcp").is_empty());
    let entries =
        directory(&obs, "the target is still healthy", |entries| entries.iter().all(|e| e.healthy)).await;
    assert_eq!(entries.len(), 1);
}
