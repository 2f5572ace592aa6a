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
use crate::memory::MessageMemory;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Compresses requests, which servers then answer in the same encoding, and decompresses answers.
///
/// Plain answers are passed on unchanged. A compressed answer to a request that was not compressed is an error: gRPC does not
/// allow it, and a small message could become a large one.
#[derive(Clone, Copy, Debug)]
pub struct ClientCompressionLayer {
    encoding: Option<MessageEncoding>,
    max_message_bytes: usize,
}

impl ClientCompressionLayer {
    /// A layer that compresses requests with `encoding`, or not at all, and reads answers whose messages have at most
    /// `max_message_bytes` after they are decompressed. A [`MessageMemory`] of the request can lower that.
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
        let options = self.options;
        let memory = request.extensions().get().cloned();
        let memory = memory.unwrap_or_else(|| MessageMemory::uncounted(options.max_message_bytes));
        let answer = self.inner.call(request);
        Box::pin(async move { options.plain(answer.await.map_err(Into::into)?, memory).map_err(Into::into) })
    }
}

impl ClientCompressionLayer {
    /// The answer with its messages decompressed.
    fn plain<R>(self, answer: Response<R>, memory: MessageMemory) -> Result<Response<Body>, Status>
    where
        R: http_body::Body<Data = Bytes> + Send + 'static,
        R::Error: Into<BoxError>,
    {
        let (mut head, body) = answer.into_parts();
        let encoding = MessageEncoding::of(&head.headers)
            .map_err(|unknown| Status::internal(format!("the answer is compressed: {unknown}")))?;
        match (encoding, self.encoding) {
            (None, _) => Ok(Response::from_parts(head, Body::new(body))),
            (Some(encoding), None) => Err(Status::internal(format!(
                "the answer is compressed with {encoding}, although no compression was asked for"
            ))),
            (Some(encoding), Some(_)) => {
                head.headers.remove(ENCODING_HEADER);
                let body = DecodedBody::new(body, Some(encoding), memory.at_most(self.max_message_bytes));
                Ok(Response::from_parts(head, Body::new(body)))
            }
        }
    }
}
