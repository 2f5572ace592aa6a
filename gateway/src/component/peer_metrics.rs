//! The connections as metrics: how far away each peer is, and until when its certificate is valid.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use identity::Name;

use crate::{metrics::GatewayMetrics, transport::MeshLink};

/// Time between two looks at the connections.
const INTERVAL: Duration = Duration::from_secs(5);

/// Keeps the metrics up to date. Never returns.
pub(super) async fn publish(links: impl Fn() -> Vec<MeshLink>, metrics: Arc<GatewayMetrics>) {
    let mut shown = BTreeSet::new();
    loop {
        let present = summary(&links());
        for gone in shown.iter().filter(|peer| !present.contains_key(*peer)) {
            metrics.peer_gone(gone);
        }
        for (peer, PeerSummary { round_trip, not_after }) in &present {
            metrics.peer_seen(peer, *round_trip, *not_after);
        }
        shown = present.into_keys().collect();
        tokio::time::sleep(INTERVAL).await;
    }
}

struct PeerSummary {
    /// The shortest one over QUIC; `None` on TCP, which does not show it.
    round_trip: Option<Duration>,
    /// The earliest end of a certificate.
    not_after: SystemTime,
}

fn summary(links: &[MeshLink]) -> BTreeMap<Name, PeerSummary> {
    let mut peers: BTreeMap<Name, PeerSummary> = BTreeMap::new();
    for link in links {
        let (cluster, not_after) = (link.identity().spiffe_id.cluster(), link.identity().not_after);
        let known = peers.entry(cluster.clone()).or_insert(PeerSummary { round_trip: None, not_after });
        known.not_after = known.not_after.min(not_after);
        known.round_trip = known.round_trip.into_iter().chain(link.round_trip()).min();
    }
    peers
}
