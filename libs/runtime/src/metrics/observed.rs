//! What the HTTP and the gRPC metrics share: a body that reports its frames and its end, and the buckets of durations.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

/// Buckets of request durations in seconds, as Thanos' dashboards expect them.
pub(super) const DURATION_BUCKETS: [f64; 17] =
    [0.001, 0.01, 0.1, 0.3, 0.6, 1.0, 3.0, 6.0, 9.0, 20.0, 30.0, 60.0, 90.0, 120.0, 240.0, 360.0, 720.0];

/// Observes the frames of a body. It is dropped with the body, which is when it counts the request: a body that is
/// dropped before its end was cancelled.
pub(crate) trait BodyObserver: Send + Unpin + 'static {
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
pub(crate) struct ObservedBody<B, O> {
    inner: B,
    observer: O,
}

impl<B: Body, O: BodyObserver> ObservedBody<B, O> {
    pub(crate) fn new(inner: B, mut observer: O) -> Self {
        // A body that reports to be empty is never polled.
        if inner.is_end_stream() {
            observer.end();
        }
        Self { inner, observer }
    }
}

impl<B, O> Body for ObservedBody<B, O>
where
    B: Body<Data = Bytes> + Unpin,
    O: BodyObserver,
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
