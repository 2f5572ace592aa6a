//! A connection whose request lines are shortened while they are read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::long_lines::LineNotes;
use crate::long_lines::scanner::LineScanner;

/// Bytes that are read at once.
const READ_BYTES: usize = 16 << 10;

/// A connection whose request lines are shortened while they are read. Writing is unchanged.
#[derive(Debug)]
pub(crate) struct LongLines<S> {
    inner: S,
    /// `None` if bytes are passed on as they are.
    scanner: Option<LineScanner>,
    /// Bytes that are ready for the reader.
    ready: BytesMut,
    buffer: Box<[u8]>,
}

impl<S> LongLines<S> {
    /// Wraps a connection; what its request lines lack then is added to `notes`.
    pub(crate) fn new(inner: S, notes: LineNotes) -> Self {
        let buffer = vec![0; READ_BYTES].into_boxed_slice();
        Self { inner, scanner: Some(LineScanner::new(notes)), ready: BytesMut::new(), buffer }
    }

    /// Wraps a connection without reading its request lines.
    pub(crate) fn transparent(inner: S) -> Self {
        Self { inner, scanner: None, ready: BytesMut::new(), buffer: Box::default() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for LongLines<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.ready.is_empty() {
                let bytes = this.ready.len().min(out.remaining());
                out.put_slice(&this.ready[..bytes]);
                this.ready.advance(bytes);
                return Poll::Ready(Ok(()));
            }
            let Some(scanner) = this.scanner.as_mut().filter(|scanner| !scanner.is_transparent()) else {
                return Pin::new(&mut this.inner).poll_read(cx, out);
            };
            let mut fresh = ReadBuf::new(&mut this.buffer);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut fresh))?;
            if fresh.filled().is_empty() {
                // The end of the connection. A part of a line that was not passed on is not a request.
                return Poll::Ready(Ok(()));
            }
            scanner.offer(fresh.filled(), &mut this.ready);
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for LongLines<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
