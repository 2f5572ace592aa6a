//! The metrics of the gateway, registered by value. `peers` has those of each peer.

mod peers;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, SystemTime},
};

use identity::{Credentials, Name};
use mesh::Transport;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};
use runtime::Registry;

use crate::metrics::peers::PeerFamilies;
pub(crate) use crate::metrics::peers::{GaugeGuard, PeerMetrics};

/// All metric families of the gateway; the same for both roles.
pub(crate) struct GatewayMetrics {
    peers: PeerFamilies,
    handshake_failures: Family<ReasonLabels, Counter>,
    fallbacks: Family<PeerLabels, Counter>,
    certificate_expiry: Gauge<f64, AtomicU64>,
    issuing_ca_expiry: Gauge<f64, AtomicU64>,
    renewals: Family<ResultLabels, Counter>,
    enrolments: Family<ResultLabels, Counter>,
    recoveries: Family<ResultLabels, Counter>,
    directory_entries: Family<HealthLabels, Gauge>,
    bundles_refused: Counter,
    issuer_expiry: Gauge<f64, AtomicU64>,
    issuer_start: Gauge<f64, AtomicU64>,
    denylist_signed: Gauge<f64, AtomicU64>,
    leaves: Gauge,
    open_tokens: Gauge,
    unknown_certificates: Counter,
    clusters: Family<PeerLabels, Gauge>,
    target_healthy: Family<TargetLabels, Gauge>,
    access_lines_dropped: Counter,
    peer_round_trip: Family<PeerLabels, Gauge<f64, AtomicU64>>,
    peer_expiry: Family<PeerLabels, Gauge<f64, AtomicU64>>,
    clones: Counter,
    audit_log_altered: Gauge,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TargetLabels {
    target: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PeerLabels {
    peer: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct HealthLabels {
    health: &'static str,
}

impl GatewayMetrics {
    /// Registers the families.
    pub(crate) fn new(registry: &mut Registry) -> Arc<Self> {
        let metrics = Self::unregistered();
        metrics.peers.register(registry);
        registry.register(
            "isthmus_gateway_handshake_failures",
            "Connections that could not be established, by reason",
            metrics.handshake_failures.clone(),
        );
        registry.register(
            "isthmus_gateway_transport_fallbacks",
            "Connections over TCP because no UDP answer came, by dialled address",
            metrics.fallbacks.clone(),
        );
        registry.register(
            "isthmus_gateway_certificate_expiry_timestamp_seconds",
            "When this gateway's certificate expires, in seconds since the epoch",
            metrics.certificate_expiry.clone(),
        );
        registry.register(
            "isthmus_gateway_issuing_ca_expiry_timestamp_seconds",
            "When the issuing CA of this gateway's certificate expires, in seconds since the epoch",
            metrics.issuing_ca_expiry.clone(),
        );
        registry.register(
            "isthmus_gateway_certificate_renewals",
            "Attempts to renew this gateway's certificate, by result",
            metrics.renewals.clone(),
        );
        registry.register(
            "isthmus_gateway_enrolments",
            "Attempts of clusters to join, by result",
            metrics.enrolments.clone(),
        );
        registry.register(
            "isthmus_gateway_recoveries",
            "Attempts of clusters to exchange an expired certificate, by result",
            metrics.recoveries.clone(),
        );
        registry.register(
            "isthmus_gateway_directory_entries",
            "Entries of the directory, by health",
            metrics.directory_entries.clone(),
        );
        registry.register(
            "isthmus_gateway_cluster_connected",
            "1 for each cluster that has joined and is connected, and 0 for the others",
            metrics.clusters.clone(),
        );
        registry.register(
            "isthmus_gateway_target_healthy",
            "Whether a target of this cluster answers and the observability side reads it",
            metrics.target_healthy.clone(),
        );
        registry.register(
            "isthmus_gateway_access_log_dropped_lines",
            "Lines of the access log that could not be written",
            metrics.access_lines_dropped.clone(),
        );
        registry.register(
            "isthmus_gateway_peer_round_trip_seconds",
            "Round-trip time to a connected cluster, as QUIC measures it; absent over TCP",
            metrics.peer_round_trip.clone(),
        );
        registry.register(
            "isthmus_gateway_peer_certificate_expiry_timestamp_seconds",
            "When the certificate of a connected cluster expires, in seconds since the epoch; the earliest of its connections",
            metrics.peer_expiry.clone(),
        );
        metrics.register_trust(registry);
        metrics
    }

    /// Registers what is refused or found altered.
    fn register_trust(&self, registry: &mut Registry) {
        registry.register(
            "isthmus_gateway_trust_bundles_refused",
            "Trust bundles that were offered and that no root in use has signed",
            self.bundles_refused.clone(),
        );
        registry.register(
            "isthmus_gateway_audit_log_altered",
            "Gateways that keep a head of the issuer's audit log that the log does not contain any more: in a client cluster 0 or 1",
            self.audit_log_altered.clone(),
        );
    }

    /// Registers the families of the issuer, which only the observability gateway has.
    pub(crate) fn register_issuer(&self, registry: &mut Registry) {
        let metrics = self;
        registry.register(
            "isthmus_pki_issuer_expiry_timestamp_seconds",
            "When the issuing CA expires, in seconds since the epoch",
            metrics.issuer_expiry.clone(),
        );
        registry.register(
            "isthmus_pki_issuer_start_timestamp_seconds",
            "When the validity of the issuing CA began, in seconds since the epoch",
            metrics.issuer_start.clone(),
        );
        registry.register(
            "isthmus_pki_denylist_timestamp_seconds",
            "When the denylist in use was signed, in seconds since the epoch; nothing is served when it is 24 h old",
            metrics.denylist_signed.clone(),
        );
        registry.register(
            "isthmus_pki_certificates",
            "Certificates of clusters and gateways that are valid now",
            metrics.leaves.clone(),
        );
        registry.register(
            "isthmus_pki_open_tokens",
            "Join tokens that can be used now",
            metrics.open_tokens.clone(),
        );
        registry.register(
            "isthmus_gateway_unknown_certificates",
            "Refused certificates of the issuing CA that are not in its inventory; any means that its key was stolen",
            metrics.unknown_certificates.clone(),
        );
        registry.register(
            "isthmus_gateway_clones",
            "How often two processes used the certificate of one gateway: newcomers that were refused, and certificates that were locked",
            metrics.clones.clone(),
        );
    }

    /// Families that are not registered, for tests.
    pub(crate) fn unregistered() -> Arc<Self> {
        Arc::new(Self {
            peers: PeerFamilies::default(),
            handshake_failures: Family::default(),
            fallbacks: Family::default(),
            certificate_expiry: Gauge::default(),
            issuing_ca_expiry: Gauge::default(),
            renewals: Family::default(),
            enrolments: Family::default(),
            recoveries: Family::default(),
            directory_entries: Family::default(),
            bundles_refused: Counter::default(),
            issuer_expiry: Gauge::default(),
            issuer_start: Gauge::default(),
            denylist_signed: Gauge::default(),
            leaves: Gauge::default(),
            open_tokens: Gauge::default(),
            unknown_certificates: Counter::default(),
            clusters: Family::default(),
            target_healthy: Family::default(),
            access_lines_dropped: Counter::default(),
            peer_round_trip: Family::default(),
            peer_expiry: Family::default(),
            clones: Counter::default(),
            audit_log_altered: Gauge::default(),
        })
    }

    /// Counts a connection until the returned guard is dropped.
    pub(crate) fn connection(&self, peer: &Name, transport: Transport) -> GaugeGuard {
        self.peers.connection(peer, transport)
    }

    /// The counters of requests with one peer.
    pub(crate) fn peer(&self, peer: &Name) -> PeerMetrics {
        self.peers.peer(peer)
    }

    pub(crate) fn handshake_failed(&self, reason: &'static str) {
        self.handshake_failures.get_or_create(&ReasonLabels { reason }).inc();
    }

    pub(crate) fn fell_back(&self, address: &str) {
        self.fallbacks.get_or_create(&PeerLabels { peer: address.to_owned() }).inc();
    }

    /// Notes when the credentials in use expire.
    pub(crate) fn credentials(&self, credentials: &Credentials) {
        let since_epoch =
            |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        self.certificate_expiry.set(since_epoch(credentials.not_after()));
        if let Some(at) = credentials.issuer_not_after() {
            self.issuing_ca_expiry.set(since_epoch(at));
        }
    }

    /// Counts for a cluster that is registered.
    pub(crate) fn cluster_registered(&self, cluster: &Name) {
        self.peers.registered(cluster);
    }

    /// Removes all series of a cluster that is not registered any more.
    pub(crate) fn cluster_removed(&self, cluster: &Name) {
        self.cluster(cluster, None);
        self.peer_gone(cluster);
        self.peers.removed(cluster);
    }

    /// Notes whether a cluster is connected; `None` if it has not joined yet.
    pub(crate) fn cluster(&self, cluster: &Name, is_connected: Option<bool>) {
        let labels = PeerLabels { peer: cluster.to_string() };
        match is_connected {
            Some(is_connected) => {
                self.clusters.get_or_create(&labels).set(i64::from(is_connected));
            }
            None => {
                self.clusters.remove(&labels);
            }
        }
    }

    pub(crate) fn renewal(&self, ok: bool) {
        self.renewals.get_or_create(&ResultLabels { result: result(ok) }).inc();
    }

    pub(crate) fn issuer(
        &self,
        figures: &pki::IssuerFigures,
        denylist_signed: Option<std::time::SystemTime>,
    ) {
        let seconds = |time: std::time::SystemTime| {
            time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
        };
        self.issuer_expiry.set(seconds(figures.not_after));
        self.issuer_start.set(seconds(figures.not_before));
        if let Some(signed) = denylist_signed {
            self.denylist_signed.set(seconds(signed));
        }
        self.leaves.set(i64::try_from(figures.leaves).unwrap_or(i64::MAX));
        self.open_tokens.set(i64::try_from(figures.open_tokens).unwrap_or(i64::MAX));
    }

    pub(crate) fn recovery(&self, ok: bool) {
        self.recoveries.get_or_create(&ResultLabels { result: result(ok) }).inc();
    }

    pub(crate) fn bundle_refused(&self) {
        self.bundles_refused.inc();
    }

    pub(crate) fn clone_found(&self) {
        self.clones.inc();
    }

    /// Notes how many gateways keep a head of the audit log that contradicts the log.
    pub(crate) fn audit_log_altered(&self, gateways: usize) {
        self.audit_log_altered.set(i64::try_from(gateways).unwrap_or(i64::MAX));
    }

    pub(crate) fn unknown_certificate(&self) {
        self.unknown_certificates.inc();
    }

    pub(crate) fn enrolment(&self, ok: bool) {
        self.enrolments.get_or_create(&ResultLabels { result: result(ok) }).inc();
    }

    pub(crate) fn peer_seen(&self, peer: &Name, round_trip: Option<Duration>, not_after: SystemTime) {
        let labels = PeerLabels { peer: peer.to_string() };
        let since_epoch = not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.peer_expiry.get_or_create(&labels).set(since_epoch.as_secs_f64());
        match round_trip {
            Some(time) => drop(self.peer_round_trip.get_or_create(&labels).set(time.as_secs_f64())),
            None => drop(self.peer_round_trip.remove(&labels)),
        }
    }

    pub(crate) fn peer_gone(&self, peer: &Name) {
        let labels = PeerLabels { peer: peer.to_string() };
        self.peer_expiry.remove(&labels);
        self.peer_round_trip.remove(&labels);
    }

    pub(crate) fn member_limited(&self, peer: &Name, limit: &'static str) {
        self.peers.member_limited(peer, limit);
    }

    /// The counter of lines of the access log that could not be written.
    pub(crate) fn access_lines_dropped(&self) -> Counter {
        self.access_lines_dropped.clone()
    }

    pub(crate) fn target_health(&self, target: &str, healthy: bool) {
        let labels = TargetLabels { target: target.to_owned() };
        self.target_healthy.get_or_create(&labels).set(i64::from(healthy));
    }

    pub(crate) fn target_removed(&self, target: &str) {
        self.target_healthy.remove(&TargetLabels { target: target.to_owned() });
    }

    pub(crate) fn directory_size(&self, healthy: usize, unhealthy: usize) {
        for (health, count) in [("healthy", healthy), ("unhealthy", unhealthy)] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.directory_entries.get_or_create(&HealthLabels { health }).set(count);
        }
    }
}

fn result(ok: bool) -> &'static str {
    if ok { "success" } else { "failure" }
}
