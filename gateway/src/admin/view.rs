//! What the admin socket shows, read from the running gateway.

use std::{sync::Arc, time::Instant};

use futures::future::BoxFuture;
use identity::CredentialStore;
use proto::thanos::{LabelSet, info::InfoResponse};

use crate::admin::report::{
    CertificateReport, ChangeReport, ConnectReport, PeerReport, StatusReport, TargetReport,
};
use crate::clock::rfc3339;
use crate::serving::{ServingState, ServingSwitch};
use crate::transport::MeshLink;

/// Label sets of a target that are shown. A store has one for each set of external labels in its blocks.
const MAX_LABEL_SETS: usize = 20;

type Ask<T> = Box<dyn Fn() -> T + Send + Sync>;

/// Where the reports come from.
pub(crate) struct GatewayView {
    pub(crate) role: &'static str,
    pub(crate) started: Instant,
    pub(crate) store: Arc<CredentialStore>,
    /// The open connections.
    pub(crate) links: Ask<Vec<MeshLink>>,
    pub(crate) targets: Ask<Vec<TargetReport>>,
    /// Tries to connect to each configured peer.
    pub(crate) connect_test: Ask<BoxFuture<'static, Vec<ConnectReport>>>,
    /// What is known about the issuer's audit log, in one line.
    pub(crate) audit_log: Ask<Option<String>>,
    /// The owner's switch; `None` in the observability cluster.
    pub(crate) switch: Option<ServingSwitch>,
}

impl GatewayView {
    /// The gateway as a whole.
    pub(crate) fn status(&self) -> StatusReport {
        let (links, targets) = ((self.links)(), (self.targets)());
        let credentials = &self.store.current().credentials;
        StatusReport {
            role: self.role.to_owned(),
            identity: credentials.spiffe_id().to_string(),
            version: runtime::BuildVersion::current().version.to_string(),
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            serving: self.switch.as_ref().map(ServingSwitch::state),
            connections: links.len(),
            streams: links.iter().map(requests).sum(),
            targets: targets.len(),
            healthy_targets: targets
                .iter()
                .filter(|target| target.healthy && target.refused.is_empty())
                .count(),
            certificate_not_after: rfc3339(credentials.not_after()),
            audit_log: (self.audit_log)(),
        }
    }

    /// The open connections, by peer and age.
    pub(crate) fn peers(&self) -> Vec<PeerReport> {
        let peer = |link: MeshLink| PeerReport {
            peer: link.identity().spiffe_id.to_string(),
            remote: link.remote().to_string(),
            transport: link.transport().to_string(),
            dialled: link.dialled(),
            age_seconds: link.age().as_secs_f64(),
            round_trip_seconds: link.round_trip().map(|time| time.as_secs_f64()),
            clock_ahead_seconds: link.clock().ahead_seconds(),
            datagram_bytes: link.datagram_bytes(),
            datagrams_lost: link.datagrams_lost(),
            streams: requests(&link),
            certificate_not_after: rfc3339(link.identity().not_after),
            certificate_serial: link.identity().serial.clone(),
        };
        let mut peers: Vec<_> = (self.links)().into_iter().map(peer).collect();
        peers.sort_by(|a, b| a.peer.cmp(&b.peer).then(b.age_seconds.total_cmp(&a.age_seconds)));
        peers
    }

    /// The stores that can be read, by name.
    pub(crate) fn targets(&self) -> Vec<TargetReport> {
        (self.targets)()
    }

    /// The leaf in use and the trusted roots.
    pub(crate) fn certificates(&self) -> Vec<CertificateReport> {
        let current = self.store.current();
        let leaf = current.credentials.identity();
        let leaf = CertificateReport {
            kind: "leaf".to_owned(),
            identity: leaf.spiffe_id.to_string(),
            serial: leaf.serial.clone(),
            key_pin: leaf.spki.to_string(),
            not_before: Some(rfc3339(leaf.not_before)),
            not_after: Some(rfc3339(leaf.not_after)),
        };
        let root = |pin: identity::SpkiPin| CertificateReport {
            kind: "root".to_owned(),
            identity: String::new(),
            serial: String::new(),
            key_pin: pin.to_string(),
            not_before: None,
            not_after: None,
        };
        std::iter::once(leaf).chain(current.bundle.pins().map(root)).collect()
    }

    /// Changes whether requests are served.
    ///
    /// # Errors
    /// One line: this is not the gateway of a client cluster, or the change cannot be stored.
    pub(crate) fn change(&self, to: ServingState) -> Result<ChangeReport, String> {
        let Some(switch) = &self.switch else {
            return Err("only the gateway of a client cluster can be paused or drained; here, use `isthmus pki cluster`"
                .to_owned());
        };
        let before = switch.state();
        let stored = switch.set(to);
        tracing::warn!(?before, now = ?switch.state(), "the owner has changed whether requests are served");
        stored.map_err(|error| format!("the data directory cannot be written: {error}"))?;
        let streams = (self.links)().iter().map(requests).sum();
        Ok(ChangeReport { serving: switch.state(), streams })
    }
}

/// Requests that run on a connection. Its control session is a stream, too.
fn requests(link: &MeshLink) -> usize {
    link.streams().saturating_sub(1)
}

/// The external labels in an Info, each set as PromQL writes it.
pub(crate) fn label_texts(info: Option<&InfoResponse>) -> Vec<String> {
    let text = |set: &LabelSet| {
        let pairs = set.labels.iter().map(|label| format!("{}={:?}", label.name, label.value));
        format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
    };
    info.into_iter().flat_map(|info| info.label_sets.iter().take(MAX_LABEL_SETS)).map(text).collect()
}
