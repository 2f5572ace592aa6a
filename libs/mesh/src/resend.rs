//! Sends a request once more when its connection ends before the answer begins.
//!
//! Servers end connections on purpose: gRPC's maximum connection age, a load balancer, a restart. They announce it with
//! GOAWAY, but a request that is sent at that moment gets no answer. All requests on the mesh only read, so that sending one
//! twice does no harm. As soon as a part of the answer has arrived, its end is reported instead: the caller may have used it.

use std::{
    collections::VecDeque,
    error::Error as StdError,
    future::{Future, poll_fn},
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, request};
use http_body::{Body as _, Frame};
use tonic::{Status, body::Body};
use tower::{Layer, Service, ServiceExt};

use crate::connection_end::ConnectionEnd;

/// Largest request that is kept until its answer begins: as much as a gateway accepts from a component. A larger request is
/// sent once.
const KEPT_BYTES: usize = 1 << 20;
/// How often a request may reach a server.
const SENT: usize = 2;
/// How often a request may be tried, including on connections that turn out to be closed.
const ATTEMPTS: usize = 4;

type BoxError = Box<dyn StdError + Send + Sync>;

/// Lets a service send a request once more when its connection ends before the answer begins. For requests that only read
/// and that are complete before their answer begins: it reads a request to its end before it sends it.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResendLayer;

impl<S> Layer<S> for ResendLayer {
    type Service = Resend<S>;

    fn layer(&self, inner: S) -> Resend<S> {
        Resend { inner }
    }
}

/// The service that [`ResendLayer`] makes.
#[derive(Clone, Debug)]
pub struct Resend<S> {
    inner: S,
}

impl<S> Service<Request<Body>> for Resend<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The clone that is ready must be the one that is called.
        let clone = self.inner.clone();
        let ready = mem::replace(&mut self.inner, clone);
        Box::pin(send(ready, request))
    }
}

async fn send<S>(mut service: S, request: Request<Body>) -> Result<Response<Body>, BoxError>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Error: Into<BoxError>,
{
    let (head, body) = request.into_parts();
    let content = match read(body).await? {
        RequestContent::Whole(content) => content,
        RequestContent::TooLarge(body) => {
            return service.call(Request::from_parts(head, body)).await.map_err(Into::into);
        }
    };
    let (mut sent, mut attempts) = (0, 0);
    loop {
        attempts += 1;
        let error = match attempt(&mut service, head.clone(), content.clone()).await? {
            Attempt::Answered(response) => return Ok(response),
            Attempt::Ended(end, error) => {
                sent += usize::from(end == ConnectionEnd::Lost);
                error
            }
        };
        if sent >= SENT || attempts >= ATTEMPTS {
            return Err(error);
        }
        tracing::debug!(
            path = head.uri.path(),
            %error,
            "a connection ended before the answer, sending the request again"
        );
        service.ready().await.map_err(Into::into)?;
    }
}

/// A request body, read to its end if it is not too large.
enum RequestContent {
    Whole(Bytes),
    TooLarge(Body),
}

async fn read(mut body: Body) -> Result<RequestContent, BoxError> {
    let (mut parts, mut bytes) = (VecDeque::new(), 0);
    while let Some(frame) = next_frame(&mut body).await {
        // Requests of gRPC have no trailers.
        let Ok(data) = frame?.into_data() else { continue };
        bytes += data.len();
        parts.push_back(data);
        if bytes > KEPT_BYTES {
            let first = parts.into_iter().map(|data| Ok(Frame::data(data))).collect();
            return Ok(RequestContent::TooLarge(Body::new(Prefixed { first, rest: body })));
        }
    }
    Ok(RequestContent::Whole(match parts.len() {
        0 | 1 => parts.pop_front().unwrap_or_default(),
        _ => parts.iter().flatten().copied().collect(),
    }))
}

/// The result of sending a request.
enum Attempt {
    Answered(Response<Body>),
    Ended(ConnectionEnd, BoxError),
}

/// Sends the request and waits for the first part of the answer.
async fn attempt<S>(service: &mut S, head: request::Parts, content: Bytes) -> Result<Attempt, BoxError>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Error: Into<BoxError>,
{
    let first = match content.is_empty() {
        true => VecDeque::new(),
        false => VecDeque::from([Ok(Frame::data(content))]),
    };
    let body = Body::new(Prefixed { first, rest: Body::empty() });
    let response = match service.call(Request::from_parts(head, body)).await {
        Ok(response) => response,
        Err(error) => {
            let error = error.into();
            return match ConnectionEnd::of(&*error) {
                Some(end) => Ok(Attempt::Ended(end, error)),
                None => Err(error),
            };
        }
    };
    let (head, mut body) = response.into_parts();
    if body.is_end_stream() {
        return Ok(Attempt::Answered(Response::from_parts(head, body)));
    }
    let first = match next_frame(&mut body).await {
        // An answer of gRPC ends with a status. Without one its stream was closed together with the connection.
        None if !head.headers.contains_key("grpc-status") => {
            let error = Status::unavailable("the connection ended before the answer");
            return Ok(Attempt::Ended(ConnectionEnd::Lost, error.into()));
        }
        Some(Err(status)) => match ConnectionEnd::of(&status) {
            Some(end) => return Ok(Attempt::Ended(end, status.into())),
            None => Some(Err(status)),
        },
        first => first,
    };
    let body = Body::new(Prefixed { first: first.into_iter().collect(), rest: body });
    Ok(Attempt::Answered(Response::from_parts(head, body)))
}

async fn next_frame(body: &mut Body) -> Option<Result<Frame<Bytes>, Status>> {
    poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
}

/// A body whose first frames were read already.
struct Prefixed {
    first: VecDeque<Result<Frame<Bytes>, Status>>,
    rest: Body,
}

impl http_body::Body for Prefixed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.first.pop_front() {
            Some(frame) => Poll::Ready(Some(frame)),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_empty() && self.rest.is_end_stream()
    }
}

#[cfg(test)]
mod tests;
