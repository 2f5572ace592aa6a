//! The `grpc_server_*` and `grpc_client_*` families of Thanos' dashboards, as a layer around a server's
//! routes or a client's channel.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;

use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response, StatusCode};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use prost::Message;
use tonic::body::Body;
use tower::{Layer, Service};

use crate::metrics::observed::{BodyObserver, DURATION_BUCKETS, ObservedBody};

/// The codes of gRPC by number, with the names that Go and the dashboards use.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];
const CANCELED: &str = CODES[1];
const UNKNOWN: &str = CODES[2];
const UNAVAILABLE: &str = CODES[14];

/// Counts and times gRPC calls by method; clones share the counts.
///
/// `grpc_SIDE_started_total` and `grpc_SIDE_handling_seconds` by `grpc_type`, `grpc_service`,
/// `grpc_method`; `grpc_SIDE_handled_total` by `grpc_code` too. Methods that are in no descriptor share the label value
/// `unknown`, so that clients cannot create label values.
#[derive(Clone, Debug)]
pub struct GrpcMetrics {
    handled: Family<HandledLabels, Counter>,
    methods: Arc<HashMap<String, MethodCounters>>,
    unknown: Arc<MethodCounters>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct MethodLabels {
    grpc_method: String,
    grpc_service: String,
    grpc_type: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct HandledLabels {
    grpc_code: &'static str,
    grpc_method: String,
    grpc_service: String,
    grpc_type: &'static str,
}

/// A method and its counters, which its first call creates.
#[derive(Debug)]
struct MethodCounters {
    labels: MethodLabels,
    started: Family<MethodLabels, Counter>,
    seconds: Family<MethodLabels, Histogram>,
    counters: OnceLock<(Counter, Histogram)>,
}

impl GrpcMetrics {
    /// Registers `grpc_server_*`; `descriptors` are encoded `FileDescriptorSet`s, whose methods get counters.
    ///
    /// # Errors
    /// A descriptor set that cannot be decoded.
    pub fn server(registry: &mut Registry, descriptors: &[&[u8]]) -> Result<Self, prost::DecodeError> {
        Self::new(registry, "server", descriptors)
    }

    /// Registers `grpc_client_*`; see [`GrpcMetrics::server`].
    ///
    /// # Errors
    /// A descriptor set that cannot be decoded.
    pub fn client(registry: &mut Registry, descriptors: &[&[u8]]) -> Result<Self, prost::DecodeError> {
        Self::new(registry, "client", descriptors)
    }

    fn new(registry: &mut Registry, side: &str, descriptors: &[&[u8]]) -> Result<Self, prost::DecodeError> {
        let started = Family::<MethodLabels, Counter>::default();
        let seconds =
            Family::<MethodLabels, Histogram>::new_with_constructor(|| Histogram::new(DURATION_BUCKETS));
        let handled = Family::<HandledLabels, Counter>::default();
        registry.register(
            format!("grpc_{side}_started"),
            format!("gRPC calls started on the {side}"),
            started.clone(),
        );
        registry.register(
            format!("grpc_{side}_handled"),
            format!("gRPC calls completed on the {side}, successful or not"),
            handled.clone(),
        );
        registry.register(
            format!("grpc_{side}_handling_seconds"),
            format!("Duration of gRPC calls on the {side}, streams included, in seconds"),
            seconds.clone(),
        );
        let method = |grpc_service: &str, grpc_method: &str, grpc_type| MethodCounters {
            labels: MethodLabels {
                grpc_method: grpc_method.to_owned(),
                grpc_service: grpc_service.to_owned(),
                grpc_type,
            },
            started: started.clone(),
            seconds: seconds.clone(),
            counters: OnceLock::new(),
        };
        let mut methods = HashMap::new();
        for set in descriptors {
            for file in prost_types::FileDescriptorSet::decode(*set)?.file {
                for service in &file.service {
                    let name = match file.package() {
                        "" => service.name().to_owned(),
                        package => format!("{package}.{}", service.name()),
                    };
                    for rpc in &service.method {
                        let grpc_type = match (rpc.client_streaming(), rpc.server_streaming()) {
                            (false, false) => "unary",
                            (true, false) => "client_stream",
                            (false, true) => "server_stream",
                            (true, true) => "bidi_stream",
                        };
                        methods
                            .insert(format!("/{name}/{}", rpc.name()), method(&name, rpc.name(), grpc_type));
                    }
                }
            }
        }
        let unknown = Arc::new(method("unknown", "unknown", "unary"));
        Ok(Self { handled, methods: Arc::new(methods), unknown })
    }

    /// The layer that counts.
    pub fn layer(&self) -> GrpcMetricsLayer {
        GrpcMetricsLayer { metrics: self.clone() }
    }

    fn handled(&self, method: &MethodLabels, grpc_code: &'static str) -> HandledLabels {
        let MethodLabels { grpc_method, grpc_service, grpc_type } = method.clone();
        HandledLabels { grpc_code, grpc_method, grpc_service, grpc_type }
    }

    fn method(&self, path: &str) -> &MethodCounters {
        let method = self.methods.get(path).unwrap_or(&self.unknown);
        method.counters.get_or_init(|| {
            // Create all codes with the first call, so that the first error is visible as an increase.
            for code in CODES {
                drop(self.handled.get_or_create(&self.handled(&method.labels, code)));
            }
            let started = method.started.get_or_create(&method.labels).clone();
            (started, method.seconds.get_or_create(&method.labels).clone())
        });
        method
    }
}

/// Made by [`GrpcMetrics::layer`].
#[derive(Clone, Debug)]
pub struct GrpcMetricsLayer {
    metrics: GrpcMetrics,
}

impl<S> Layer<S> for GrpcMetricsLayer {
    type Service = GrpcMetricsService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        GrpcMetricsService { inner, metrics: self.metrics.clone() }
    }
}

/// Made by [`GrpcMetricsLayer`].
#[derive(Clone, Debug)]
pub struct GrpcMetricsService<S> {
    inner: S,
    metrics: GrpcMetrics,
}

impl<S, B> Service<Request<B>> for GrpcMetricsService<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut call = ObservedCall::begin(&self.metrics, request.uri().path());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = match answer.await {
                Ok(answer) => answer,
                Err(error) => {
                    call.failed();
                    return Err(error);
                }
            };
            if answer.status() != StatusCode::OK {
                call.code = Some(UNKNOWN);
            }
            // An answer without a body has its status in the head.
            call.trailers(answer.headers());
            Ok(answer.map(|body| Body::new(ObservedBody::new(body, call))))
        })
    }
}

/// One call until the end of its answer; counts the call when dropped.
struct ObservedCall {
    metrics: GrpcMetrics,
    labels: MethodLabels,
    seconds: Histogram,
    began: Instant,
    /// `None` until the outcome is known. A call that is dropped with `None` was cancelled.
    code: Option<&'static str>,
}

impl ObservedCall {
    fn begin(metrics: &GrpcMetrics, path: &str) -> Self {
        let method = metrics.method(path);
        let (started, seconds) =
            method.counters.get().expect("method() has just set the counters of the method that it returns");
        started.inc();
        Self {
            metrics: metrics.clone(),
            labels: method.labels.clone(),
            seconds: seconds.clone(),
            began: Instant::now(),
            code: None,
        }
    }
}

impl BodyObserver for ObservedCall {
    fn data(&mut self, _: usize) {}

    fn trailers(&mut self, trailers: &HeaderMap) {
        if let Some(status) = trailers.get("grpc-status") {
            let number = status.to_str().ok().and_then(|text| text.parse::<usize>().ok());
            self.code = Some(number.and_then(|number| CODES.get(number)).copied().unwrap_or(UNKNOWN));
        }
    }

    fn end(&mut self) {
        // A stream that ends without a status breaks the protocol.
        self.code.get_or_insert(UNKNOWN);
    }

    fn failed(&mut self) {
        self.code.get_or_insert(UNAVAILABLE);
    }
}

impl Drop for ObservedCall {
    fn drop(&mut self) {
        let code = self.code.unwrap_or(CANCELED);
        self.metrics.handled.get_or_create(&self.metrics.handled(&self.labels, code)).inc();
        self.seconds.observe(self.began.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
pub(super) mod tests {
    use bytes::Bytes;
    use futures::StreamExt;
    use http_body::Frame;
    use http_body_util::{BodyExt, StreamBody};
    use tower::{ServiceExt, service_fn};

    use super::*;

    /// Calls a method through the layer; the answer ends with `status`, or never ends for `None`.
    pub(crate) async fn ask(metrics: &GrpcMetrics, path: &str, status: Option<&'static str>) {
        let answer = service_fn(move |_: Request<Body>| async move {
            let data = Frame::data(Bytes::from_static(b"data"));
            let first = futures::stream::iter([Ok::<_, tonic::Status>(data)]);
            let rest = match status {
                Some(status) => {
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", http::HeaderValue::from_static(status));
                    futures::stream::iter([Ok(Frame::trailers(trailers))]).boxed()
                }
                None => futures::stream::pending().boxed(),
            };
            Ok::<_, std::convert::Infallible>(Response::new(Body::new(StreamBody::new(first.chain(rest)))))
        });
        let request = Request::post(path).body(Body::empty()).unwrap();
        let answer = metrics.layer().layer(answer).oneshot(request).await.unwrap();
        answer.into_body().collect().await.unwrap();
    }

    fn metrics() -> GrpcMetrics {
        let descriptors: &[&[u8]] = &[tonic_health::pb::FILE_DESCRIPTOR_SET];
        GrpcMetrics::server(&mut Registry::default(), descriptors).unwrap()
    }

    fn handled(metrics: &GrpcMetrics, path: &str, code: &'static str) -> u64 {
        let labels = metrics.handled(&metrics.method(path).labels, code);
        metrics.handled.get_or_create(&labels).get()
    }

    #[tokio::test]
    async fn the_code_of_a_call_comes_from_its_trailers() {
        let metrics = metrics();
        ask(&metrics, "/grpc.health.v1.Health/Watch", Some("8")).await;
        assert_eq!(handled(&metrics, "/grpc.health.v1.Health/Watch", "ResourceExhausted"), 1);
        assert_eq!(metrics.method("/grpc.health.v1.Health/Watch").labels.grpc_type, "server_stream");
    }

    #[tokio::test]
    async fn a_cancelled_stream_is_counted_as_canceled() {
        let metrics = metrics();
        let asking = ask(&metrics, "/grpc.health.v1.Health/Watch", None);
        assert!(futures::FutureExt::now_or_never(asking).is_none());
        assert_eq!(handled(&metrics, "/grpc.health.v1.Health/Watch", "Canceled"), 1);
    }

    #[tokio::test]
    async fn unknown_methods_share_one_label_value() {
        let metrics = metrics();
        ask(&metrics, "/no.Such/Method", Some("12")).await;
        assert_eq!(handled(&metrics, "/no.Such/Other", "Unimplemented"), 1);
        assert_eq!(metrics.method("/no.Such/Other").labels.grpc_service, "unknown");
    }
}
