//! A remote store.

mod listing;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use http::uri::PathAndQuery;
use model::causes;
use proto::thanos as wire;
use tonic::Request;
use tonic::client::Grpc;

use crate::convert::{self, DroppedSeries, ReadFrame, SeriesCodec};
use crate::{
    LabelNamesRequest, LabelValuesRequest, LabelsAnswer, MetadataAnswer, MetadataRequest, MetadataStore,
    SeriesFrame, SeriesRequest, SeriesStream, Store, StoreError, StoreInfo, WireLimits,
};

/// Largest answer to Info, label names, label values and metadata. They are received whole before they are decoded.
const UNARY_BYTES: usize = 64 << 20;

/// A [`Store`] that is reached through a channel.
///
/// Chunk payloads of its series are slices of the message that brought them: nothing is copied.
/// What the peer sends is bounded ([`WireLimits`]) but not checked: see [`crate::checked`].
#[derive(Clone)]
pub struct StoreClient {
    name: Arc<str>,
    channel: mesh::Channel,
    limits: WireLimits,
}

impl StoreClient {
    /// The store that `channel` leads to. `name` is used in error messages only.
    pub fn new(name: impl Into<Arc<str>>, channel: mesh::Channel) -> Self {
        Self { name: name.into(), channel, limits: WireLimits::default() }
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

    fn store(&self) -> wire::store_client::StoreClient<mesh::Channel> {
        wire::store_client::StoreClient::new(self.channel.clone()).max_decoding_message_size(UNARY_BYTES)
    }
}

#[tonic::async_trait]
impl Store for StoreClient {
    async fn info(&self) -> Result<StoreInfo, StoreError> {
        let mut client = wire::info::info_client::InfoClient::new(self.channel.clone())
            .max_decoding_message_size(UNARY_BYTES);
        let answer = client.info(wire::info::InfoRequest {}).await?;
        convert::info_from_wire(answer.into_inner())
    }

    async fn series(&self, request: SeriesRequest) -> Result<SeriesStream, StoreError> {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(self.limits.message_bytes);
        grpc.ready().await.map_err(|cause| StoreError::unavailable(error_line(&cause)))?;
        let path = PathAndQuery::from_static("/thanos.Store/Series");
        let codec = SeriesCodec::client(self.limits);
        let answer = grpc
            .server_streaming(Request::new(convert::series_request_to_wire(&request)), path, codec)
            .await?;
        let frames = answer.into_inner().map_err(StoreError::from).boxed();
        Ok(DroppedReport::new(frames).boxed())
    }

    async fn label_names(&self, request: LabelNamesRequest) -> Result<LabelsAnswer, StoreError> {
        let answer = self.store().label_names(convert::label_names_to_wire(&request)).await?.into_inner();
        Ok(LabelsAnswer { values: answer.names, warnings: answer.warnings })
    }

    async fn label_values(&self, request: LabelValuesRequest) -> Result<LabelsAnswer, StoreError> {
        let answer = self.store().label_values(convert::label_values_to_wire(&request)).await?.into_inner();
        Ok(LabelsAnswer { values: answer.values, warnings: answer.warnings })
    }
}

#[tonic::async_trait]
impl MetadataStore for StoreClient {
    async fn metric_metadata(&self, request: MetadataRequest) -> Result<MetadataAnswer, StoreError> {
        let mut client = wire::metadata_client::MetadataClient::new(self.channel.clone())
            .max_decoding_message_size(UNARY_BYTES);
        let mut frames =
            client.metric_metadata(convert::metadata_request_to_wire(&request)).await?.into_inner();
        let mut answer = MetadataAnswer::default();
        while let Some(frame) = frames.message().await? {
            convert::add_metadata(&mut answer, frame);
        }
        Ok(answer)
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
