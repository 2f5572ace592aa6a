//! Serves a store over gRPC.

mod listing;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use model::Labels;
use proto::thanos as wire;
use series::Series;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService};
use tonic::service::RoutesBuilder;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::{Service, service_fn};
use tsdb::SAMPLES_PER_CHUNK;

use crate::convert::{self, AcceptedEncodings, HintsOf, ServerCodec};
use crate::{Kept, MetadataStore, RequestLimits, SeriesFrame, SeriesStream, Store, StoreError};

pub use listing::ListingServer;

/// A message with this much payload is sent although its batch is not full, and a longer series is split.
const MESSAGE_BYTES: usize = 1 << 20;

type StdError = Box<dyn std::error::Error + Send + Sync>;

/// The gRPC service `thanos.Store` of a store. It batches and splits series, hashes chunks and enforces limits on requests.
///
/// Encodings with start timestamps go only to clients that ask for them, as [`StoreClient`](crate::StoreClient) does. Other
/// clients, such as Thanos, get the same samples without start timestamps, in encodings that they support.
///
/// When the caller disconnects, the store's stream is dropped.
///
/// It knows the store behind a pointer, so that the gRPC code is compiled once, in this crate.
#[derive(Clone)]
pub struct StoreServer {
    store: Arc<dyn Store>,
    limits: RequestLimits,
}

impl StoreServer {
    /// Serves `store` within `limits`.
    pub fn new(store: Arc<dyn Store>, limits: RequestLimits) -> Self {
        Self { store, limits }
    }

    /// Adds `thanos.Store` and `thanos.info.Info` to what a gRPC server serves.
    pub fn register(self, routes: &mut RoutesBuilder) {
        routes.add_service(InfoServer::service(Arc::clone(&self.store)));
        routes.add_service(self);
    }
}

impl NamedService for StoreServer {
    const NAME: &'static str = wire::store_server::SERVICE_NAME;
}

impl<B> Service<http::Request<B>> for StoreServer
where
    B: http_body::Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let Self { store, limits } = self.clone();
        Box::pin(async move {
            let path = request.uri().path();
            Ok(match path {
                "/thanos.Store/Series" => {
                    let serve = service_fn(move |r: Request<wire::SeriesRequest>| {
                        series(Arc::clone(&store), limits, r.into_inner())
                    });
                    Grpc::new(ServerCodec).server_streaming(serve, request).await
                }
                "/thanos.Store/LabelNames" => {
                    let serve = service_fn(move |r: Request<wire::LabelNamesRequest>| {
                        label_names(Arc::clone(&store), r.into_inner())
                    });
                    Kept::within(Grpc::new(ProstCodec::default()).unary(serve, request).await)
                }
                "/thanos.Store/LabelValues" => {
                    let serve = service_fn(move |r: Request<wire::LabelValuesRequest>| {
                        label_values(Arc::clone(&store), r.into_inner())
                    });
                    Kept::within(Grpc::new(ProstCodec::default()).unary(serve, request).await)
                }
                unknown => Status::unimplemented(format!("{unknown}: no such method")).into_http(),
            })
        })
    }
}

async fn series(
    store: Arc<dyn Store>,
    limits: RequestLimits,
    request: wire::SeriesRequest,
) -> Result<Response<BoxStream<'static, Result<SeriesFrame, Status>>>, Status> {
    let accepted = AcceptedEncodings::of(&request);
    let request = convert::series_request_from_wire(request)?;
    let (batch_size, limit) = (request.batch_size, request.limit);
    let source = store.series(request).await?;
    Ok(Response::new(Messages::new(source, accepted, batch_size, limit, limits).boxed()))
}

async fn label_names(
    store: Arc<dyn Store>,
    request: wire::LabelNamesRequest,
) -> Result<Response<wire::LabelNamesResponse>, Status> {
    let answer = store.label_names(convert::label_names_from_wire(request)?).await?;
    let hints = answer.hints.as_ref().map(|hints| convert::answer_to_wire(HintsOf::LabelNames, hints));
    let names = wire::LabelNamesResponse { names: answer.values, warnings: answer.warnings, hints };
    Ok(keeping(answer.kept, names))
}

async fn label_values(
    store: Arc<dyn Store>,
    request: wire::LabelValuesRequest,
) -> Result<Response<wire::LabelValuesResponse>, Status> {
    let answer = store.label_values(convert::label_values_from_wire(request)?).await?;
    let hints = answer.hints.as_ref().map(|hints| convert::answer_to_wire(HintsOf::LabelValues, hints));
    let values = wire::LabelValuesResponse { values: answer.values, warnings: answer.warnings, hints };
    Ok(keeping(answer.kept, values))
}

/// A response whose body is going to keep `kept`.
fn keeping<T>(kept: Kept, message: T) -> Response<T> {
    let mut response = Response::new(message);
    response.extensions_mut().insert(kept);
    response
}

/// Repacks a store's frames into messages: batches of the size that was asked for, none much larger than
/// [`MESSAGE_BYTES`], no more than the limits allow, and chunks only in encodings that the client reads.
struct Messages {
    source: SeriesStream,
    accepted: AcceptedEncodings,
    batch_size: usize,
    limit: Option<usize>,
    limits: RequestLimits,
    pending: Vec<Series>,
    pending_bytes: usize,
    ready: VecDeque<Result<SeriesFrame, Status>>,
    last: Option<Labels>,
    series: u64,
    samples: u64,
    /// Whether a message with series was sent.
    has_sent: bool,
    finished: bool,
}

impl Messages {
    fn new(
        source: SeriesStream,
        accepted: AcceptedEncodings,
        batch_size: usize,
        limit: Option<usize>,
        limits: RequestLimits,
    ) -> Self {
        Self {
            source,
            accepted,
            batch_size: batch_size.max(1),
            limit,
            limits,
            pending: Vec::new(),
            pending_bytes: 0,
            ready: VecDeque::new(),
            last: None,
            series: 0,
            samples: 0,
            has_sent: false,
            finished: false,
        }
    }

    fn flush(&mut self) {
        if !self.pending.is_empty() {
            self.has_sent = true;
            self.pending_bytes = 0;
            self.ready.push_back(Ok(SeriesFrame::Series(std::mem::take(&mut self.pending))));
        }
    }

    /// Sends what is pending, then ends. The source is dropped at once.
    fn finish(&mut self, error: Option<StoreError>) {
        self.flush();
        self.ready.extend(error.map(|error| Err(error.into())));
        self.finished = true;
        self.source = stream::empty().boxed();
    }

    fn add(&mut self, mut series: Series) -> Result<(), StoreError> {
        if self.last.as_ref() != Some(&series.labels) {
            if self.limit.is_some_and(|limit| self.series >= limit as u64) {
                self.finish(None);
                return Ok(());
            }
            self.series += 1;
            self.last = Some(series.labels.clone());
        }
        self.samples += (SAMPLES_PER_CHUNK * series.chunks.len()) as u64;
        exceeded("series", "--store.limits.request-series", self.series, self.limits.series)?;
        exceeded("samples", "--store.limits.request-samples", self.samples, self.limits.samples)?;
        self.accepted.apply(&mut series)?;
        loop {
            let rest = split(&mut series);
            self.pending_bytes += series.chunks.iter().map(|chunk| chunk.size_bytes()).sum::<usize>();
            let next = rest.map(|chunks| Series { labels: series.labels.clone(), chunks });
            self.pending.push(series);
            if self.pending.len() >= self.batch_size || self.pending_bytes >= MESSAGE_BYTES {
                self.flush();
            }
            match next {
                Some(more) => series = more,
                None => return Ok(()),
            }
        }
    }
}

/// Cuts a long series at [`MESSAGE_BYTES`] of payload and returns the chunks after the cut.
fn split(series: &mut Series) -> Option<Vec<series::AggrChunk>> {
    let mut bytes = 0;
    let cut = series.chunks.iter().position(|chunk| {
        bytes += chunk.size_bytes();
        bytes >= MESSAGE_BYTES
    })? + 1;
    (cut < series.chunks.len()).then(|| series.chunks.split_off(cut))
}

fn exceeded(what: &str, flag: &str, found: u64, limit: Option<u64>) -> Result<(), StoreError> {
    match limit.filter(|limit| found > *limit) {
        None => Ok(()),
        Some(limit) => Err(StoreError::limit(format!(
            "limit of {limit} {what} a request exceeded (got {found}): narrow the selector or raise {flag}"
        ))),
    }
}

impl Stream for Messages {
    type Item = Result<SeriesFrame, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(message) = this.ready.pop_front() {
                return Poll::Ready(Some(message));
            }
            if this.finished {
                return Poll::Ready(None);
            }
            let next = this.source.poll_next_unpin(cx);
            if next.is_pending() && !this.has_sent && !this.pending.is_empty() {
                // The first series are not held back until a batch is full.
                this.flush();
                continue;
            }
            match ready!(next) {
                None => this.finish(None),
                Some(Err(error)) => this.finish(Some(error)),
                Some(Ok(frame @ (SeriesFrame::Warning(_) | SeriesFrame::Hints(_)))) => {
                    this.flush();
                    this.ready.push_back(Ok(frame));
                }
                Some(Ok(SeriesFrame::Series(batch))) => {
                    for series in batch {
                        if let Err(error) = this.add(series) {
                            this.finish(Some(error));
                        }
                        if this.finished {
                            break;
                        }
                    }
                }
            }
        }
    }
}

/// The gRPC service `thanos.info.Info` of a store.
struct InfoServer(Arc<dyn Store>);

impl InfoServer {
    fn service(store: Arc<dyn Store>) -> wire::info::info_server::InfoServer<Self> {
        wire::info::info_server::InfoServer::new(Self(store))
    }
}

#[tonic::async_trait]
impl wire::info::info_server::Info for InfoServer {
    async fn info(
        &self,
        _: Request<wire::info::InfoRequest>,
    ) -> Result<Response<wire::info::InfoResponse>, Status> {
        Ok(Response::new(convert::info_to_wire(&self.0.info().await?)))
    }
}

/// The gRPC service `thanos.Metadata`.
pub struct MetadataServer(Arc<dyn MetadataStore>);

impl MetadataServer {
    /// Adds the metadata of `store` to what a gRPC server serves.
    pub fn register(store: Arc<dyn MetadataStore>, routes: &mut RoutesBuilder) {
        routes.add_service(wire::metadata_server::MetadataServer::new(Self(store)));
    }
}

#[tonic::async_trait]
impl wire::metadata_server::Metadata for MetadataServer {
    type MetricMetadataStream = BoxStream<'static, Result<wire::MetricMetadataResponse, Status>>;

    async fn metric_metadata(
        &self,
        request: Request<wire::MetricMetadataRequest>,
    ) -> Result<Response<Self::MetricMetadataStream>, Status> {
        let request = convert::metadata_request_from_wire(request.into_inner());
        let answer = self.0.metric_metadata(request).await?;
        let kept = answer.kept.clone();
        let messages = stream::iter(convert::metadata_to_wire(answer)).map(move |message| {
            let _kept = &kept;
            Ok(message)
        });
        Ok(Response::new(messages.boxed()))
    }
}

#[cfg(test)]
mod tests;
