//! The requesting side of HTTP/3.

use std::sync::{Mutex, PoisonError};

use ::h3::error::ConnectionError;
use bytes::Bytes;
use futures::future::{Either, select};
use http::{Request, Response, Uri, header, uri::Scheme};
use tokio::sync::oneshot;

use crate::task;
use crate::transport::h3::{
    adapter::{QuicConnection, SendStream, StreamOpener},
    body::{ReceivedBody, send_body},
};
use crate::transport::{
    Body, CloseReason, ConnectError, ConnectionEnd, ConnectionFailure, MeshClient, MeshLink, StreamError,
    StreamErrorKind, TransportSettings,
    client::{OpenStream, RequestSender},
    error::words_of_connection,
    handler::HandlerFuture,
};

/// Starts HTTP/3 on a connection.
pub(in crate::transport) async fn client(
    quic: quinn::Connection,
    link: MeshLink,
    settings: &TransportSettings,
) -> Result<MeshClient, ConnectError> {
    let max_head_bytes = settings.max_head_bytes.into();
    let (mut driver, sender) = ::h3::client::builder()
        .max_field_section_size(max_head_bytes)
        .send_grease(false)
        .build::<_, _, Bytes>(QuicConnection::new(quic, max_head_bytes))
        .await
        .map_err(|error| {
            let (failure, reason) = (ConnectionFailure::Lost, words_of_connection(&error));
            link.end(ConnectionEnd::There { failure, reason: reason.clone() });
            ConnectError { address: link.remote(), transport: link.transport(), failure, reason }
        })?;
    let driven = link.clone();
    task::spawn(async move {
        if let ConnectionError::Local { .. } = driver.wait_idle().await {
            driven.close(CloseReason::Misbehaved);
        }
        // For other errors the task that watches the link has a better reason. Dropping the driver first would hide it.
        driven.closed().await;
    });
    Ok(MeshClient::new(link, H3Sender { sender: Mutex::new(sender) }))
}

struct H3Sender {
    /// Cloned for each request. The lock only makes it `Sync`.
    sender: Mutex<::h3::client::SendRequest<StreamOpener, Bytes>>,
}

impl RequestSender for H3Sender {
    fn send(&self, request: Request<Body>, open_stream: OpenStream) -> HandlerFuture {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Box::pin(send(sender, request, open_stream))
    }
}

async fn send(
    mut sender: ::h3::client::SendRequest<StreamOpener, Bytes>,
    request: Request<Body>,
    open_stream: OpenStream,
) -> Result<Response<Body>, StreamError> {
    let (mut head, body) = request.into_parts();
    head.uri = absolute(head.uri, &mut head.headers)?;
    head.extensions.clear();
    let stream =
        sender.send_request(Request::from_parts(head, ())).await.map_err(|e| StreamError::from_h3(&e))?;
    let (send, mut receive) = stream.split();
    let (cancel, cancelled) = oneshot::channel::<()>();

    // Most requests are sent completely before the response begins. Only the others get a task of their own.
    let sending = Box::pin(send_request_body(body, send, cancelled));
    let receiving = Box::pin(receive.recv_response());
    let answer = match select(sending, receiving).await {
        Either::Left(((), receiving)) => receiving.await,
        Either::Right((answer, sending)) => {
            task::spawn(sending);
            answer
        }
    };
    let head = answer.map_err(|e| StreamError::from_h3(&e))?;
    let is_trailers_only = head.headers().contains_key("grpc-status");
    let mut body = ReceivedBody::new(receive, (cancel, open_stream));
    if is_trailers_only {
        // The end follows at once. It is read now so that the next hop can send head and end in one frame.
        body.read_end().await;
    }
    Ok(head.map(|()| body.into_body()))
}

/// Sends a request's body until it ends or the response is dropped. Dropping the stream resets it.
async fn send_request_body(
    body: Body,
    mut stream: ::h3::client::RequestStream<SendStream, Bytes>,
    cancelled: oneshot::Receiver<()>,
) {
    tokio::select! {
        biased;
        // If an error here matters, the response fails with it too.
        _ = send_body(body, &mut stream) => {}
        _ = cancelled => {}
    }
}

/// HTTP/3 requires scheme and authority. A request may have its authority in the `host` header.
fn absolute(uri: Uri, headers: &mut http::HeaderMap) -> Result<Uri, StreamError> {
    let host = headers.remove(header::HOST);
    let mut parts = uri.into_parts();
    parts.scheme = Some(Scheme::HTTPS);
    if parts.authority.is_none() {
        let host = host.as_ref().map_or(&b"localhost"[..], |host| host.as_bytes());
        parts.authority = http::uri::Authority::try_from(host).ok();
    }
    Uri::from_parts(parts)
        .map_err(|error| StreamError::new(StreamErrorKind::Refused, format!("request URI: {error}")))
}
