//! Sends spans to the collector.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use crate::trace::config::{CollectorProtocol, TracingConfig};
use crate::trace::span::Tracer;
use crate::trace::wire::{
    ExportTraceServiceRequest, InstrumentationScope, KeyValue, Resource, ResourceSpans, ScopeSpans, WireSpan,
};
use crate::version::BuildVersion;

/// Interval between messages to the collector.
const INTERVAL: Duration = Duration::from_secs(5);
/// Spans in one message.
const BATCH: usize = 512;
/// Spans that wait for the collector; further ones are dropped.
const MAX_WAITING: usize = 4096;
/// Largest answer of a collector that is read.
const ANSWER_BYTES: usize = 64 << 10;

const GRPC_METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Collects the spans of this process and sends them at an interval.
pub(crate) struct Exporter {
    config: TracingConfig,
    spans: mpsc::Receiver<WireSpan>,
    exported: Counter,
    dropped: Counter,
}

type SendError = Box<dyn StdError + Send + Sync>;

impl Exporter {
    /// The exporter, and the tracer whose spans it sends.
    pub(crate) fn new(config: TracingConfig, registry: &mut Registry) -> (Self, Tracer) {
        let (exported, dropped) = (Counter::default(), Counter::default());
        let help = "Spans that the collector of --tracing.config has received";
        registry.register("isthmus_tracing_spans_exported", help, exported.clone());
        let help =
            "Spans that were dropped because the collector of --tracing.config was too slow or unreachable";
        registry.register("isthmus_tracing_spans_dropped", help, dropped.clone());
        let (queue, spans) = mpsc::channel(MAX_WAITING);
        let tracer = Tracer::new(config.sampler, queue, dropped.clone());
        (Self { config, spans, exported, dropped }, tracer)
    }

    /// Sends spans until the last tracer is dropped, which is when the servers of the role have ended.
    pub(crate) async fn run(mut self) {
        for setting in &self.config.without_effect {
            warn!(setting, "--tracing.config: this setting has no effect");
        }
        info!(collector = %self.config.endpoint, "sending spans to a collector");
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut waiting, mut is_failing) = (Vec::new(), false);
        loop {
            let is_open = tokio::select! {
                _ = ticks.tick() => true,
                received = self.spans.recv_many(&mut waiting, BATCH) => {
                    if received > 0 && waiting.len() < BATCH {
                        continue;
                    }
                    received > 0
                }
            };
            self.send_all(&mut waiting, &mut is_failing).await;
            if !is_open {
                return;
            }
            if is_failing {
                // Not at once again, however many spans wait.
                ticks.tick().await;
            }
        }
    }

    /// Sends what waits, in batches. If that fails, the batch is dropped, and the others wait.
    async fn send_all(&self, waiting: &mut Vec<WireSpan>, is_failing: &mut bool) {
        while !waiting.is_empty() {
            let batch: Vec<WireSpan> = waiting.drain(..waiting.len().min(BATCH)).collect();
            let count = batch.len() as u64;
            let request = self.request(batch);
            let sent = timeout(self.config.timeout, self.send(request.encode_to_vec()));
            let late = |_| Err(format!("no answer within {:?}", self.config.timeout).into());
            match sent.await.unwrap_or_else(late) {
                Ok(()) => {
                    self.exported.inc_by(count);
                    if std::mem::take(is_failing) {
                        info!(collector = %self.config.endpoint, "the collector receives spans again");
                    }
                }
                Err(cause) => {
                    if !std::mem::replace(is_failing, true) {
                        let error = model::root_cause(&*cause).to_string();
                        warn!(collector = %self.config.endpoint, error, "spans cannot be sent, they are dropped");
                    }
                    self.dropped.inc_by(count);
                    return;
                }
            }
        }
    }

    fn request(&self, spans: Vec<WireSpan>) -> ExportTraceServiceRequest {
        let service = KeyValue::text("service.name", &self.config.service_name);
        let attributes = self.config.attributes.iter().map(|(key, value)| KeyValue::text(key, value));
        let scope = InstrumentationScope {
            name: "isthmus".to_owned(),
            version: BuildVersion::current().version.to_owned(),
        };
        ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(Resource { attributes: std::iter::once(service).chain(attributes).collect() }),
                scope_spans: vec![ScopeSpans { scope: Some(scope), spans }],
            }],
        }
    }

    /// Sends one message on a connection of its own: there is one every few seconds.
    async fn send(&self, message: Vec<u8>) -> Result<(), SendError> {
        let config = &self.config;
        let stream = TcpStream::connect(&config.endpoint).await?;
        let host = config.endpoint.rsplit_once(':').map_or(config.endpoint.as_str(), |(host, _)| host);
        match &config.tls {
            None => self.exchange(stream, message).await,
            Some(tls) => self.exchange(tls.connect(host, stream).await?, message).await,
        }
    }

    async fn exchange<S>(&self, stream: S, message: Vec<u8>) -> Result<(), SendError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let config = &self.config;
        let scheme = if config.tls.is_some() { "https" } else { "http" };
        let path = match config.protocol {
            CollectorProtocol::Grpc => GRPC_METHOD,
            CollectorProtocol::Http => &config.path,
        };
        let uri: Uri = format!("{scheme}://{}{path}", config.endpoint).parse()?;
        match config.protocol {
            CollectorProtocol::Http => {
                let (mut client, connection) = http1::handshake(TokioIo::new(stream)).await?;
                let request = self.http_request(&uri, "application/x-protobuf", message.into())?;
                let (answer, ()) = tokio::join!(
                    async {
                        let answer = received(client.send_request(request).await).await;
                        drop(client);
                        answer
                    },
                    async { drop(connection.await) }
                );
                answer.and_then(|(status, _)| accepted(status, None))
            }
            CollectorProtocol::Grpc => {
                let (mut client, connection) =
                    http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
                let mut framed = BytesMut::with_capacity(message.len() + 5);
                framed.put_u8(0);
                framed.put_u32(u32::try_from(message.len())?);
                framed.put_slice(&message);
                let mut request = self.http_request(&uri, "application/grpc", framed.freeze())?;
                request.headers_mut().insert(header::TE, http::HeaderValue::from_static("trailers"));
                let exchange = async {
                    let answer = received(client.send_request(request).await).await;
                    drop(client);
                    answer
                };
                let (answer, ()) = tokio::join!(exchange, async { drop(connection.await) });
                answer.and_then(|(status, trailers)| accepted(status, Some(&trailers)))
            }
        }
    }

    fn http_request(
        &self,
        uri: &Uri,
        content_type: &'static str,
        body: Bytes,
    ) -> Result<Request<http_body_util::Full<Bytes>>, http::Error> {
        let mut request = Request::new(http_body_util::Full::new(body));
        *request.method_mut() = Method::POST;
        let headers = request.headers_mut();
        *headers = self.config.headers.clone();
        headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
        let host = uri.authority().map_or("", |authority| authority.as_str());
        match self.config.protocol {
            CollectorProtocol::Http => {
                headers.insert(header::HOST, http::HeaderValue::try_from(host)?);
                *request.uri_mut() = self.config.path.parse::<Uri>()?;
            }
            CollectorProtocol::Grpc => *request.uri_mut() = uri.clone(),
        }
        Ok(request)
    }
}

/// The status of an answer, and its trailers, or its headers if it has no body.
async fn received(answer: hyper::Result<Response<Incoming>>) -> Result<(StatusCode, HeaderMap), SendError> {
    let (head, mut body) = answer?.into_parts();
    let (mut trailers, mut bytes) = (head.headers, 0);
    while let Some(frame) =
        std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await.transpose()?
    {
        if let Some(data) = frame.data_ref() {
            bytes += data.len();
        }
        if bytes > ANSWER_BYTES {
            return Err(io::Error::other("the answer is too long").into());
        }
        if let Ok(last) = frame.into_trailers() {
            trailers.extend(last);
        }
    }
    Ok((head.status, trailers))
}

/// Whether the collector accepted the message.
fn accepted(status: StatusCode, grpc: Option<&HeaderMap>) -> Result<(), SendError> {
    if !status.is_success() {
        return Err(format!("the collector answered {status}").into());
    }
    let Some(trailers) = grpc else { return Ok(()) };
    match tonic::Status::from_header_map(trailers) {
        Some(status) if status.code() != tonic::Code::Ok => {
            Err(format!("the collector answered {:?}: {}", status.code(), status.message()).into())
        }
        Some(_) => Ok(()),
        None => Err("the collector sent no gRPC status".into()),
    }
}
