//! The `http_*` families of Thanos' dashboards, as a layer around a route.

use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::Body;
use futures::future::BoxFuture;
use http::{HeaderMap, Method, Request, Response, header};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tower::{Layer, Service};

use crate::metrics::observed::{BodyObserver, DURATION_BUCKETS, ObservedBody};

/// Code of a request whose client disconnected before the head of the answer.
const CLIENT_CLOSED: u16 = 499;

/// Counts and times requests by handler; clones share the counts.
///
/// `http_requests_total`, `http_request_duration_seconds` (until the last byte of the answer),
/// `http_request_size_bytes` and `http_response_size_bytes` (before compression) by `code`, `handler` and `method`;
/// `http_inflight_requests` by `handler` and `method`.
#[derive(Clone, Debug)]
pub struct HttpMetrics {
    requests: Family<RequestLabels, Counter>,
    seconds: Family<RequestLabels, Histogram>,
    request_bytes: Family<RequestLabels, Histogram>,
    response_bytes: Family<RequestLabels, Histogram>,
    inflight: Family<InflightLabels, Gauge>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    code: u16,
    handler: &'static str,
    method: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct InflightLabels {
    handler: &'static str,
    method: &'static str,
}

fn size_histogram() -> Histogram {
    Histogram::new([128.0, 1024.0, 8192.0, 65_536.0, 524_288.0, 4_194_304.0, 33_554_432.0])
}

impl HttpMetrics {
    /// Registers the families.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(DURATION_BUCKETS)),
            request_bytes: Family::new_with_constructor(size_histogram),
            response_bytes: Family::new_with_constructor(size_histogram),
            inflight: Family::default(),
        };
        registry.register("http_requests", "HTTP requests served", metrics.requests.clone());
        registry.register(
            "http_request_duration_seconds",
            "Time from the head of an HTTP request to the last byte of its answer, in seconds",
            metrics.seconds.clone(),
        );
        registry.register(
            "http_request_size_bytes",
            "Size of HTTP request bodies as announced by Content-Length, in bytes",
            metrics.request_bytes.clone(),
        );
        registry.register(
            "http_response_size_bytes",
            "Size of HTTP answers before compression, in bytes",
            metrics.response_bytes.clone(),
        );
        registry.register(
            "http_inflight_requests",
            "HTTP requests that are being served",
            metrics.inflight.clone(),
        );
        metrics
    }

    /// A layer for the routes of one handler, such as `query_range`.
    pub fn layer(&self, handler: &'static str) -> HttpMetricsLayer {
        HttpMetricsLayer { metrics: self.clone(), handler }
    }
}

/// Made by [`HttpMetrics::layer`]; put it on a route with `get(f).layer(...)`.
#[derive(Clone, Debug)]
pub struct HttpMetricsLayer {
    metrics: HttpMetrics,
    handler: &'static str,
}

impl<S> Layer<S> for HttpMetricsLayer {
    type Service = HttpMetricsService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        HttpMetricsService { inner, layer: self.clone() }
    }
}

/// Made by [`HttpMetricsLayer`].
#[derive(Clone, Debug)]
pub struct HttpMetricsService<S> {
    inner: S,
    layer: HttpMetricsLayer,
}

impl<S, B> Service<Request<B>> for HttpMetricsService<S>
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
        let mut exchange = ObservedRequest::begin(&self.layer, request.method(), request.headers());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            exchange.code = answer.status().as_u16();
            Ok(answer.map(|body| Body::new(ObservedBody::new(body, exchange))))
        })
    }
}

/// One request until the end of its answer; counts the request when dropped.
struct ObservedRequest {
    metrics: HttpMetrics,
    handler: &'static str,
    method: &'static str,
    began: Instant,
    request_bytes: u64,
    response_bytes: u64,
    code: u16,
}

impl ObservedRequest {
    fn begin(layer: &HttpMetricsLayer, method: &Method, headers: &HeaderMap) -> Self {
        let length =
            headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let exchange = Self {
            metrics: layer.metrics.clone(),
            handler: layer.handler,
            method: method_label(method),
            began: Instant::now(),
            request_bytes: length.unwrap_or(0),
            response_bytes: 0,
            code: CLIENT_CLOSED,
        };
        exchange.metrics.inflight.get_or_create(&exchange.inflight_labels()).inc();
        exchange
    }

    fn inflight_labels(&self) -> InflightLabels {
        InflightLabels { handler: self.handler, method: self.method }
    }
}

impl BodyObserver for ObservedRequest {
    fn data(&mut self, bytes: usize) {
        self.response_bytes += bytes as u64;
    }
    fn trailers(&mut self, _: &HeaderMap) {}
    fn end(&mut self) {}
    fn failed(&mut self) {}
}

impl Drop for ObservedRequest {
    fn drop(&mut self) {
        let labels = RequestLabels { code: self.code, handler: self.handler, method: self.method };
        let HttpMetrics { requests, seconds, request_bytes, response_bytes, inflight } = &self.metrics;
        requests.get_or_create(&labels).inc();
        seconds.get_or_create(&labels).observe(self.began.elapsed().as_secs_f64());
        request_bytes.get_or_create(&labels).observe(self.request_bytes as f64);
        response_bytes.get_or_create(&labels).observe(self.response_bytes as f64);
        inflight.get_or_create(&self.inflight_labels()).dec();
    }
}

/// The method in lower case, as in Go's client library. Unusual methods are `unknown`, so that clients cannot create label
/// values.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::POST => "post",
        Method::PUT => "put",
        Method::DELETE => "delete",
        Method::HEAD => "head",
        Method::OPTIONS => "options",
        Method::PATCH => "patch",
        _ => "unknown",
    }
}

#[cfg(test)]
pub(super) mod tests {
    use axum::Router;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;

    /// Sends a request through a route with the layer and reads the answer to its end.
    pub(crate) async fn ask(metrics: &HttpMetrics, path: &str) {
        let routes = Router::new()
            .route("/ok", get(|| async { "12345" }).layer(metrics.layer("ok")))
            .route("/stuck", get(std::future::pending::<()>).layer(metrics.layer("stuck")));
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = routes.oneshot(request).await.unwrap();
        axum::body::to_bytes(answer.into_body(), 1024).await.unwrap();
    }

    fn labels(code: u16, handler: &'static str) -> RequestLabels {
        RequestLabels { code, handler, method: "get" }
    }

    #[tokio::test]
    async fn an_answer_is_counted_with_its_code_and_size() {
        let mut registry = Registry::default();
        let metrics = HttpMetrics::new(&mut registry);
        ask(&metrics, "/ok").await;
        assert_eq!(metrics.requests.get_or_create(&labels(200, "ok")).get(), 1);
        let text = crate::metrics::ClosedRegistry::new(registry).encode("").1;
        let size = "http_response_size_bytes_sum{code=\"200\",handler=\"ok\",method=\"get\"} 5.0\n";
        assert!(text.contains(size), "{text}");
        assert_eq!(metrics.inflight.get_or_create(&InflightLabels { handler: "ok", method: "get" }).get(), 0);
    }

    #[tokio::test]
    async fn a_client_that_disconnects_is_counted_as_499() {
        let metrics = HttpMetrics::new(&mut Registry::default());
        let asking = ask(&metrics, "/stuck");
        assert!(futures::FutureExt::now_or_never(asking).is_none());
        assert_eq!(metrics.requests.get_or_create(&labels(499, "stuck")).get(), 1);
    }
}
