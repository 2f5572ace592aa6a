//! The observability gateway's connections to clusters, and the choice of one for a request.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use identity::Name;
use mesh::Transport;
use tokio::sync::Notify;

use crate::{directory::SessionId, transport::Handler};

/// A connection on which the hellos were exchanged.
pub(crate) struct ClusterConnection {
    pub(crate) id: SessionId,
    /// Sends requests to the cluster.
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) transport: Transport,
    running: AtomicUsize,
    draining: AtomicBool,
    changed: Notify,
}

impl ClusterConnection {
    pub(crate) fn new(id: SessionId, handler: Arc<dyn Handler>, transport: Transport) -> Arc<Self> {
        let (running, draining) = (AtomicUsize::new(0), AtomicBool::new(false));
        Arc::new(Self { id, handler, transport, running, draining, changed: Notify::new() })
    }

    /// Stops new requests on this connection.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    /// Waits until the connection is draining and its last request has finished.
    ///
    /// # Cancel safety
    /// The future changes nothing and can be dropped at any time.
    pub(crate) async fn drained(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before the check, so that a change between the two is not missed.
            changed.as_mut().enable();
            if self.draining.load(Ordering::SeqCst) && self.running.load(Ordering::SeqCst) == 0 {
                return;
            }
            changed.await;
        }
    }
}

/// A connection that one request uses. The request counts as running until the lease is dropped.
pub(crate) struct ConnectionLease(Arc<ClusterConnection>);

impl ConnectionLease {
    pub(crate) fn connection(&self) -> &ClusterConnection {
        &self.0
    }
}

impl Drop for ConnectionLease {
    fn drop(&mut self) {
        if self.0.running.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.changed.notify_waiters();
        }
    }
}

/// All connections, by cluster.
#[derive(Default)]
pub(crate) struct ClusterConnections {
    by_cluster: Mutex<HashMap<Name, Vec<Arc<ClusterConnection>>>>,
}

impl ClusterConnections {
    pub(crate) fn add(&self, cluster: &Name, connection: Arc<ClusterConnection>) {
        self.lock().entry(cluster.clone()).or_default().push(connection);
    }

    pub(crate) fn remove(&self, cluster: &Name, id: SessionId) {
        let mut by_cluster = self.lock();
        if let Some(connections) = by_cluster.get_mut(cluster) {
            connections.retain(|connection| connection.id != id);
            if connections.is_empty() {
                by_cluster.remove(cluster);
            }
        }
    }

    /// Of the connections with these ids, the one with the fewest running requests; QUIC before TCP if equal. A draining
    /// connection is chosen only when there is no other.
    pub(crate) fn pick(&self, cluster: &Name, sessions: &[SessionId]) -> Option<ConnectionLease> {
        let by_cluster = self.lock();
        let possible = by_cluster.get(cluster)?.iter().filter(|connection| sessions.contains(&connection.id));
        let least = possible.min_by_key(|connection| {
            let draining = connection.draining.load(Ordering::SeqCst);
            (draining, connection.running.load(Ordering::SeqCst), connection.transport)
        })?;
        // Counted under the lock, so that simultaneous requests use different connections.
        least.running.fetch_add(1, Ordering::SeqCst);
        Some(ConnectionLease(least.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Name, Vec<Arc<ClusterConnection>>>> {
        self.by_cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use http::Response;

    use super::*;
    use crate::transport::{Body, handler_fn};

    fn connection(id: u64, transport: Transport) -> Arc<ClusterConnection> {
        let handler = handler_fn(|_| async { Ok(Response::new(Body::empty())) });
        ClusterConnection::new(SessionId(id), Arc::new(handler), transport)
    }

    const BOTH: &[SessionId] = &[SessionId(1), SessionId(2)];

    fn picked(connections: &ClusterConnections, cluster: &Name) -> (u64, ConnectionLease) {
        let lease = connections.pick(cluster, BOTH).unwrap();
        (lease.connection().id.0, lease)
    }

    #[test]
    fn requests_spread_over_connections_and_leave_draining_ones() {
        let cluster: Name = "eu-1".parse().unwrap();
        let connections = ClusterConnections::default();
        assert!(connections.pick(&cluster, BOTH).is_none());
        let (quic, tcp) = (connection(1, Transport::Quic), connection(2, Transport::Tcp));
        connections.add(&cluster, tcp.clone());
        connections.add(&cluster, quic.clone());

        let (first, lease_1) = picked(&connections, &cluster);
        let (second, _lease_2) = picked(&connections, &cluster);
        let (third, lease_3) = picked(&connections, &cluster);
        assert_eq!((first, second, third), (1, 2, 1));

        quic.drain();
        assert!(quic.drained().now_or_never().is_none(), "two requests still run");
        assert_eq!(picked(&connections, &cluster).0, 2);
        drop((lease_1, lease_3));
        assert!(quic.drained().now_or_never().is_some());

        tcp.drain();
        assert_eq!(picked(&connections, &cluster).0, 1, "a draining connection is better than none");
        assert!(
            connections.pick(&cluster, &[SessionId(3)]).is_none(),
            "no other connection serves the target"
        );
        assert_eq!(connections.pick(&cluster, &[SessionId(2)]).unwrap().connection().id, SessionId(2));
        connections.remove(&cluster, SessionId(1));
        connections.remove(&cluster, SessionId(2));
        assert!(connections.pick(&cluster, BOTH).is_none());
    }
}
