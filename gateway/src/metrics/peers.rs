//! The series of each peer: its connections, and the requests from and to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use identity::Name;
use mesh::Transport;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};
use runtime::Registry;

use crate::policy::MeshMethod;

/// The transports of [`ConnectionLabels`].
const TRANSPORTS: [Transport; 2] = [Transport::Quic, Transport::Tcp];
/// The directions of [`BytesLabels`].
const DIRECTIONS: [&str; 2] = ["received", "sent"];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct MemberLimitLabels {
    peer: String,
    limit: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ConnectionLabels {
    peer: String,
    transport: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
struct ProxiedRequestLabels {
    peer: String,
    method: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StreamLabels {
    peer: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct BytesLabels {
    peer: String,
    direction: &'static str,
}

/// The families. Clones share them.
#[derive(Clone, Default)]
pub(super) struct PeerFamilies {
    connections: Family<ConnectionLabels, Gauge>,
    requests: Family<ProxiedRequestLabels, Counter>,
    streams: Family<StreamLabels, Gauge>,
    bytes: Family<BytesLabels, Counter>,
    member_limits: Family<MemberLimitLabels, Counter>,
    known: Arc<Mutex<KnownPeers>>,
}

/// Which series there are.
#[derive(Default)]
struct KnownPeers {
    /// Clusters that were removed. A request that ends after that would make a series again.
    removed: BTreeSet<String>,
    /// The series of requests, and limits that were reached.
    requests: BTreeMap<String, BTreeSet<ProxiedRequestLabels>>,
    limits: BTreeMap<String, BTreeSet<&'static str>>,
}

impl PeerFamilies {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "isthmus_gateway_connections",
            "Connections with an open control session, by the peer's cluster and transport",
            self.connections.clone(),
        );
        registry.register(
            "isthmus_gateway_requests",
            "Requests forwarded or rejected, by the peer's cluster, method and gRPC code",
            self.requests.clone(),
        );
        registry.register(
            "isthmus_gateway_streams",
            "Running requests, by the peer's cluster",
            self.streams.clone(),
        );
        registry.register(
            "isthmus_gateway_bytes",
            "Bytes of requests and responses without framing, by the peer's cluster and direction",
            self.bytes.clone(),
        );
        registry.register(
            "isthmus_gateway_member_limits_reached",
            "How often a cluster has reached a limit of what it may take, by limit",
            self.member_limits.clone(),
        );
    }

    /// Counts a connection until the returned guard is dropped.
    pub(super) fn connection(&self, peer: &Name, transport: Transport) -> GaugeGuard {
        let labels = ConnectionLabels { peer: peer.to_string(), transport: transport.as_str() };
        let is_removed = self.known().removed.contains(peer.as_str());
        GaugeGuard::new(if is_removed {
            Gauge::default()
        } else {
            self.connections.get_or_create_owned(&labels)
        })
    }

    /// The counters of requests with one peer. They are owned, because borrowing two counters of one family in one
    /// expression would deadlock.
    pub(super) fn peer(&self, peer: &Name) -> PeerMetrics {
        let name = peer.to_string();
        let is_removed = self.known().removed.contains(&name);
        let bytes = |direction| match is_removed {
            true => Counter::default(),
            false => self.bytes.get_or_create_owned(&BytesLabels { peer: name.clone(), direction }),
        };
        let [received, sent] = DIRECTIONS.map(bytes);
        let streams = match is_removed {
            true => Gauge::default(),
            false => self.streams.get_or_create_owned(&StreamLabels { peer: name.clone() }),
        };
        PeerMetrics { streams, received, sent, families: self.clone(), peer: name }
    }

    pub(super) fn member_limited(&self, peer: &Name, limit: &'static str) {
        let mut known = self.known();
        if !known.removed.contains(peer.as_str()) {
            known.limits.entry(peer.to_string()).or_default().insert(limit);
            self.member_limits.get_or_create(&MemberLimitLabels { peer: peer.to_string(), limit }).inc();
        }
    }

    fn request_done(&self, labels: ProxiedRequestLabels) {
        let mut known = self.known();
        if !known.removed.contains(&labels.peer) {
            self.requests.get_or_create(&labels).inc();
            known.requests.entry(labels.peer.clone()).or_default().insert(labels);
        }
    }

    /// Removes all series of a cluster that was removed.
    pub(super) fn removed(&self, cluster: &Name) {
        let mut known = self.known();
        let peer = cluster.to_string();
        for transport in TRANSPORTS {
            self.connections.remove(&ConnectionLabels { peer: peer.clone(), transport: transport.as_str() });
        }
        for direction in DIRECTIONS {
            self.bytes.remove(&BytesLabels { peer: peer.clone(), direction });
        }
        self.streams.remove(&StreamLabels { peer: peer.clone() });
        for labels in known.requests.remove(&peer).unwrap_or_default() {
            self.requests.remove(&labels);
        }
        for limit in known.limits.remove(&peer).unwrap_or_default() {
            self.member_limits.remove(&MemberLimitLabels { peer: peer.clone(), limit });
        }
        known.removed.insert(peer);
    }

    /// Counts for a cluster that is registered, also if it was removed before.
    pub(super) fn registered(&self, cluster: &Name) {
        self.known().removed.remove(cluster.as_str());
    }

    fn known(&self) -> std::sync::MutexGuard<'_, KnownPeers> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds one to a gauge until it is dropped.
pub(crate) struct GaugeGuard(Gauge);

impl GaugeGuard {
    fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The counters of requests with one peer; clones share them.
#[derive(Clone)]
pub(crate) struct PeerMetrics {
    streams: Gauge,
    /// Bytes received from the peer.
    pub(crate) received: Counter,
    /// Bytes sent to the peer.
    pub(crate) sent: Counter,
    families: PeerFamilies,
    peer: String,
}

impl PeerMetrics {
    /// Counts a running request until the returned guard is dropped.
    pub(crate) fn count_running(&self) -> GaugeGuard {
        GaugeGuard::new(self.streams.clone())
    }

    /// Counts a request that has finished.
    pub(crate) fn request_done(&self, method: Option<MeshMethod>, code: &'static str) {
        let method = method.map_or("unknown", MeshMethod::name);
        self.families.request_done(ProxiedRequestLabels { peer: self.peer.clone(), method, code });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_that_is_removed_has_no_series_until_it_is_registered_again() {
        let families = PeerFamilies::default();
        let mut registry = Registry::default();
        families.register(&mut registry);
        let page = || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            text
        };
        let (eu, us): (Name, Name) = ("eu-1".parse().unwrap(), "us-1".parse().unwrap());
        let use_all = |cluster: &Name| {
            let peer = families.peer(cluster);
            peer.received.inc();
            peer.request_done(Some(MeshMethod::Series), "ok");
            peer.request_done(None, "unimplemented");
            families.member_limited(cluster, "connections");
            (families.connection(cluster, Transport::Quic), peer.count_running(), peer)
        };
        let (eu_connection, eu_running, eu_peer) = use_all(&eu);
        let _us = use_all(&us);
        assert_eq!(page().matches("peer=\"eu-1\"").count(), 7, "{}", page());
        families.removed(&eu);
        // What was running ends later, and another request comes.
        eu_peer.request_done(Some(MeshMethod::Series), "unavailable");
        eu_peer.sent.inc();
        drop((eu_connection, eu_running));
        drop(use_all(&eu));
        assert!(!page().contains("eu-1"), "{}", page());
        assert_eq!(page().matches("peer=\"us-1\"").count(), 7, "{}", page());
        families.registered(&eu);
        drop(use_all(&eu));
        assert_eq!(page().matches("peer=\"eu-1\"").count(), 7, "{}", page());
    }
}
