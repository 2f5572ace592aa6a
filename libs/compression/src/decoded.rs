//! A body whose messages are decompressed.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tonic::Status;

use crate::encoding::MessageEncoding;
use crate::error::DecompressError;
use crate::memory::MessageMemory;
use crate::messages::{HEADER_BYTES, MessageBuffer, WireMessage};
use crate::plain::PlainMessage;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The plain messages of a body. The limit of `memory` applies before and after they are decompressed.
pub(crate) struct DecodedBody<B> {
    /// `None` after the end and after an error.
    inner: Option<Pin<Box<B>>>,
    encoding: Option<MessageEncoding>,
    memory: MessageMemory,
    buffer: MessageBuffer,
}

impl<B> DecodedBody<B> {
    /// The messages of `inner`; `encoding` is that of the messages with the flag 1.
    pub(crate) fn new(inner: B, encoding: Option<MessageEncoding>, memory: MessageMemory) -> Self {
        let inner = Some(Box::pin(inner));
        Self { inner, encoding, memory, buffer: MessageBuffer::default() }
    }

    fn plain(&self, message: WireMessage) -> Result<Bytes, Status> {
        if !message.compressed {
            return Ok(message.bytes);
        }
        let encoding = self.encoding.ok_or_else(|| {
            Status::internal("a message is compressed, but the header grpc-encoding does not say how")
        })?;
        let limit = self.memory.max_message_bytes();
        let mut plain = PlainMessage::new(limit, |bytes| {
            // The reader of the body copies the message, when the compressed one is not needed any more.
            self.memory.grow_to(bytes + bytes.max(message.bytes.len()))
        });
        encoding.decompress(message.content(), &mut plain).map_err(|error| match error {
            DecompressError::TooLarge => {
                self.memory.too_large(&format!("that is compressed with {encoding} is larger than allowed"))
            }
            DecompressError::Refused(status) => status,
            DecompressError::Damaged(cause) => {
                Status::internal(format!("a message that is compressed with {encoding} is damaged: {cause}"))
            }
        })?;
        let mut plain = plain.into_bytes();
        let length = u32::try_from(plain.len() - HEADER_BYTES)
            .map_err(|_| self.memory.too_large("is larger than 4 GiB"))?;
        plain[1..HEADER_BYTES].copy_from_slice(&length.to_be_bytes());
        Ok(plain.into())
    }

    fn next_message(&mut self) -> Result<Option<Bytes>, Status> {
        let message = self.buffer.next(&self.memory)?;
        message.map(|message| self.plain(message)).transpose()
    }
}

impl<B> DecodedBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, Status>> {
        loop {
            if let Some(message) = self.next_message()? {
                return Poll::Ready(Ok(Some(Frame::data(message))));
            }
            let Some(inner) = &mut self.inner else { return Poll::Ready(Ok(None)) };
            match ready!(inner.as_mut().poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.buffer.push(data),
                    // A server that failed in the middle of a message says why in the trailers.
                    Err(end) if self.buffer.is_empty() || failed(&end) => return Poll::Ready(Ok(Some(end))),
                    Err(_) => return Poll::Ready(Err(cut_short())),
                },
                Some(Err(error)) => return Poll::Ready(Err(Status::from_error(error.into()))),
                None if self.buffer.is_empty() => return Poll::Ready(Ok(None)),
                None => return Poll::Ready(Err(cut_short())),
            }
        }
    }
}

fn failed(end: &Frame<Bytes>) -> bool {
    let status = end.trailers_ref().and_then(|trailers| trailers.get("grpc-status"));
    status.is_some_and(|status| status != "0")
}

fn cut_short() -> Status {
    Status::internal("the stream ended in the middle of a message")
}

impl<B> Body for DecodedBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let outcome = ready!(self.poll_next(cx));
        if !matches!(outcome, Ok(Some(_))) {
            // After an error, this ends the stream at the peer.
            (self.inner, self.buffer) = (None, MessageBuffer::default());
        }
        Poll::Ready(outcome.transpose())
    }

    fn is_end_stream(&self) -> bool {
        self.buffer.is_empty() && self.inner.as_ref().is_none_or(|inner| inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
