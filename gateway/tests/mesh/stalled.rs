//! Readers that stop reading: what the other requests of a cluster see, and how much memory a stalled reader takes.

use std::time::{Duration, Instant};

use proto::thanos::{LabelNamesRequest, SeriesRequest};

use crate::{
    stores::TestStore,
    world::{MeshWorld, RunningGateway, client, count, healthy, messages, within},
};

/// Readers that stall at once.
const STALLED: usize = 256;
/// Longer than any message of a control session may be late.
const STALL: Duration = Duration::from_secs(7);
const EU_1: &[(&str, &str)] = &[("cluster", "eu-1"), ("environment", "test")];

/// Memory of this process, in KiB: the gateways, the store and the readers.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The slowest of 100 short requests, one after the other.
async fn slowest(obs: &RunningGateway) -> Duration {
    let mut client = client(obs, "scraper-0.eu-1");
    let mut slowest = Duration::ZERO;
    for _ in 0..100 {
        let began = Instant::now();
        within("a short request", client.label_names(LabelNamesRequest::default())).await.unwrap();
        slowest = slowest.max(began.elapsed());
    }
    slowest
}

async fn stalled_readers_lose_nothing(transport: &str) {
    let world = MeshWorld::new();
    let obs = world.observability("").await;
    let store = TestStore::start(EU_1).await;
    let by = format!("transport: {transport}\n");
    let _cluster = world.cluster("eu-1", &[("scraper-0", store.address)], &obs, &by).await;
    healthy(&obs, "scraper-0.eu-1").await;
    let (alone, before) = (slowest(&obs).await, resident());

    // 4 MiB each, as large as the answers of the stores that a slow one holds back.
    let ask = SeriesRequest { max_resolution_window: 128 << 10, ..messages(32, Duration::ZERO) };
    let mut readers = Vec::new();
    let readers_client = client(&obs, "scraper-0.eu-1");
    for _ in 0..STALLED {
        let mut client = readers_client.clone();
        let mut stream = within("a head", client.series(ask.clone())).await.unwrap().into_inner();
        within("a first message", stream.message()).await.unwrap().unwrap();
        readers.push(stream);
    }
    let beside = slowest(&obs).await;
    tokio::time::sleep(STALL).await;
    println!(
        "{transport}: {} KiB for each of {STALLED} stalled readers; slowest of 100 short requests {beside:?}, alone {alone:?}",
        resident().saturating_sub(before) / STALLED
    );
    for reader in readers {
        assert_eq!(within("the rest of an answer", count(reader)).await.unwrap(), 31);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_readers_over_quic_lose_nothing() {
    stalled_readers_lose_nothing("quic").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_readers_over_tcp_lose_nothing() {
    stalled_readers_lose_nothing("tcp").await;
}
