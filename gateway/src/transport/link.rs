//! The handle on a connection: the peer, the age, and how to close it.

use std::{
    collections::HashMap,
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::join_all;
use identity::PeerIdentity;
use mesh::{Peer, Transport};
use tokio::sync::watch;

use crate::transport::{
    end::{CloseReason, ConnectionEnd},
    error::{ConnectionFailure, of_quic},
    guard::PeerGuard,
    peer_clock::PeerClock,
};
use crate::{clock::sleep_until, task};

/// Time limit between the close of a QUIC connection by this process and the record of its reason.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// How long the end of the process waits for QUIC peers.
const LAST_CLOSE: Duration = Duration::from_secs(1);

/// Cancelled requests are counted in windows of this length.
const CANCEL_WINDOW: Duration = Duration::from_secs(10);

/// Requests that the peer cancelled before their response was complete, in the current window.
struct CancelledRequests {
    since: Instant,
    count: u32,
}

/// A QUIC connection, and the endpoint whose socket it uses.
pub(super) struct QuicLink {
    pub(super) connection: quinn::Connection,
    pub(super) endpoint: quinn::Endpoint,
}

/// A handle on a connection. Clones are cheap. A handle does not keep the connection open.
#[derive(Clone)]
pub struct MeshLink {
    shared: Arc<LinkState>,
}

struct LinkState {
    id: u64,
    peer: PeerIdentity,
    transport: Transport,
    remote: SocketAddr,
    dialled: bool,
    since: Instant,
    clock: PeerClock,
    streams: AtomicUsize,
    cancelled: Mutex<CancelledRequests>,
    max_cancelled_streams: u32,
    quic: Option<QuicLink>,
    closed: watch::Sender<Option<ConnectionEnd>>,
    /// Whether `closed` has a value; read for each piece of data.
    has_ended: AtomicBool,
}

impl MeshLink {
    /// Adds a new connection to `links` and watches it until it ends.
    pub(super) fn open(
        links: &MeshLinks,
        guard: &PeerGuard,
        peer: PeerIdentity,
        remote: SocketAddr,
        dialled: bool,
        quic: Option<QuicLink>,
        max_cancelled_streams: u32,
    ) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let link = Self {
            shared: Arc::new(LinkState {
                id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
                peer,
                transport: if quic.is_some() { Transport::Quic } else { Transport::Tcp },
                remote,
                dialled,
                since: Instant::now(),
                clock: PeerClock::default(),
                streams: AtomicUsize::new(0),
                cancelled: Mutex::new(CancelledRequests { since: Instant::now(), count: 0 }),
                max_cancelled_streams,
                quic,
                closed: watch::Sender::new(None),
                has_ended: AtomicBool::new(false),
            }),
        };
        links.insert(link.clone());
        task::spawn(watch_over(link.clone(), links.clone(), guard.clone()));
        link
    }

    /// A number that no other connection of this process has.
    pub fn id(&self) -> u64 {
        self.shared.id
    }

    /// The identity in the peer's verified certificate.
    pub fn identity(&self) -> &PeerIdentity {
        &self.shared.peer
    }

    /// The peer as components see it.
    pub fn peer(&self) -> Peer {
        Peer::new(self.shared.peer.spiffe_id.clone(), self.shared.transport)
    }

    /// QUIC or TCP.
    pub fn transport(&self) -> Transport {
        self.shared.transport
    }

    /// The peer's address.
    pub fn remote(&self) -> SocketAddr {
        match &self.shared.quic {
            // The address of a QUIC peer can change.
            Some(quic) => quic.connection.remote_address(),
            None => self.shared.remote,
        }
    }

    /// Whether this side dialled.
    pub fn dialled(&self) -> bool {
        self.shared.dialled
    }

    /// Time since the connection was established.
    pub fn age(&self) -> Duration {
        self.shared.since.elapsed()
    }

    /// The peer's clock, once its hello was received.
    pub(crate) fn clock(&self) -> &PeerClock {
        &self.shared.clock
    }

    /// The current round-trip time as QUIC measures it; `None` on TCP.
    pub fn round_trip(&self) -> Option<Duration> {
        self.shared.quic.as_ref().map(|quic| quic.connection.rtt())
    }

    /// Datagrams that have arrived; `None` on TCP.
    pub(crate) fn datagrams_received(&self) -> Option<u64> {
        self.shared.quic.as_ref().map(|quic| quic.connection.stats().udp_rx.datagrams)
    }

    /// Bytes of the largest datagram that is known to reach the peer; `None` on TCP.
    pub(crate) fn datagram_bytes(&self) -> Option<u16> {
        self.shared.quic.as_ref().map(|quic| quic.connection.stats().path.current_mtu)
    }

    /// Datagrams of ours that did not reach the peer; `None` on TCP.
    pub(crate) fn datagrams_lost(&self) -> Option<u64> {
        self.shared.quic.as_ref().map(|quic| quic.connection.stats().path.lost_packets)
    }

    /// Requests that are open now.
    pub fn streams(&self) -> usize {
        self.shared.streams.load(Ordering::Relaxed)
    }

    /// Closes the connection and every stream on it. The first reason is kept.
    pub fn close(&self, why: CloseReason) {
        self.end(ConnectionEnd::Here(why));
    }

    /// Whether it has ended.
    pub fn is_closed(&self) -> bool {
        self.shared.has_ended.load(Ordering::Acquire)
    }

    /// Waits until the connection ends, on either side.
    pub async fn closed(&self) -> ConnectionEnd {
        let mut closed = self.shared.closed.subscribe();
        match closed.wait_for(Option::is_some).await {
            Ok(closed) => closed.clone().unwrap_or(ConnectionEnd::Here(CloseReason::Done)),
            Err(_) => ConnectionEnd::Here(CloseReason::Done),
        }
    }

    /// Records how the connection ended; the tasks of the transports call this.
    pub(super) fn end(&self, how: ConnectionEnd) {
        let first = self.shared.closed.send_if_modified(|closed| {
            let first = closed.is_none();
            if first {
                *closed = Some(how.clone());
                self.shared.has_ended.store(true, Ordering::Release);
            }
            first
        });
        if let (true, Some(quic)) = (first, &self.shared.quic) {
            let why = match how {
                ConnectionEnd::Here(why) => why,
                ConnectionEnd::There { .. } => CloseReason::Done,
            };
            quic.connection.close(why.code().into(), why.reason().as_bytes());
        }
    }

    /// Counts an open request until the guard is dropped.
    pub(super) fn count_stream(&self) -> StreamGuard {
        self.shared.streams.fetch_add(1, Ordering::Relaxed);
        StreamGuard { link: self.clone() }
    }

    /// Counts a request that is served here. If the guard is dropped before [`ServedGuard::complete`], the request counts
    /// as cancelled.
    pub(super) fn count_served(&self) -> ServedGuard {
        ServedGuard { stream: self.count_stream(), complete: false }
    }

    /// Counts a request that was cancelled before its response was complete. Sending and cancelling requests is cheaper
    /// than serving them, so a peer that cancels too many is disconnected.
    fn count_cancelled(&self) {
        let too_many = {
            let mut cancelled = self.shared.cancelled.lock().unwrap_or_else(PoisonError::into_inner);
            if cancelled.since.elapsed() > CANCEL_WINDOW {
                *cancelled = CancelledRequests { since: Instant::now(), count: 0 };
            }
            cancelled.count = cancelled.count.saturating_add(1);
            cancelled.count > self.shared.max_cancelled_streams
        };
        if too_many {
            self.close(CloseReason::Misbehaved);
        }
    }
}

impl fmt::Debug for MeshLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MeshLink({} {} at {})", self.id(), self.peer(), self.remote())
    }
}

/// An open request.
pub(super) struct StreamGuard {
    link: MeshLink,
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.link.shared.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request that is served here.
pub(super) struct ServedGuard {
    stream: StreamGuard,
    complete: bool,
}

impl ServedGuard {
    /// Records that the whole response was handed to the transport.
    pub(super) fn complete(&mut self) {
        self.complete = true;
    }
}

impl Drop for ServedGuard {
    fn drop(&mut self) {
        if !self.complete {
            self.stream.link.count_cancelled();
        }
    }
}

/// Closes a connection when the peer's certificate expires or is denied, and removes it from the list when it has ended.
async fn watch_over(link: MeshLink, links: MeshLinks, guard: PeerGuard) {
    let broken = async {
        match &link.shared.quic {
            Some(quic) => quic.connection.closed().await,
            // The task that drives a TCP connection records its end.
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        error = broken => {
            if error == quinn::ConnectionError::LocallyClosed {
                // The code that closed it records the reason next.
                let _ = tokio::time::timeout(CLOSE_GRACE, link.closed()).await;
            }
            let (failure, reason) = of_quic(&error);
            // On an established connection, silence means that it was lost.
            let failure = if failure == ConnectionFailure::NoAnswer { ConnectionFailure::Lost } else { failure };
            link.end(ConnectionEnd::There { failure, reason });
        }
        () = sleep_until(link.identity().refused_from()) => link.close(CloseReason::Expired),
        why = guard.denied(link.identity()) => {
            tracing::warn!(peer = %link.peer(), remote = %link.remote(), why, "the peer is denied, closing its connection");
            link.close(CloseReason::Denied);
        }
        _ = link.closed() => {}
    }
    links.remove(link.id());
}

/// The open connections.
#[derive(Clone, Default)]
pub struct MeshLinks {
    links: Arc<Mutex<HashMap<u64, MeshLink>>>,
}

impl MeshLinks {
    /// All of them, oldest first.
    pub fn list(&self) -> Vec<MeshLink> {
        let mut links: Vec<MeshLink> = self.lock().values().cloned().collect();
        links.sort_by_key(MeshLink::id);
        links
    }

    /// Closes the connections for which `wanted` is true, and returns how many.
    pub fn close_where(&self, why: CloseReason, wanted: impl Fn(&MeshLink) -> bool) -> usize {
        // Copied first, because closing wakes tasks that take the lock.
        self.list().into_iter().filter(wanted).inspect(|link| link.close(why)).count()
    }

    /// Closes all connections because the process ends, and waits until QUIC peers have the reason, for [`LAST_CLOSE`] at most. The end
    /// of the process alone sends them nothing, and they would notice it only by the silence of the connection.
    pub async fn close_at_end(&self) {
        let links = self.list();
        links.iter().for_each(|link| link.close(CloseReason::Shutdown));
        let endpoints = links.iter().filter_map(|link| link.shared.quic.as_ref()).map(|quic| &quic.endpoint);
        let sent = join_all(endpoints.map(quinn::Endpoint::wait_idle));
        // A peer that does not answer is not waited for.
        let _ = tokio::time::timeout(LAST_CLOSE, sent).await;
    }

    fn insert(&self, link: MeshLink) {
        self.lock().insert(link.id(), link);
    }

    fn remove(&self, id: u64) {
        self.lock().remove(&id);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, MeshLink>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MeshLinks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list()).finish()
    }
}
