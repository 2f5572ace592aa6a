//! What belongs to a request and travels with it to every store: tenant, deadline and trace.
//!
//! The servers of a role take it from the headers of a request and set it for the task that answers. Channels with
//! [`ContextLayer`] write it into the headers of each request that the task sends. A task that is spawned for a request
//! runs within [`CallContext::scope`].

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use model::Matcher;
use tokio::time::Instant;
use tonic::body::Body;
use tower::{Layer, Service};

use crate::deadline;
use crate::trace::{KeyValue, SpanKind, TRACEPARENT, TraceContext, Tracer, observe_grpc};

/// The header that names the tenant between the parts of Thanos.
const TENANT: HeaderName = HeaderName::from_static("thanos-tenant");
/// The header with the time that a gRPC call may take.
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// What a store gets in addition to the remaining time, so that the caller's own timeout, whose message is better, comes
/// first.
const TIMEOUT_MARGIN: Duration = Duration::from_secs(1);

/// Most time that is left for an answer about something that was waited for in vain.
const LAST_WORDS: Duration = Duration::from_secs(2);

tokio::task_local! {
    static CURRENT: CallContext;
}

/// What belongs to a request and travels with it.
#[derive(Clone, Debug, Default)]
pub struct CallContext {
    tenant: Option<Arc<str>>,
    enforced: Option<Arc<Matcher>>,
    deadline: Option<Instant>,
    trace: Option<TraceContext>,
    /// Records spans; `None` if tracing is off.
    tracer: Option<Tracer>,
}

impl CallContext {
    /// The context of the running task; empty outside any [`CallContext::scope`].
    pub fn current() -> Self {
        CURRENT.try_with(Self::clone).unwrap_or_default()
    }

    /// Runs a future in this context.
    pub async fn scope<F: Future>(self, work: F) -> F::Output {
        CURRENT.scope(self, work).await
    }

    /// Runs work that does not wait in this context.
    pub fn sync_scope<T>(self, work: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self, work)
    }

    /// The context that the headers of a gRPC request carry.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let tenant = headers.get(TENANT).and_then(|value| value.to_str().ok());
        Self {
            tenant: tenant.filter(|tenant| !tenant.is_empty()).map(Arc::from),
            enforced: None,
            deadline: deadline::limit_of(headers).map(|limit| Instant::now() + limit),
            trace: TraceContext::from_headers(headers),
            tracer: None,
        }
    }

    /// Writes the context into the headers of a gRPC request; headers that are already set stay.
    pub fn write(&self, headers: &mut HeaderMap) {
        let tenant = self.tenant.as_deref().and_then(|tenant| HeaderValue::from_str(tenant).ok());
        if let Some(tenant) = tenant {
            headers.entry(TENANT).or_insert(tenant);
        }
        let trace = self.trace.and_then(|trace| HeaderValue::try_from(trace.to_string()).ok());
        if let Some(trace) = trace {
            headers.entry(TRACEPARENT).or_insert(trace);
        }
        if let Some(deadline) = self.deadline {
            let left = deadline.saturating_duration_since(Instant::now()) + TIMEOUT_MARGIN;
            let value = HeaderValue::from_str(&deadline::format_limit(left));
            if let Ok(value) = value {
                headers.entry(TIMEOUT).or_insert(value);
            }
        }
    }

    /// The tenant that asks.
    pub fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    /// The matcher that each series of the answer must satisfy, whatever the request asks for.
    pub fn enforced(&self) -> Option<&Matcher> {
        self.enforced.as_deref()
    }

    /// The same context with a tenant, and the matcher of its series if they are enforced.
    pub fn with_tenant(mut self, tenant: Arc<str>, enforced: Option<Matcher>) -> Self {
        (self.tenant, self.enforced) = (Some(tenant), enforced.map(Arc::new));
        self
    }

    /// When to stop waiting for something that this request needs, if it has a deadline: so early that an answer which says what was
    /// waited for arrives before the caller's own timeout.
    pub fn give_up_at(&self) -> Option<Instant> {
        let now = Instant::now();
        let left = self.deadline?.saturating_duration_since(now);
        // Callers of other programs add no margin.
        let of_caller = left.saturating_sub(TIMEOUT_MARGIN).max(left / 2);
        Some(now + of_caller - (of_caller / 10).min(LAST_WORDS))
    }

    /// The same context within a trace.
    pub(crate) fn with_trace(mut self, trace: Option<TraceContext>, tracer: Option<Tracer>) -> Self {
        (self.trace, self.tracer) = (trace, tracer);
        self
    }

    /// The same context with a deadline, unless it has an earlier one.
    pub fn with_deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(self.deadline.map_or(deadline, |known| known.min(deadline)));
        self
    }
}

/// Writes the context of the task that sends a request into its headers. With tracing, the request is a span.
#[derive(Clone, Copy, Debug, Default)]
pub struct ContextLayer;

impl<S> Layer<S> for ContextLayer {
    type Service = WithContext<S>;

    fn layer(&self, inner: S) -> WithContext<S> {
        WithContext { inner }
    }
}

/// The service that [`ContextLayer`] makes.
#[derive(Clone, Debug)]
pub struct WithContext<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for WithContext<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Error: fmt::Display,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let mut context = CallContext::current();
        let mut span = match (&context.tracer, context.trace) {
            (Some(tracer), Some(trace)) => {
                let mut span = tracer.start_below(request.uri().path(), SpanKind::Client, trace);
                let server = request.uri().authority().map(|authority| authority.to_string());
                span.note(|| KeyValue::text("server.address", &server.unwrap_or_default()));
                context.trace = Some(span.context());
                Some(span)
            }
            _ => None,
        };
        context.write(request.headers_mut());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            match (answer, span.take()) {
                (Ok(answer), Some(span)) => Ok(observe_grpc(span, answer)),
                (Err(error), Some(mut span)) => {
                    span.fail(|| error.to_string());
                    Err(error)
                }
                (answer, None) => answer,
            }
        })
    }
}

/// A gRPC service that answers each call in the context of its headers. With tracing, each call is a span.
#[derive(Clone, Debug)]
pub(crate) struct InCallContext<S> {
    inner: S,
    tracer: Option<Tracer>,
}

impl<S> InCallContext<S> {
    pub(crate) fn new(inner: S, tracer: Option<Tracer>) -> Self {
        Self { inner, tracer }
    }
}

impl<S, B> Service<Request<B>> for InCallContext<S>
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
        let mut context = CallContext::from_headers(request.headers());
        let span = self.tracer.as_ref().map(|tracer| {
            let span = tracer.start(request.uri().path(), SpanKind::Server, context.trace, false);
            (context.trace, context.tracer) = (Some(span.context()), Some(tracer.clone()));
            span
        });
        let answer = CURRENT.sync_scope(context.clone(), || self.inner.call(request));
        let answer = context.scope(answer);
        match span {
            None => Box::pin(answer),
            Some(span) => Box::pin(async move { Ok(observe_grpc(span, answer.await?)) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use tower::{ServiceExt, service_fn};

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let header = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        pairs.iter().map(header).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_before_the_caller_gives_up() {
        let seconds = Duration::from_secs;
        let now = Instant::now();
        assert_eq!(CallContext::default().give_up_at(), None);
        let at =
            |left: Duration| CallContext::default().with_deadline(now + left).give_up_at().unwrap() - now;
        assert_eq!(
            [at(seconds(121)), at(seconds(11)), at(seconds(1))],
            [seconds(118), seconds(9), seconds(9) / 20]
        );
        assert_eq!(at(Duration::ZERO), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn context_of_a_call_is_written_into_the_calls_that_it_makes() {
        let seen = Arc::new(std::sync::Mutex::new(HeaderMap::new()));
        let store = {
            let seen = Arc::clone(&seen);
            service_fn(move |request: Request<()>| {
                *seen.lock().unwrap() = request.headers().clone();
                std::future::ready(Ok::<_, std::convert::Infallible>(Response::new(Body::empty())))
            })
        };
        let store = ContextLayer.layer(store);
        let handle = service_fn(move |_: Request<()>| {
            let store = store.clone();
            async move {
                tokio::time::advance(Duration::from_secs(4)).await;
                // The stores of a request are read by tasks of their own.
                let work = CallContext::current().scope(store.oneshot(Request::new(())));
                tokio::spawn(work).await.unwrap()
            }
        });
        let querier = InCallContext::new(handle, None);
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let mut request = Request::new(());
        let sent = [("thanos-tenant", "team-a"), ("grpc-timeout", "10S"), ("traceparent", trace)];
        *request.headers_mut() = headers(&sent);
        querier.clone().oneshot(request).await.unwrap();
        let expected = [("thanos-tenant", "team-a"), ("grpc-timeout", "7000000u"), ("traceparent", trace)];
        assert_eq!(*seen.lock().unwrap(), headers(&expected));
        querier.oneshot(Request::new(())).await.unwrap();
        assert_eq!(*seen.lock().unwrap(), HeaderMap::new(), "nothing is invented");
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_deadline_and_headers_that_are_set_have_precedence() {
        let now = Instant::now();
        let late = CallContext::default().with_deadline(now + Duration::from_secs(60));
        let early = late.clone().with_deadline(now + Duration::from_secs(5));
        assert_eq!(early.clone().with_deadline(now + Duration::from_secs(9)).deadline, early.deadline);
        let mut written = headers(&[("grpc-timeout", "1S")]);
        early.write(&mut written);
        assert_eq!(written, headers(&[("grpc-timeout", "1S")]));
    }
}
