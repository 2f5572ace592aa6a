//! The asking end of a connection.

use std::{fmt, sync::Arc};

use http::Request;

use crate::transport::{Body, Close, Handler, Link, handler::HandlerFuture};

/// Sends requests on a connection. Clones share it; it is closed when the last clone and the last response are gone,
/// which is how a connection that was replaced by a better one ends: after its last stream.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    link: Link,
    sender: Box<dyn Sender>,
}

/// A protocol's way to send a request.
pub(super) trait Sender: Send + Sync + 'static {
    /// `keep` lives as long as the response: it counts the stream and keeps the connection open.
    fn send(&self, request: Request<Body>, keep: Keep) -> HandlerFuture;
}

/// Held by everything that still needs the connection.
pub(super) struct Keep {
    _stream: super::link::StreamGuard,
    _client: Client,
}

impl Client {
    pub(super) fn new(link: Link, sender: impl Sender) -> Self {
        Self { shared: Arc::new(Shared { link, sender: Box::new(sender) }) }
    }

    /// The connection below.
    pub fn link(&self) -> &Link {
        &self.shared.link
    }
}

impl Handler for Client {
    fn handle(&self, request: Request<Body>) -> HandlerFuture {
        let keep = Keep { _stream: self.shared.link.stream(), _client: self.clone() };
        self.shared.sender.send(request, keep)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.link.close(Close::Done);
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({:?})", self.link())
    }
}
