//! A connection whose request lines are shortened while they are read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::long_lines::LineNotes;
use crate::long_lines::scanner::LineScanner;

/// How long a client may take to send a request line.
const LINE_TIMEOUT: Duration = Duration::from_secs(30);
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
    /// Runs while a request line is incomplete.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> LongLines<S> {
    /// Wraps a connection; what its request lines lack then is added to `notes`.
    pub(crate) fn new(inner: S, notes: LineNotes) -> Self {
        let buffer = vec![0; READ_BYTES].into_boxed_slice();
        Self { inner, scanner: Some(LineScanner::new(notes)), ready: BytesMut::new(), buffer, deadline: None }
    }

    /// Wraps a connection without reading its request lines.
    pub(crate) fn transparent(inner: S) -> Self {
        Self { inner, scanner: None, ready: BytesMut::new(), buffer: Box::default(), deadline: None }
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
            let read = Pin::new(&mut this.inner).poll_read(cx, &mut fresh);
            if read.is_pending() && scanner.is_incomplete() {
                // hyper's own limit begins with the first byte that it sees, which is after the line.
                let deadline = this.deadline.get_or_insert_with(|| Box::pin(sleep(LINE_TIMEOUT)));
                ready!(deadline.as_mut().poll(cx));
                let text = "the request line did not arrive in time";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)));
            }
            ready!(read)?;
            if fresh.filled().is_empty() {
                // The end of the connection. A part of a line that was not passed on is not a request.
                return Poll::Ready(Ok(()));
            }
            scanner.offer(fresh.filled(), &mut this.ready);
            if !scanner.is_incomplete() {
                this.deadline = None;
            }
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_request_line_that_does_not_end_is_given_up() {
        for begin in [&b""[..], b"GET /", &[b'x'; 100_000]] {
            let (mut client, server) = duplex(1 << 20);
            client.write_all(begin).await.expect("a write");
            let mut server = LongLines::new(server, LineNotes::default());
            // Bytes that trickle in do not extend the time.
            let trickle = tokio::spawn(async move {
                while client.write_all(b"x").await.is_ok() {
                    tokio::time::sleep(Duration::from_secs(7)).await;
                }
            });
            let begun = Instant::now();
            let error = server.read(&mut [0; 64]).await.expect_err("an incomplete line");
            assert_eq!((error.kind(), begun.elapsed().as_secs()), (io::ErrorKind::TimedOut, 30));
            trickle.abort();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_left_to_hyper() {
        let (mut client, server) = duplex(1 << 20);
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("a write");
        let mut server = LongLines::new(server, LineNotes::default());
        let mut head = vec![0; 18];
        server.read_exact(&mut head).await.expect("a request");
        let next = tokio::time::timeout(Duration::from_secs(300), server.read(&mut head)).await;
        assert!(next.is_err(), "{next:?}");
    }
}
