//! How far a server may send ahead of the reader of an answer.

use std::{
    error::Error as StdError,
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response};
use tls::ClientTls;
use tonic::{
    body::Body,
    transport::{self, Endpoint},
};
use tower::{Layer, Service, ServiceExt};

use crate::connector::{ConnectionNote, Connector};
use crate::resend::{Resend, ResendLayer};

/// How many bytes a server may send ahead of the reader of one answer. It is an extension of a request; without it, the
/// window is large. Services of this process ignore it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StreamWindow {
    /// 1 MiB: one stream uses the whole capacity of a long connection.
    #[default]
    Large,
    /// 32 KiB: a thousand stalled streams together occupy as much memory as 32 large ones.
    Small,
}

impl StreamWindow {
    /// Its size in bytes.
    pub const fn bytes(self) -> u32 {
        match self {
            Self::Large => 1 << 20,
            Self::Small => 32 << 10,
        }
    }

    /// Largest frame, in bytes. Large frames need fewer system calls and copies, which saves a tenth of the CPU time of a
    /// bulk stream. A connection has a buffer of this size.
    pub(crate) const fn frame_bytes(self) -> u32 {
        match self {
            Self::Large => 256 << 10,
            Self::Small => 16 << 10,
        }
    }
}

/// Two connections to one server, one for each window: HTTP/2 sets the window of a stream for the whole connection. Each is
/// opened with its first request.
#[derive(Clone)]
pub(crate) struct WindowedConnections<S = Resend<transport::Channel>> {
    large: Connection<S>,
    small: Connection<S>,
}

/// A connection, and why it failed.
#[derive(Clone)]
struct Connection<S> {
    service: S,
    note: ConnectionNote,
}

impl WindowedConnections {
    /// Connections to the server of `endpoint`.
    pub(crate) fn new(endpoint: &Endpoint, tls: Option<&ClientTls>) -> Self {
        Self::of(|window, note| {
            let endpoint = endpoint.clone().initial_stream_window_size(window.bytes());
            let endpoint = endpoint.max_frame_size(window.frame_bytes());
            let connector = Connector::new(tls.cloned(), note);
            ResendLayer.layer(endpoint.connect_with_connector_lazy(connector))
        })
    }
}

impl<S> WindowedConnections<S> {
    /// The connections that `open` makes for each window; it notes why one failed.
    pub(crate) fn of(open: impl Fn(StreamWindow, ConnectionNote) -> S) -> Self {
        let connection = |window| {
            let note = ConnectionNote::default();
            Connection { service: open(window, note.clone()), note }
        };
        Self { large: connection(StreamWindow::Large), small: connection(StreamWindow::Small) }
    }
}

impl<S> Service<Request<Body>> for WindowedConnections<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Box<dyn StdError + Send + Sync>>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Box<dyn StdError + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        // The request decides which connection has to be ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let connection = match request.extensions().get::<StreamWindow>().copied().unwrap_or_default() {
            StreamWindow::Large => &self.large,
            StreamWindow::Small => &self.small,
        };
        let Connection { service, note } = connection.clone();
        Box::pin(async move { service.oneshot(request).await.map_err(|error| note.explain(error)) })
    }
}
