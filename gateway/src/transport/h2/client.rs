//! The asking end of HTTP/2.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::FutureExt;
use http::Request;
use http_body::{Body as _, Frame, SizeHint};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{net::TcpStream, sync::oneshot};
use tokio_rustls::TlsStream;

use crate::transport::h2::io::TcpIo;
use crate::transport::{
    Body, ConnectError, ConnectionEnd, ConnectionFailure, MeshClient, MeshLink, StreamError,
    TransportSettings,
    client::{OpenStream, RequestSender},
    error::of_hyper,
    handler::HandlerFuture,
};

/// Starts HTTP/2 on a connection.
pub(in super::super) async fn client(
    tls: TlsStream<TcpStream>,
    link: MeshLink,
    settings: &TransportSettings,
) -> Result<MeshClient, ConnectError> {
    let (sender, connection) = Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
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
        .keep_alive_while_idle(true)
        .handshake::<_, RequestBody>(TokioIo::new(TcpIo::new(tls, link.clone())))
        .await
        .map_err(|error| {
            let (failure, reason) = of_hyper(&error);
            link.end(ConnectionEnd::There { failure, reason: reason.clone() });
            ConnectError { address: link.remote(), transport: link.transport(), failure, reason }
        })?;
    let driven = link.clone();
    tokio::spawn(async move {
        tokio::select! {
            result = connection => {
                let (failure, reason) = match &result {
                    Ok(()) => (ConnectionFailure::Lost, "closed by the peer".into()),
                    Err(error) => of_hyper(error),
                };
                driven.end(ConnectionEnd::There { failure, reason });
            }
            // Dropping the connection ends its socket and its streams.
            _ = driven.closed() => {}
        }
    });
    Ok(MeshClient::new(link, H2Sender { sender }))
}

struct H2Sender {
    sender: SendRequest<RequestBody>,
}

impl RequestSender for H2Sender {
    fn send(&self, request: Request<Body>, open_stream: OpenStream) -> HandlerFuture {
        let mut sender = self.sender.clone();
        let (cancel, cancelled) = oneshot::channel();
        let request = request.map(|body| RequestBody { body, cancelled: Some(cancelled) });
        Box::pin(async move {
            let guard = ResponseGuard { _cancel: cancel, _open_stream: open_stream };
            let response = sender.send_request(request).await.map_err(|e| StreamError::from_hyper(&e))?;
            Ok(response.map(|body| {
                let body = Body::from(body);
                // An answer without a body needs no guard; its head alone ends the stream.
                if body.is_end_stream() { body } else { Body::new(ResponseBody { body, _guard: guard }) }
            }))
        })
    }
}

/// Dropped with the response: tells the request's body that nobody listens any more.
struct ResponseGuard {
    _cancel: oneshot::Sender<()>,
    _open_stream: OpenStream,
}

/// A request's body that ends with a reset when the response is dropped. hyper alone would open_stream an idle request open:
/// its task holds the stream while it waits for the body.
struct RequestBody {
    body: Body,
    cancelled: Option<oneshot::Receiver<()>>,
}

impl http_body::Body for RequestBody {
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

/// A response's body with what must end with it.
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
