//! What all connections of a gateway share, and what it reports about them.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use identity::{CredentialStore, PeerIdentity};
use mesh::Transport;

use crate::slots::SlotsFull;
use crate::transport::{ConnectError, MeshLink, MeshLinks, PeerGuard, TransportSettings, link::QuicLink};

/// What happened while a connection was established; for logs and metrics.
#[derive(Debug)]
pub enum ConnectionEvent<'a> {
    /// A connection was established.
    Connected(&'a MeshLink),
    /// An attempt to connect failed; the next one starts after `retry_after`.
    ConnectFailed {
        /// The address and the reason.
        error: &'a ConnectError,
        /// Time until the next attempt.
        retry_after: Duration,
    },
    /// The name of a peer to dial could not be resolved.
    NameFailed {
        /// The name and the reason, in one line.
        reason: &'a str,
        /// Time until the next attempt.
        retry_after: Duration,
    },
    /// No UDP answer came from this address, and a connection over TCP was established.
    FellBack {
        /// The address dialled.
        address: SocketAddr,
    },
    /// QUIC works again for a peer that was connected over TCP.
    Recovered {
        /// The address dialled.
        address: SocketAddr,
    },
    /// A connection to the listener was refused, before or during its handshake.
    InboundRefused {
        /// The remote address.
        remote: SocketAddr,
        /// The transport.
        transport: Transport,
        /// The kind of reason.
        refusal: InboundRefusal,
        /// The reason in one line.
        reason: &'a str,
    },
}

/// Kinds of reasons for which a listener refuses a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InboundRefusal {
    /// Too many handshakes run.
    Full,
    /// Too many handshakes of its network run.
    NetworkFull,
    /// It sent no byte in time.
    Silent,
    /// Its handshake took too long.
    Slow,
    /// Its handshake failed: certificate, protocol, or a loss.
    Rejected,
}

impl From<SlotsFull> for InboundRefusal {
    fn from(full: SlotsFull) -> Self {
        match full {
            SlotsFull::OfNetwork => Self::NetworkFull,
            SlotsFull::All => Self::Full,
        }
    }
}

/// Receives every [`ConnectionEvent`]. It is called from network tasks and must not block.
pub(super) type EventSink = Arc<dyn Fn(&ConnectionEvent<'_>) + Send + Sync>;

/// What all connections of a gateway share.
#[derive(Clone)]
pub struct MeshNode {
    pub(super) settings: Arc<TransportSettings>,
    pub(super) store: Arc<CredentialStore>,
    pub(super) links: MeshLinks,
    pub(super) events: EventSink,
    pub(super) guard: PeerGuard,
}

impl MeshNode {
    /// A node that authenticates with the credentials of `store` and reports to `events`, which must not block.
    pub fn new(
        settings: TransportSettings,
        store: Arc<CredentialStore>,
        events: impl Fn(&ConnectionEvent<'_>) + Send + Sync + 'static,
    ) -> Self {
        let (links, guard) = (MeshLinks::default(), PeerGuard::default());
        Self { settings: Arc::new(settings), store, links, events: Arc::new(events), guard }
    }

    /// Refuses the peers that `guard` denies, at their handshake and while they are connected.
    pub fn with_guard(mut self, guard: PeerGuard) -> Self {
        self.guard = guard;
        self
    }

    /// Registers a new connection, reports it, and watches it until it ends.
    pub(super) fn open_link(
        &self,
        peer: PeerIdentity,
        remote: SocketAddr,
        dialled: bool,
        quic: Option<QuicLink>,
    ) -> MeshLink {
        let max_cancelled_streams = self.settings.max_cancelled_streams;
        let link =
            MeshLink::open(&self.links, &self.guard, peer, remote, dialled, quic, max_cancelled_streams);
        (self.events)(&ConnectionEvent::Connected(&link));
        link
    }

    /// The open connections, dialled and accepted.
    pub fn links(&self) -> &MeshLinks {
        &self.links
    }
}

impl std::fmt::Debug for MeshNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MeshNode").field("settings", &self.settings).finish_non_exhaustive()
    }
}
