//! Ends a span with the last byte of an answer.

use axum::body::Body as HttpBody;
use http::{HeaderMap, Response};
use tonic::body::Body as GrpcBody;
use tonic::{Code, Status};

use crate::metrics::{BodyObserver, ObservedBody};
use crate::trace::span::Span;
use crate::trace::wire::KeyValue;

/// A span that ends with the answer of a gRPC call.
struct GrpcSpan {
    span: Span,
    has_status: bool,
}

/// Ends `span` when the answer of a gRPC call ends.
pub(crate) fn observe_grpc(span: Span, answer: Response<GrpcBody>) -> Response<GrpcBody> {
    let mut observer = GrpcSpan { span, has_status: false };
    // An answer without a body has its status in the head.
    observer.trailers(answer.headers());
    answer.map(|body| GrpcBody::new(ObservedBody::new(body, observer)))
}

impl BodyObserver for GrpcSpan {
    fn data(&mut self, _: usize) {}

    fn trailers(&mut self, trailers: &HeaderMap) {
        let Some(status) = Status::from_header_map(trailers) else { return };
        self.has_status = true;
        self.span.note(|| KeyValue::number("rpc.grpc.status_code", status.code() as i64));
        if status.code() != Code::Ok {
            self.span.fail(|| status.message().to_owned());
        }
    }

    fn end(&mut self) {}

    fn failed(&mut self) {
        self.has_status = true;
        self.span.fail(|| "the answer ended early".to_owned());
    }
}

impl Drop for GrpcSpan {
    fn drop(&mut self) {
        if !self.has_status {
            self.span.fail(|| "cancelled".to_owned());
        }
    }
}

/// A span that ends with the answer to an HTTP request.
struct HttpSpan {
    _span: Span,
}

/// Ends `span` when the answer to an HTTP request ends.
pub(crate) fn observe_http(mut span: Span, answer: Response<HttpBody>) -> Response<HttpBody> {
    let status = answer.status();
    span.note(|| KeyValue::number("http.response.status_code", i64::from(status.as_u16())));
    if status.is_server_error() {
        span.fail(|| status.to_string());
    }
    let observer = HttpSpan { _span: span };
    answer.map(|body| HttpBody::new(ObservedBody::new(body, observer)))
}

impl BodyObserver for HttpSpan {
    fn data(&mut self, _: usize) {}
    fn trailers(&mut self, _: &HeaderMap) {}
    fn end(&mut self) {}
    fn failed(&mut self) {}
}
