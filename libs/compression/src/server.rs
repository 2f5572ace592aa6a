//! The tower layer of servers.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use crate::decoded::DecodedBody;
use crate::encoded::EncodedBody;
use crate::encoding::{ACCEPT_HEADER, ACCEPTED, ENCODING_HEADER, MessageEncoding};
use crate::memory::MessageMemory;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Lets gRPC services understand compressed requests, and answers in the encoding of the request.
///
/// A request in another encoding is answered with UNIMPLEMENTED, and a message above the limit with RESOURCE_EXHAUSTED. The
/// limit applies to plain messages too.
#[derive(Clone, Copy, Debug)]
pub struct ServerCompressionLayer {
    max_message_bytes: usize,
}

impl ServerCompressionLayer {
    /// A layer for services that accept messages of at most `max_message_bytes`, after they are decompressed.
    pub fn new(max_message_bytes: usize) -> Self {
        Self { max_message_bytes }
    }
}

impl<S> Layer<S> for ServerCompressionLayer {
    type Service = ServerCompression<S>;

    fn layer(&self, inner: S) -> ServerCompression<S> {
        ServerCompression { inner, max_message_bytes: self.max_message_bytes }
    }
}

/// The service that [`ServerCompressionLayer`] makes.
#[derive(Clone, Debug)]
pub struct ServerCompression<S> {
    inner: S,
    max_message_bytes: usize,
}

impl<S, B, R> Service<Request<B>> for ServerCompression<S>
where
    S: Service<Request<Body>, Response = Response<R>, Error = Infallible>,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (mut head, body) = request.into_parts();
        let encoding = match MessageEncoding::of(&head.headers) {
            Ok(encoding) => encoding,
            Err(unknown) => {
                let mut refused =
                    Status::unimplemented(format!("{}: {unknown}", head.uri.path())).into_http();
                refused.headers_mut().insert(ACCEPT_HEADER, ACCEPTED);
                return Box::pin(async { Ok(refused) });
            }
        };
        let answer_encoding = encoding.filter(|encoding| encoding.is_accepted(&head.headers));
        head.headers.remove(ENCODING_HEADER);
        head.headers.remove(ACCEPT_HEADER);
        let body = DecodedBody::new(body, encoding, MessageMemory::uncounted(self.max_message_bytes));
        let answer = self.inner.call(Request::from_parts(head, Body::new(body)));
        Box::pin(async move { Ok(compressed(answer.await?, answer_encoding)) })
    }
}

/// The answer with its messages compressed, where it has messages.
fn compressed<R>(answer: Response<R>, encoding: Option<MessageEncoding>) -> Response<Body>
where
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    let (mut head, body) = answer.into_parts();
    match encoding {
        Some(encoding) if !head.headers.contains_key("grpc-status") && !body.is_end_stream() => {
            head.headers.insert(ENCODING_HEADER, encoding.header());
            Response::from_parts(head, Body::new(EncodedBody::new(body, encoding)))
        }
        _ => Response::from_parts(head, Body::new(body)),
    }
}
