//! A slow store and readers that stop reading, over the mesh: no answer lacks a series. The times of other requests are printed, and
//! not compared, because other tests run beside this one.
//!
//! The querier merges the answers of eight stores, and cannot use those of seven before the slow one has answered. So most of them
//! wait inside the mesh, as the answers for readers that stall.
//!
//! `ISTHMUS_SLOW_SECONDS` is the time until the slow store answers, `ISTHMUS_READERS` the number of readers that stall.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{join_all, try_join_all};
use futures::{StreamExt, stream};
use model::{Labels, Sample, TimeRange};
use proto::thanos::series_response::Result as Found;
use proto::thanos::store_client::StoreClient;
use proto::thanos::{self, LabelMatcher, LabelNamesRequest};
use serde_json::Value;
use series::{AggrChunk, Series};
use storeapi::{
    LabelValuesRequest, LabelsAnswer, RequestLimits, SeriesFrame, SeriesRequest, SeriesStream, Store,
    StoreError, StoreInfo, StoreServer,
};
use tests::{Cluster, Mesh, Reach, Usage, get, percent_encode};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::RoutesBuilder;

use crate::world::{querier, wait_for_stores};

/// Stores of the query, with the slow one.
const STORES: usize = 8;
const SERIES_OF_STORE: usize = 65;
/// About 9 bytes each, so that a store sends 3.9 MB.
const SAMPLES: i64 = 6_900;
const BEGIN: i64 = 1_790_000_000;
const INTERVAL: i64 = 15;
const QUERIES: usize = 10;
/// After this time without a byte, windows count as full.
const QUIET: Duration = Duration::from_millis(400);
const PATIENCE: Duration = Duration::from_secs(60);
/// Requests of which the times are measured.
const SHORT_REQUESTS: usize = 400;
/// What a gateway may keep for a stalled reader: the window of its stream, and as much for what is sent and not acknowledged.
const BYTES_OF_READER: u64 = 2 << 20;

fn number(variable: &str, usual: usize) -> usize {
    std::env::var(variable).ok().and_then(|number| number.parse().ok()).unwrap_or(usual)
}

/// A store of large series. It answers after `delay`.
struct LargeStore {
    external: Labels,
    chunks: Arc<Vec<AggrChunk>>,
    delay: Duration,
}

#[tonic::async_trait]
impl Store for LargeStore {
    async fn info(&self) -> Result<StoreInfo, StoreError> {
        Ok(StoreInfo::new("sidecar", vec![self.external.clone()], TimeRange::ALL))
    }

    async fn series(&self, _: SeriesRequest) -> Result<SeriesStream, StoreError> {
        tokio::time::sleep(self.delay).await;
        let (external, chunks) = (self.external.clone(), Arc::clone(&self.chunks));
        let series = (0..SERIES_OF_STORE).map(move |n| {
            let own = [("__name__", "large"), ("instance", &format!("host-{n:03}"))];
            let labels = Labels::from_pairs(own).expect("the names differ").extended(&external);
            Ok(SeriesFrame::Series(vec![Series { labels, chunks: chunks.to_vec() }]))
        });
        Ok(stream::iter(series).boxed())
    }

    async fn label_names(&self, _: storeapi::LabelNamesRequest) -> Result<LabelsAnswer, StoreError> {
        Ok(LabelsAnswer { values: vec!["instance".to_owned()], ..LabelsAnswer::default() })
    }

    async fn label_values(&self, _: LabelValuesRequest) -> Result<LabelsAnswer, StoreError> {
        Ok(LabelsAnswer::default())
    }
}

/// Chunks with values that cannot be compressed.
fn chunks() -> Arc<Vec<AggrChunk>> {
    let mut random = 1_u64;
    let samples: Vec<Sample> = (0..SAMPLES)
        .map(|i| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            Sample::new((BEGIN + i * INTERVAL) * 1000, (random >> 11) as f64)
        })
        .collect();
    Arc::new(AggrChunk::from_floats(&samples).expect("chunks"))
}

/// Starts the stores. Replica `n` is the name in the labels of store `n`; the first one is slow.
async fn start_stores(delay: Duration) -> Vec<SocketAddr> {
    let chunks = chunks();
    let mut addresses = Vec::new();
    for n in 0..STORES {
        let name = format!("shard-{n}");
        let external = [("cluster", "eu-1"), ("environment", "testing"), ("shard", &name)];
        let store = LargeStore {
            external: Labels::from_pairs(external).expect("labels"),
            chunks: chunks.clone(),
            delay: if n == 0 { delay } else { Duration::ZERO },
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        addresses.push(listener.local_addr().expect("an address"));
        let mut routes = RoutesBuilder::default();
        StoreServer::new(Arc::new(store), RequestLimits::default()).register(&mut routes);
        let server = tonic::transport::Server::builder()
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(512 << 20)
            .add_routes(routes.routes());
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    }
    addresses
}

fn client(mesh: &Mesh, n: usize) -> StoreClient<mesh::Channel> {
    let target = format!("shard-{n}.eu-1").parse().expect("a target");
    StoreClient::new(mesh::via(&mesh.grpc.to_string(), &target).expect("an address"))
}

/// The times of short requests, one after the other, sorted.
async fn short_requests(mesh: &Mesh) -> Vec<Duration> {
    let mut client = client(mesh, 1);
    let mut times = Vec::new();
    for _ in 0..SHORT_REQUESTS {
        let began = Instant::now();
        client.label_names(LabelNamesRequest::default()).await.expect("an answer");
        times.push(began.elapsed());
    }
    times.sort();
    times
}

/// Waits until nothing more arrives from the cluster: the windows of all readers are full.
async fn until_full(mesh: &Mesh) {
    let http = mesh.http;
    let received = async || {
        let page = tokio::task::spawn_blocking(move || get(http, "/metrics")).await.expect("a thread");
        let (_, page) = page.expect("metrics");
        let series = "isthmus_gateway_bytes_total{peer=\"eu-1\",direction=\"received\"}";
        page.lines().find_map(|line| line.strip_prefix(series)).map(str::to_owned)
    };
    let (began, mut last) = (Instant::now(), received().await);
    loop {
        tokio::time::sleep(QUIET).await;
        let now = received().await;
        if now == last {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "the windows are not full after {PATIENCE:?}: {now:?}");
        last = now;
    }
}

fn p99(times: &[Duration]) -> Duration {
    times[times.len() * 99 / 100]
}

/// Readers that take one message of an answer and then stop.
async fn stall(mesh: &Mesh, readers: usize) -> Vec<tonic::Streaming<thanos::SeriesResponse>> {
    let clients: Vec<_> = (1..STORES).map(|n| client(mesh, n)).collect();
    let name =
        LabelMatcher { name: "__name__".to_owned(), value: "large".to_owned(), ..LabelMatcher::default() };
    let request = thanos::SeriesRequest {
        min_time: BEGIN * 1000,
        max_time: i64::MAX,
        matchers: vec![name],
        ..thanos::SeriesRequest::default()
    };
    let read = |n: usize| {
        let (mut client, request) = (clients[n % clients.len()].clone(), request.clone());
        async move {
            let mut stream = client.series(request).await?.into_inner();
            stream.message().await?;
            Ok::<_, tonic::Status>(stream)
        }
    };
    try_join_all((0..readers).map(read)).await.expect("readers")
}

/// The number of series in the answer of the querier, and its warnings.
fn series_and_warnings(querier: SocketAddr) -> (String, Value) {
    let end = BEGIN + SAMPLES * INTERVAL;
    let query = percent_encode(&format!("count(max_over_time(large[{}s]))", SAMPLES * INTERVAL));
    let (status, body) = get(querier, &format!("/api/v1/query?time={end}&query={query}")).expect("an answer");
    assert_eq!(status, 200, "{body}");
    let answer: Value = serde_json::from_str(&body).expect("JSON");
    let count = answer["data"]["result"][0]["value"][1].as_str().unwrap_or("none").to_owned();
    (count, answer["warnings"].clone())
}

async fn slow_store_loses_nothing(transport: &str) {
    let delay = Duration::from_secs(number("ISTHMUS_SLOW_SECONDS", 3) as u64);
    let readers = number("ISTHMUS_READERS", 64);
    let dir = tempfile::tempdir().expect("a folder");
    let addresses = start_stores(delay).await;
    let targets = addresses.iter().enumerate().map(|(n, at)| (format!("shard-{n}"), *at)).collect();
    let cluster = Cluster { name: "eu-1", reach: Reach::DialsOut, targets };
    let home = dir.path().to_owned();
    let (mesh, transport) = (home.join("mesh"), transport.to_owned());
    let used = transport.clone();
    let started = move || {
        let mesh = Mesh::start(&mesh, &used, &[cluster]);
        let querier = querier(&home, "querier", &[format!("--gateway={}", mesh.grpc)]);
        wait_for_stores(querier.1, STORES);
        (mesh, querier)
    };
    let (mesh, (_querier, http)) = tokio::task::spawn_blocking(started).await.expect("processes");

    let alone = p99(&short_requests(&mesh).await);
    let gateways = [&mesh.observability, &mesh.clusters[0]].map(tests::Process::id);
    let resident = || gateways.map(|id| Usage::of(id).rss_bytes);
    let before = resident();
    let stalled = stall(&mesh, readers).await;
    let while_filling = p99(&short_requests(&mesh).await);
    until_full(&mesh).await;
    let beside_readers = p99(&short_requests(&mesh).await);
    let kept: Vec<u64> =
        resident().iter().zip(before).map(|(now, then)| now.saturating_sub(then) / readers as u64).collect();

    let began = Instant::now();
    let ask = |_| tokio::task::spawn_blocking(move || series_and_warnings(http));
    let asked = join_all((0..QUERIES).map(ask));
    let (answers, beside_queries) = tokio::join!(asked, async {
        // The queries wait for the slow store.
        tokio::time::sleep(delay / 2).await;
        p99(&short_requests(&mesh).await)
    });
    println!(
        "{transport}: {QUERIES} queries over {STORES} stores, one of them slow by {delay:?}, took {:?}; {readers} stalled readers \
         take {} KiB each in the observability gateway and {} KiB in that of the cluster; 99 of 100 short requests take \
         {alone:?} alone, {while_filling:?} while the windows of the readers fill, {beside_readers:?} when they are full, and \
         {beside_queries:?} beside the queries",
        began.elapsed(),
        kept[0] >> 10,
        kept[1] >> 10,
    );
    for answer in answers {
        let (count, warnings) = answer.expect("an answer");
        assert_eq!((count, warnings), ((STORES * SERIES_OF_STORE).to_string(), Value::Null), "{transport}");
    }
    assert!(kept.iter().all(|bytes| *bytes <= BYTES_OF_READER), "{transport}: {kept:?} bytes of a reader");
    for mut reader in stalled {
        // The first one was read before. A series may come in several messages.
        let mut rest = BTreeSet::new();
        while let Some(message) = reader.message().await.expect("the rest") {
            if let Some(Found::Series(series)) = message.result {
                rest.insert(format!("{:?}", series.labels));
            }
        }
        assert!(rest.len() >= SERIES_OF_STORE - 1, "{transport}: a reader that goes on: {}", rest.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_store_and_stalled_readers_cost_no_series_over_quic() {
    slow_store_loses_nothing("quic").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_store_and_stalled_readers_cost_no_series_over_tcp() {
    slow_store_loses_nothing("tcp").await;
}
