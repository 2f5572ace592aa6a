//! Accepts connections on one port, UDP and TCP.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::FutureExt;
use identity::{Expectations, enrolment_server_config, server_config};
use mesh::Transport;
use quinn::crypto::rustls::QuicServerConfig;
use rustls::ServerConfig;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{LazyConfigAcceptor, TlsStream};

use crate::slots::{Slot, Slots, SlotsFull};
use crate::transport::{
    ConnectionEvent, InboundRefusal, MeshConnection, MeshNode,
    error::{of_io, of_quic},
    link::QuicLink,
    quic_runtime::BatchingRuntime,
    settings::{self, ALPN_ENROLMENT, ALPN_QUIC, ALPN_TCP, tune_tcp},
};

/// Connections that may wait for [`MeshListener::accept`]; with more, handshakes wait.
const WAITING: usize = 64;
/// Bytes of datagrams that are buffered for QUIC handshakes that have not started.
const INCOMING_BUFFER_BYTES: u64 = 16 << 20;
/// Bytes of datagrams that the kernel buffers while the process is busy.
const UDP_BUFFER_BYTES: usize = 2 << 20;
/// Pause after `accept` failed, which happens when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Attempts to find a port that is free for both TCP and UDP: a port that is free for TCP may be in use for UDP.
const PORT_TRIES: usize = 16;

/// A connection that the listener accepted.
#[derive(Debug)]
pub enum AcceptedConnection {
    /// A peer whose certificate was verified.
    Peer(MeshConnection),
    /// A cluster that wants to join. It has no certificate yet. The stream carries HTTP/2.
    Enrolment {
        /// TLS without a client certificate.
        stream: Box<TlsStream<TcpStream>>,
        /// The joiner's address.
        remote: SocketAddr,
    },
}

/// Accepts QUIC and TCP connections on one port. Dropping it stops accepting; accepted connections stay open.
#[derive(Debug)]
pub struct MeshListener {
    local: SocketAddr,
    inbound: mpsc::Receiver<AcceptedConnection>,
    endpoint: CurrentEndpoint,
    /// Aborted when the listener is dropped.
    _tasks: JoinSet<()>,
}

impl MeshListener {
    /// Listens on `address`, UDP and TCP. Port 0 chooses a port that is free for both. With `enrolment`, clusters without a
    /// certificate can connect over TCP to join.
    ///
    /// # Errors
    /// When the address cannot be bound. The error names it.
    pub async fn bind(
        node: &MeshNode,
        address: SocketAddr,
        expectations: Expectations,
        enrolment: bool,
    ) -> io::Result<Self> {
        let (tcp, udp) = bind_both(address).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("listen address {address}: {error}; choose another address, or stop the process that uses it"),
            )
        })?;
        let tcp = TcpListener::from_std(tcp)?;
        let local = tcp.local_addr()?;
        let settings = &node.settings;
        let expectations = node.guard.of_peers(expectations);

        let tls = |alpn| server_config(&node.store, expectations.clone(), &[alpn]).map_err(io::Error::other);
        let crypto = QuicServerConfig::try_from(tls(ALPN_QUIC)?).map_err(io::Error::other)?;
        let mut quic = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        quic.transport_config(settings.quic())
            .max_incoming(settings.max_handshakes)
            .incoming_buffer_size_total(INCOMING_BUFFER_BYTES);
        let endpoint = CurrentEndpoint::default();
        endpoint.set(Some(open_endpoint(quic.clone(), udp)?));
        let enrolment = match enrolment {
            true => Some(enrolment_server_config(&node.store, &[ALPN_ENROLMENT]).map_err(io::Error::other)?),
            false => None,
        };

        let (sender, inbound) = mpsc::channel(WAITING);
        let context = Arc::new(AcceptContext {
            node: node.clone(),
            expectations: expectations.clone(),
            mesh: tls(ALPN_TCP)?,
            enrolment,
            quic_slots: Slots::new(settings.max_handshakes, settings.max_handshakes_of_network),
            tcp_slots: Slots::new(settings.max_handshakes, settings.max_handshakes_of_network),
            inbound: sender,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(keep_accepting_quic(context.clone(), quic, local, endpoint.clone()).boxed());
        tasks.spawn(accept_tcp(context, tcp).boxed());
        Ok(Self { local, inbound, endpoint, _tasks: tasks })
    }

    /// The bound address.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Loses the UDP socket, as after an error of the system.
    #[cfg(test)]
    pub(super) fn lose_udp(&self) {
        if let Some(endpoint) = self.endpoint.get() {
            endpoint.close(0u8.into(), b"lost");
        }
    }

    /// Waits for the next connection.
    ///
    /// # Cancel safety
    /// No connection is lost when the future is dropped.
    pub async fn accept(&mut self) -> AcceptedConnection {
        match self.inbound.recv().await {
            Some(inbound) => inbound,
            // The accepting tasks run as long as the listener exists.
            None => std::future::pending().await,
        }
    }
}

impl Drop for MeshListener {
    fn drop(&mut self) {
        // Open connections keep the socket alive; it must not accept new ones.
        if let Some(endpoint) = self.endpoint.get() {
            endpoint.set_server_config(None);
        }
    }
}

/// State that the accepting tasks share.
struct AcceptContext {
    node: MeshNode,
    expectations: Expectations,
    mesh: Arc<ServerConfig>,
    enrolment: Option<Arc<ServerConfig>>,
    quic_slots: Arc<Slots>,
    tcp_slots: Arc<Slots>,
    inbound: mpsc::Sender<AcceptedConnection>,
}

impl AcceptContext {
    fn refused(&self, remote: SocketAddr, transport: Transport, refusal: InboundRefusal, reason: &str) {
        (self.node.events)(&ConnectionEvent::InboundRefused { remote, transport, refusal, reason });
    }

    /// Takes a slot for a handshake. A refusal is reported.
    fn admit(&self, slots: &Arc<Slots>, remote: SocketAddr, transport: Transport) -> Option<Slot> {
        let refused = |full: &SlotsFull| self.refused(remote, transport, (*full).into(), &full.to_string());
        slots.take(remote.ip()).inspect_err(refused).ok()
    }

    async fn handshake_quic(
        &self,
        connecting: quinn::Connecting,
        endpoint: quinn::Endpoint,
        remote: SocketAddr,
    ) {
        let refused = |refusal, reason: &str| self.refused(remote, Transport::Quic, refusal, reason);
        let quic = match timeout(self.node.settings.handshake_timeout, connecting).await {
            Ok(Ok(connection)) => QuicLink { connection, endpoint },
            Ok(Err(error)) => return refused(InboundRefusal::Rejected, &of_quic(&error).1),
            Err(_) => return refused(InboundRefusal::Slow, "the handshake took too long"),
        };
        match MeshConnection::quic(&self.node, quic, &self.expectations, false) {
            // Fails only when the listener was dropped.
            Ok(connection) => drop(self.inbound.send(AcceptedConnection::Peer(connection)).await),
            Err(error) => refused(InboundRefusal::Rejected, &error.reason),
        }
    }

    async fn handshake_tcp(&self, stream: TcpStream, remote: SocketAddr) {
        let refused = |refusal, reason: &str| self.refused(remote, Transport::Tcp, refusal, reason);
        if timeout(self.node.settings.first_byte_timeout, stream.peek(&mut [0])).await.is_err() {
            return refused(
                InboundRefusal::Silent,
                "the handshake took too long: the client has sent nothing",
            );
        }
        let inbound = match timeout(self.node.settings.handshake_timeout, self.tls(stream, remote)).await {
            Ok(Ok(inbound)) => inbound,
            Ok(Err(reason)) => return refused(InboundRefusal::Rejected, &reason),
            Err(_) => return refused(InboundRefusal::Slow, "the handshake took too long"),
        };
        drop(self.inbound.send(inbound).await);
    }

    async fn tls(&self, stream: TcpStream, remote: SocketAddr) -> Result<AcceptedConnection, String> {
        let reason = |error: io::Error| of_io(&error).1;
        tune_tcp(&stream).map_err(reason)?;
        let hello = LazyConfigAcceptor::new(Default::default(), stream).await.map_err(reason)?;
        let offers =
            |wanted: &[u8]| hello.client_hello().alpn().is_some_and(|mut all| all.any(|alpn| alpn == wanted));
        match &self.enrolment {
            Some(config) if offers(ALPN_ENROLMENT) => {
                let stream = hello.into_stream(config.clone()).await.map_err(reason)?;
                Ok(AcceptedConnection::Enrolment { stream: Box::new(stream.into()), remote })
            }
            // rustls would accept a client that offers no protocol.
            _ if !offers(ALPN_TCP) => Err("the client offers none of the protocols of this port".into()),
            _ => {
                let stream = hello.into_stream(self.mesh.clone()).await.map_err(reason)?;
                MeshConnection::tcp(&self.node, stream.into(), remote, &self.expectations, false)
                    .map(AcceptedConnection::Peer)
                    .map_err(|error| error.reason)
            }
        }
    }
}

/// The QUIC endpoint of a listener; none while its socket is lost. Clones are the same.
#[derive(Clone, Debug, Default)]
struct CurrentEndpoint(Arc<Mutex<Option<quinn::Endpoint>>>);

impl CurrentEndpoint {
    fn get(&self) -> Option<quinn::Endpoint> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, endpoint: Option<quinn::Endpoint>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = endpoint;
    }
}

fn open_endpoint(quic: quinn::ServerConfig, udp: std::net::UdpSocket) -> io::Result<quinn::Endpoint> {
    quinn::Endpoint::new(settings::endpoint(), Some(quic), udp, Arc::new(BatchingRuntime))
}

/// Accepts QUIC connections, and opens the port again if the socket is lost.
async fn keep_accepting_quic(
    context: Arc<AcceptContext>,
    quic: quinn::ServerConfig,
    local: SocketAddr,
    current: CurrentEndpoint,
) {
    loop {
        if let Some(endpoint) = current.get() {
            accept_quic(context.clone(), endpoint).await;
            tracing::warn!(%local, "the UDP socket was lost, opening it again");
            // The port is free when the endpoint is dropped.
            current.set(None);
        }
        tokio::time::sleep(ACCEPT_PAUSE).await;
        match bind_udp(local).and_then(|udp| open_endpoint(quic.clone(), udp)) {
            Ok(opened) => current.set(Some(opened)),
            Err(error) => tracing::warn!(%local, %error, "the UDP socket cannot be opened, trying again"),
        }
    }
}

/// Accepts connections until the endpoint is lost.
async fn accept_quic(context: Arc<AcceptContext>, endpoint: quinn::Endpoint) {
    let mut handshakes = JoinSet::new();
    while let Some(incoming) = endpoint.accept().await {
        while handshakes.try_join_next().is_some() {}
        let remote = incoming.remote_address();
        if !incoming.remote_address_validated() {
            // Retry costs one round trip, and a forged source address receives no answer larger than its request.
            let _ = incoming.retry();
            continue;
        }
        let Some(slot) = context.admit(&context.quic_slots, remote, Transport::Quic) else {
            incoming.refuse();
            continue;
        };
        match incoming.accept() {
            Ok(connecting) => {
                let (context, endpoint) = (context.clone(), endpoint.clone());
                let handshake = async move {
                    let _slot = slot;
                    context.handshake_quic(connecting, endpoint, remote).await;
                };
                handshakes.spawn(handshake.boxed());
            }
            Err(error) => {
                context.refused(remote, Transport::Quic, InboundRefusal::Rejected, &of_quic(&error).1);
            }
        }
    }
}

async fn accept_tcp(context: Arc<AcceptContext>, listener: TcpListener) {
    let mut handshakes = JoinSet::new();
    loop {
        let (stream, remote) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accepting a TCP connection failed, pausing");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        while handshakes.try_join_next().is_some() {}
        // Dropping the stream closes it.
        let Some(slot) = context.admit(&context.tcp_slots, remote, Transport::Tcp) else { continue };
        let context = context.clone();
        let handshake = async move {
            let _slot = slot;
            context.handshake_tcp(stream, remote).await;
        };
        handshakes.spawn(handshake.boxed());
    }
}

/// A TCP listener and a UDP socket on the same port.
fn bind_both(address: SocketAddr) -> io::Result<(std::net::TcpListener, std::net::UdpSocket)> {
    let mut tries = if address.port() == 0 { PORT_TRIES } else { 1 };
    loop {
        tries -= 1;
        let tcp = socket(address, Type::STREAM, Protocol::TCP)?;
        tcp.set_reuse_address(true)?;
        tcp.bind(&address.into())?;
        tcp.listen(1024)?;
        let tcp = std::net::TcpListener::from(tcp);
        match bind_udp(tcp.local_addr()?) {
            Ok(udp) => return Ok((tcp, udp)),
            Err(error) if tries > 0 && error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error),
        }
    }
}

/// A UDP socket with buffers for bursts.
pub(super) fn bind_udp(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let udp = socket(address, Type::DGRAM, Protocol::UDP)?;
    // The kernel may grant less. Bursts are then dropped earlier and sent again.
    let _ = udp.set_recv_buffer_size(UDP_BUFFER_BYTES);
    let _ = udp.set_send_buffer_size(UDP_BUFFER_BYTES);
    udp.bind(&address.into())?;
    Ok(udp.into())
}

fn socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        // `[::]` means every address of the host.
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}
