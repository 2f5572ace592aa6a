//! What is kept until an answer is sent.

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

/// Something that is kept until the answer that it belongs to is sent or dropped, such as the reservation of its memory, or
/// the permission to ask for it. It is no part of the content of the answer: all are equal.
#[derive(Clone, Default)]
pub struct Kept(Option<Arc<dyn Any + Send + Sync>>);

impl Kept {
    /// Keeps `what`.
    pub fn new(what: impl Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(what)))
    }

    /// The response, whose body keeps what is in an extension of the response.
    pub(crate) fn within(mut response: http::Response<Body>) -> http::Response<Body> {
        match response.extensions_mut().remove::<Self>() {
            Some(kept) => response.map(|inner| Body::new(KeepingBody { inner, _kept: kept })),
            None => response,
        }
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Kept" } else { "Nothing" })
    }
}

impl PartialEq for Kept {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Kept {}

/// A body that keeps something until it is dropped.
struct KeepingBody {
    inner: Body,
    _kept: Kept,
}

impl http_body::Body for KeepingBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
