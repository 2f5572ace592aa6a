//! The requesting side of a connection.

use std::{fmt, sync::Arc};

use http::Request;

use crate::transport::{Body, CloseReason, Handler, MeshLink, handler::HandlerFuture};

/// Sends requests on a connection. Clones share the connection. It is closed when the last clone and the last response
/// are dropped, so a connection that was replaced by a newer one closes after its last stream.
#[derive(Clone)]
pub struct MeshClient {
    shared: Arc<ClientState>,
}

struct ClientState {
    link: MeshLink,
    sender: Box<dyn RequestSender>,
}

/// Sends a request over HTTP/2 or HTTP/3.
pub(super) trait RequestSender: Send + Sync + 'static {
    /// `open_stream` must be dropped with the response: it counts the stream and keeps the connection open.
    fn send(&self, request: Request<Body>, open_stream: OpenStream) -> HandlerFuture;
}

/// An open request: counts as a stream of the connection and keeps it open.
pub(super) struct OpenStream {
    _stream: crate::transport::link::StreamGuard,
    _client: MeshClient,
}

impl MeshClient {
    pub(super) fn new(link: MeshLink, sender: impl RequestSender) -> Self {
        Self { shared: Arc::new(ClientState { link, sender: Box::new(sender) }) }
    }

    /// The handle on the connection below.
    pub fn link(&self) -> &MeshLink {
        &self.shared.link
    }
}

impl Handler for MeshClient {
    fn handle(&self, request: Request<Body>) -> HandlerFuture {
        let open_stream = OpenStream { _stream: self.shared.link.count_stream(), _client: self.clone() };
        self.shared.sender.send(request, open_stream)
    }
}

impl Drop for ClientState {
    fn drop(&mut self) {
        self.link.close(CloseReason::Done);
    }
}

impl fmt::Debug for MeshClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MeshClient({:?})", self.link())
    }
}
