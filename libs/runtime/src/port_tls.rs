//! The TLS of a port.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use rustls_pki_types::CertificateDer;
use tls::{ServerHandshake, TcpOrTls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::log_limit::LogLimit;

/// The first byte of a TLS connection.
const TLS_HANDSHAKE: u8 = 0x16;

/// How long a client may take to send its first byte.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(10);

/// The answer to a client that speaks HTTP on a port with TLS; Go's servers send the same.
const NOT_TLS: &[u8] = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// The certificate that the client of a request presented, in the extensions of the request.
///
/// It was verified if the port verifies clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate(CertificateDer<'static>);

impl ClientCertificate {
    /// The certificate of the client of a connection, if it presented one.
    pub(crate) fn of(connection: &TcpOrTls) -> Option<Self> {
        match connection {
            TcpOrTls::Tcp(_) => None,
            TcpOrTls::Tls(stream) => tls::peer_certificate(stream).map(Self),
        }
    }

    /// The certificate in DER.
    pub fn der(&self) -> &[u8] {
        &self.0
    }
}

/// The settings of TLS at the moment of a connection.
type CurrentHandshake = dyn Fn() -> Option<ServerHandshake> + Send + Sync;

/// The TLS of a port; clones are the same.
#[derive(Clone)]
pub(crate) struct PortTls {
    /// `http` or `grpc`, for log lines.
    server: &'static str,
    current: Arc<CurrentHandshake>,
    failures: Counter,
    log: Arc<LogLimit>,
}

impl PortTls {
    pub(crate) fn new(
        server: &'static str,
        failures: Counter,
        current: impl Fn() -> Option<ServerHandshake> + Send + Sync + 'static,
    ) -> Self {
        Self { server, current: Arc::new(current), failures, log: Arc::new(LogLimit::new(Instant::now())) }
    }

    /// Whether certificates of clients are verified now.
    pub(crate) fn verifies_clients(&self) -> bool {
        (self.current)().is_some_and(|handshake| handshake.verifies_clients())
    }

    /// Does the handshake; `None` if it failed, which is logged and counted.
    pub(crate) async fn accept(&self, mut stream: TcpStream, remote: SocketAddr) -> Option<TcpOrTls> {
        let outcome = match (self.current)() {
            None => return Some(stream.into()),
            Some(_) if self.server == "http" && !begins_with_tls(&stream).await => {
                // What was sent is read first: a connection that is closed with unread bytes loses the answer. The client
                // may be gone already.
                let _ = stream.read(&mut [0; 8192]).await;
                let _ = stream.write_all(NOT_TLS).await;
                let _ = stream.shutdown().await;
                Err(io::Error::new(io::ErrorKind::InvalidData, "the client sent HTTP, expected HTTPS"))
            }
            Some(handshake) => handshake.accept(stream).await,
        };
        match outcome {
            Ok(stream) => Some(stream.into()),
            // Port scans, probes of TCP and clients that gave up.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                debug!(server = self.server, %remote, %error, "a TLS handshake failed");
                None
            }
            Err(error) => {
                self.failures.inc();
                if let Some(suppressed) = self.log.admit(Instant::now()) {
                    warn!(server = self.server, %remote, %error, suppressed, "a TLS handshake failed");
                }
                None
            }
        }
    }
}

impl std::fmt::Debug for PortTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PortTls({})", self.server)
    }
}

/// Whether the first byte is one of TLS. A client that sends nothing is left to the handshake.
async fn begins_with_tls(stream: &TcpStream) -> bool {
    let mut first = [0];
    !matches!(timeout(FIRST_BYTE_TIMEOUT, stream.peek(&mut first)).await, Ok(Ok(1)) if first[0] != TLS_HANDSHAKE)
}
