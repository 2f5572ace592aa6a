//! A body that tells an observer what passes and when it is over.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

/// Learns what passes through a body. It is dropped with the body, which is when it sums up: a body that is
/// dropped early was cancelled.
pub(super) trait Observer: Send + Unpin + 'static {
    /// Bytes of data passed.
    fn data(&mut self, bytes: usize);
    /// The trailers passed.
    fn trailers(&mut self, trailers: &HeaderMap);
    /// The last frame passed.
    fn end(&mut self);
    /// The body failed.
    fn failed(&mut self);
}

/// A body and its observer.
pub(super) struct Observed<B, O> {
    inner: B,
    observer: O,
}

impl<B: Body, O: Observer> Observed<B, O> {
    pub(super) fn new(inner: B, mut observer: O) -> Self {
        // Nobody polls a body that says it is empty.
        if inner.is_end_stream() {
            observer.end();
        }
        Self { inner, observer }
    }
}

impl<B, O> Body for Observed<B, O>
where
    B: Body<Data = Bytes> + Unpin,
    O: Observer,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.inner).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    this.observer.data(data.remaining());
                }
                if let Some(trailers) = frame.trailers_ref() {
                    this.observer.trailers(trailers);
                }
                if this.inner.is_end_stream() {
                    this.observer.end();
                }
            }
            Poll::Ready(Some(Err(_))) => this.observer.failed(),
            Poll::Ready(None) => this.observer.end(),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
