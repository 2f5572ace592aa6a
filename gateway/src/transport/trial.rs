//! Tries to connect to a peer, for those who look for a mistake.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures::future::join_all;
use mesh::Transport;

use crate::transport::{CloseReason, ConnectError, Dialer, MeshConnection, TransportChoice};

/// The result of one attempt.
#[derive(Debug)]
pub(crate) struct ConnectTrial {
    pub(crate) address: SocketAddr,
    pub(crate) transport: Transport,
    /// Time until the handshake was complete, or had failed.
    pub(crate) took: Duration,
    /// The reason of the failure, in one line.
    pub(crate) outcome: Result<(), String>,
}

impl Dialer {
    /// Tries each address of the peer once over each transport that may be used, all at the same time, and closes the
    /// connections.
    ///
    /// # Errors
    /// The name cannot be resolved.
    pub(crate) async fn try_each(&mut self) -> Result<Vec<ConnectTrial>, String> {
        let addresses = self.resolve().await?;
        self.open_endpoints(&addresses);
        let transports: &[Transport] = match self.transport_choice() {
            TransportChoice::Auto => &[Transport::Quic, Transport::Tcp],
            TransportChoice::Quic => &[Transport::Quic],
            TransportChoice::Tcp => &[Transport::Tcp],
        };
        let this = &*self;
        let trials = addresses
            .iter()
            .flat_map(|address| transports.iter().map(|transport| this.try_one(*address, *transport)));
        Ok(join_all(trials).await)
    }

    async fn try_one(&self, address: SocketAddr, transport: Transport) -> ConnectTrial {
        let began = Instant::now();
        let dialled = match transport {
            Transport::Tcp => self.dial_tcp(address).await,
            _ => self.dial_quic(address).await,
        };
        let took = began.elapsed();
        let closed = |connection: MeshConnection| connection.link().close(CloseReason::Done);
        let outcome = dialled.map(closed).map_err(|error: ConnectError| error.reason);
        ConnectTrial { address, transport, took, outcome }
    }
}
