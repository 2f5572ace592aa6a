//! Remote read of the store: a Thanos sidecar, or another Prometheus, reads from this program as from a Prometheus.
//!
//! As there (`storage/remote/read_handler.go`), series have the external labels that they do not have themselves, and are in the
//! order of their own labels. An answer is complete: what is missing is an error, because remote read has no warnings.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use budget::{Budget, BudgetLimits, Interrupt, Reservation, TotalBudget};
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{HeaderValue, StatusCode, header};
use model::{Labels, MatchOp, Matcher, Sample, TimeRange};
use promapi::{
    ChunkEncoding, MAX_READ_REQUEST_BYTES, ReadChunk, ReadForm, ReadQuery, ReadRequest, ReadSamples,
    encode_read_frames, histogram_message,
};
use series::{AggrChunk, ChunkSampleValue, Series, decode_chunk, unite_chunks};
use storeapi::{PartialResponse, SeriesFrame, SeriesRequest, SeriesStream, Store, StoreError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tracing::warn;
use tsdb::{Chunk, Encoding};

use crate::local::engine::QueryEngine;

/// `--storage.remote.*`.
#[derive(Clone, Debug, clap::Args)]
pub struct RemoteReadArgs {
    /// Reject remote reads that ask for samples, and not for chunks, and would have more than this; 0 for no limit
    #[arg(long = "storage.remote.read-sample-limit", value_name = "N", default_value_t = 50_000_000)]
    samples: u64,

    /// Answer at most this many remote reads at the same time; further ones wait
    #[arg(long = "storage.remote.read-concurrent-limit", value_name = "N", default_value_t = 10)]
    concurrency: usize,

    /// Send about this many bytes of chunks in one frame of a remote read
    #[arg(
        long = "storage.remote.read-max-bytes-in-frame",
        value_name = "BYTES",
        default_value = "1MiB",
        value_parser = runtime::parse_bytes
    )]
    frame_bytes: u64,
}

/// The checked flags.
#[derive(Clone, Debug)]
pub struct CheckedRemoteReadArgs(RemoteReadArgs);

/// How remote read is answered.
pub struct RemoteReadOptions {
    /// The external labels now.
    pub external: watch::Receiver<Labels>,
    /// The checked flags.
    pub args: CheckedRemoteReadArgs,
}

impl RemoteReadArgs {
    /// Checks the flags.
    ///
    /// # Errors
    /// Names the flag that is wrong.
    pub fn check(self) -> Result<CheckedRemoteReadArgs, String> {
        match self.concurrency {
            0 => Err("--storage.remote.read-concurrent-limit=0: must be at least 1".to_owned()),
            _ => Ok(CheckedRemoteReadArgs(self)),
        }
    }
}

impl CheckedRemoteReadArgs {
    /// The settings by flag.
    pub fn flags(&self) -> BTreeMap<String, String> {
        let Self(RemoteReadArgs { samples, concurrency, frame_bytes }) = self;
        [
            ("storage.remote.read-sample-limit", samples.to_string()),
            ("storage.remote.read-concurrent-limit", concurrency.to_string()),
            ("storage.remote.read-max-bytes-in-frame", frame_bytes.to_string()),
        ]
        .into_iter()
        .map(|(flag, value)| (flag.to_owned(), value))
        .collect()
    }
}

/// What remote read needs.
pub(super) struct RemoteRead {
    store: Arc<dyn Store>,
    external: watch::Receiver<Labels>,
    /// Most samples of an answer in the form of samples; none for no limit.
    most_samples: Option<u64>,
    frame_bytes: usize,
    permits: Arc<Semaphore>,
    total: TotalBudget,
    most_bytes: u64,
}

impl RemoteRead {
    pub(super) fn new(store: Arc<dyn Store>, options: RemoteReadOptions, engine: &QueryEngine) -> Self {
        let RemoteReadOptions { external, args: CheckedRemoteReadArgs(args) } = options;
        Self {
            store,
            external,
            most_samples: Some(args.samples).filter(|most| *most > 0),
            frame_bytes: usize::try_from(args.frame_bytes).unwrap_or(usize::MAX),
            permits: Arc::new(Semaphore::new(args.concurrency)),
            total: engine.total.clone(),
            most_bytes: engine.args.max_memory,
        }
    }

    /// The route, below that of the API.
    pub(super) fn route<S: Clone + Send + Sync + 'static>(self) -> Router<S> {
        Router::new().route("/read", post(read)).with_state(Arc::new(self))
    }
}

/// Why a request is not answered: status and text.
struct Refused(StatusCode, String);

impl Refused {
    fn bad(text: impl ToString) -> Self {
        Self(StatusCode::BAD_REQUEST, text.to_string())
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        let status = match error.code() {
            storeapi::Code::InvalidArgument => StatusCode::BAD_REQUEST,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, error.message().to_owned())
    }
}

async fn read(State(state): State<Arc<RemoteRead>>, request: Request) -> Response {
    match answer(&state, request).await {
        Ok(response) => response,
        Err(Refused(status, text)) => (status, format!("{text}\n")).into_response(),
    }
}

async fn answer(state: &Arc<RemoteRead>, request: Request) -> Result<Response, Refused> {
    // The semaphore is never closed.
    let permit = Arc::clone(&state.permits).acquire_owned().await.ok();
    let body = axum::body::to_bytes(request.into_body(), MAX_READ_REQUEST_BYTES).await;
    let body = body.map_err(|_| {
        Refused::bad(format!("request has more than {MAX_READ_REQUEST_BYTES} bytes, or is incomplete"))
    })?;
    let request = ReadRequest::decode(&body).map_err(Refused::bad)?;
    drop(body);
    let external = state.external.borrow().clone();
    let body = match request.form {
        ReadForm::Chunks => {
            let frames = Frames::new(Arc::clone(state), request.queries, external, permit);
            frames.into_body().await?
        }
        ReadForm::Samples => Body::from(samples(state, request.queries, &external).await?),
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(request.form.content_type()));
    if request.form == ReadForm::Samples {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("snappy"));
    }
    Ok(response)
}

/// Asks the store. External labels are not stored: a matcher for one of them with its value matches series without the label.
async fn select(
    store: &Arc<dyn Store>,
    query: &ReadQuery,
    external: &Labels,
) -> Result<SeriesStream, StoreError> {
    let stored = |matcher: &Matcher| {
        let is_external = matcher.op() == MatchOp::Equal
            && external.get(matcher.name()).is_some_and(|value| value == matcher.value());
        if is_external { Matcher::equal(matcher.name(), "") } else { matcher.clone() }
    };
    let matchers = query.matchers.iter().map(stored).collect();
    let request = SeriesRequest {
        partial_response: PartialResponse::Abort,
        batch_size: usize::MAX,
        ..SeriesRequest::new(query.range, matchers)
    };
    store.series(request).await
}

/// The series of a message.
fn series_of(frame: SeriesFrame) -> Result<Vec<Series>, StoreError> {
    match frame {
        SeriesFrame::Series(series) => Ok(series),
        SeriesFrame::Hints(_) => Ok(Vec::new()),
        SeriesFrame::Warning(text) => Err(StoreError::aborted(text)),
    }
}

/// The chunks of a series in order of time, each sample once.
fn chunks_of(labels: &Labels, chunks: Vec<AggrChunk>) -> Result<Vec<Chunk>, StoreError> {
    let chunks: Vec<Chunk> = chunks.into_iter().filter_map(|chunk| chunk.raw).collect();
    if chunks.is_sorted_by(|a, b| a.range.max < b.range.min) {
        return Ok(chunks);
    }
    // Chunks of one source each: of two values at one time, the first one is taken, as in the order of the store.
    let sources = chunks.into_iter().map(|chunk| vec![chunk]).collect();
    let united = unite_chunks(sources).map_err(|error| failed(labels, error))?;
    Ok(united.chunks)
}

fn failed(labels: &Labels, cause: impl std::fmt::Display) -> StoreError {
    StoreError::internal(format!("series {labels}: {cause}"))
}

/// An answer of frames.
struct Frames {
    state: Arc<RemoteRead>,
    external: Labels,
    queries: VecDeque<(usize, ReadQuery)>,
    current: Option<(usize, SeriesStream)>,
    /// It keeps the place of the request.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Frames {
    fn new(
        state: Arc<RemoteRead>,
        queries: Vec<ReadQuery>,
        external: Labels,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let queries = queries.into_iter().enumerate().collect();
        Self { state, external, queries, current: None, _permit: permit }
    }

    /// The frames of the next message of the store; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        loop {
            let Some((place, stream)) = &mut self.current else {
                let Some((place, query)) = self.queries.pop_front() else { return Ok(None) };
                let stream = select(&self.state.store, &query, &self.external).await?;
                self.current = Some((place, stream));
                continue;
            };
            let Some(message) = stream.next().await else {
                self.current = None;
                continue;
            };
            let mut out = Vec::new();
            for Series { labels, chunks } in series_of(message?)? {
                let chunks = chunks_of(&labels, chunks)?;
                let sent = chunks.iter().map(|chunk| read_chunk(&labels, chunk));
                let sent = sent.collect::<Result<Vec<_>, _>>()?;
                // The labels of the series are stronger than the external ones, unlike in StoreAPI.
                let labels = self.external.extended(&labels);
                encode_read_frames(*place, &labels, sent, self.state.frame_bytes, &mut out);
            }
            if !out.is_empty() {
                return Ok(Some(out.into()));
            }
        }
    }

    /// The body of the answer, whose first frames are known. An error after them is appended as a text, as Prometheus does: it is
    /// not a frame, so that the client knows that the answer is incomplete.
    async fn into_body(mut self) -> Result<Body, Refused> {
        let Some(first) = self.next().await? else { return Ok(Body::empty()) };
        let rest = stream::unfold(Some(self), |frames| async move {
            let mut frames = frames?;
            match frames.next().await {
                Ok(Some(bytes)) => Some((bytes, Some(frames))),
                Ok(None) => None,
                Err(error) => {
                    warn!(error = %error, "an answer to remote read is incomplete");
                    Some((format!("{}\n", error.message()).into(), None))
                }
            }
        });
        let all = stream::once(std::future::ready(first)).chain(rest);
        Ok(Body::from_stream(all.map(Ok::<_, std::convert::Infallible>)))
    }
}

/// A chunk as every client can read it.
fn read_chunk(labels: &Labels, chunk: &Chunk) -> Result<ReadChunk, StoreError> {
    let basic = |encoding| match encoding {
        Encoding::Xor => Some(ChunkEncoding::Xor),
        Encoding::Histogram => Some(ChunkEncoding::Histogram),
        Encoding::FloatHistogram => Some(ChunkEncoding::FloatHistogram),
        _ => None,
    };
    if let Some(encoding) = basic(chunk.encoding) {
        return Ok(ReadChunk { range: chunk.range, encoding, data: chunk.data.clone() });
    }
    let plain = chunk.without_starts().map_err(|error| failed(labels, error))?;
    let encoding = basic(plain.encoding).ok_or_else(|| failed(labels, "a chunk of aggregates"))?;
    Ok(ReadChunk { range: plain.range, encoding, data: plain.data })
}

/// An answer of samples. It counts towards the memory of queries.
async fn samples(
    state: &Arc<RemoteRead>,
    queries: Vec<ReadQuery>,
    external: &Labels,
) -> Result<Vec<u8>, Refused> {
    let limits = BudgetLimits::bytes(state.most_bytes);
    let mut reserved = Reservation::new(&Budget::new(&state.total, limits, Interrupt::new()));
    let mut reserve =
        |bytes: usize| reserved.grow_to(bytes as u64).map_err(|error| Refused::bad(error.to_string()));
    let mut answer = ReadSamples::default();
    for query in queries {
        let mut stream = select(&state.store, &query, external).await?;
        let mut count = 0;
        while let Some(message) = stream.next().await {
            for Series { labels, chunks } in series_of(message?)? {
                let chunks = chunks_of(&labels, chunks)?;
                count += add_series(&mut answer, &labels, &chunks, query.range, external)?;
                if let Some(most) = state.most_samples.filter(|most| count > *most) {
                    return Err(Refused::bad(format!("exceeded sample limit ({most})")));
                }
                reserve(answer.memory())?;
            }
        }
        answer.end_query();
    }
    reserve(answer.memory() + answer.finish_needs())?;
    let packed = tokio::task::spawn_blocking(|| answer.finish()).await.ok().flatten();
    packed.ok_or_else(|| Refused::bad("the answer is larger than 4 GiB; ask for less, or for chunks"))
}

/// Adds the samples of a series in a range, and returns their number.
fn add_series(
    answer: &mut ReadSamples,
    labels: &Labels,
    chunks: &[Chunk],
    range: TimeRange,
    external: &Labels,
) -> Result<u64, StoreError> {
    let mut decoded = Vec::new();
    for chunk in chunks {
        decode_chunk(chunk, &mut decoded).map_err(|error| failed(labels, error))?;
    }
    decoded.retain(|sample| range.contains(sample.at));
    let (mut floats, mut histograms) = (Vec::new(), Vec::new());
    for sample in &decoded {
        match &sample.value {
            ChunkSampleValue::Float(value) => floats.push(Sample { timestamp: sample.at, value: *value }),
            ChunkSampleValue::Histogram(histogram) => {
                let is_integer = matches!(sample.encoding, Encoding::Histogram | Encoding::HistogramSt);
                histograms.push(histogram_message(histogram, is_integer, sample.at.as_millis()));
            }
        }
    }
    if !decoded.is_empty() {
        answer.add(&external.extended(labels), &floats, histograms);
    }
    Ok(decoded.len() as u64)
}
