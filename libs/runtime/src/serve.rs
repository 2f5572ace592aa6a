//! The accept loop of the HTTP and the gRPC servers.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use axum::extract::ConnectInfo;
use batching::BatchedWrites;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tls::TcpOrTls;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tonic::transport::server::TcpConnectInfo;
use tower::ServiceExt;
use tracing::{debug, warn};

use crate::address::ListenAddress;
use crate::http_service::HttpService;
use crate::log_limit::LogLimit;
use crate::long_lines::{LineNotes, LongLines, with_long_lines};
use crate::port_tls::{ClientCertificate, PortTls};
use crate::refused_connections::RefusedByServer;
use crate::shutdown::Shutdown;

/// Pause after `accept` failed for lack of file descriptors or memory, so that the loop does not spin.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// How long a client may be connected without sending a byte. Clients of gRPC and HTTP speak first.
pub(crate) const FIRST_BYTE: Duration = Duration::from_secs(10);

/// How long a client may take to send the head of an HTTP/1 request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Requests of a connection that may be cancelled before this server has seen them. h2 allows 20, and then ends the connection
/// with all its calls; a query that is given up while the server stands still for a moment cancels hundreds.
const MAX_PENDING_RESETS: usize = 5_000;

/// An address cannot be bound.
#[derive(Debug)]
pub struct BindError {
    /// The flag with the address, where there is one.
    flag: Option<&'static str>,
    address: ListenAddress,
    source: io::Error,
}

impl BindError {
    /// The same error with the flag that has the address.
    pub(crate) fn of_flag(self, flag: &'static str) -> Self {
        Self { flag: Some(flag), ..self }
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { flag, address, source } = self;
        match flag {
            Some(flag) => write!(f, "{flag}={address}: {source}")?,
            None => write!(f, "listen on {address}: {source}")?,
        }
        match (source.kind(), flag) {
            (io::ErrorKind::AddrInUse, Some(flag)) => {
                write!(f, "; another process has this port, give this one another port with {flag}=HOST:PORT")
            }
            (io::ErrorKind::AddrInUse, None) => f.write_str("; another process has this port"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// A bound TCP socket. Connections wait in the system until it is served.
#[derive(Debug)]
pub(crate) struct Listener {
    inner: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Binds `address`. An empty host means all interfaces, of IPv6 and IPv4 where the system has both.
    ///
    /// # Errors
    /// The address is in use, is not an address of this machine, cannot be resolved, or is not permitted.
    pub(crate) async fn bind(address: &ListenAddress) -> Result<Self, BindError> {
        let bound = match (address.host(), address.port()) {
            ("", port) => match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
                // Without IPv6 in the kernel, all interfaces are those of IPv4.
                Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await
                }
                bound => bound,
            },
            host_and_port => TcpListener::bind(host_and_port).await,
        };
        let listen = |inner: TcpListener| Ok(Self { address: inner.local_addr()?, inner });
        bound.and_then(listen).map_err(|source| BindError { flag: None, address: address.clone(), source })
    }

    /// The bound address, with the port that the system chose for port 0.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves every connection with `service` until `shutdown`. Then it lets open requests finish for at most
    /// `options.grace`, and closes the connections that are left.
    pub(crate) async fn serve(
        self,
        server: auto::Builder<TokioExecutor>,
        service: HttpService,
        options: ServeOptions,
        shutdown: Shutdown,
    ) {
        let mut connections = JoinSet::new();
        let refused = LogLimit::new(std::time::Instant::now());
        loop {
            let accepted = tokio::select! {
                biased;
                () = shutdown.triggered() => break,
                accepted = self.inner.accept() => accepted,
                // Remove connections that have ended, so that the set contains only open ones.
                Some(_) = connections.join_next() => continue,
            };
            match accepted {
                // Dropping the stream closes it.
                Ok((_, remote)) if connections.len() >= options.max_connections => {
                    options.refused.full.inc();
                    if let Some(suppressed) = refused.admit(std::time::Instant::now()) {
                        warn!(address = %self.address, %remote, limit = options.max_connections, suppressed, "too many connections, one is refused");
                    }
                }
                Ok((stream, remote)) => {
                    let connection = ServerConnection { stream, remote, local: self.address };
                    let (server, service) = (server.clone(), service.clone());
                    let (options, shutdown) = (options.clone(), shutdown.clone());
                    connections.spawn(connection.serve(server, service, options, shutdown));
                }
                Err(error) if concerns_one_connection(&error) => {
                    debug!(address = %self.address, error = %error, "the client closed a connection before it was accepted");
                }
                Err(error) => {
                    warn!(address = %self.address, error = %error, retry_after = ?ACCEPT_BACKOFF, "accepting a connection failed");
                    sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
        // Close the port first: no client can connect while the open connections drain.
        drop(self.inner);
        let deadline = Instant::now() + options.grace;
        let drained = timeout_at(deadline, async { while connections.join_next().await.is_some() {} });
        if drained.await.is_err() {
            warn!(address = %self.address, connections = connections.len(), "the grace period is over, closing open connections");
            connections.shutdown().await;
        }
    }
}

/// Whether an error of `accept` concerns one connection and not the listener.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// How long connections of a server may live.
#[derive(Clone, Debug)]
pub(crate) struct ServeOptions {
    /// How long open requests may take after the signal to stop.
    pub(crate) grace: Duration,
    /// Age at which the client is asked to reconnect, while open requests finish; `None` for never.
    pub(crate) max_age: Option<Duration>,
    /// TLS below the protocol; `None` for none.
    pub(crate) tls: Option<PortTls>,
    /// Whether HTTP/1 request lines may be longer than hyper permits; see [`LongLines`].
    pub(crate) long_lines: bool,
    /// Connections that may be open at once; further ones are closed.
    pub(crate) max_connections: usize,
    /// Time in which a client must send its first byte.
    pub(crate) first_byte: Duration,
    /// Counts connections that are closed before a request.
    pub(crate) refused: RefusedByServer,
}

/// The protocol settings that both servers start from.
pub(crate) fn server_builder() -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(hyper_util::rt::TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    server
        .http2()
        .timer(hyper_util::rt::TokioTimer::new())
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS);
    server
}

/// An accepted connection.
struct ServerConnection {
    stream: TcpStream,
    remote: SocketAddr,
    local: SocketAddr,
}

impl ServerConnection {
    async fn serve(
        self,
        server: auto::Builder<TokioExecutor>,
        service: HttpService,
        options: ServeOptions,
        shutdown: Shutdown,
    ) {
        let Self { stream, remote, local } = self;
        // Without this, small frames wait for the acknowledgement of earlier ones.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%remote, error = %error, "TCP_NODELAY cannot be set, small frames may be delayed");
        }
        let mut first = [0];
        let speaks = timeout(options.first_byte, stream.peek(&mut first));
        match shutdown.until_triggered(speaks).await {
            Some(Ok(_)) => {}
            Some(Err(_)) => {
                options.refused.silent.inc();
                return debug!(%remote, "a client has sent nothing, its connection is closed");
            }
            None => return,
        }
        let stream = match &options.tls {
            None => TcpOrTls::from(stream),
            Some(tls) => match shutdown.until_triggered(tls.accept(stream, remote)).await.flatten() {
                Some(stream) => stream,
                None => return,
            },
        };
        // A certificate that was not verified says nothing about the client.
        let verifies = options.tls.as_ref().is_some_and(PortTls::verifies_clients);
        let certificate = ClientCertificate::of(&stream).filter(|_| verifies);
        let service = service.map_request(move |mut request: Request<Incoming>| {
            if let Some(certificate) = &certificate {
                request.extensions_mut().insert(certificate.clone());
            }
            let connection = TcpConnectInfo { local_addr: Some(local), remote_addr: Some(remote) };
            request.extensions_mut().insert(connection);
            request.extensions_mut().insert(ConnectInfo(remote));
            request
        });
        let (stream, service) = match options.long_lines {
            false => (LongLines::transparent(stream), HttpService::new(service)),
            true => {
                let notes = LineNotes::default();
                (LongLines::new(stream, notes.clone()), with_long_lines(HttpService::new(service), notes))
            }
        };
        let serving = server
            .serve_connection(TokioIo::new(BatchedWrites::new(stream)), TowerToHyperService::new(service));
        let mut serving = pin!(serving);
        let old = async {
            match options.max_age {
                Some(age) => sleep_until(Instant::now() + age).await,
                None => std::future::pending().await,
            }
        };
        let outcome = tokio::select! {
            outcome = serving.as_mut() => outcome,
            () = async { tokio::select! { () = shutdown.triggered() => {}, () = old => {} } } => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(error) = outcome {
            debug!(%remote, error = %error, "the connection ended with an error");
        }
    }
}

#[cfg(test)]
mod tests;
