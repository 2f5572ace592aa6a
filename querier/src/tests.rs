//! Test stores, and tests that span several modules.

mod configured;
mod directory;
mod discovery;
mod fanout;
mod gateways;
mod heavy;
mod hidden;
mod liars;
mod limits;
mod lists;
mod local;
mod query_server;
mod replicas;
mod shared_selects;
mod web;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::{StreamExt, stream};
use model::{Labels, Matcher, Sample, TimeRange};
use runtime::Registry;
use series::Series;
use storeapi::memory::MemoryStore;
use storeapi::{
    LabelNamesRequest, LabelValuesRequest, LabelsAnswer, RequestLimits, SeriesFrame, SeriesRequest,
    SeriesStream, Store, StoreClient, StoreError, StoreInfo, StoreServer,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::RoutesBuilder;

use crate::{Candidate, FanoutMetrics, ProxyOptions, ProxyStore, StoreSource};

/// Time of the first sample; samples are 15 s apart.
pub(crate) const START: i64 = 1_700_000_000_000;

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

/// Ten minutes of `up{job}` for each job, with these external labels.
pub(crate) fn memory(external: &[(&str, &str)], jobs: &[&str]) -> Arc<MemoryStore> {
    let series = jobs.iter().map(|job| {
        let samples = (0..40).map(|i| Sample::new(START + i * 15_000, 1.0)).collect();
        (labels(&[("__name__", "up"), ("job", job)]), samples)
    });
    Arc::new(MemoryStore::from_samples(labels(external), series).unwrap())
}

/// Serves a store over gRPC on loopback while the runtime of the test lives.
pub(crate) async fn serve(store: Arc<dyn Store>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    serve_at(listener, store);
    address
}

/// Serves a store over gRPC at this listener while the runtime of the test lives.
pub(crate) fn serve_at(listener: TcpListener, store: Arc<dyn Store>) {
    let mut routes = RoutesBuilder::default();
    StoreServer::new(store, RequestLimits::default()).register(&mut routes);
    let server = tonic::transport::Server::builder().add_routes(routes.routes());
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
}

/// The store as a candidate, accessed through gRPC.
pub(crate) async fn remote(name: &str, store: Arc<dyn Store>) -> Candidate {
    let address = serve(store).await;
    let client = StoreClient::new(name, mesh::direct(&address).unwrap());
    let info = client.info().await.unwrap();
    Candidate { info: Some(Arc::new(info)), ..local(name, Arc::new(client)) }
}

/// A store of this process without an answer to Info.
pub(crate) fn local(name: &str, store: Arc<dyn Store>) -> Candidate {
    Candidate {
        name: name.into(),
        store,
        metadata: None,
        lists: None,
        info: None,
        bound: Labels::empty(),
        selected: Vec::new(),
        unavailable: None,
    }
}

/// A fixed list of stores.
pub(crate) struct Fixed(pub(crate) Vec<Candidate>);

impl StoreSource for Fixed {
    fn candidates(&self) -> Vec<Candidate> {
        self.0.clone()
    }
}

pub(crate) fn proxy(candidates: Vec<Candidate>, options: ProxyOptions) -> ProxyStore {
    ProxyStore::new(Arc::new(Fixed(candidates)), options, FanoutMetrics::new(&mut Registry::default()))
}

pub(crate) fn up() -> SeriesRequest {
    SeriesRequest::new(TimeRange::ALL, vec![Matcher::equal("__name__", "up")])
}

/// A label set as `job@cluster`, short enough to compare lists of them.
pub(crate) fn short(series: &[Series]) -> Vec<String> {
    series.iter().map(|s| format!("{}@{}", s.labels.value("job"), s.labels.value("cluster"))).collect()
}

/// Sends these frames; then ends, or hangs forever.
pub(crate) struct Scripted {
    pub(crate) frames: Vec<Result<SeriesFrame, StoreError>>,
    pub(crate) hangs: bool,
    /// Number of its open streams.
    pub(crate) open: Arc<AtomicUsize>,
}

impl Scripted {
    pub(crate) fn new(frames: Vec<Result<SeriesFrame, StoreError>>) -> Self {
        Self { frames, hangs: false, open: Arc::default() }
    }

    /// Sends series with these labels, then ends.
    pub(crate) fn series(sets: &[&[(&str, &str)]]) -> Self {
        let frame = |set: &&[(&str, &str)]| {
            Ok(SeriesFrame::Series(vec![Series { labels: labels(set), chunks: Vec::new() }]))
        };
        Self::new(sets.iter().map(frame).collect())
    }

    pub(crate) fn hanging(mut self) -> Self {
        self.hangs = true;
        self
    }
}

struct OpenStreamGuard(Arc<AtomicUsize>);

impl Drop for OpenStreamGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tonic::async_trait]
impl Store for Scripted {
    async fn info(&self) -> Result<StoreInfo, StoreError> {
        Ok(StoreInfo::new("sidecar", vec![labels(&[("cluster", "liar")])], TimeRange::ALL))
    }
    async fn series(&self, _: SeriesRequest) -> Result<SeriesStream, StoreError> {
        self.open.fetch_add(1, Ordering::SeqCst);
        let guard = OpenStreamGuard(Arc::clone(&self.open));
        let tail = if self.hangs { stream::pending().boxed() } else { stream::empty().boxed() };
        let frames = stream::iter(self.frames.clone()).chain(tail);
        Ok(frames
            .map(move |frame| {
                let _open = &guard;
                frame
            })
            .boxed())
    }
    async fn label_names(&self, _: LabelNamesRequest) -> Result<LabelsAnswer, StoreError> {
        Err(StoreError::internal("index is damaged"))
    }
    async fn label_values(&self, _: LabelValuesRequest) -> Result<LabelsAnswer, StoreError> {
        Err(StoreError::internal("index is damaged"))
    }
}

/// Polls a condition; panics after 20 seconds.
pub(crate) async fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let reached = async {
        let mut look = tokio::time::interval(Duration::from_millis(5));
        while !holds() {
            look.tick().await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(20), reached).await.is_err() {
        panic!("waited 20 s for: {what}");
    }
}
