//! What belongs to a request and travels with it to every store: tenant and deadline.
//!
//! The servers of a role take it from the headers of a request and set it for the task that answers. Channels with
//! [`ContextLayer`] write it into the headers of each request that the task sends. A task that is spawned for a request
//! runs within [`CallContext::scope`].

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use model::Matcher;
use tokio::time::Instant;
use tower::{Layer, Service};

use crate::deadline;

/// The header that names the tenant between the parts of Thanos.
const TENANT: HeaderName = HeaderName::from_static("thanos-tenant");
/// The header with the time that a gRPC call may take.
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// What a store gets in addition to the remaining time, so that the caller's own timeout, whose message is better, comes
/// first.
const TIMEOUT_MARGIN: Duration = Duration::from_secs(1);

tokio::task_local! {
    static CURRENT: CallContext;
}

/// What belongs to a request and travels with it.
#[derive(Clone, Debug, Default)]
pub struct CallContext {
    tenant: Option<Arc<str>>,
    enforced: Option<Arc<Matcher>>,
    deadline: Option<Instant>,
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

    /// The context that the headers of a gRPC request carry.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let tenant = headers.get(TENANT).and_then(|value| value.to_str().ok());
        Self {
            tenant: tenant.filter(|tenant| !tenant.is_empty()).map(Arc::from),
            enforced: None,
            deadline: deadline::limit_of(headers).map(|limit| Instant::now() + limit),
        }
    }

    /// Writes the context into the headers of a gRPC request; headers that are already set stay.
    pub fn write(&self, headers: &mut HeaderMap) {
        let tenant = self.tenant.as_deref().and_then(|tenant| HeaderValue::from_str(tenant).ok());
        if let Some(tenant) = tenant {
            headers.entry(TENANT).or_insert(tenant);
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

    /// The same context with a deadline, unless it has an earlier one.
    pub fn with_deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(self.deadline.map_or(deadline, |known| known.min(deadline)));
        self
    }
}

/// Writes the context of the task that sends a request into its headers.
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
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        CallContext::current().write(request.headers_mut());
        self.inner.call(request)
    }
}

/// A gRPC service that answers each call in the context of its headers.
#[derive(Clone, Debug)]
pub(crate) struct InCallContext<S> {
    inner: S,
}

impl<S> InCallContext<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S, B> Service<Request<B>> for InCallContext<S>
where
    S: Service<Request<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let context = CallContext::from_headers(request.headers());
        let answer = CURRENT.sync_scope(context.clone(), || self.inner.call(request));
        Box::pin(context.scope(answer))
    }
}

#[cfg(test)]
mod tests {
    use http::Response;
    use tower::{ServiceExt, service_fn};

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let header = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        pairs.iter().map(header).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn context_of_a_call_is_written_into_the_calls_that_it_makes() {
        let store = ContextLayer.layer(service_fn(|request: Request<()>| async move {
            Ok::<_, std::convert::Infallible>(Response::new(request.headers().clone()))
        }));
        let querier = InCallContext::new(service_fn(move |_: Request<()>| {
            let store = store.clone();
            async move {
                tokio::time::advance(Duration::from_secs(4)).await;
                // The stores of a request are read by tasks of their own.
                let work = CallContext::current().scope(store.oneshot(Request::new(())));
                tokio::spawn(work).await.unwrap()
            }
        }));
        let mut request = Request::new(());
        *request.headers_mut() = headers(&[("thanos-tenant", "team-a"), ("grpc-timeout", "10S")]);
        let seen = querier.clone().oneshot(request).await.unwrap().into_body();
        assert_eq!(seen, headers(&[("thanos-tenant", "team-a"), ("grpc-timeout", "7000000u")]));
        let seen = querier.oneshot(Request::new(())).await.unwrap().into_body();
        assert_eq!(seen, HeaderMap::new(), "nothing is invented");
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
