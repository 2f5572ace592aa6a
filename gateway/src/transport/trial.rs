//! Tries to connect to a peer, for those who look for a mistake.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures::future::join_all;
use mesh::Transport;
use promapi::ProxyUrl;

use crate::transport::{CloseReason, ConnectError, Dialer, MeshConnection, TransportChoice};

/// The result of one attempt.
#[derive(Debug)]
pub(crate) struct ConnectTrial {
    pub(crate) address: String,
    pub(crate) transport: Transport,
    /// Time until the handshake was complete, or had failed.
    pub(crate) took: Duration,
    /// The reason of the failure, in one line.
    pub(crate) outcome: Result<(), String>,
}

impl Dialer {
    /// Tries each address of the peer once over each transport that may be used, and the proxy, and closes the connections.
    ///
    /// # Errors
    /// The name cannot be resolved.
    pub(crate) async fn try_each(&mut self) -> Result<Vec<ConnectTrial>, String> {
        let proxy = self.proxy().cloned();
        let addresses = match self.resolve().await {
            // The proxy may know a name that this machine does not.
            Err(_) if proxy.is_some() => Vec::new(),
            resolved => resolved?,
        };
        self.open_endpoints(&addresses);
        let transports: &[Transport] = match self.transport_choice() {
            TransportChoice::Auto => &[Transport::Quic, Transport::Tcp],
            TransportChoice::Quic => &[Transport::Quic],
            TransportChoice::Tcp => &[Transport::Tcp],
        };
        let this = &*self;
        let directly = |transport: &&Transport| proxy.is_none() || **transport == Transport::Quic;
        let trials = addresses.iter().flat_map(|address| {
            transports.iter().filter(directly).map(|transport| this.try_one(*address, *transport))
        });
        let mut tried = join_all(trials).await;
        if let Some(proxy) = proxy.filter(|_| transports.contains(&Transport::Tcp)) {
            tried.push(this.try_proxy(&proxy).await);
        }
        Ok(tried)
    }

    async fn try_proxy(&self, proxy: &ProxyUrl) -> ConnectTrial {
        let began = Instant::now();
        let dialled = self.dial_tcp_through(proxy).await;
        let took = began.elapsed();
        let address = format!("through {}", proxy.address());
        ConnectTrial { address, transport: Transport::Tcp, took, outcome: closed(dialled) }
    }

    async fn try_one(&self, address: SocketAddr, transport: Transport) -> ConnectTrial {
        let began = Instant::now();
        let dialled = match transport {
            Transport::Tcp => self.dial_tcp(address).await,
            _ => self.dial_quic(address).await,
        };
        let took = began.elapsed();
        ConnectTrial { address: address.to_string(), transport, took, outcome: closed(dialled) }
    }
}

fn closed(dialled: Result<MeshConnection, ConnectError>) -> Result<(), String> {
    let close = |connection: MeshConnection| connection.link().close(CloseReason::Done);
    dialled.map(close).map_err(|error| error.reason)
}
