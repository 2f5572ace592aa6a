//! A remote store.

mod listing;
mod metered;

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use compression::MessageMemory;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use http::uri::PathAndQuery;
use mesh::StreamWindow;
use model::causes;
use proto::thanos as wire;
use tonic::Request;
use tonic::client::Grpc;

use crate::client::metered::MeteredChannel;
use crate::convert::{self, DroppedSeries, LabelsCodec, LabelsKind, MetadataCodec, ReadFrame, SeriesCodec};
use crate::{
    AnswerLimits, LabelNamesRequest, LabelValuesRequest, LabelsAnswer, MetadataAnswer, MetadataRequest,
    MetadataStore, SeriesFrame, SeriesRequest, SeriesStream, Store, StoreError, StoreInfo, WireLimits,
};

/// Largest answer to Info. A store lists the label sets of all its blocks. Decoded, it may take twelve times as much.
const INFO_BYTES: usize = 16 << 20;

/// A [`Store`] that is reached through a channel.
///
/// Chunk payloads of its series are slices of the message that brought them: nothing is copied.
/// What the peer sends is bounded ([`WireLimits`], [`AnswerLimits`]) but not checked: see [`crate::checked`].
#[derive(Clone)]
pub struct StoreClient {
    name: Arc<str>,
    channel: mesh::Channel,
    limits: WireLimits,
    memory: AnswerLimits,
}

impl StoreClient {
    /// The store that `channel` leads to. `name` is used in error messages only.
    pub fn new(name: impl Into<Arc<str>>, channel: mesh::Channel) -> Self {
        Self { name: name.into(), channel, limits: WireLimits::default(), memory: AnswerLimits::default() }
    }

    /// The same client with other limits on what the peer may send.
    pub fn with_limits(mut self, limits: WireLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Its name in error messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A client for one request whose answer consists of messages of at most `message_bytes`.
    async fn ready(&self, message_bytes: usize) -> Result<Grpc<MeteredChannel>, StoreError> {
        let memory = self.memory.message_memory(message_bytes);
        let message_bytes = memory.max_message_bytes();
        let channel = MeteredChannel::new(self.channel.clone(), memory);
        let mut grpc = Grpc::new(channel).max_decoding_message_size(message_bytes);
        grpc.ready().await.map_err(|cause| StoreError::unavailable(error_line(&cause)))?;
        Ok(grpc)
    }

    fn request<T>(&self, content: T) -> Request<T> {
        let mut request = Request::new(content);
        request.extensions_mut().insert(self.memory.window());
        request
    }

    async fn labels<R: prost::Message + Default + 'static>(
        &self,
        request: R,
        path: &'static str,
        kind: LabelsKind,
    ) -> Result<LabelsAnswer, StoreError> {
        let (labels, memory) = (self.limits.labels, self.memory.clone());
        let codec = LabelsCodec { kind, labels, memory, request: PhantomData };
        let mut grpc = self.ready(self.memory.message_bytes()).await?;
        let answer = grpc.unary(self.request(request), PathAndQuery::from_static(path), codec).await;
        Ok(answer.map_err(|status| self.memory.error(status))?.into_inner())
    }
}

#[tonic::async_trait]
impl Store for StoreClient {
    async fn info(&self) -> Result<StoreInfo, StoreError> {
        let mut client = wire::info::info_client::InfoClient::new(self.channel.clone())
            .max_decoding_message_size(INFO_BYTES);
        let mut request = Request::new(wire::info::InfoRequest {});
        request.extensions_mut().insert(StreamWindow::Small);
        request.extensions_mut().insert(MessageMemory::uncounted(INFO_BYTES));
        let answer = client.info(request).await?;
        convert::info_from_wire(answer.into_inner())
    }

    async fn series(&self, request: SeriesRequest) -> Result<SeriesStream, StoreError> {
        let mut grpc = self.ready(self.limits.message_bytes).await?;
        let path = PathAndQuery::from_static("/thanos.Store/Series");
        let codec = SeriesCodec::client(self.limits, self.memory.clone());
        let request = self.request(convert::series_request_to_wire(&request));
        let answer = grpc.server_streaming(request, path, codec).await?;
        let memory = self.memory.clone();
        let frames = answer.into_inner().map_err(move |status| memory.error(status)).boxed();
        Ok(DroppedReport::new(frames).boxed())
    }

    async fn label_names(&self, request: LabelNamesRequest) -> Result<LabelsAnswer, StoreError> {
        let wire = convert::label_names_to_wire(&request);
        self.labels(wire, "/thanos.Store/LabelNames", LabelsKind::Names).await
    }

    async fn label_values(&self, request: LabelValuesRequest) -> Result<LabelsAnswer, StoreError> {
        let wire = convert::label_values_to_wire(&request);
        self.labels(wire, "/thanos.Store/LabelValues", LabelsKind::Values(request.label)).await
    }

    fn limited(&self, limits: &AnswerLimits) -> Option<Arc<dyn Store>> {
        Some(Arc::new(Self { memory: limits.clone(), ..self.clone() }))
    }
}

#[tonic::async_trait]
impl MetadataStore for StoreClient {
    async fn metric_metadata(&self, request: MetadataRequest) -> Result<MetadataAnswer, StoreError> {
        let mut grpc = self.ready(self.memory.message_bytes()).await?;
        let path = PathAndQuery::from_static("/thanos.Metadata/MetricMetadata");
        let codec = MetadataCodec { memory: self.memory.clone() };
        let request = self.request(convert::metadata_request_to_wire(&request));
        let mut frames = grpc.server_streaming(request, path, codec).await?.into_inner();
        let mut answer = MetadataAnswer::default();
        while let Some(frame) = frames.message().await.map_err(|status| self.memory.error(status))? {
            convert::add_metadata(&mut answer, frame);
        }
        Ok(answer)
    }

    fn limited(&self, limits: &AnswerLimits) -> Option<Arc<dyn MetadataStore>> {
        Some(Arc::new(Self { memory: limits.clone(), ..self.clone() }))
    }
}

/// Most series over a limit on labels that an answer describes. Further ones are counted.
const DESCRIBED: usize = 10;

/// The frames of a peer, with warnings about the series that were left out of them.
struct DroppedReport {
    frames: BoxStream<'static, Result<ReadFrame, StoreError>>,
    ready: VecDeque<SeriesFrame>,
    dropped: DroppedSeries,
}

impl DroppedReport {
    fn new(frames: BoxStream<'static, Result<ReadFrame, StoreError>>) -> Self {
        Self { frames, ready: VecDeque::new(), dropped: DroppedSeries::default() }
    }

    fn add(&mut self, read: ReadFrame) {
        for text in read.dropped.described {
            if self.dropped.described.len() < DESCRIBED {
                self.dropped.described.push(text.clone());
                self.ready.push_back(SeriesFrame::Warning(text));
            }
        }
        self.dropped.count += read.dropped.count;
        // Hints arrive as frames without series and are ignored.
        if !matches!(&read.frame, SeriesFrame::Series(batch) if batch.is_empty()) {
            self.ready.push_back(read.frame);
        }
    }

    /// The warning about the series that were not described.
    fn rest(&mut self) -> Option<SeriesFrame> {
        let dropped = std::mem::take(&mut self.dropped);
        let rest = dropped.count - dropped.described.len() as u64;
        let text = || format!("{rest} more series are dropped, because they are over a limit on labels");
        (rest > 0).then(|| SeriesFrame::Warning(text()))
    }
}

impl Stream for DroppedReport {
    type Item = Result<SeriesFrame, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(frame)));
            }
            match ready!(self.frames.poll_next_unpin(cx)) {
                Some(Ok(read)) => self.add(read),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(self.rest().map(Ok)),
            }
        }
    }
}

/// An error and its causes in one line.
fn error_line(error: &(dyn std::error::Error + 'static)) -> String {
    causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
