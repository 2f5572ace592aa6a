//! The messages of a session on the observability side, from the hellos to its end.

use std::time::{Duration, Instant};

use identity::Name;
use pki::GatewayReport;
use proto::isthmus::mesh::v1::{
    FromCluster, TrustReport, from_cluster::Message as FromClusterMessage,
    from_observability::Message as ToCluster,
};

use crate::control::{
    copies::LiveSession,
    member_budget::MemberBudget,
    opened::ObservabilitySession,
    renewed::renew,
    sent_trust::{SentTrust, bundle_of},
    shared::ObservabilityControl,
};
use crate::{
    connections::ClusterConnection,
    peer_text::bounded,
    transport::{CloseReason, MeshLink},
    trust::issued_audit::SessionHeads,
};

/// How often a session is compared with the registrations, and its round-trip time is looked at.
const REVIEW: Duration = Duration::from_secs(2);
/// Time limit between the failure of a session and the end of its connection, which has the reason.
pub(super) const END_GRACE: Duration = Duration::from_millis(500);
const LOST: &str = "the session was lost";

/// What a session is about.
pub(super) struct Exchange<'a> {
    pub(super) control: &'a ObservabilityControl,
    pub(super) cluster: &'a Name,
    pub(super) link: &'a MeshLink,
    pub(super) connection: &'a ClusterConnection,
    pub(super) live: &'a LiveSession,
    pub(super) budget: &'a MemberBudget,
}

impl Exchange<'_> {
    /// Exchanges messages until the session ends. Returns why it has ended.
    pub(super) async fn run(&self, session: &mut ObservabilitySession) -> String {
        let (link, trust) = (self.link, &self.control.trust);
        trust.certificate_seen(link.identity().serial.clone(), link.identity()).await;
        let id = link.identity().spiffe_id.to_string();
        let _counted = trust.session(id, session.instance.clone());
        let (mut news, mut versions) = (trust.news(), trust.audit().versions());
        news.mark_changed();
        let mut questions = self.live.questions();
        let (mut sent, mut heads) = (SentTrust::default(), SessionHeads::default());
        // Whether the peer lives is the transport's to judge: messages of a session may wait behind the data of requests.
        let mut review = tokio::time::interval(REVIEW);
        let mut read_at = tokio::time::Instant::now();
        loop {
            let next = async {
                tokio::time::sleep_until(read_at).await;
                session.incoming.message().await
            };
            let to_send: Vec<ToCluster> = tokio::select! {
                message = next => {
                    let message = match message {
                        Ok(Some(FromCluster { message })) => message,
                        Ok(None) => return "the cluster closed the session".to_owned(),
                        // A lost connection ends its streams first.
                        Err(status) => match tokio::time::timeout(END_GRACE, link.closed()).await {
                            Ok(lost) => return lost.to_string(),
                            Err(_) => return bounded(status.message()),
                        },
                    };
                    // A cluster that sends too much waits, and with it its own messages only.
                    read_at = tokio::time::Instant::now() + self.budget.message(Instant::now());
                    self.received(session, &mut heads, message).await.into_iter().collect()
                }
                _ = review.tick() => {
                    if self.control.directory.registration(self.cluster).is_none() {
                        link.close(CloseReason::Denied);
                        return "the cluster is not registered any more".to_owned();
                    }
                    let round_trip = link.round_trip().unwrap_or(session.round_trip);
                    self.control.directory.round_trip_measured(self.cluster, self.connection.id, round_trip);
                    continue;
                }
                changed = news.changed(), if session.trusts => match changed {
                    Ok(()) => sent.messages(news.borrow_and_update().as_ref()),
                    Err(_) => return "the gateway stops".to_owned(),
                },
                Ok(()) = versions.changed(), if session.trusts => {
                    versions.borrow_and_update();
                    self.audit_head(session, &mut heads).await.into_iter().collect()
                }
                Ok(()) = questions.changed(), if session.trusts => {
                    questions.borrow_and_update();
                    news.borrow().as_ref().map(bundle_of).into_iter().collect()
                }
                () = self.connection.drained() => return "the connection was drained".to_owned(),
                closed = link.closed() => return closed.to_string(),
            };
            if !session.send(to_send).await {
                return LOST.to_owned();
            }
        }
    }

    /// Acts on a message of the cluster, and returns the answer.
    async fn received(
        &self,
        session: &mut ObservabilitySession,
        heads: &mut SessionHeads,
        message: Option<FromClusterMessage>,
    ) -> Option<ToCluster> {
        let (control, link, id) = (self.control, self.link, self.connection.id);
        match message {
            Some(FromClusterMessage::Targets(targets)) => {
                self.dropped(control.directory.targets_reported(self.cluster, id, targets));
            }
            Some(FromClusterMessage::TargetNames(targets)) => {
                self.dropped(control.directory.targets_named(self.cluster, id, targets.names));
            }
            Some(FromClusterMessage::Target(target)) => {
                let verdict = control.directory.target_reported(self.cluster, id, target);
                return verdict.and_then(|verdict| session.changed(verdict));
            }
            Some(FromClusterMessage::CertificateRequest(request)) => {
                return Some(renew(&control.issuer, &control.metrics, link, request.csr.to_vec()).await);
            }
            Some(FromClusterMessage::Drain(_)) => {
                tokio::select! {
                    () = control.directory.handed_over(self.cluster, id) => {}
                    _ = link.closed() => {}
                }
                self.connection.drain();
            }
            Some(FromClusterMessage::Trust(report)) => {
                self.live.answered();
                control.trust.certificate_seen(report.serial.clone(), link.identity()).await;
                heads.reported(&report);
                control.trust.reported(gateway_report(link, &session.instance, report)).await;
                return self.audit_head(session, heads).await;
            }
            // A second hello, or a message of a later version, is ignored.
            Some(FromClusterMessage::Hello(_)) | None => {}
        }
        None
    }

    /// The head of the audit log, if the cluster should get it.
    async fn audit_head(
        &self,
        session: &ObservabilitySession,
        heads: &mut SessionHeads,
    ) -> Option<ToCluster> {
        let id = self.link.identity().spiffe_id.to_string();
        let gateway = (id.as_str(), session.instance.as_str());
        self.control.trust.audit().message(heads, gateway).await.map(ToCluster::AuditHead)
    }

    /// Logs what is wrong with targets that were dropped.
    fn dropped(&self, problem: Option<String>) {
        if let Some(problem) = problem
            && let Some(suppressed) = self.budget.log()
        {
            let cluster = self.cluster;
            tracing::warn!(%cluster, problem, suppressed, "a gateway reports targets that cannot be used");
        }
    }
}

fn gateway_report(link: &MeshLink, instance: &str, report: TrustReport) -> GatewayReport {
    GatewayReport {
        id: link.identity().spiffe_id.to_string(),
        instance: bounded(instance),
        remote: link.remote().to_string(),
        serial: link.identity().serial.clone(),
        denylist: report.denylist,
        root_denylist: report.root_denylist,
        bundle: report.bundle,
        refused: bounded(&report.refused),
        audit_number: report.audit_number,
        audit_hash: bounded(&report.audit_hash),
    }
}
