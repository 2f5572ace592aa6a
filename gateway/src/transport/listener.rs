//! Takes connections on one port, UDP and TCP alike.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use identity::{Expectations, enrolment_server_config, server_config};
use mesh::Transport;
use quinn::crypto::rustls::QuicServerConfig;
use rustls::ServerConfig;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{LazyConfigAcceptor, TlsStream};

use crate::transport::{
    ConnectionEvent, MeshConnection, MeshNode,
    error::{of_io, of_quic},
    settings::{ALPN_ENROLMENT, ALPN_QUIC, ALPN_TCP, tune_tcp},
};

/// Connections that wait to be taken by [`MeshListener::accept`]; handshakes wait when there are more.
const WAITING: usize = 64;
/// Datagrams held of all QUIC handshakes that wait to be looked at.
const INCOMING_BUFFER_BYTES: u64 = 16 << 20;
/// Datagrams the kernel holds for us while a core is busy.
const UDP_BUFFER_BYTES: usize = 2 << 20;
/// Wait after the kernel refused us a connection, as it does when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A port that is free for TCP may be taken for UDP.
const PORT_TRIES: usize = 16;

/// What a listener yields.
#[derive(Debug)]
pub enum AcceptedConnection {
    /// A peer that has proved who it is.
    Peer(MeshConnection),
    /// Somebody who wants to join and has proved nothing yet. The stream carries HTTP/2.
    Enrolment {
        /// TLS without a client certificate.
        stream: Box<TlsStream<TcpStream>>,
        /// The joiner's address.
        remote: SocketAddr,
    },
}

/// Takes QUIC and TCP connections on one port. Dropping it frees the port for new connections; those that were taken
/// live on.
#[derive(Debug)]
pub struct MeshListener {
    local: SocketAddr,
    inbound: mpsc::Receiver<AcceptedConnection>,
    endpoint: quinn::Endpoint,
    /// Aborted when the listener is dropped.
    _tasks: JoinSet<()>,
}

impl MeshListener {
    /// Listens on `address`, UDP and TCP; port 0 takes one that is free for both. With `enrolment`, TCP also takes those
    /// who ask to join.
    ///
    /// # Errors
    /// When the address cannot be listened on, naming it.
    pub async fn bind(
        node: &MeshNode,
        address: SocketAddr,
        expectations: Expectations,
        enrolment: bool,
    ) -> io::Result<Self> {
        let (tcp, udp) = bind_both(address).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("listen address {address}: {error}; choose another or free it"),
            )
        })?;
        let tcp = TcpListener::from_std(tcp)?;
        let local = tcp.local_addr()?;
        let settings = &node.settings;

        let tls = |alpn| server_config(&node.store, expectations.clone(), &[alpn]).map_err(io::Error::other);
        let crypto = QuicServerConfig::try_from(tls(ALPN_QUIC)?).map_err(io::Error::other)?;
        let mut quic = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        quic.transport_config(settings.quic())
            .max_incoming(settings.max_handshakes)
            .incoming_buffer_size_total(INCOMING_BUFFER_BYTES);
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint = quinn::Endpoint::new(quinn::EndpointConfig::default(), Some(quic), udp, runtime)?;
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
            handshakes: Arc::new(Semaphore::new(settings.max_handshakes)),
            inbound: sender,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept_quic(context.clone(), endpoint.clone()));
        tasks.spawn(accept_tcp(context, tcp));
        Ok(Self { local, inbound, endpoint, _tasks: tasks })
    }

    /// The address listened on.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Waits for the next connection.
    ///
    /// # Cancel safety
    /// Nothing is lost when dropped.
    pub async fn accept(&mut self) -> AcceptedConnection {
        match self.inbound.recv().await {
            Some(inbound) => inbound,
            // The tasks end with the listener only.
            None => std::future::pending().await,
        }
    }
}

impl Drop for MeshListener {
    fn drop(&mut self) {
        // Connections that live on keep the socket; it must take no new ones.
        self.endpoint.set_server_config(None);
    }
}

/// What the accepting tasks share.
struct AcceptContext {
    node: MeshNode,
    expectations: Expectations,
    mesh: Arc<ServerConfig>,
    enrolment: Option<Arc<ServerConfig>>,
    handshakes: Arc<Semaphore>,
    inbound: mpsc::Sender<AcceptedConnection>,
}

impl AcceptContext {
    fn refused(&self, remote: SocketAddr, transport: Transport, reason: &str) {
        (self.node.events)(&ConnectionEvent::HandshakeFailed { remote, transport, reason });
    }

    async fn handshake_quic(&self, connecting: quinn::Connecting, remote: SocketAddr) {
        let refused = |reason: &str| self.refused(remote, Transport::Quic, reason);
        let quic = match timeout(self.node.settings.handshake_timeout, connecting).await {
            Ok(Ok(quic)) => quic,
            Ok(Err(error)) => return refused(&of_quic(&error).1),
            Err(_) => return refused("the handshake took too long"),
        };
        match MeshConnection::quic(&self.node, quic, &self.expectations, false) {
            // Only a listener that is gone does not take it.
            Ok(connection) => drop(self.inbound.send(AcceptedConnection::Peer(connection)).await),
            Err(error) => refused(&error.reason),
        }
    }

    async fn handshake_tcp(&self, stream: TcpStream, remote: SocketAddr) {
        let refused = |reason: &str| self.refused(remote, Transport::Tcp, reason);
        let inbound = match timeout(self.node.settings.handshake_timeout, self.tls(stream, remote)).await {
            Ok(Ok(inbound)) => inbound,
            Ok(Err(reason)) => return refused(&reason),
            Err(_) => return refused("the handshake took too long"),
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
            // rustls would let those in who name no protocol at all.
            _ if !offers(ALPN_TCP) => Err("it offers none of the protocols spoken here".into()),
            _ => {
                let stream = hello.into_stream(self.mesh.clone()).await.map_err(reason)?;
                MeshConnection::tcp(&self.node, stream.into(), remote, &self.expectations, false)
                    .map(AcceptedConnection::Peer)
                    .map_err(|error| error.reason)
            }
        }
    }
}

async fn accept_quic(context: Arc<AcceptContext>, endpoint: quinn::Endpoint) {
    let mut handshakes = JoinSet::new();
    while let Some(incoming) = endpoint.accept().await {
        while handshakes.try_join_next().is_some() {}
        let remote = incoming.remote_address();
        if !incoming.remote_address_validated() {
            // One round trip more, and no answer larger than the question for a forged address.
            let _ = incoming.retry();
            continue;
        }
        let Ok(permit) = context.handshakes.clone().try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        match incoming.accept() {
            Ok(connecting) => {
                let context = context.clone();
                handshakes.spawn(async move {
                    let _permit = permit;
                    context.handshake_quic(connecting, remote).await;
                });
            }
            Err(error) => context.refused(remote, Transport::Quic, &of_quic(&error).1),
        }
    }
}

async fn accept_tcp(context: Arc<AcceptContext>, listener: TcpListener) {
    let mut handshakes = JoinSet::new();
    loop {
        let (stream, remote) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot take TCP connections now");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        while handshakes.try_join_next().is_some() {}
        // Dropping the stream refuses it.
        let Ok(permit) = context.handshakes.clone().try_acquire_owned() else { continue };
        let context = context.clone();
        handshakes.spawn(async move {
            let _permit = permit;
            context.handshake_tcp(stream, remote).await;
        });
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

/// A UDP socket with room for bursts.
pub(super) fn bind_udp(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let udp = socket(address, Type::DGRAM, Protocol::UDP)?;
    // The kernel may grant less; bursts are then dropped earlier and sent again.
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
