//! Answers each HTTP request in the context of its headers, and within a span if tracing is on.

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderName, HeaderValue};

use crate::context::CallContext;
use crate::long_lines::query_string;
use crate::trace::{KeyValue, SpanKind, TraceContext, Tracer, observe_http};

/// Records the trace of a request whatever the sampler says, as in Thanos.
const FORCE: HeaderName = HeaderName::from_static("x-thanos-force-tracing");
/// The trace of an answer, as in Thanos.
const TRACE_ID: HeaderName = HeaderName::from_static("x-thanos-trace-id");

/// Runs the handler of a request in its context.
pub(crate) async fn in_context(
    State(tracer): State<Option<Tracer>>,
    request: Request,
    next: Next,
) -> Response {
    let parent = TraceContext::from_headers(request.headers());
    let Some(tracer) = tracer else {
        let context = CallContext::default().with_trace(parent, None);
        return context.scope(next.run(request)).await;
    };
    let is_forced = request.headers().get(FORCE).is_some_and(|value| !value.is_empty());
    let path = request.extensions().get::<MatchedPath>().map_or("unknown", MatchedPath::as_str);
    let name = format!("{} {path}", request.method());
    let mut span = tracer.start(name, SpanKind::Server, parent, is_forced);
    span.note(|| KeyValue::text("http.request.method", request.method().as_str()));
    span.note(|| KeyValue::text("url.path", request.uri().path()));
    if let Some(query) = query_string(request.uri(), request.extensions()) {
        span.note(|| KeyValue::text("url.query", query));
    }
    let context = span.context();
    let call = CallContext::default().with_trace(Some(context), Some(tracer));
    let mut answer = call.scope(next.run(request)).await;
    if context.sampled
        && let Ok(id) = HeaderValue::try_from(format!("{:032x}", context.trace_id))
    {
        answer.headers_mut().insert(TRACE_ID, id);
    }
    observe_http(span, answer)
}
