//! Requests that are sent to another server when the first one is not available.

use bytes::Bytes;
use http::{Request, Response, request};
use http_body_util::{BodyExt, Full};
use mesh::{Channel, ChannelError};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::ServiceExt;

/// A request in memory. Requests to stores are small, and only read.
pub(super) struct RepeatableRequest {
    head: request::Parts,
    body: Bytes,
}

impl RepeatableRequest {
    /// Reads a request to its end.
    ///
    /// # Errors
    /// The caller has cancelled it.
    pub(super) async fn read(request: Request<Body>) -> Result<Self, ChannelError> {
        let (head, body) = request.into_parts();
        Ok(Self { head, body: body.collect().await?.to_bytes() })
    }

    /// Sends it on a channel.
    ///
    /// # Errors
    /// Those of the channel.
    pub(super) async fn send(&self, channel: Channel) -> Result<Response<Body>, ChannelError> {
        let body = Body::new(Full::new(self.body.clone()));
        channel.oneshot(Request::from_parts(self.head.clone(), body)).await
    }
}

/// Whether another server may answer: this one cannot be reached, or says that it is not available.
pub(super) fn is_unavailable(answer: &Result<Response<Body>, ChannelError>) -> bool {
    match answer {
        Ok(answer) => {
            Status::from_header_map(answer.headers()).is_some_and(|s| s.code() == Code::Unavailable)
        }
        Err(error) => error.is_retryable(),
    }
}
