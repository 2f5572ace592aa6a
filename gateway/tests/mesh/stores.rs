//! Stores for the tests: real tonic servers.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{Stream, StreamExt};
use proto::thanos::{
    Label, LabelMatcher, LabelNamesRequest, LabelNamesResponse, LabelSet, LabelValuesRequest,
    LabelValuesResponse, Series, SeriesRequest, SeriesResponse,
    info::{InfoRequest, InfoResponse, StoreInfo, info_server},
    series_response::Result as SeriesResult,
    store_server,
};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
    sync::Notify,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, metadata::MetadataMap, transport::Server};

/// A store whose `Series` sends `max_time` warnings of at least `max_resolution_window` bytes, `min_time` milliseconds apart. If `max_time` is negative, it sends
/// one warning and then nothing, without ending the stream. With `skip_chunks`, it sends series instead. `LabelValues` fails with a text of `limit` bytes.
#[derive(Clone)]
pub(crate) struct TestStore {
    inner: Arc<StoreState>,
}

struct StoreState {
    labels: Mutex<Vec<(String, String)>>,
    calls: AtomicUsize,
    cancelled: AtomicBool,
    cancelled_now: Notify,
    seen: Mutex<Option<MetadataMap>>,
    asked: Mutex<Vec<LabelMatcher>>,
}

pub(crate) struct RunningStore {
    pub(crate) store: TestStore,
    pub(crate) address: SocketAddr,
    /// The store has a runtime of its own, so that dropping it closes its connections.
    runtime: Option<Runtime>,
}

impl Drop for RunningStore {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl TestStore {
    /// Starts a store with these external labels.
    pub(crate) async fn start(labels: &[(&str, &str)]) -> RunningStore {
        let labels = labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let store = Self {
            inner: Arc::new(StoreState {
                labels: Mutex::new(labels),
                calls: AtomicUsize::new(0),
                cancelled: AtomicBool::new(false),
                cancelled_now: Notify::new(),
                seen: Mutex::default(),
                asked: Mutex::default(),
            }),
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let served = store.clone();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            let server = Server::builder()
                .layer(compression::ServerCompressionLayer::new(1 << 20))
                .add_service(info_server::InfoServer::new(served.clone()))
                .add_service(store_server::StoreServer::new(served))
                .serve_with_incoming(TcpListenerStream::new(listener));
            drop(server.await);
        });
        RunningStore { store, address, runtime: Some(runtime) }
    }

    /// Calls other than `Info`.
    pub(crate) fn calls(&self) -> usize {
        self.inner.calls.load(Ordering::SeqCst)
    }

    /// Waits until a `Series` stream was dropped before its end.
    pub(crate) async fn cancelled(&self) {
        loop {
            let notified = self.inner.cancelled_now.notified();
            if self.inner.cancelled.load(Ordering::SeqCst) {
                return;
            }
            notified.await;
        }
    }

    /// Metadata of the last call.
    pub(crate) fn seen(&self) -> MetadataMap {
        self.inner.seen.lock().unwrap().clone().expect("a call was seen")
    }

    /// The matchers of the last `Series` or `LabelNames`, each as one text.
    pub(crate) fn asked(&self) -> Vec<String> {
        let asked = self.inner.asked.lock().unwrap();
        asked.iter().map(|matcher| format!("{}~{}~{}", matcher.name, matcher.r#type, matcher.value)).collect()
    }

    fn note<T>(&self, request: &Request<T>) {
        self.inner.calls.fetch_add(1, Ordering::SeqCst);
        *self.inner.seen.lock().unwrap() = Some(request.metadata().clone());
    }
}

#[tonic::async_trait]
impl info_server::Info for TestStore {
    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let labels = self.inner.labels.lock().unwrap().clone();
        let labels = labels.into_iter().map(|(name, value)| Label { name, value }).collect();
        Ok(Response::new(InfoResponse {
            label_sets: vec![LabelSet { labels }],
            component_type: "sidecar".into(),
            store: Some(StoreInfo { min_time: 1, max_time: i64::MAX, ..StoreInfo::default() }),
            rules: Some(Default::default()),
            targets: Some(Default::default()),
            ..InfoResponse::default()
        }))
    }
}

/// Records a cancellation in the store when it is dropped before it was disarmed.
struct StreamGuard {
    store: TestStore,
    armed: bool,
}

impl StreamGuard {
    /// Call it at the end of the stream.
    fn disarm(&mut self) {
        self.armed = false;
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        if self.armed {
            self.store.inner.cancelled.store(true, Ordering::SeqCst);
            self.store.inner.cancelled_now.notify_waiters();
        }
    }
}

#[tonic::async_trait]
impl store_server::Store for TestStore {
    type SeriesStream = Pin<Box<dyn Stream<Item = Result<SeriesResponse, Status>> + Send>>;

    async fn series(&self, request: Request<SeriesRequest>) -> Result<Response<Self::SeriesStream>, Status> {
        self.note(&request);
        let SeriesRequest { min_time, max_time, max_resolution_window, matchers, skip_chunks, .. } =
            request.into_inner();
        *self.inner.asked.lock().unwrap() = matchers;
        let padding: Arc<str> = "x".repeat(usize::try_from(max_resolution_window).unwrap()).into();
        let pause = Duration::from_millis(min_time.unsigned_abs());
        let guard = StreamGuard { store: self.clone(), armed: true };
        let message = move |i: i64, padding: &str| {
            let label = || Label { name: "i".into(), value: i.to_string() };
            let result = match skip_chunks {
                true => SeriesResult::Series(Series { labels: vec![label()], ..Series::default() }),
                false => SeriesResult::Warning(format!("message {i}{padding}")),
            };
            Ok(SeriesResponse { result: Some(result) })
        };
        if max_time < 0 {
            let stream =
                futures::stream::once(async move { message(0, &padding) }).chain(futures::stream::pending());
            return Ok(Response::new(Box::pin(stream.map(move |item| {
                let _ = &guard;
                item
            }))));
        }
        let stream =
            futures::stream::unfold((0, guard, padding), move |(i, mut guard, padding)| async move {
                if i >= max_time {
                    guard.disarm();
                    return None;
                }
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
                Some((message(i, &padding), (i + 1, guard, padding)))
            });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn label_names(
        &self,
        request: Request<LabelNamesRequest>,
    ) -> Result<Response<LabelNamesResponse>, Status> {
        self.note(&request);
        *self.inner.asked.lock().unwrap() = request.into_inner().matchers;
        let names = self.inner.labels.lock().unwrap().iter().map(|(name, _)| name.clone()).collect();
        Ok(Response::new(LabelNamesResponse { names, ..LabelNamesResponse::default() }))
    }

    async fn label_values(
        &self,
        request: Request<LabelValuesRequest>,
    ) -> Result<Response<LabelValuesResponse>, Status> {
        self.note(&request);
        let length = usize::try_from(request.into_inner().limit).unwrap();
        match length {
            0 => Err(Status::failed_precondition("no values here")),
            _ => Err(Status::failed_precondition("é".repeat(length / 2))),
        }
    }
}
