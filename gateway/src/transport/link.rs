//! A connection as the rest of the gateway sees it: who is there, since when, and how to end it.

use std::{
    collections::HashMap,
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use identity::PeerIdentity;
use mesh::{Peer, Transport};
use tokio::sync::watch;

use crate::transport::error::{ConnectionFailure, of_quic};

/// How often the wall clock is looked at while waiting for a certificate to expire: clocks can be set meanwhile.
const CLOCK_CHECK: Duration = Duration::from_secs(30);

/// Between closing a QUIC connection and the note why.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// In windows of this length cut requests are counted.
const CUTS_WINDOW: Duration = Duration::from_secs(10);

/// Requests that ended before their answers in the present window.
struct CutRequests {
    since: Instant,
    count: u32,
}

/// Why we close a connection; a QUIC peer is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// Nothing is wrong: it is not needed any more.
    Done,
    /// This gateway stops.
    Shutdown,
    /// The peer's certificate expired.
    Expired,
    /// The peer was denied.
    Denied,
    /// The peer gave no sign of life.
    Silent,
    /// The peer broke the protocol or a limit.
    Misbehaved,
}

impl CloseReason {
    /// The application error code on QUIC. `Done` is HTTP/3's own; the rest lies beyond all codes of HTTP/3.
    fn code(self) -> u32 {
        match self {
            Self::Done => 0x100,
            Self::Shutdown => 0x1500,
            Self::Expired => 0x1501,
            Self::Denied => 0x1502,
            Self::Misbehaved => 0x1503,
            Self::Silent => 0x1504,
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Shutdown => "shutting down",
            Self::Expired => "the certificate has expired",
            Self::Denied => "the peer is denied",
            Self::Silent => "no sign of life",
            Self::Misbehaved => "the peer broke the rules",
        }
    }
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// We closed it.
    Here(CloseReason),
    /// The peer or the network did.
    There {
        /// Sorted by what to do about it.
        failure: ConnectionFailure,
        /// In one line, without the peer's name.
        reason: String,
    },
}

impl fmt::Display for ConnectionEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here(close) => f.write_str(close.reason()),
            Self::There { reason, .. } => f.write_str(reason),
        }
    }
}

/// A handle on a connection. Clones are cheap; none of them keeps the connection open.
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
    streams: AtomicUsize,
    cuts: Mutex<CutRequests>,
    max_cut_streams: u32,
    quic: Option<quinn::Connection>,
    closed: watch::Sender<Option<ConnectionEnd>>,
}

impl MeshLink {
    /// Adds a new connection to `links` and watches it until it ends.
    pub(super) fn open(
        links: &MeshLinks,
        peer: PeerIdentity,
        remote: SocketAddr,
        dialled: bool,
        quic: Option<quinn::Connection>,
        max_cut_streams: u32,
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
                streams: AtomicUsize::new(0),
                cuts: Mutex::new(CutRequests { since: Instant::now(), count: 0 }),
                max_cut_streams,
                quic,
                closed: watch::Sender::new(None),
            }),
        };
        links.insert(link.clone());
        tokio::spawn(watch_over(link.clone(), links.clone()));
        link
    }

    /// A number that no other connection of this process has.
    pub fn id(&self) -> u64 {
        self.shared.id
    }

    /// Whom the verified certificate names.
    pub fn identity(&self) -> &PeerIdentity {
        &self.shared.peer
    }

    /// The same for components.
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
            // QUIC peers may move.
            Some(quic) => quic.remote_address(),
            None => self.shared.remote,
        }
    }

    /// Whether we dialled.
    pub fn dialled(&self) -> bool {
        self.shared.dialled
    }

    /// How long it has been there.
    pub fn age(&self) -> Duration {
        self.shared.since.elapsed()
    }

    /// The round-trip time now, as QUIC measures it; TCP does not tell.
    pub fn round_trip(&self) -> Option<Duration> {
        self.shared.quic.as_ref().map(quinn::Connection::rtt)
    }

    /// Requests open now.
    pub fn streams(&self) -> usize {
        self.shared.streams.load(Ordering::Relaxed)
    }

    /// Ends the connection and every stream on it. The first reason counts.
    pub fn close(&self, why: CloseReason) {
        self.end(ConnectionEnd::Here(why));
    }

    /// Whether it has ended.
    pub fn is_closed(&self) -> bool {
        self.shared.closed.borrow().is_some()
    }

    /// Waits for its end, whoever ends it.
    pub async fn closed(&self) -> ConnectionEnd {
        let mut closed = self.shared.closed.subscribe();
        match closed.wait_for(Option::is_some).await {
            Ok(closed) => closed.clone().unwrap_or(ConnectionEnd::Here(CloseReason::Done)),
            Err(_) => ConnectionEnd::Here(CloseReason::Done),
        }
    }

    /// Notes how it ended; a transport's task calls this.
    pub(super) fn end(&self, how: ConnectionEnd) {
        let first = self.shared.closed.send_if_modified(|closed| {
            let first = closed.is_none();
            if first {
                *closed = Some(how.clone());
            }
            first
        });
        if let (true, Some(quic)) = (first, &self.shared.quic) {
            let why = match how {
                ConnectionEnd::Here(why) => why,
                ConnectionEnd::There { .. } => CloseReason::Done,
            };
            quic.close(why.code().into(), why.reason().as_bytes());
        }
    }

    /// Counts a request for as long as the guard lives.
    pub(super) fn stream(&self) -> StreamGuard {
        self.shared.streams.fetch_add(1, Ordering::Relaxed);
        StreamGuard { link: self.clone() }
    }

    /// Counts a request that is served here, and its end if it is not the proper one.
    pub(super) fn served(&self) -> ServedGuard {
        ServedGuard { stream: self.stream(), ended: false }
    }

    /// Notes a request that ended before its answer did. Starting and cutting requests is cheaper than serving them, so
    /// a peer that does little else is cut off.
    fn cut(&self) {
        let too_many = {
            let mut cuts = self.shared.cuts.lock().unwrap_or_else(PoisonError::into_inner);
            if cuts.since.elapsed() > CUTS_WINDOW {
                *cuts = CutRequests { since: Instant::now(), count: 0 };
            }
            cuts.count = cuts.count.saturating_add(1);
            cuts.count > self.shared.max_cut_streams
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
    ended: bool,
}

impl ServedGuard {
    /// The whole answer was handed over.
    pub(super) fn ended(&mut self) {
        self.ended = true;
    }
}

impl Drop for ServedGuard {
    fn drop(&mut self) {
        if !self.ended {
            self.stream.link.cut();
        }
    }
}

/// Ends a connection when its peer's certificate does, and takes it off the list when it has ended.
async fn watch_over(link: MeshLink, links: MeshLinks) {
    let broken = async {
        match &link.shared.quic {
            Some(quic) => quic.closed().await,
            // The task that drives a TCP connection notes its end.
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        error = broken => {
            if error == quinn::ConnectionError::LocallyClosed {
                // Somebody above is about to say why.
                let _ = tokio::time::timeout(CLOSE_GRACE, link.closed()).await;
            }
            let (failure, reason) = of_quic(&error);
            // On a connection that was there, silence is a loss like any other.
            let failure = if failure == ConnectionFailure::NoAnswer { ConnectionFailure::Lost } else { failure };
            link.end(ConnectionEnd::There { failure, reason });
        }
        () = expiry(link.identity().not_after) => link.close(CloseReason::Expired),
        _ = link.closed() => {}
    }
    links.remove(link.id());
}

async fn expiry(not_after: SystemTime) {
    while let Ok(left) = not_after.duration_since(SystemTime::now()) {
        tokio::time::sleep(left.min(CLOCK_CHECK).max(Duration::from_millis(1))).await;
    }
}

/// The connections there are now.
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

    /// Closes those that `wanted` picks; says how many.
    pub fn close_where(&self, why: CloseReason, wanted: impl Fn(&MeshLink) -> bool) -> usize {
        // The list is copied first: closing wakes tasks that want the lock.
        self.list().into_iter().filter(wanted).inspect(|link| link.close(why)).count()
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
