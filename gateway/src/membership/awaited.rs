//! Joining where this cluster cannot dial out: waits for the observability gateway on the port of the mesh.
//!
//! Each peer that connects is asked for the certificate of the token's issuer, as when this gateway dials: this side is the TLS client
//! of the connection that it has accepted.

use std::{io, net::SocketAddr, time::Duration};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use runtime::ListenAddress;
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::client::TlsStream;

/// Time limit of a handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Handshakes at the same time; further connections wait.
const MAX_HANDSHAKES: usize = 16;
/// Pause after a connection could not be accepted, because the process has too many descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Shakes hands with a peer that has connected; the error says why that is not the issuer.
pub(super) type Handshake<'a> =
    &'a (dyn Fn(TcpStream) -> BoxFuture<'a, Result<TlsStream<TcpStream>, String>> + Sync);

/// Waits at `listen` until the issuer connects, and returns its address and the connection. Others are turned away.
///
/// # Errors
/// The port cannot be bound.
///
/// # Cancel safety
/// Dropping the future closes the port and all connections.
pub(super) async fn issuer_that_connects(
    listen: &ListenAddress,
    handshake: Handshake<'_>,
) -> io::Result<(SocketAddr, TlsStream<TcpStream>)> {
    let host = if listen.host().is_empty() { "::" } else { listen.host() };
    let listener = TcpListener::bind((host, listen.port())).await;
    let listener = listener
        .map_err(|error| io::Error::new(error.kind(), format!("listen address {listen}: {error}")))?;
    tracing::info!(%listen, "waiting for the observability gateway, to join");
    let mut handshakes = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some((remote, outcome)) = handshakes.next(), if !handshakes.is_empty() => match outcome {
                Ok(Ok(stream)) => return Ok((remote, stream)),
                Ok(Err(reason)) => tracing::debug!(%remote, reason, "a connection while joining was turned away"),
                Err(_) => tracing::debug!(%remote, "a connection while joining said nothing"),
            },
            accepted = listener.accept(), if handshakes.len() < MAX_HANDSHAKES => match accepted {
                Ok((stream, remote)) => handshakes.push(async move {
                    (remote, timeout(HANDSHAKE_TIMEOUT, handshake(stream)).await)
                }),
                Err(error) => {
                    tracing::debug!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}
