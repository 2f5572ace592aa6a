//! What all connections of a gateway share, and what it reports about them.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use identity::{CredentialStore, PeerIdentity};
use mesh::Transport;

use crate::transport::{ConnectError, MeshLink, MeshLinks, TransportSettings};

/// What happened on the way to a connection; for logs and metrics.
#[derive(Debug)]
pub enum ConnectionEvent<'a> {
    /// A connection is there.
    Connected(&'a MeshLink),
    /// An attempt to connect came to nothing; the next one follows after `retry_after`.
    ConnectFailed {
        /// To whom and why.
        error: &'a ConnectError,
        /// When the next attempt starts.
        retry_after: Duration,
    },
    /// The name of a peer to dial has no address now.
    NameFailed {
        /// The name and why, in one line.
        reason: &'a str,
        /// When the next attempt starts.
        retry_after: Duration,
    },
    /// No UDP answer came from this address: TCP is tried.
    FellBack {
        /// The address dialled.
        address: SocketAddr,
    },
    /// QUIC works again for a peer that was reached over TCP.
    Recovered {
        /// The address dialled.
        address: SocketAddr,
    },
    /// Somebody connected to the listener and did not get in.
    HandshakeFailed {
        /// Who.
        remote: SocketAddr,
        /// By what way.
        transport: Transport,
        /// Why, in one line.
        reason: &'a str,
    },
}

/// Hears every [`ConnectionEvent`]. Called from network tasks: it must not block.
pub(super) type EventSink = Arc<dyn Fn(&ConnectionEvent<'_>) + Send + Sync>;

/// What all connections of a gateway share.
#[derive(Clone)]
pub struct MeshNode {
    pub(super) settings: Arc<TransportSettings>,
    pub(super) store: Arc<CredentialStore>,
    pub(super) links: MeshLinks,
    pub(super) events: EventSink,
}

impl MeshNode {
    /// A node that proves itself with the credentials of `store` and reports to `events`, which must not block.
    pub fn new(
        settings: TransportSettings,
        store: Arc<CredentialStore>,
        events: impl Fn(&ConnectionEvent<'_>) + Send + Sync + 'static,
    ) -> Self {
        Self { settings: Arc::new(settings), store, links: MeshLinks::default(), events: Arc::new(events) }
    }

    /// Registers a new connection, reports it, and watches it until it ends.
    pub(super) fn open_link(
        &self,
        peer: PeerIdentity,
        remote: SocketAddr,
        dialled: bool,
        quic: Option<quinn::Connection>,
    ) -> MeshLink {
        let link = MeshLink::open(&self.links, peer, remote, dialled, quic, self.settings.max_cut_streams);
        (self.events)(&ConnectionEvent::Connected(&link));
        link
    }

    /// The connections there are now, dialled and accepted.
    pub fn links(&self) -> &MeshLinks {
        &self.links
    }
}

impl std::fmt::Debug for MeshNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MeshNode").field("settings", &self.settings).finish_non_exhaustive()
    }
}
