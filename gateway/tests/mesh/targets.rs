//! Targets that cannot be read: each says why, and no address leaves the cluster.

use std::net::SocketAddr;

use crate::{
    owner::metrics,
    stores::TestStore,
    world::{MeshWorld, directory, within},
};

const EU_1: &[(&str, &str)] = &[("cluster", "eu-1"), ("environment", "test")];
const US_1: &[(&str, &str)] = &[("cluster", "us-1"), ("environment", "test")];

#[tokio::test(flavor = "multi_thread")]
async fn each_target_that_cannot_be_read_is_unhealthy_by_name_on_both_sides() {
    // Bound and not listening, so that connections to it are refused.
    let dead = tokio::net::TcpSocket::new_v4().unwrap();
    dead.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let dead_address = dead.local_addr().unwrap();
    let padding = "x".repeat(2 << 20);
    let large: &[(&str, &str)] = &[("cluster", "eu-1"), ("environment", "test"), ("padding", &padding)];
    for transport in ["quic", "tcp"] {
        let world = MeshWorld::new();
        let obs = world.observability("").await;
        let good = TestStore::start(EU_1).await;
        let (foreign, nameless, large) =
            (TestStore::start(US_1).await, TestStore::start(&[]).await, TestStore::start(large).await);
        let targets: &[(&str, SocketAddr)] = &[
            ("dead", dead_address),
            ("foreign", foreign.address),
            ("good", good.address),
            ("large", large.address),
            ("nameless", nameless.address),
        ];
        let gateway = world.cluster("eu-1", targets, &obs, &format!("transport: {transport}\n")).await;
        let entries = directory(&obs, "five targets, one of them healthy", |entries| {
            let is_settled = |entry: &&proto::isthmus::mesh::v1::DirectoryEntry| {
                entry.healthy || entry.last_check.is_some()
            };
            entries.len() == 5 && entries.iter().filter(is_settled).count() == 5
        })
        .await;
        let errors: Vec<&str> = entries.iter().map(|entry| entry.last_error.as_str()).collect();
        for (error, expected) in errors.iter().zip([
            "connect: Connection refused",
            "registered with",
            "",
            "decoded message length too large",
            "lacks the external label cluster",
        ]) {
            assert!(error.contains(expected) && error.is_empty() == expected.is_empty(), "{errors:#?}");
            assert!(!error.contains("127.0.0.1"), "an address left the cluster: {error}");
        }

        let known = async {
            loop {
                let shown = metrics(&gateway).await;
                let health = |name: &str, value: u8| {
                    shown.contains(&format!("isthmus_gateway_target_healthy{{target=\"{name}\"}} {value}\n"))
                };
                let bad = ["dead", "foreign", "large", "nameless"];
                if health("good", 1) && bad.iter().all(|name| health(name, 0)) {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        within("the health of each target is a metric", known).await;
        let own = world.show("eu-1-data", "targets").await;
        assert_eq!(own[0]["address"], dead_address.to_string());
        let tried = own[0]["tried"].as_str().unwrap_or_default();
        assert!(tried.starts_with(&format!("{dead_address}: ")), "the owner sees what was tried: {own}");
        let seen = world.show("obs-data", "targets").await;
        assert!(!seen.to_string().contains("127.0.0.1"), "an address left the cluster: {seen}");
    }
}
