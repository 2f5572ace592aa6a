//! The answering end of HTTP/2.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use crate::transport::h2::io::TcpIo;
use crate::transport::{
    Body, ConnectionEnd, ConnectionFailure, Handler, MeshLink, StreamError, TransportSettings,
    error::of_hyper, link::ServedGuard,
};

/// Serves a connection to its end.
pub(in super::super) async fn serve(
    tls: TlsStream<TcpStream>,
    link: MeshLink,
    handler: Arc<dyn Handler>,
    settings: Arc<TransportSettings>,
) {
    let peer = link.peer();
    let service = service_fn(|request: http::Request<Incoming>| {
        let mut request = request.map(Body::from);
        request.extensions_mut().insert(peer.clone());
        let mut guard = link.served();
        let answer = handler.handle(request);
        async move {
            let response = answer.await?;
            Ok::<_, StreamError>(response.map(|body| {
                if body.is_end_stream() {
                    guard.ended();
                }
                ServedBody { body, guard }
            }))
        }
    });
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.max_streams)
        .initial_stream_window_size(settings.stream_window_bytes)
        .initial_connection_window_size(settings.connection_window_bytes)
        .max_frame_size(settings.frame_bytes)
        .max_send_buf_size(settings.send_buffer_bytes)
        .max_header_list_size(settings.max_head_bytes)
        // h2 counts what arrives late for streams that are gone as errors, and for good: over the life of a connection
        // any bound would be met.
        .max_local_error_reset_streams(None)
        .keep_alive_interval(settings.keep_alive)
        .keep_alive_timeout(settings.keep_alive_timeout())
        .auto_date_header(false)
        .serve_connection(TokioIo::new(TcpIo::new(tls, link.clone())), service);
    tokio::select! {
        result = connection => {
            let (failure, reason) = match &result {
                Ok(()) => (ConnectionFailure::Lost, "closed by the peer".into()),
                Err(error) => of_hyper(error),
            };
            link.end(ConnectionEnd::There { failure, reason });
        }
        // Dropping the connection ends its socket and its streams.
        _ = link.closed() => {}
    }
}

/// A response's body that notes whether all of it was taken.
struct ServedBody {
    body: Body,
    guard: ServedGuard,
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
            self.guard.ended();
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
