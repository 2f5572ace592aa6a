//! The requesting side of HTTP/2.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use batching::BatchedWrites;
use bytes::Bytes;
use futures::FutureExt;
use http::Request;
use http_body::{Body as _, Frame, SizeHint};
use hyper::client::conn::http2::{Builder, Connection, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpStream, sync::oneshot};
use tokio_rustls::TlsStream;

use crate::task::{self, BoxingExecutor};
use crate::transport::h2::io::Http2Io;
use crate::transport::{
    Body, ConnectError, ConnectionEnd, ConnectionFailure, MeshClient, MeshLink, StreamError,
    TransportSettings,
    client::{OpenStream, RequestSender},
    error::of_hyper,
    handler::HandlerFuture,
};

/// Sends requests on an HTTP/2 connection; clones share the connection.
pub(crate) type Http2Sender = SendRequest<Http2RequestBody>;

/// Starts HTTP/2 on `io`. The second value drives the connection and must be polled until it ends.
///
/// # Errors
/// When the connection breaks before HTTP/2's preface is written.
pub(crate) async fn handshake(
    builder: &Builder<BoxingExecutor>,
    io: Http2Io,
) -> hyper::Result<(Http2Sender, Connection<TokioIo<BatchedWrites<Http2Io>>, Http2RequestBody, BoxingExecutor>)>
{
    builder.handshake(TokioIo::new(BatchedWrites::new(io))).await
}

/// Starts HTTP/2 on a connection of the mesh.
pub(in crate::transport) async fn client(
    tls: Box<TlsStream<TcpStream>>,
    link: MeshLink,
    settings: &TransportSettings,
) -> Result<MeshClient, ConnectError> {
    let mut builder = Builder::new(BoxingExecutor);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(settings.stream_window_bytes)
        .initial_connection_window_size(settings.connection_window_bytes())
        .max_frame_size(settings.frame_bytes)
        .max_send_buf_size(settings.send_buffer_bytes)
        .max_header_list_size(settings.max_head_bytes)
        // h2 counts frames that arrive late for closed streams as errors and never resets the count: a connection that
        // lives long enough would reach any limit.
        .max_local_error_reset_streams(None)
        .keep_alive_interval(settings.keep_alive)
        .keep_alive_timeout(settings.keep_alive_timeout())
        .keep_alive_while_idle(true);
    let started = handshake(&builder, Http2Io::mesh(tls, link.clone())).await;
    let (sender, connection) = started.map_err(|error| {
        let (failure, reason) = of_hyper(&error);
        link.end(ConnectionEnd::There { failure, reason: reason.clone() });
        ConnectError { address: link.remote(), transport: link.transport(), failure, reason }
    })?;
    let driven = link.clone();
    task::spawn(async move {
        tokio::select! {
            result = connection => {
                let (failure, reason) = match &result {
                    Ok(()) => (ConnectionFailure::Lost, "closed by the peer".into()),
                    Err(error) => of_hyper(error),
                };
                driven.end(ConnectionEnd::There { failure, reason });
            }
            // Dropping the connection closes its socket and its streams.
            _ = driven.closed() => {}
        }
    });
    Ok(MeshClient::new(link, MeshHttp2 { sender }))
}

struct MeshHttp2 {
    sender: Http2Sender,
}

impl RequestSender for MeshHttp2 {
    fn send(&self, request: Request<Body>, open_stream: OpenStream) -> HandlerFuture {
        let mut sender = self.sender.clone();
        let (cancel, cancelled) = oneshot::channel();
        let request = request.map(|body| Http2RequestBody { body, cancelled: Some(cancelled) });
        Box::pin(async move {
            let guard = ResponseGuard { _cancel: cancel, _open_stream: open_stream };
            let response = sender.send_request(request).await.map_err(|e| StreamError::from_hyper(&e))?;
            Ok(response.map(|body| {
                let body = Body::from(body);
                // A response without a body needs no guard: its head ends the stream.
                if body.is_end_stream() { body } else { Body::new(ResponseBody { body, _guard: guard }) }
            }))
        })
    }
}

/// Dropped with the response. Dropping it resets a request body that is still open.
struct ResponseGuard {
    _cancel: oneshot::Sender<()>,
    _open_stream: OpenStream,
}

/// The body of a request. On the mesh it resets the stream when the response is dropped; hyper alone would keep an idle
/// request open, because its task owns the stream while it waits for the body.
pub(crate) struct Http2RequestBody {
    body: Body,
    cancelled: Option<oneshot::Receiver<()>>,
}

impl Http2RequestBody {
    /// A body that does not depend on the response.
    pub(crate) fn new(body: Body) -> Self {
        Self { body, cancelled: None }
    }
}

impl http_body::Body for Http2RequestBody {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        let Some(cancelled) = &mut self.cancelled else { return Poll::Pending };
        ready!(cancelled.poll_unpin(cx)).ok();
        self.cancelled = None;
        Poll::Ready(Some(Err(StreamError::cancelled())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a response with the guard that is dropped with it.
struct ResponseBody {
    body: Body,
    _guard: ResponseGuard,
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
