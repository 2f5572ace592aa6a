//! Remote read for servers: the request, and both forms of the answer.
//!
//! A server decodes a [`ReadRequest`] and answers with frames of chunks ([`encode_read_frames`]) or with one message of
//! samples ([`ReadSamples`]). As `storage/remote/read_handler.go` of Prometheus.

use model::{Labels, MatchOp, Matcher, Sample, TimeRange, Timestamp};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use proto::prometheus as wire;

use crate::read::{ChunkEncoding, ReadChunk, ReadQuery, SAMPLES, STREAMED};

/// Most bytes of a request, compressed and not compressed.
pub const MAX_READ_REQUEST_BYTES: usize = 32 << 20;

/// A request of a client.
#[derive(Clone, Debug)]
pub struct ReadRequest {
    /// Its queries. Answers name them by their place.
    pub queries: Vec<ReadQuery>,
    /// The form of the answer.
    pub form: ReadForm,
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadForm {
    /// Chunks, series by series, in frames.
    Chunks,
    /// Samples, in one message.
    Samples,
}

/// A request that cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadRequestError {
    /// It is larger than [`MAX_READ_REQUEST_BYTES`] after decompression.
    #[error("request has {0} bytes, at most {MAX_READ_REQUEST_BYTES} are accepted")]
    TooLarge(usize),
    /// It is not snappy.
    #[error("request cannot be decompressed: {0}; send it with snappy in the block format")]
    Compression(String),
    /// It is not a message of remote read.
    #[error("request cannot be decoded as prometheus.ReadRequest: {0}")]
    Message(String),
    /// A matcher is of no known type, or its expression is wrong.
    #[error("query {query}: {cause}")]
    Matcher {
        /// The place of its query.
        query: usize,
        /// The cause.
        cause: String,
    },
    /// The client accepts neither form.
    #[error(
        "no accepted response type is supported: {0:?}; supported are 0 (samples) and 1 (streamed chunks)"
    )]
    Form(Vec<i32>),
}

impl ReadRequest {
    /// Decodes the body of a request, which is compressed.
    ///
    /// # Errors
    /// The request cannot be answered.
    pub fn decode(body: &[u8]) -> Result<Self, ReadRequestError> {
        let compression = |cause: snap::Error| ReadRequestError::Compression(cause.to_string());
        let length = snap::raw::decompress_len(body).map_err(compression)?;
        if length > MAX_READ_REQUEST_BYTES {
            return Err(ReadRequestError::TooLarge(length));
        }
        let plain = snap::raw::Decoder::new().decompress_vec(body).map_err(compression)?;
        let request = wire::ReadRequest::decode(plain.as_slice())
            .map_err(|cause| ReadRequestError::Message(cause.to_string()))?;
        let form = form(&request.accepted_response_types)?;
        let queries = request.queries.iter().enumerate().map(|(place, query)| {
            decode_query(query).map_err(|cause| ReadRequestError::Matcher { query: place, cause })
        });
        Ok(Self { queries: queries.collect::<Result<_, _>>()?, form })
    }
}

impl ReadForm {
    /// The content type of an answer.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Chunks => STREAMED,
            Self::Samples => SAMPLES,
        }
    }
}

/// The first form that the client accepts and that there is. A client that names none is old.
fn form(accepted: &[i32]) -> Result<ReadForm, ReadRequestError> {
    use wire::read_request::ResponseType;
    let known = |number: &i32| match ResponseType::try_from(*number) {
        Ok(ResponseType::Samples) => Some(ReadForm::Samples),
        Ok(ResponseType::StreamedXorChunks) => Some(ReadForm::Chunks),
        Err(_) => None,
    };
    match accepted {
        [] => Ok(ReadForm::Samples),
        accepted => accepted.iter().find_map(known).ok_or_else(|| ReadRequestError::Form(accepted.to_vec())),
    }
}

fn decode_query(query: &wire::Query) -> Result<ReadQuery, String> {
    let matchers = query.matchers.iter().map(|matcher| {
        use wire::label_matcher::Type;
        let op = match Type::try_from(matcher.r#type) {
            Ok(Type::Eq) => MatchOp::Equal,
            Ok(Type::Neq) => MatchOp::NotEqual,
            Ok(Type::Re) => MatchOp::Regex,
            Ok(Type::Nre) => MatchOp::NotRegex,
            Err(_) => {
                return Err(format!("matcher of {:?}: type {} is not known", matcher.name, matcher.r#type));
            }
        };
        Matcher::new(op, &matcher.name, &matcher.value).map_err(|error| error.to_string())
    });
    let time = Timestamp::from_millis;
    let range = TimeRange { min: time(query.start_timestamp_ms), max: time(query.end_timestamp_ms) };
    Ok(ReadQuery { matchers: matchers.collect::<Result<_, _>>()?, range })
}

/// Appends the frames of a series to `out`, each with at least one chunk and about at most `frame_bytes`.
pub fn encode_read_frames(
    query: usize,
    labels: &Labels,
    chunks: Vec<ReadChunk>,
    frame_bytes: usize,
    out: &mut Vec<u8>,
) {
    let labels = label_messages(labels);
    let own: usize = labels.iter().map(Message::encoded_len).sum();
    let mut rest = chunks.into_iter().map(wire::Chunk::from).peekable();
    while rest.peek().is_some() {
        let (mut bytes, mut chunks) = (own, Vec::new());
        while let Some(chunk) = rest.next_if(|_| bytes < frame_bytes || chunks.is_empty()) {
            bytes += chunk.encoded_len();
            chunks.push(chunk);
        }
        let frame = wire::ChunkedReadResponse {
            chunked_series: vec![wire::ChunkedSeries { labels: labels.clone(), chunks }],
            query_index: i64::try_from(query).unwrap_or(i64::MAX),
        };
        let data = frame.encode_to_vec();
        encode_varint(data.len() as u64, out);
        out.extend_from_slice(&crc32c::crc32c(&data).to_be_bytes());
        out.extend_from_slice(&data);
    }
}

/// An answer of samples that grows series by series.
#[derive(Debug, Default)]
pub struct ReadSamples {
    out: Vec<u8>,
    /// Where the result of the current query begins.
    begin: usize,
}

impl ReadSamples {
    /// Adds a series to the result of the current query.
    pub fn add(&mut self, labels: &Labels, samples: &[Sample], histograms: Vec<wire::Histogram>) {
        let samples = samples
            .iter()
            .map(|sample| wire::Sample { value: sample.value, timestamp: sample.timestamp.as_millis() });
        let series = wire::TimeSeries {
            labels: label_messages(labels),
            samples: samples.collect(),
            exemplars: Vec::new(),
            histograms,
        };
        prost::encoding::message::encode(1, &series, &mut self.out);
    }

    /// Ends the result of the current query. There is one for each query, in their order.
    pub fn end_query(&mut self) {
        let mut head = Vec::new();
        encode_key(1, WireType::LengthDelimited, &mut head);
        encode_varint((self.out.len() - self.begin) as u64, &mut head);
        self.out.splice(self.begin..self.begin, head);
        self.begin = self.out.len();
    }

    /// Bytes of memory that the answer takes.
    pub fn memory(&self) -> usize {
        self.out.capacity()
    }

    /// Bytes that [`ReadSamples::finish`] needs besides.
    pub fn finish_needs(&self) -> usize {
        snap::raw::max_compress_len(self.out.len())
    }

    /// The body of the answer, compressed. `None` if it is too long for that, above 4 GiB.
    pub fn finish(self) -> Option<Vec<u8>> {
        snap::raw::Encoder::new().compress_vec(&self.out).ok()
    }
}

fn label_messages(labels: &Labels) -> Vec<wire::Label> {
    let label =
        |label: model::Label<'_>| wire::Label { name: label.name.to_owned(), value: label.value.to_owned() };
    labels.iter().map(label).collect()
}

impl From<ReadChunk> for wire::Chunk {
    fn from(chunk: ReadChunk) -> Self {
        use wire::chunk::Encoding;
        let encoding = match chunk.encoding {
            ChunkEncoding::Xor => Encoding::Xor.into(),
            ChunkEncoding::Histogram => Encoding::Histogram.into(),
            ChunkEncoding::FloatHistogram => Encoding::FloatHistogram.into(),
            ChunkEncoding::Xor2 => Encoding::Xor2.into(),
            ChunkEncoding::HistogramSt => Encoding::HistogramSt.into(),
            ChunkEncoding::FloatHistogramSt => Encoding::FloatHistogramSt.into(),
            ChunkEncoding::Unknown(number) => number,
        };
        Self {
            min_time_ms: chunk.range.min.as_millis(),
            max_time_ms: chunk.range.max.as_millis(),
            r#type: encoding,
            data: chunk.data,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::frames::ReadFrameDecoder;
    use crate::read::encode_request;

    fn labels() -> Labels {
        Labels::from_pairs([("__name__", "m"), ("job", "j")]).unwrap()
    }

    fn query() -> ReadQuery {
        let time = Timestamp::from_millis;
        let op = [MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex];
        let matchers = op.map(|op| Matcher::new(op, "job", "a.*").unwrap()).to_vec();
        ReadQuery { matchers, range: TimeRange::new(time(-5), time(1_700_000_000_000)) }
    }

    fn packed(request: &wire::ReadRequest) -> Vec<u8> {
        snap::raw::Encoder::new().compress_vec(&request.encode_to_vec()).unwrap()
    }

    #[test]
    fn the_request_of_the_client_is_decoded() {
        let request = ReadRequest::decode(&encode_request(&query())).unwrap();
        assert_eq!(request.form, ReadForm::Chunks);
        let [found] = &request.queries[..] else { panic!("{request:?}") };
        assert_eq!(format!("{found:?}"), format!("{:?}", query()));
    }

    #[test]
    fn the_first_form_that_is_known_is_taken() {
        let form = |accepted: &[i32]| {
            let accepted_response_types = accepted.to_vec();
            ReadRequest::decode(&packed(&wire::ReadRequest { queries: vec![], accepted_response_types }))
        };
        for (accepted, expected) in [
            (&[][..], ReadForm::Samples),
            (&[0], ReadForm::Samples),
            (&[1, 0], ReadForm::Chunks),
            (&[9, 0, 1], ReadForm::Samples),
        ] {
            assert_eq!(form(accepted).unwrap().form, expected, "{accepted:?}");
        }
        assert_eq!(form(&[9]).unwrap_err(), ReadRequestError::Form(vec![9]));
    }

    #[test]
    fn wrong_requests_are_refused() {
        let matcher = |kind, value: &str| wire::LabelMatcher {
            r#type: kind,
            name: "job".to_owned(),
            value: value.to_owned(),
        };
        for (kind, value, part) in [(9, "x", "type 9 is not known"), (2, "(", "job")] {
            let queries = vec![
                wire::Query::default(),
                wire::Query { matchers: vec![matcher(kind, value)], ..wire::Query::default() },
            ];
            let error = ReadRequest::decode(&packed(&wire::ReadRequest { queries, ..Default::default() }));
            let error = error.unwrap_err().to_string();
            assert!(error.starts_with("query 1: ") && error.contains(part), "{error}");
        }
        assert!(matches!(ReadRequest::decode(b"text"), Err(ReadRequestError::Compression(_))));
        let bomb = snap::raw::Encoder::new().compress_vec(&vec![0; MAX_READ_REQUEST_BYTES + 1]).unwrap();
        assert!(matches!(ReadRequest::decode(&bomb), Err(ReadRequestError::TooLarge(_))));
    }

    #[test]
    fn damaged_requests_never_panic() {
        let intact = encode_request(&query());
        for seed in 0..20_000u64 {
            let mut random = rand::rngs::StdRng::seed_from_u64(seed);
            let mut damaged = intact.to_vec();
            for _ in 0..random.random_range(1..5) {
                let at = random.random_range(0..damaged.len());
                damaged[at] = random.random();
            }
            damaged.truncate(random.random_range(0..=damaged.len()));
            // The result is random. The test is that the call returns.
            let _ = ReadRequest::decode(&damaged);
        }
    }

    #[test]
    fn a_series_is_split_over_frames() {
        let chunk = |n: i64| ReadChunk {
            range: TimeRange::new(Timestamp::from_millis(n), Timestamp::from_millis(n + 1)),
            encoding: ChunkEncoding::Xor,
            data: Bytes::from(vec![n as u8; 100]),
        };
        let chunks: Vec<ReadChunk> = (0..10).map(chunk).collect();
        for (frame_bytes, frames) in [(1, 10), (200, 5), (1 << 20, 1)] {
            let mut out = Vec::new();
            encode_read_frames(3, &labels(), chunks.clone(), frame_bytes, &mut out);
            let mut decoder = ReadFrameDecoder::new();
            decoder.offer(out.into());
            let (mut found, mut count) = (Vec::new(), 0);
            while let Some(frame) = decoder.next_frame().unwrap() {
                let frame = wire::ChunkedReadResponse::decode(frame).unwrap();
                assert_eq!((frame.query_index, frame.chunked_series.len()), (3, 1));
                assert_eq!(frame.chunked_series[0].labels, label_messages(&labels()));
                found.extend(frame.chunked_series[0].chunks.iter().cloned().map(ReadChunk::from));
                count += 1;
            }
            assert_eq!((&found, count), (&chunks, frames), "{frame_bytes}");
        }
    }

    #[test]
    fn samples_have_one_result_for_each_query() {
        let mut samples = ReadSamples::default();
        let histogram = wire::Histogram { sum: 1.5, ..wire::Histogram::default() };
        samples.add(&labels(), &[Sample::new(1, 1.5), Sample::new(2, 2.5)], vec![]);
        samples.add(&Labels::empty(), &[], vec![histogram.clone()]);
        samples.end_query();
        samples.end_query();
        samples.add(&labels(), &[Sample::new(3, 3.5)], vec![]);
        samples.end_query();
        let plain = snap::raw::Decoder::new().decompress_vec(&samples.finish().unwrap()).unwrap();
        let results = wire::ReadResponse::decode(plain.as_slice()).unwrap().results;
        let counts: Vec<usize> = results.iter().map(|result| result.timeseries.len()).collect();
        assert_eq!(counts, [2, 0, 1]);
        assert_eq!(results[0].timeseries[0].samples[1], wire::Sample { value: 2.5, timestamp: 2 });
        assert_eq!(results[0].timeseries[1].histograms, [histogram]);
        assert_eq!(results[2].timeseries[0].labels, label_messages(&labels()));
    }
}
