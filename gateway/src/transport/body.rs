//! The body of a request or response.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};

use crate::transport::{StreamError, StreamErrorKind};

/// Received pieces are merged up to this many bytes if they are available already. Bulk streams then take a third less
/// processor time; slow streams are not delayed.
const MERGE_BYTES: usize = 32 << 10;
/// A piece of at least this size is not merged: copying it would cost more than it saves.
const LARGE_BYTES: usize = 8 << 10;

/// A stream of bytes with trailers. It reads at most [`MERGE_BYTES`] ahead of its reader.
///
/// Dropping it before its end cancels the stream that it comes from.
#[derive(Debug, Default)]
pub struct Body {
    inner: Option<UnsyncBoxBody<Bytes, StreamError>>,
}

impl Body {
    /// No data and no trailers.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Exactly these bytes.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self::new(Full::new(bytes.into()).map_err(|never| match never {}))
    }

    /// Any other body.
    pub fn new<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes, Error = StreamError> + Send + 'static,
    {
        if body.is_end_stream() {
            return Self::empty();
        }
        Self { inner: Some(UnsyncBoxBody::new(body)) }
    }

    /// A body received from a peer: small pieces are merged.
    pub(super) fn merged<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes, Error = StreamError> + Send + Unpin + 'static,
    {
        if body.is_end_stream() {
            return Self::empty();
        }
        Self::new(MergedBody { inner: body, next: None })
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        Pin::new(inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or(SizeHint::with_exact(0), http_body::Body::size_hint)
    }
}

impl From<hyper::body::Incoming> for Body {
    fn from(body: hyper::body::Incoming) -> Self {
        Self::merged(HyperBody { inner: body, has_trailers: false })
    }
}

/// A body that hyper received. It distinguishes a cancelled stream from a complete one, which hyper alone does not.
struct HyperBody {
    inner: hyper::body::Incoming,
    has_trailers: bool,
}

impl http_body::Body for HyperBody {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<PolledFrame> {
        Poll::Ready(match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
            Some(Ok(frame)) => {
                self.has_trailers |= frame.is_trailers();
                Some(Ok(frame))
            }
            Some(Err(error)) => Some(Err(StreamError::from_hyper(&error))),
            // After trailers the body is complete; a reset after them loses nothing.
            None if self.has_trailers || self.inner.is_end_stream() => None,
            None => Some(Err(StreamError::new(StreamErrorKind::Cancelled, "cancelled by the peer"))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

type PolledFrame = Option<Result<Frame<Bytes>, StreamError>>;

/// Merges pieces that are available already; never waits for more.
struct MergedBody<B> {
    inner: B,
    /// The frame, error or end that came after the pieces that were returned.
    next: Option<PolledFrame>,
}

impl<B> http_body::Body for MergedBody<B>
where
    B: http_body::Body<Data = Bytes, Error = StreamError> + Unpin,
{
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<PolledFrame> {
        let this = &mut *self;
        if let Some(next) = this.next.take() {
            return Poll::Ready(next);
        }
        let mut merged = MergeBuffer::Nothing;
        loop {
            let polled = match Pin::new(&mut this.inner).poll_frame(cx) {
                Poll::Pending if merged.is_empty() => return Poll::Pending,
                Poll::Pending => break,
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        // A large piece after small ones is not copied either.
                        if data.len() >= LARGE_BYTES && !merged.is_empty() {
                            this.next = Some(Some(Ok(Frame::data(data))));
                            break;
                        }
                        merged.push(data);
                        if merged.len() >= LARGE_BYTES && !merged.is_copied() || merged.len() >= MERGE_BYTES {
                            break;
                        }
                        continue;
                    }
                    Err(frame) => Some(Ok(frame)),
                },
                Poll::Ready(other) => other,
            };
            if merged.is_empty() {
                return Poll::Ready(polled);
            }
            this.next = Some(polled);
            break;
        }
        Poll::Ready(Some(Ok(Frame::data(merged.into_bytes()))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.next {
            Some(next) => next.is_none(),
            None => self.inner.is_end_stream(),
        }
    }
}

/// Pieces that are being merged. A single piece is not copied.
enum MergeBuffer {
    Nothing,
    One(Bytes),
    Many(BytesMut),
}

impl MergeBuffer {
    fn push(&mut self, data: Bytes) {
        if data.is_empty() {
            return;
        }
        match self {
            Self::Nothing => *self = Self::One(data),
            Self::One(first) => {
                let mut many = BytesMut::with_capacity(MERGE_BYTES);
                many.extend_from_slice(first);
                many.extend_from_slice(&data);
                *self = Self::Many(many);
            }
            Self::Many(many) => many.extend_from_slice(&data),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::One(data) => data.len(),
            Self::Many(data) => data.len(),
        }
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn is_copied(&self) -> bool {
        matches!(self, Self::Many(_))
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Self::Nothing => Bytes::new(),
            Self::One(data) => data,
            Self::Many(data) => data.freeze(),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt, stream};
    use http::HeaderMap;
    use http_body_util::StreamBody;

    use super::*;

    async fn frames(pieces: Vec<Result<Frame<Bytes>, StreamError>>) -> Vec<String> {
        let body = Body::merged(StreamBody::new(stream::iter(pieces)));
        body.into_data_and_trailers().await
    }

    impl Body {
        async fn into_data_and_trailers(self) -> Vec<String> {
            let mut seen = Vec::new();
            let mut frames = http_body_util::BodyStream::new(self);
            while let Some(frame) = frames.next().await {
                seen.push(match frame {
                    Ok(frame) if frame.is_trailers() => "trailers".into(),
                    Ok(frame) => format!("data {}", frame.into_data().unwrap().len()),
                    Err(e) => e.to_string(),
                });
            }
            seen
        }
    }

    fn data(len: usize) -> Result<Frame<Bytes>, StreamError> {
        Ok(Frame::data(vec![0; len].into()))
    }

    #[tokio::test]
    async fn small_pieces_are_merged_and_empty_pieces_dropped() {
        assert_eq!(frames(vec![data(5), data(0), data(6), data(0)]).await, ["data 11"]);
        assert!(frames(vec![data(0)]).await.is_empty());
    }

    #[tokio::test]
    async fn merging_stops_at_its_limit_and_does_not_copy_large_pieces() {
        let seen = frames((0..40).map(|_| data(1 << 10)).collect()).await;
        assert_eq!(seen, ["data 32768", "data 8192"]);
        assert_eq!(
            frames(vec![data(10), data(20_000), data(10)]).await,
            ["data 10", "data 20000", "data 10"]
        );
    }

    #[tokio::test]
    async fn trailers_and_errors_come_after_the_data_before_them() {
        let trailers = Ok(Frame::trailers(HeaderMap::new()));
        assert_eq!(frames(vec![data(5), data(5), trailers]).await, ["data 10", "trailers"]);
        let error = Err(StreamError::new(StreamErrorKind::Reset, "broken"));
        assert_eq!(frames(vec![data(5), error]).await, ["data 5", "broken"]);
    }
}
