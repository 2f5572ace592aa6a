//! The answering side of HTTP/2.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use batching::BatchedWrites;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::{body::Incoming, server::conn::http2::Builder, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use crate::task::BoxingExecutor;
use crate::transport::h2::io::Http2Io;
use crate::transport::{
    Body, ConnectionEnd, ConnectionFailure, Handler, MeshLink, StreamError, TransportSettings,
    error::of_hyper, link::ServedGuard,
};

/// Serves a connection of the mesh until it ends.
pub(in crate::transport) async fn serve(
    tls: Box<TlsStream<TcpStream>>,
    link: MeshLink,
    handler: Arc<dyn Handler>,
    settings: Arc<TransportSettings>,
) {
    let mut builder = Builder::new(BoxingExecutor);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.max_streams)
        .initial_stream_window_size(settings.stream_window_bytes)
        .initial_connection_window_size(settings.connection_window_bytes())
        .max_frame_size(settings.frame_bytes)
        .max_send_buf_size(settings.send_buffer_bytes)
        .max_header_list_size(settings.max_head_bytes)
        // h2 counts frames that arrive late for closed streams as errors and never resets the count: a connection that
        // lives long enough would reach any limit.
        .max_local_error_reset_streams(None)
        // Requests that are cancelled before this side has seen them; h2 allows 20, and a burst while this gateway stands
        // still for a moment has more.
        .max_pending_accept_reset_streams(settings.max_cancelled_streams as usize)
        .keep_alive_interval(settings.keep_alive)
        .keep_alive_timeout(settings.keep_alive_timeout())
        .auto_date_header(false);
    let connection = serve_connection(&builder, Http2Io::mesh(tls, link.clone()), handler);
    tokio::select! {
        result = connection => {
            let (failure, reason) = match &result {
                Ok(()) => (ConnectionFailure::Lost, "closed by the peer".into()),
                Err(error) => of_hyper(error),
            };
            link.end(ConnectionEnd::There { failure, reason });
        }
        // Dropping the connection closes its socket and its streams.
        _ = link.closed() => {}
    }
}

/// Serves one HTTP/2 connection with `handler` until it ends. On a connection of the mesh, each request carries the
/// [`mesh::Peer`] and its [`PeerClock`](crate::transport::PeerClock) in its extensions and is counted.
///
/// # Errors
/// When the connection breaks or the peer violates HTTP/2.
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub(crate) fn serve_connection(
    builder: &Builder<BoxingExecutor>,
    io: Http2Io,
    handler: Arc<dyn Handler>,
) -> impl Future<Output = hyper::Result<()>> + Send + 'static {
    let link = io.link().cloned();
    let peer = link.as_ref().map(MeshLink::peer);
    let service = service_fn(move |request: http::Request<Incoming>| {
        let mut request = request.map(Body::from);
        if let (Some(peer), Some(link)) = (&peer, &link) {
            request.extensions_mut().insert(peer.clone());
            request.extensions_mut().insert(link.clock().clone());
        }
        let mut guard = link.as_ref().map(MeshLink::count_served);
        let answer = handler.handle(request);
        async move {
            let response = answer.await?;
            Ok::<_, StreamError>(response.map(|body| {
                if body.is_end_stream() {
                    complete(&mut guard);
                }
                ServedBody { body, guard }
            }))
        }
    });
    builder.serve_connection(TokioIo::new(BatchedWrites::new(io)), service)
}

/// The body of a response. It notes when the client has taken all of it.
struct ServedBody {
    body: Body,
    /// `None` outside the mesh.
    guard: Option<ServedGuard>,
}

fn complete(guard: &mut Option<ServedGuard>) {
    if let Some(guard) = guard {
        guard.complete();
    }
}

impl http_body::Body for ServedBody {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let is_last = match &frame {
            None => true,
            Some(Ok(frame)) => frame.is_trailers() || self.body.is_end_stream(),
            Some(Err(_)) => false,
        };
        if is_last {
            complete(&mut self.guard);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
