//! The answering side of HTTP/3.

use std::{sync::Arc, time::Duration};

use ::h3::error::ConnectionError;
use bytes::Bytes;
use tokio::time::timeout;

use crate::task;
use crate::transport::h3::{
    adapter::{BidiStream, QuicConnection, StopWatch},
    body::{ReceivedBody, SendHalf, send_body},
};
use crate::transport::{
    CloseReason, ConnectionEnd, ConnectionFailure, Handler, MeshLink, PeerClock, StreamError,
    StreamErrorKind, TransportSettings, error::words_of_connection, link::ServedGuard,
};
use mesh::Peer;

type Resolver = ::h3::server::RequestResolver<QuicConnection, Bytes>;

/// Serves a connection until it ends.
///
/// It never sends GOAWAY, because HTTP/3 does not allow the dialling side to send it. The requesting side drains
/// connections instead.
pub(in crate::transport) async fn serve(
    quic: quinn::Connection,
    link: MeshLink,
    handler: Arc<dyn Handler>,
    settings: Arc<TransportSettings>,
) {
    let adapter = QuicConnection::new(quic, settings.max_head_bytes.into());
    let accepted = adapter.accepted();
    let built = ::h3::server::builder()
        .max_field_section_size(settings.max_head_bytes.into())
        .send_grease(false)
        .build(adapter)
        .await;
    let mut connection = match built {
        Ok(connection) => connection,
        Err(error) => {
            return link.end(ConnectionEnd::There {
                failure: ConnectionFailure::Lost,
                reason: words_of_connection(&error),
            });
        }
    };
    let (peer, clock) = (link.peer(), link.clock().clone());
    loop {
        match connection.accept().await {
            Ok(Some(resolver)) => {
                let stopped = accepted.take().unwrap_or_else(|| Box::pin(std::future::pending()));
                let from = (peer.clone(), clock.clone());
                let request = answer(resolver, from, handler.clone(), settings.handshake_timeout);
                task::spawn(unless_stopped(stopped, request, link.count_served()));
            }
            Ok(None) => return link.close(CloseReason::Done),
            Err(ConnectionError::Local { .. }) => return link.close(CloseReason::Misbehaved),
            // The task that watches the link has a better reason. Dropping the connection first would hide it.
            Err(_) => return drop(link.closed().await),
        }
    }
}

/// Drops a request, and with it the request to the next hop, when the client has cancelled it.
async fn unless_stopped(
    stopped: StopWatch,
    request: impl Future<Output = Result<(), StreamError>>,
    mut guard: ServedGuard,
) {
    tokio::select! {
        biased;
        answered = request => if answered.is_ok() { guard.complete() },
        () = stopped => {}
    }
}

async fn answer(
    resolver: Resolver,
    (peer, clock): (Peer, PeerClock),
    handler: Arc<dyn Handler>,
    head_timeout: Duration,
) -> Result<(), StreamError> {
    // A stream that is dropped on return is reset.
    let refused = |reason: &str| StreamError::new(StreamErrorKind::Refused, reason);
    let (head, stream) = match timeout(head_timeout, resolver.resolve_request()).await {
        Ok(Ok(request)) => request,
        Ok(Err(_)) => return Err(refused("the head of the request cannot be parsed")),
        Err(_) => return Err(refused("the head of the request did not arrive in time")),
    };
    let (mut send, receive) = stream.split();
    let mut request = head.map(|()| ReceivedBody::new(receive, ()).into_body());
    request.extensions_mut().insert(peer);
    request.extensions_mut().insert(clock);
    let answered = respond(request, &*handler, &mut send).await;
    if let Err(error) = &answered {
        send.reset(error.h3_code().into());
    }
    answered
}

async fn respond(
    request: http::Request<crate::transport::Body>,
    handler: &dyn Handler,
    send: &mut ::h3::server::RequestStream<<BidiStream as ::h3::quic::BidiStream<Bytes>>::SendStream, Bytes>,
) -> Result<(), StreamError> {
    let (head, body) = handler.handle(request).await?.into_parts();
    let head = http::Response::from_parts(head, ());
    send.send_response(head).await.map_err(|e| StreamError::from_h3(&e))?;
    send_body(body, send).await
}
