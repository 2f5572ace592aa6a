//! How far a server may send ahead of the reader of an answer.

use std::{
    error::Error as StdError,
    pin::Pin,
    sync::{Arc, OnceLock},
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
    /// 256 KiB.
    Medium,
    /// 32 KiB: a thousand stalled streams together occupy as much memory as 32 large ones.
    Small,
}

impl StreamWindow {
    /// All windows, the largest first.
    pub const ALL: [Self; 3] = [Self::Large, Self::Medium, Self::Small];

    /// Its size in bytes.
    pub const fn bytes(self) -> u32 {
        match self {
            Self::Large => 1 << 20,
            Self::Medium => 256 << 10,
            Self::Small => 32 << 10,
        }
    }

    /// Largest frame, in bytes. Large frames need fewer system calls and copies, which saves a tenth of the CPU time of a
    /// bulk stream. A connection has a buffer of this size.
    const fn frame_bytes(self) -> u32 {
        match self {
            Self::Large => 256 << 10,
            Self::Medium => 64 << 10,
            Self::Small => 16 << 10,
        }
    }
}

/// Connections to one server, one for each window: HTTP/2 sets the window of a stream for the whole connection. Each is
/// opened with its first request. Most callers use one or two of them.
#[derive(Clone)]
pub(crate) struct WindowedConnections {
    endpoint: Arc<Endpoint>,
    tls: Option<ClientTls>,
    large: Arc<OnceLock<Connection>>,
    medium: Arc<OnceLock<Connection>>,
    small: Arc<OnceLock<Connection>>,
}

/// A connection, and why it failed.
#[derive(Clone)]
struct Connection {
    service: Resend<transport::Channel>,
    note: ConnectionNote,
}

impl WindowedConnections {
    /// Connections to the server of `endpoint`.
    pub(crate) fn new(endpoint: Endpoint, tls: Option<ClientTls>) -> Self {
        let (large, medium, small) = Default::default();
        Self { endpoint: Arc::new(endpoint), tls, large, medium, small }
    }

    fn connection(&self, window: StreamWindow) -> Connection {
        let connection = match window {
            StreamWindow::Large => &self.large,
            StreamWindow::Medium => &self.medium,
            StreamWindow::Small => &self.small,
        };
        let open = || {
            let endpoint = Endpoint::clone(&self.endpoint).initial_stream_window_size(window.bytes());
            let endpoint = endpoint.max_frame_size(window.frame_bytes());
            let note = ConnectionNote::default();
            let connector = Connector::new(self.tls.clone(), note.clone());
            let service = ResendLayer.layer(endpoint.connect_with_connector_lazy(connector));
            Connection { service, note }
        };
        connection.get_or_init(open).clone()
    }
}

impl Service<Request<Body>> for WindowedConnections {
    type Response = Response<Body>;
    type Error = Box<dyn StdError + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        // The request decides which connection has to be ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let window = request.extensions().get::<StreamWindow>().copied().unwrap_or_default();
        let Connection { service, note } = self.connection(window);
        Box::pin(async move { service.oneshot(request).await.map_err(|error| note.explain(error)) })
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use bytes::Bytes;
    use tokio::{net::TcpListener, sync::mpsc};
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

    use super::*;

    /// Bytes that a server may send on the first stream of a connection.
    async fn granted(listener: TcpListener, found: mpsc::Sender<usize>) {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let found = found.clone();
            tokio::spawn(async move {
                // The send buffer would limit the capacity, too.
                let mut builder = h2::server::Builder::new();
                let mut connection = builder.max_send_buffer_size(8 << 20).handshake(socket).await.unwrap();
                let (_request, mut respond) = connection.accept().await.unwrap().unwrap();
                let mut stream: h2::SendStream<Bytes> =
                    respond.send_response(http::Response::new(()), false).unwrap();
                stream.reserve_capacity(4 << 20);
                // Capacity arrives in pieces, while the connection is driven.
                tokio::spawn(async move { while connection.accept().await.is_some() {} });
                loop {
                    found.send(stream.capacity()).await.unwrap();
                    let _ = poll_fn(|cx| stream.poll_capacity(cx)).await;
                }
            });
        }
    }

    #[tokio::test]
    async fn a_request_gets_the_window_that_it_asks_for() {
        for window in StreamWindow::ALL {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let channel = crate::direct(&listener.local_addr().unwrap().to_string()).unwrap();
            let (sender, mut found) = mpsc::channel(1);
            let server = tokio::spawn(granted(listener, sender));
            let mut request = tonic::Request::new(HealthCheckRequest::default());
            request.extensions_mut().insert(window);
            let call = tokio::spawn(async move { HealthClient::new(channel).check(request).await });
            let expected = window.bytes() as usize;
            let mut seen = 0;
            let until_expected = async {
                while seen < expected {
                    seen = found.recv().await.unwrap();
                }
            };
            let granted = tokio::time::timeout(Duration::from_secs(20), until_expected).await;
            assert!(granted.is_ok(), "{window:?}: only {seen} bytes after 20 s");
            assert_eq!(seen, expected, "{window:?}");
            call.abort();
            server.abort();
        }
    }
}
