//! Remote read: the request, and both forms of the answer.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, Response, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use model::{Labels, LabelsError, MatchOp, Matcher, Sample, TimeRange, Timestamp, root_cause};
use prost::Message;
use proto::prometheus as wire;
use tokio::time::timeout;

use crate::frames::{ReadFrameDecoder, ReadFrameError};

/// The header with the protocol version, and the version.
pub(crate) const VERSION_HEADER: HeaderName = HeaderName::from_static("x-prometheus-remote-read-version");
pub(crate) const VERSION: &str = "0.1.0";

/// Prefixes of the content types of both forms.
pub(crate) const STREAMED: &str = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";
pub(crate) const SAMPLES: &str = "application/x-protobuf";

/// Maximum bytes of chunks of one series in one answer. A year of one series that is scraped each second
/// takes less than 100 MiB.
const MAX_SERIES_BYTES: usize = 1 << 30;

/// A remote read request.
#[derive(Clone, Debug)]
pub struct ReadQuery {
    /// Matchers that must all match.
    pub matchers: Vec<Matcher>,
    /// Time range, including both ends. Chunks that overlap it are sent whole.
    pub range: TimeRange,
}

/// How a chunk's payload is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkEncoding {
    /// Floats.
    Xor,
    /// Native histograms with integer counts.
    Histogram,
    /// Native histograms with float counts.
    FloatHistogram,
    /// Floats with optional start timestamps. Prometheus 3.14 and later writes them if its configuration
    /// enables it.
    Xor2,
    /// Native histograms with integer counts and optional start timestamps, as for `Xor2`.
    HistogramSt,
    /// Native histograms with float counts and optional start timestamps, as for `Xor2`.
    FloatHistogramSt,
    /// An encoding that Prometheus 3.14 does not define, with its number on the wire. Such chunks must not be
    /// passed on.
    Unknown(i32),
}

/// A chunk as Prometheus stores it, not decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadChunk {
    /// Times of its first and last sample.
    pub range: TimeRange,
    /// How `data` is encoded.
    pub encoding: ChunkEncoding,
    /// The payload, without length, encoding byte and checksum. It shares the memory of its frame.
    pub data: Bytes,
}

/// The data of a series. All series of one answer have the same kind.
#[derive(Clone, Debug, PartialEq)]
pub enum ReadData {
    /// The streamed form.
    Chunks(Vec<ReadChunk>),
    /// The old form: floats in time order, cut to the time range. Native histograms are missing from it.
    Samples(Vec<Sample>),
}

/// A series of an answer. Its labels include the external labels of Prometheus, unless the series has a label
/// of the same name.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadSeries {
    /// The labels.
    pub labels: Labels,
    /// The data.
    pub data: ReadData,
}

/// Why an answer cannot be read completely. The series returned before the error are correct, but some are
/// missing.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The content type is that of neither form.
    #[error("remote read answered with content type {0:?}, expected streamed chunks or protobuf samples")]
    ContentType(String),
    /// A frame is invalid. Prometheus also reports errors during the stream this way.
    #[error(transparent)]
    Frame(#[from] ReadFrameError),
    /// A message cannot be decoded.
    #[error("remote read sent a message that cannot be decoded as {message}: {cause}")]
    Message {
        /// The expected message type.
        message: &'static str,
        /// The cause.
        cause: String,
    },
    /// The label set of a series is invalid.
    #[error("remote read sent a series with invalid labels: {0}")]
    Labels(#[from] LabelsError),
    /// One series has more than 1 GiB of chunks, or an answer in the old form is larger than the limit.
    #[error("remote read answered with more than {0} bytes {1}")]
    TooLarge(usize, &'static str),
    /// The connection failed.
    #[error("remote read was interrupted: {0}")]
    Transport(String),
    /// No data arrived for too long.
    #[error("remote read sent no data for {0:?}")]
    Silent(Duration),
}

/// Limits of one answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadLimits {
    pub(crate) silence: Duration,
    pub(crate) max_samples_bytes: usize,
}

/// The body of a request, to be sent with `Content-Encoding: snappy`.
pub(crate) fn encode_request(query: &ReadQuery) -> Bytes {
    let matchers = query.matchers.iter().map(|matcher| {
        let kind = match matcher.op() {
            MatchOp::Equal => wire::label_matcher::Type::Eq,
            MatchOp::NotEqual => wire::label_matcher::Type::Neq,
            MatchOp::Regex => wire::label_matcher::Type::Re,
            MatchOp::NotRegex => wire::label_matcher::Type::Nre,
        };
        wire::LabelMatcher {
            r#type: kind.into(),
            name: matcher.name().to_owned(),
            value: matcher.value().to_owned(),
        }
    });
    let query = wire::Query {
        start_timestamp_ms: query.range.min.as_millis(),
        end_timestamp_ms: query.range.max.as_millis(),
        matchers: matchers.collect(),
        hints: None,
    };
    use wire::read_request::ResponseType::{Samples, StreamedXorChunks};
    let request = wire::ReadRequest {
        queries: vec![query],
        accepted_response_types: vec![StreamedXorChunks.into(), Samples.into()],
    };
    let plain = request.encode_to_vec();
    let mut packed = vec![0; snap::raw::max_compress_len(plain.len())];
    let length = snap::raw::Encoder::new()
        .compress(&plain, &mut packed)
        .expect("the buffer has the greatest length that compression can need");
    packed.truncate(length);
    packed.into()
}

/// The series of an answer, one at a time.
///
/// In the streamed form series are ordered by their labels *before* Prometheus merged its external labels
/// into them; memory holds one frame and one series. In the old form series are sorted by their full labels.
///
/// Dropping the stream cancels the request.
#[derive(Debug)]
pub struct ReadStream {
    source: ReadSource,
    limits: ReadLimits,
    /// Series received so far. More chunks of the last one may follow.
    ready: VecDeque<ReadSeries>,
    /// Bytes of chunks of the last series.
    last_bytes: usize,
}

#[derive(Debug)]
enum ReadSource {
    Frames { body: Incoming, decoder: ReadFrameDecoder },
    Finished,
}

impl ReadStream {
    /// Starts to read an answer with a success status.
    pub(crate) async fn open(response: Response<Incoming>, limits: ReadLimits) -> Result<Self, ReadError> {
        let content_type = response.headers().get(header::CONTENT_TYPE).and_then(|t| t.to_str().ok());
        let content_type = content_type.unwrap_or("").to_owned();
        let body = response.into_body();
        let mut stream = Self { source: ReadSource::Finished, limits, ready: VecDeque::new(), last_bytes: 0 };
        if content_type.starts_with(STREAMED) {
            stream.source = ReadSource::Frames { body, decoder: ReadFrameDecoder::new() };
        } else if content_type.starts_with(SAMPLES) {
            stream.ready = read_samples(body, limits).await?;
        } else {
            return Err(ReadError::ContentType(content_type));
        }
        Ok(stream)
    }

    /// The next series, or `None` at the end of a complete answer.
    ///
    /// # Errors
    /// The answer is incomplete. All later calls return `None`.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing; the next call continues.
    pub async fn next(&mut self) -> Result<Option<ReadSeries>, ReadError> {
        match self.advance().await {
            Ok(series) => Ok(series),
            Err(error) => {
                self.source = ReadSource::Finished;
                self.ready.clear();
                Err(error)
            }
        }
    }

    async fn advance(&mut self) -> Result<Option<ReadSeries>, ReadError> {
        loop {
            let ReadSource::Frames { body, decoder } = &mut self.source else {
                return Ok(self.ready.pop_front());
            };
            // A series is complete only when the next one has started.
            if self.ready.len() > 1 {
                return Ok(self.ready.pop_front());
            }
            if let Some(frame) = decoder.next_frame()? {
                self.add_frame(frame)?;
                continue;
            }
            match timeout(self.limits.silence, body.frame()).await {
                Err(_) => return Err(ReadError::Silent(self.limits.silence)),
                Ok(Some(Err(error))) => return Err(ReadError::Transport(root_cause(&error).to_string())),
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        decoder.offer(data);
                    }
                }
                Ok(None) => {
                    std::mem::take(decoder).finish()?;
                    self.source = ReadSource::Finished;
                }
            }
        }
    }

    /// Adds the series of a frame. A series that continues from the previous frame is joined with its first
    /// part.
    fn add_frame(&mut self, frame: Bytes) -> Result<(), ReadError> {
        let message = "ChunkedReadResponse";
        let response = wire::ChunkedReadResponse::decode(frame)
            .map_err(|cause| ReadError::Message { message, cause: cause.to_string() })?;
        if response.query_index != 0 {
            let cause = format!("it answers query {} of 1", response.query_index);
            return Err(ReadError::Message { message, cause });
        }
        for series in response.chunked_series {
            let labels = Labels::from_pairs(series.labels.iter().map(|l| (&l.name, &l.value)))?;
            let bytes: usize = series.chunks.iter().map(|chunk| chunk.data.len()).sum();
            let more = series.chunks.into_iter().map(ReadChunk::from);
            match self.ready.back_mut() {
                Some(ReadSeries { labels: last, data: ReadData::Chunks(chunks) }) if *last == labels => {
                    self.last_bytes = self.last_bytes.saturating_add(bytes);
                    if self.last_bytes > MAX_SERIES_BYTES {
                        return Err(ReadError::TooLarge(MAX_SERIES_BYTES, "of chunks in one series"));
                    }
                    chunks.extend(more);
                }
                _ => {
                    self.last_bytes = bytes;
                    self.ready.push_back(ReadSeries { labels, data: ReadData::Chunks(more.collect()) });
                }
            }
        }
        Ok(())
    }
}

impl From<wire::Chunk> for ReadChunk {
    fn from(chunk: wire::Chunk) -> Self {
        let time = Timestamp::from_millis;
        let encoding = match chunk.r#type() {
            wire::chunk::Encoding::Xor => ChunkEncoding::Xor,
            wire::chunk::Encoding::Histogram => ChunkEncoding::Histogram,
            wire::chunk::Encoding::FloatHistogram => ChunkEncoding::FloatHistogram,
            wire::chunk::Encoding::Xor2 => ChunkEncoding::Xor2,
            wire::chunk::Encoding::HistogramSt => ChunkEncoding::HistogramSt,
            wire::chunk::Encoding::FloatHistogramSt => ChunkEncoding::FloatHistogramSt,
            wire::chunk::Encoding::Unknown => ChunkEncoding::Unknown(chunk.r#type),
        };
        let range = TimeRange::new(time(chunk.min_time_ms), time(chunk.max_time_ms));
        Self { range, encoding, data: chunk.data }
    }
}

/// Reads an answer in the old form: one message, compressed as a whole.
async fn read_samples(body: Incoming, limits: ReadLimits) -> Result<VecDeque<ReadSeries>, ReadError> {
    let max = limits.max_samples_bytes;
    let packed = match timeout(limits.silence, Limited::new(body, max).collect()).await {
        Ok(Ok(packed)) => packed.to_bytes(),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            return Err(ReadError::TooLarge(max, "of samples"));
        }
        Ok(Err(error)) => return Err(ReadError::Transport(root_cause(&*error).to_string())),
        Err(_) => return Err(ReadError::Silent(limits.silence)),
    };
    // Decoding a large answer takes long and must not block other tasks of this thread.
    let decoded = tokio::task::spawn_blocking(move || decode_samples(&packed, max)).await;
    decoded.map_err(|error| ReadError::Transport(error.to_string()))?
}

/// Decodes the old form, at most `max` bytes after decompression. Series without samples are dropped.
fn decode_samples(packed: &[u8], max: usize) -> Result<VecDeque<ReadSeries>, ReadError> {
    let bad = |cause: String| ReadError::Message { message: "ReadResponse", cause };
    let length = snap::raw::decompress_len(packed).map_err(|cause| bad(cause.to_string()))?;
    if length > max {
        return Err(ReadError::TooLarge(max, "of samples"));
    }
    let plain = snap::raw::Decoder::new().decompress_vec(packed).map_err(|cause| bad(cause.to_string()))?;
    let response = wire::ReadResponse::decode(plain.as_slice()).map_err(|cause| bad(cause.to_string()))?;
    let mut all = Vec::new();
    for series in response.results.into_iter().flat_map(|result| result.timeseries) {
        let labels = Labels::from_pairs(series.labels.iter().map(|l| (&l.name, &l.value)))?;
        let samples: Vec<Sample> = series.samples.iter().map(|s| Sample::new(s.timestamp, s.value)).collect();
        if !samples.is_empty() {
            all.push(ReadSeries { labels, data: ReadData::Samples(samples) });
        }
    }
    all.sort_by(|a, b| a.labels.cmp(&b.labels));
    Ok(all.into())
}

#[cfg(test)]
mod tests;
