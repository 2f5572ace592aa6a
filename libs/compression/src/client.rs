//! The tower layer of clients.

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

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Compresses requests, which servers then answer in the same encoding, and decompresses answers.
///
/// Answers are decompressed whether requests are compressed or not. Plain answers are passed on unchanged.
#[derive(Clone, Copy, Debug)]
pub struct ClientCompressionLayer {
    encoding: Option<MessageEncoding>,
    max_message_bytes: usize,
}

impl ClientCompressionLayer {
    /// A layer that compresses requests with `encoding`, or not at all, and reads answers whose messages have at most
    /// `max_message_bytes` after they are decompressed.
    pub fn new(encoding: Option<MessageEncoding>, max_message_bytes: usize) -> Self {
        Self { encoding, max_message_bytes }
    }
}

impl<S> Layer<S> for ClientCompressionLayer {
    type Service = ClientCompression<S>;

    fn layer(&self, inner: S) -> ClientCompression<S> {
        ClientCompression { inner, options: *self }
    }
}

/// The service that [`ClientCompressionLayer`] makes.
#[derive(Clone, Debug)]
pub struct ClientCompression<S> {
    inner: S,
    options: ClientCompressionLayer,
}

impl<S, R> Service<Request<Body>> for ClientCompression<S>
where
    S: Service<Request<Body>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if let Some(encoding) = self.options.encoding {
            request.headers_mut().insert(ENCODING_HEADER, encoding.header());
            request.headers_mut().insert(ACCEPT_HEADER, ACCEPTED);
            request = request.map(|body| Body::new(EncodedBody::new(body, encoding)));
        }
        let limit = self.options.max_message_bytes;
        let answer = self.inner.call(request);
        Box::pin(async move { plain(answer.await.map_err(Into::into)?, limit).map_err(Into::into) })
    }
}

/// The answer with its messages decompressed.
fn plain<R>(answer: Response<R>, limit: usize) -> Result<Response<Body>, Status>
where
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    let (mut head, body) = answer.into_parts();
    let encoding = MessageEncoding::of(&head.headers)
        .map_err(|unknown| Status::internal(format!("the answer is compressed: {unknown}")))?;
    if encoding.is_none() {
        return Ok(Response::from_parts(head, Body::new(body)));
    }
    head.headers.remove(ENCODING_HEADER);
    Ok(Response::from_parts(head, Body::new(DecodedBody::new(body, encoding, limit))))
}
