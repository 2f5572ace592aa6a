//! A body whose messages are compressed.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tonic::Status;

use crate::encoding::MessageEncoding;
use crate::memory::MessageMemory;
use crate::messages::{HEADER_BYTES, MessageBuffer, WireMessage};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The messages of a body, compressed. Messages that do not become smaller are passed on as they are.
pub(crate) struct EncodedBody<B> {
    inner: Pin<Box<B>>,
    encoding: MessageEncoding,
    buffer: MessageBuffer,
    /// All messages are ours.
    memory: MessageMemory,
}

impl<B> EncodedBody<B> {
    pub(crate) fn new(inner: B, encoding: MessageEncoding) -> Self {
        Self {
            inner: Box::pin(inner),
            encoding,
            buffer: MessageBuffer::default(),
            memory: MessageMemory::uncounted(u32::MAX as usize),
        }
    }

    /// All complete messages in the buffer, compressed.
    fn compressed(&mut self) -> Result<Bytes, Status> {
        let mut out = Vec::new();
        while let Some(message) = self.buffer.next(&self.memory)? {
            self.compress(&message, &mut out)?;
        }
        Ok(out.into())
    }

    fn compress(&self, message: &WireMessage, out: &mut Vec<u8>) -> Result<(), Status> {
        let start = out.len();
        if !message.compressed && !message.content().is_empty() {
            out.extend_from_slice(&[1, 0, 0, 0, 0]);
            self.encoding.compress(message.content(), out).map_err(|cause| {
                Status::internal(format!("compress a message with {}: {cause}", self.encoding))
            })?;
            let length = out.len() - start - HEADER_BYTES;
            if length < message.content().len() {
                // It fits: it is shorter than the plain message, whose length did.
                out[start + 1..start + HEADER_BYTES].copy_from_slice(&(length as u32).to_be_bytes());
                return Ok(());
            }
            out.truncate(start);
        }
        out.extend_from_slice(&message.bytes);
        Ok(())
    }
}

impl<B> Body for EncodedBody<B>
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
        loop {
            let frame = match ready!(self.inner.as_mut().poll_frame(cx)) {
                None => return Poll::Ready(None),
                Some(frame) => frame.map_err(|error| Status::from_error(error.into()))?,
            };
            let data = match frame.into_data() {
                Ok(data) => data,
                Err(end) => return Poll::Ready(Some(Ok(end))),
            };
            self.buffer.push(data);
            let compressed = self.compressed()?;
            if !compressed.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(compressed))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.buffer.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
