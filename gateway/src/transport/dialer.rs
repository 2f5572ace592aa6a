//! Keeps a connection to one peer, and returns to QUIC when it works again. `fallback` chooses the transport of a connection.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, TryFutureExt};
use identity::{Expectations, client_config};
use mesh::Transport;
use promapi::ProxyUrl;
use quinn::crypto::rustls::QuicClientConfig;
use rand::Rng;
use rustls_pki_types::ServerName;
use tokio::{
    net::{TcpStream, lookup_host},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::race::race;
use crate::transport::{
    ConnectError, ConnectionEnd, ConnectionEvent, ConnectionFailure, MeshConnection, MeshLink, MeshNode,
    TransportChoice,
    link::QuicLink,
    listener::bind_udp,
    probing::ProbeWaits,
    quic_runtime::BatchingRuntime,
    settings::{self, ALPN_QUIC, ALPN_TCP, tune_tcp},
};

/// After a connection that lasted this long, the wait before the next attempt starts at its minimum again. A peer that is restarted
/// several times is reached at once each time, and one that ends connections at once is not flooded.
const GOOD_AFTER: Duration = Duration::from_secs(2);

/// The peer to dial.
#[derive(Debug, Clone)]
pub struct DialTarget {
    /// `host:port`; resolved again for each attempt.
    pub address: String,
    /// The identity that the peer must have.
    pub expectations: Expectations,
    /// The transports that may be used.
    pub transport_choice: TransportChoice,
    /// The proxy for connections over TCP; `None` if they are direct.
    pub proxy: Option<ProxyUrl>,
}

/// Dials a peer again after each loss, until it is dropped.
pub struct Dialer {
    node: MeshNode,
    target: DialTarget,
    quic: quinn::ClientConfig,
    tcp: TlsConnector,
    /// One socket per address family, IPv4 and IPv6, of the last dial.
    endpoints: [Option<quinn::Endpoint>; 2],
    current: Option<MeshLink>,
    probe_at: Instant,
    probe_waits: ProbeWaits,
    /// Attempts since the last good connection.
    attempts: u32,
}

impl Dialer {
    /// A dialer that has not dialled yet.
    ///
    /// # Errors
    /// When TLS cannot be set up; only a broken crypto provider causes that.
    pub fn new(node: &MeshNode, target: DialTarget) -> io::Result<Self> {
        let tls = |alpn| {
            client_config(&node.store, node.guard.of_peers(target.expectations.clone()), &[alpn])
                .map_err(io::Error::other)
        };
        let crypto = QuicClientConfig::try_from(tls(ALPN_QUIC)?).map_err(io::Error::other)?;
        let mut quic = quinn::ClientConfig::new(Arc::new(crypto));
        quic.transport_config(node.settings.quic());
        let tcp = TlsConnector::from(tls(ALPN_TCP)?);
        Ok(Self {
            node: node.clone(),
            target,
            quic,
            tcp,
            endpoints: [None, None],
            current: None,
            probe_at: Instant::now(),
            probe_waits: ProbeWaits::new(node.settings.probe_quic),
            attempts: 0,
        })
    }

    /// Waits until a connection is needed and established. One is needed at first, after the previous one has ended, and
    /// when QUIC works again while the previous one uses TCP. In the last case the previous connection stays open for its
    /// streams: the caller should send new requests on the new connection and close the old one after its last stream.
    ///
    /// A failure is reported to the node as a [`ConnectionEvent`], and followed by another attempt after a random wait.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the attempt; the next call starts another.
    pub async fn next(&mut self) -> MeshConnection {
        loop {
            if let Some(link) = self.current.clone() {
                let Some(closed) = self.until_closed(&link).await else {
                    let probed = tokio::select! {
                        probed = self.probe() => probed,
                        // The loss is handled in the next round.
                        _ = link.closed() => None,
                    };
                    match probed {
                        Some(connection) => return self.adopt(connection),
                        None => continue,
                    }
                };
                self.current = None;
                if link.transport() == Transport::Quic {
                    let fell_silent =
                        matches!(closed, ConnectionEnd::There { failure: ConnectionFailure::NoAnswer, .. });
                    self.probe_waits.quic_ended(link.age(), fell_silent);
                }
                let refused =
                    matches!(closed, ConnectionEnd::There { failure: ConnectionFailure::Refused, .. });
                self.attempts =
                    if refused || link.age() < GOOD_AFTER { self.attempts.saturating_add(1) } else { 0 };
                // When a gateway is lost, all its peers reconnect at the same time. The wait spreads them.
                sleep(self.random_wait()).await;
            }
            match self.dial_name().await {
                Ok(connection) => return self.adopt(connection),
                Err(failed) => {
                    self.attempts = self.attempts.saturating_add(1);
                    let retry_after = self.random_wait();
                    match &failed {
                        DialError::Name(reason) => {
                            (self.node.events)(&ConnectionEvent::NameFailed { reason, retry_after });
                        }
                        DialError::Connect(error) => {
                            (self.node.events)(&ConnectionEvent::ConnectFailed { error, retry_after });
                        }
                    }
                    sleep(retry_after).await;
                }
            }
        }
    }

    fn adopt(&mut self, connection: MeshConnection) -> MeshConnection {
        self.current = Some(connection.link().clone());
        if connection.link().transport() == Transport::Tcp {
            self.probe_at = Instant::now() + self.probe_waits.next();
        }
        connection
    }

    /// Waits for the end of `link`; `None` when it is time to try QUIC.
    async fn until_closed(&self, link: &MeshLink) -> Option<ConnectionEnd> {
        if link.transport() == Transport::Quic || self.target.transport_choice != TransportChoice::Auto {
            return Some(link.closed().await);
        }
        tokio::select! {
            closed = link.closed() => Some(closed),
            () = sleep_until(self.probe_at) => None,
        }
    }

    /// Tries QUIC while a TCP connection is in use. A failure changes nothing.
    async fn probe(&mut self) -> Option<MeshConnection> {
        self.probe_at = Instant::now() + self.probe_waits.next();
        let addresses = self.resolve().await.ok()?;
        self.open_endpoints(&addresses);
        let this = &*self;
        let dial = |address| this.dial_quic(address).map_ok(move |connection| (address, connection)).boxed();
        let (address, connection) = race(addresses, dial).await.ok()?;
        (self.node.events)(&ConnectionEvent::Recovered { address });
        Some(connection)
    }

    /// A random time between zero and a bound that doubles with each attempt ("full jitter").
    fn random_wait(&self) -> Duration {
        let (first, most) = self.node.settings.backoff;
        let bound = first.saturating_mul(1 << self.attempts.min(20)).min(most);
        bound.mul_f64(rand::rng().random())
    }

    /// The address to dial, as written.
    pub(super) fn dialled(&self) -> &str {
        &self.target.address
    }

    /// The proxy for TCP.
    pub(super) fn proxy(&self) -> Option<&ProxyUrl> {
        self.target.proxy.as_ref()
    }

    pub(super) fn transport_choice(&self) -> TransportChoice {
        self.target.transport_choice
    }

    pub(super) async fn resolve(&self) -> Result<Vec<SocketAddr>, String> {
        let name = &self.target.address;
        match lookup_host(name).await {
            Ok(found) => {
                let found: Vec<_> = found.collect();
                if found.is_empty() { Err(format!("{name}: no address")) } else { Ok(found) }
            }
            Err(error) => Err(format!("{name}: {error}")),
        }
    }

    async fn dial_name(&mut self) -> Result<MeshConnection, DialError> {
        if let Some(proxy) = self.target.proxy.clone() {
            return self.dial_with_proxy(&proxy).await.map_err(DialError::Connect);
        }
        let addresses = self.resolve().await.map_err(DialError::Name)?;
        self.open_endpoints(&addresses);
        let this = &*self;
        let dialled = race(addresses, |address| match this.target.transport_choice {
            TransportChoice::Auto => this.dial(address).boxed(),
            TransportChoice::Quic => this.dial_quic(address).boxed(),
            TransportChoice::Tcp => this.dial_tcp(address).boxed(),
        });
        dialled.await.map_err(|failures| {
            let no_address = || DialError::Name(format!("{}: no address", self.target.address));
            telling(failures).map_or_else(no_address, DialError::Connect)
        })
    }

    fn endpoint(&self, address: SocketAddr) -> Option<&quinn::Endpoint> {
        self.endpoints[usize::from(address.is_ipv6())].as_ref()
    }

    /// Whether there is a UDP socket for the family of the address.
    pub(super) fn has_endpoint(&self, address: SocketAddr) -> bool {
        self.endpoint(address).is_some()
    }

    pub(super) fn node(&self) -> &MeshNode {
        &self.node
    }

    /// Creates sockets for the families of these addresses. Without one, QUIC does not answer.
    ///
    /// Each dial has a new UDP port. The tracking of connections on the way may keep a flow for minutes, and send the datagrams of an
    /// old port to where the peer was before it moved. A connection that is open keeps its own socket.
    pub(super) fn open_endpoints(&mut self, addresses: &[SocketAddr]) {
        // The old sockets are closed last, so that the new ones get other ports.
        let _old = std::mem::take(&mut self.endpoints);
        for address in addresses {
            let endpoint = &mut self.endpoints[usize::from(address.is_ipv6())];
            if endpoint.is_none() {
                let any = match address {
                    SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
                    SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
                };
                let made = bind_udp(any).and_then(|udp| {
                    let runtime = Arc::new(BatchingRuntime);
                    quinn::Endpoint::new(settings::endpoint(), None, udp, runtime)
                });
                match made {
                    Ok(made) => *endpoint = Some(made),
                    Err(error) => tracing::warn!(%error, "no UDP socket, TCP is used"),
                }
            }
        }
    }

    pub(super) async fn dial_quic(&self, address: SocketAddr) -> Result<MeshConnection, ConnectError> {
        let Some(endpoint) = self.endpoint(address) else {
            return Err(error(address, ConnectionFailure::NoAnswer, "no UDP socket".into()));
        };
        let connecting = endpoint
            .connect_with(self.quic.clone(), address, &address.ip().to_string())
            .map_err(|e| error(address, ConnectionFailure::Lost, e.to_string()))?;
        let limit = self.node.settings.handshake_timeout;
        let quic = match timeout(limit, connecting).await {
            Ok(connected) => connected.map_err(|e| ConnectError::quic(address, &e))?,
            Err(_) => {
                let reason = format!("no answer within {} s", limit.as_secs_f32());
                return Err(error(address, ConnectionFailure::NoAnswer, reason));
            }
        };
        let quic = QuicLink { connection: quic, endpoint: endpoint.clone() };
        MeshConnection::quic(&self.node, quic, &self.target.expectations, true)
    }

    pub(super) async fn dial_tcp(&self, address: SocketAddr) -> Result<MeshConnection, ConnectError> {
        self.use_tcp(self.open_tls_over_tcp(address).await?)
    }

    pub(super) async fn open_tls_over_tcp(&self, address: SocketAddr) -> Result<TlsOverTcp, ConnectError> {
        self.open_tls(address, TcpStream::connect(address), address.ip().into()).await
    }

    /// The handshake on a TCP connection that `open` opens.
    pub(super) async fn open_tls(
        &self,
        address: SocketAddr,
        open: impl Future<Output = io::Result<TcpStream>>,
        name: ServerName<'static>,
    ) -> Result<TlsOverTcp, ConnectError> {
        let limit = self.node.settings.handshake_timeout;
        let connecting = async {
            let stream = open.await?;
            tune_tcp(&stream)?;
            self.tcp.connect(name, stream).await
        };
        let refused = |failure, reason| ConnectError { address, transport: Transport::Tcp, failure, reason };
        let stream = match timeout(limit, connecting).await {
            Ok(connected) => connected.map_err(|e| ConnectError::tcp(address, &e))?,
            Err(_) => {
                return Err(refused(
                    ConnectionFailure::NoAnswer,
                    format!("no answer within {} s", limit.as_secs_f32()),
                ));
            }
        };
        // A peer without ALPN is not a gateway, or something between us has removed the extension.
        if stream.get_ref().1.alpn_protocol() != Some(ALPN_TCP) {
            return Err(refused(ConnectionFailure::Refused, "the peer did not negotiate h2".into()));
        }
        Ok(TlsOverTcp { stream, address })
    }

    /// Makes the connection of a handshake.
    pub(super) fn use_tcp(&self, opened: TlsOverTcp) -> Result<MeshConnection, ConnectError> {
        let TlsOverTcp { stream, address } = opened;
        MeshConnection::tcp(&self.node, stream.into(), address, &self.target.expectations, true)
    }
}

/// A TCP connection after its handshake. It is no connection of the mesh before it is used.
pub(super) struct TlsOverTcp {
    stream: TlsStream<TcpStream>,
    address: SocketAddr,
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialer")
            .field("target", &self.target)
            .field("current", &self.current)
            .finish_non_exhaustive()
    }
}

fn error(address: SocketAddr, failure: ConnectionFailure, reason: String) -> ConnectError {
    ConnectError { address, transport: Transport::Quic, failure, reason }
}

/// The failure that says most, with the other ones: a refusal says more than an address that does not answer.
pub(super) fn telling(failures: Vec<(SocketAddr, ConnectError)>) -> Option<ConnectError> {
    let mut errors: Vec<_> = failures.into_iter().map(|(_, error)| error).collect();
    errors.sort_by_key(|error| error.failure != ConnectionFailure::Refused);
    let mut errors = errors.into_iter();
    let first = errors.next()?;
    let others: String = errors.map(|error| format!("; {error}")).collect();
    Some(ConnectError { reason: first.reason.clone() + &others, ..first })
}

/// Why an attempt to dial failed.
enum DialError {
    Name(String),
    Connect(ConnectError),
}
