//! The interface between the transports and the rest of the gateway, and its adapters to tower and tonic.

use std::{
    convert::Infallible,
    error::Error as StdError,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt;
use tonic::Status;
use tower::{Service, ServiceExt};

use crate::transport::{Body, StreamError, StreamErrorKind};

/// The future that [`Handler::handle`] returns.
pub type HandlerFuture = BoxFuture<'static, Result<Response<Body>, StreamError>>;

/// Answers requests. The client of a connection is a handler, and a connection is served by one.
///
/// # Cancel safety
/// Dropping the future, or a body before its end, cancels the request on the peer.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. On a served connection the request's extensions contain the [`mesh::Peer`]. An error resets
    /// the stream.
    fn handle(&self, request: Request<Body>) -> HandlerFuture;
}

impl<H: Handler + ?Sized> Handler for Arc<H> {
    fn handle(&self, request: Request<Body>) -> HandlerFuture {
        (**self).handle(request)
    }
}

/// A handler that calls an async function.
pub fn handler_fn<F, R>(function: F) -> impl Handler
where
    F: Fn(Request<Body>) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Response<Body>, StreamError>> + Send + 'static,
{
    struct HandlerFn<F>(F);
    impl<F, R> Handler for HandlerFn<F>
    where
        F: Fn(Request<Body>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Response<Body>, StreamError>> + Send + 'static,
    {
        fn handle(&self, request: Request<Body>) -> HandlerFuture {
            Box::pin(self.0(request))
        }
    }
    HandlerFn(function)
}

/// A handler that calls a tower service of gRPC requests, such as tonic's `Routes` or a generated server.
#[derive(Debug, Clone)]
pub struct ServiceHandler<S> {
    service: S,
}

impl<S> ServiceHandler<S> {
    /// Serves `service`.
    pub fn new(service: S) -> Self {
        Self { service }
    }
}

impl<S, B> Handler for ServiceHandler<S>
where
    S: Service<Request<tonic::body::Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<Box<dyn StdError + Send + Sync>>,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    fn handle(&self, request: Request<Body>) -> HandlerFuture {
        let service = self.service.clone();
        Box::pin(async move {
            let request = request.map(|body| tonic::body::Body::new(body.map_err(Status::from)));
            let response = service.oneshot(request).await.map_err(broken)?;
            Ok(response.map(|body| Body::new(body.map_err(broken))))
        })
    }
}

fn broken(error: impl Into<Box<dyn StdError + Send + Sync>>) -> StreamError {
    StreamError::new(StreamErrorKind::Reset, error.into().to_string())
}

/// A channel that sends gRPC requests to a handler, for tonic's clients. Its errors begin with `name`.
pub fn channel(name: impl Into<Arc<str>>, handler: impl Handler) -> mesh::Channel {
    let name = name.into();
    let service = HandlerService { name: name.clone(), handler: Arc::new(handler) };
    mesh::Channel::new(name, service)
}

/// The tower service that calls a handler.
#[derive(Clone)]
struct HandlerService {
    name: Arc<str>,
    handler: Arc<dyn Handler>,
}

impl Service<Request<tonic::body::Body>> for HandlerService {
    type Response = Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        let answer = self.handler.handle(request.map(Body::from));
        let name = self.name.clone();
        Box::pin(async move {
            let named = move |error: StreamError| {
                let status = Status::from(error);
                Status::new(status.code(), format!("{name}: {}", status.message()))
            };
            Ok(match answer.await {
                Ok(response) => response.map(|body| tonic::body::Body::new(body.map_err(named))),
                Err(error) => named(error).into_http(),
            })
        })
    }
}

impl From<tonic::body::Body> for Body {
    fn from(body: tonic::body::Body) -> Self {
        // The body of a request fails only when its caller cancels the request.
        Self::new(body.map_err(|status| StreamError::new(kind_of(&status), status.message())))
    }
}

fn kind_of(status: &Status) -> StreamErrorKind {
    match status.code() {
        tonic::Code::Cancelled => StreamErrorKind::Cancelled,
        _ => StreamErrorKind::Reset,
    }
}
