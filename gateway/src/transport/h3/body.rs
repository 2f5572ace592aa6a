//! Bodies over HTTP/3: reading a body from a stream, and writing a body to a stream.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use ::h3::error::{Code, StreamError as H3Error};
use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;

use crate::transport::{Body, StreamError};

/// The receiving direction of a request, on the client or the server.
pub(super) trait ReceiveHalf: Send + 'static {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, H3Error>>;
    fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<HeaderMap>, H3Error>>;
}

/// The sending direction of a request, on the client or the server.
pub(super) trait SendHalf: Send {
    fn data(&mut self, data: Bytes) -> impl Future<Output = Result<(), H3Error>> + Send;
    fn trailers(&mut self, trailers: HeaderMap) -> impl Future<Output = Result<(), H3Error>> + Send;
    fn finish(&mut self) -> impl Future<Output = Result<(), H3Error>> + Send;
    fn reset(&mut self, code: Code);
}

/// A body that is received. The guard `G` is dropped with it.
pub(super) struct ReceivedBody<R, G> {
    stream: R,
    state: ReceiveState,
    /// A frame that [`read_end`](Self::read_end) has read.
    first: Option<Result<Frame<Bytes>, StreamError>>,
    _guard: G,
}

#[derive(Clone, Copy, PartialEq)]
enum ReceiveState {
    Data,
    Trailers,
    Ended,
}

impl<R: ReceiveHalf + Unpin, G: Send + Unpin + 'static> ReceivedBody<R, G> {
    pub(super) fn new(stream: R, guard: G) -> Self {
        Self { stream, state: ReceiveState::Data, first: None, _guard: guard }
    }

    pub(super) fn into_body(self) -> Body {
        Body::merged(self)
    }

    /// Reads the end of a body that should have neither data nor trailers. If a frame comes instead, it is kept.
    pub(super) async fn read_end(&mut self) {
        if let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut *self).poll_frame(cx)).await {
            self.first = Some(frame);
        } else {
            self.state = ReceiveState::Ended;
        }
    }
}

impl<R: ReceiveHalf + Unpin, G: Send + Unpin> http_body::Body for ReceivedBody<R, G> {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        if self.state == ReceiveState::Data {
            match ready!(self.stream.poll_data(cx)) {
                Ok(Some(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(None) => self.state = ReceiveState::Trailers,
                Err(error) => return Poll::Ready(Some(Err(self.fail(&error)))),
            }
        }
        if self.state == ReceiveState::Trailers {
            match ready!(self.stream.poll_trailers(cx)) {
                Ok(trailers) => {
                    self.state = ReceiveState::Ended;
                    return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
                }
                Err(error) => return Poll::Ready(Some(Err(self.fail(&error)))),
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.state == ReceiveState::Ended
    }
}

impl<R, G> ReceivedBody<R, G> {
    fn fail(&mut self, error: &H3Error) -> StreamError {
        self.state = ReceiveState::Ended;
        StreamError::from_h3(error)
    }
}

/// Writes a body to a stream and finishes the stream; resets it when the body fails.
///
/// # Cancel safety
/// When the future is dropped before its end, the caller must drop the stream too, which resets it.
pub(super) async fn send_body(mut body: Body, stream: &mut impl SendHalf) -> Result<(), StreamError> {
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => {
                stream.reset(error.h3_code().into());
                return Err(error);
            }
        };
        let sent = match frame.into_data() {
            // h3 treats an empty DATA frame as the end of the body.
            Ok(data) if data.is_empty() => Ok(()),
            Ok(data) => stream.data(data).await,
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => stream.trailers(trailers).await,
                Err(_) => Ok(()),
            },
        };
        sent.map_err(|e| StreamError::from_h3(&e))?;
    }
    stream.finish().await.map_err(|e| StreamError::from_h3(&e))
}

/// Converts the `Buf` that h3 returns to `Bytes`. The `Buf` is a `Bytes`, so nothing is copied.
fn take(data: Option<impl Buf>) -> Option<Bytes> {
    data.map(|mut data| data.copy_to_bytes(data.remaining()))
}

macro_rules! both_ends {
    ($end:ident) => {
        impl ReceiveHalf for ::h3::$end::RequestStream<crate::transport::h3::adapter::RecvStream, Bytes> {
            fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, H3Error>> {
                self.poll_recv_data(cx).map_ok(take)
            }

            fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<HeaderMap>, H3Error>> {
                self.poll_recv_trailers(cx)
            }
        }

        impl SendHalf for ::h3::$end::RequestStream<crate::transport::h3::adapter::SendStream, Bytes> {
            async fn data(&mut self, data: Bytes) -> Result<(), H3Error> {
                self.send_data(data).await
            }

            async fn trailers(&mut self, trailers: HeaderMap) -> Result<(), H3Error> {
                self.send_trailers(trailers).await
            }

            async fn finish(&mut self) -> Result<(), H3Error> {
                ::h3::$end::RequestStream::finish(self).await
            }

            fn reset(&mut self, code: Code) {
                self.stop_stream(code);
            }
        }
    };
}
both_ends!(client);
both_ends!(server);
