//! Counts the messages of an answer while they are received.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use compression::MessageMemory;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use mesh::{Channel, ChannelError};
use tonic::Status;
use tonic::body::Body;
use tower::Service;

/// Flag and length before each message.
const HEADER_BYTES: usize = 5;

/// A channel whose answers count their messages in a [`MessageMemory`], compressed or not. tonic collects a message before it
/// decodes it.
#[derive(Clone)]
pub(super) struct MeteredChannel {
    channel: Channel,
    memory: MessageMemory,
}

impl MeteredChannel {
    pub(super) fn new(channel: Channel, memory: MessageMemory) -> Self {
        Self { channel, memory }
    }
}

impl Service<Request<Body>> for MeteredChannel {
    type Response = Response<MeteredBody>;
    type Error = ChannelError;
    type Future = BoxFuture<'static, Result<Response<MeteredBody>, ChannelError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ChannelError>> {
        self.channel.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        request.extensions_mut().insert(self.memory.clone());
        let (answer, memory) = (self.channel.call(request), self.memory.clone());
        Box::pin(async move { Ok(answer.await?.map(|body| MeteredBody::new(body, memory))) })
    }
}

/// The body of an answer.
pub(super) struct MeteredBody {
    inner: Body,
    memory: MessageMemory,
    message: MessageProgress,
}

/// How much of a message was received.
#[derive(Default)]
struct MessageProgress {
    header: [u8; HEADER_BYTES],
    header_length: usize,
    received: usize,
    /// Bytes of its content that are missing.
    left: usize,
}

impl MeteredBody {
    fn new(inner: Body, memory: MessageMemory) -> Self {
        Self { inner, memory, message: MessageProgress::default() }
    }

    /// Counts the parts of messages in `data`.
    fn count(&mut self, mut data: &[u8]) -> Result<(), Status> {
        let message = &mut self.message;
        while !data.is_empty() {
            if message.header_length < HEADER_BYTES {
                let part = data.len().min(HEADER_BYTES - message.header_length);
                message.header[message.header_length..][..part].copy_from_slice(&data[..part]);
                message.header_length += part;
                data = &data[part..];
                if message.header_length < HEADER_BYTES {
                    break;
                }
                let [_, length @ ..] = message.header;
                (message.received, message.left) = (0, u32::from_be_bytes(length) as usize);
            }
            let part = data.len().min(message.left);
            message.left -= part;
            message.received += part;
            data = &data[part..];
            // tonic rejects a message over the limit before it collects it.
            if message.received + message.left <= self.memory.max_message_bytes() {
                self.memory.grow_to(message.received)?;
            }
            if message.left == 0 {
                message.header_length = 0;
            }
        }
        Ok(())
    }
}

impl http_body::Body for MeteredBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(frame) = ready!(Pin::new(&mut self.inner).poll_frame(cx)) else { return Poll::Ready(None) };
        let frame = frame?;
        if let Some(data) = frame.data_ref()
            && let Err(status) = self.count(data)
        {
            self.inner = Body::empty();
            return Poll::Ready(Some(Err(status)));
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
