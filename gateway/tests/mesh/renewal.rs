//! Certificates that live for seconds: renewal, and replacement of connections, while streams run.

use std::time::Duration;

use crate::{
    stores::TestStore,
    world::{MeshWorld, client, count, healthy, messages, within},
};

const EU_1: &[(&str, &str)] = &[("cluster", "eu-1"), ("environment", "test")];

async fn serial(world: &MeshWorld) -> String {
    let path = world.dir.path().join("eu-1-data/credentials.pem");
    identity::Credentials::load(&path).unwrap().identity().serial.clone()
}

/// Runs streams of one second, one after another, for two lifetimes of a leaf, and one long stream during a renewal.
async fn no_stream_is_lost(more: &str) {
    let world = MeshWorld::new();
    let obs = world.observability("pki: {state: pki, leaf_lifetime: 9s}\n").await;
    let store = TestStore::start(EU_1).await;
    let _gateway = world.cluster("eu-1", &[("scraper-0", store.address)], &obs, more).await;
    healthy(&obs, "scraper-0.eu-1").await;
    let first = serial(&world).await;

    let mut long = client(&obs, "scraper-0.eu-1");
    let long = long.series(messages(70, Duration::from_millis(100))).await.unwrap().into_inner();
    let long = tokio::spawn(count(long));
    let mut serials = std::collections::BTreeSet::from([first]);
    for round in 0..18 {
        let mut client = client(&obs, "scraper-0.eu-1");
        let stream = client.series(messages(10, Duration::from_millis(100))).await;
        let stream = stream.unwrap_or_else(|status| panic!("round {round}: {status:?}")).into_inner();
        let read = within("a short stream", count(stream)).await;
        assert_eq!(read.unwrap_or_else(|status| panic!("round {round}: {status:?}")), 10);
        serials.insert(serial(&world).await);
    }
    assert_eq!(long.await.unwrap().unwrap(), 70);
    assert!(serials.len() >= 4, "only {} certificates in two lifetimes", serials.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_over_quic_survive_renewals() {
    no_stream_is_lost("transport: quic\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_over_tcp_survive_renewals() {
    no_stream_is_lost("transport: tcp\n").await;
}
