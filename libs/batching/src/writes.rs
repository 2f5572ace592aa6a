//! Small writes of one moment leave together.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::turn::Turn;

/// A write of at least this many bytes does not wait: the frames of some four requests. With larger batches, the processes on
/// the way of requests take turns and do not work at the same time.
const ENOUGH_BYTES: usize = 256;

/// A connection that joins small writes. It is meant for HTTP/2, whose connection reads all there is each time it is polled, and
/// then writes all it has. HTTP/1 works over it as before, and gains nothing.
#[derive(Debug)]
pub struct BatchedWrites<S> {
    stream: S,
    turn: Turn,
    /// Whether it has waited since it has read all there was.
    has_waited: bool,
}

impl<S> BatchedWrites<S> {
    /// Joins small writes to `stream`. What is written before the first read, such as the preface of HTTP/2, does not wait.
    pub fn new(stream: S) -> Self {
        Self { stream, turn: Turn::default(), has_waited: true }
    }

    /// Waits before a write of `bytes` bytes, unless it is large or follows one that has waited.
    fn poll_turn(&mut self, cx: &mut Context<'_>, bytes: usize) -> Poll<()> {
        if bytes < ENOUGH_BYTES && !self.has_waited {
            ready!(self.turn.poll_after_others(cx));
        }
        self.has_waited = true;
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for BatchedWrites<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_pending() {
            self.has_waited = false;
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for BatchedWrites<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_turn(cx, buf.len()));
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_turn(cx, bufs.iter().map(|buf| buf.len()).sum()));
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
