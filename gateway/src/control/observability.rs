//! The observability side of control sessions: receives the clusters' targets and answers their certificate requests.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use identity::Name;
use pki::{GatewayReport, Issuer};
use proto::isthmus::mesh::v1::{
    Bundle, Certificate, FromCluster, FromObservability, TrustReport,
    from_cluster::Message as FromClusterMessage, from_observability::Message as ToCluster,
};
use tokio::sync::watch;

use crate::control::{
    HELLO_TIMEOUT,
    member_budget::{MemberBudget, MemberBudgets},
    opened::{ObservabilitySession, open},
};
use crate::{
    connections::{ClusterConnection, ClusterConnections},
    directory::{Directory, SessionId},
    membership::{enrolment, registrations::Registrations},
    metrics::GatewayMetrics,
    peer_text::bounded,
    transport::{self, CloseReason, ConnectionEnd, MeshClient, MeshLink},
    trust::issued::{IssuedTrust, TrustNews},
};

/// How often a session is compared with the registrations, and its round-trip time is looked at.
const REVIEW: Duration = Duration::from_secs(2);
/// Time limit between the failure of a session and the end of its connection, which has the reason.
const END_GRACE: Duration = Duration::from_millis(500);

/// Runs the sessions of an observability gateway; state that they share.
pub(crate) struct ObservabilityControl {
    pub(crate) issuer: Arc<Issuer>,
    pub(crate) registrations: Arc<Registrations>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) connections: Arc<ClusterConnections>,
    pub(crate) metrics: Arc<GatewayMetrics>,
    pub(crate) budgets: MemberBudgets,
    pub(crate) trust: Arc<IssuedTrust>,
}

/// The progress of a connection. Its dialer watches it.
#[derive(Debug, Clone, Default)]
pub(crate) enum ConnectionProgress {
    /// The hellos are not exchanged yet.
    #[default]
    Opening,
    /// Requests can be sent. The handle drains the connection.
    Up(DrainHandle),
}

/// A handle that outlives the connection without keeping it open.
#[derive(Clone)]
pub(crate) struct DrainHandle(std::sync::Weak<ClusterConnection>);

impl std::fmt::Debug for DrainHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DrainHandle")
    }
}

impl DrainHandle {
    /// Stops new requests on the connection. It is closed after its last request.
    pub(crate) fn drain(&self) {
        if let Some(connection) = self.0.upgrade() {
            connection.drain();
        }
    }
}

impl ObservabilityControl {
    /// Runs a connection from the first hello until it ends. This side sends the requests.
    pub(crate) async fn run(
        &self,
        connection: transport::MeshConnection,
        progress: watch::Sender<ConnectionProgress>,
    ) {
        let link = connection.link().clone();
        let peer = link.identity().spiffe_id.clone();
        let cluster = peer.cluster().clone();
        if peer.component().as_str() != pki::GATEWAY || !self.registrations.contains(&cluster).await {
            tracing::warn!(peer = %link.peer(), remote = %link.remote(), "a connection was refused, its cluster is not registered");
            self.metrics.handshake_failed("not_registered");
            link.close(CloseReason::Denied);
            return;
        }
        let Some(budget) = self.budgets.connect(&cluster) else {
            link.close(CloseReason::Misbehaved);
            return;
        };
        let why = match connection.client().await {
            Ok(client) => {
                let ended = self.session(&cluster, client, &budget, &progress).await;
                // Without its session the connection is no longer needed. Any other end of the transport came first, and is the
                // reason for the end of the session.
                match link.is_closed() {
                    true => match link.closed().await {
                        ConnectionEnd::Here(CloseReason::Done) => ended,
                        first => first.to_string(),
                    },
                    false => ended,
                }
            }
            Err(error) => error.reason,
        };
        let was_last = self.directory.session_closed(&cluster, SessionId(link.id()), &why);
        let Some(suppressed) = budget.log() else { return };
        let (peer, age) = (link.peer(), link.age());
        match was_last && why != ConnectionEnd::Here(CloseReason::Shutdown).to_string() {
            true => {
                tracing::warn!(%peer, why, ?age, suppressed, "the cluster is not connected any more, queries lack its data")
            }
            false => tracing::info!(%peer, why, ?age, suppressed, "a connection has ended"),
        }
    }

    /// Runs the session and returns why it ended. The client is dropped then; running requests keep the connection open
    /// until they have finished.
    async fn session(
        &self,
        cluster: &Name,
        client: MeshClient,
        budget: &MemberBudget,
        progress: &watch::Sender<ConnectionProgress>,
    ) -> String {
        let link = client.link().clone();
        let opening = tokio::time::timeout(HELLO_TIMEOUT, open(cluster, &client)).await;
        let mut session = match opening {
            Ok(Ok(session)) => session,
            Ok(Err(why)) => {
                self.metrics.handshake_failed("no_session");
                if let Some(suppressed) = budget.log() {
                    tracing::warn!(peer = %link.peer(), remote = %link.remote(), why, suppressed, "the session cannot be opened");
                }
                link.close(CloseReason::Misbehaved);
                return why;
            }
            Err(_) => {
                self.metrics.handshake_failed("no_session");
                link.close(CloseReason::Misbehaved);
                return "the peer sent no hello in time".to_owned();
            }
        };
        let id = SessionId(link.id());
        let connection = ClusterConnection::new(id, Arc::new(client), link.transport());
        let _counted = self.metrics.connection(cluster, link.transport());
        self.directory.session_opened(cluster, id, &session.instance, link.transport());
        self.connections.add(cluster, connection.clone());
        progress.send_replace(ConnectionProgress::Up(DrainHandle(Arc::downgrade(&connection))));
        let why = self.exchange(cluster, &link, &connection, &mut session, budget).await;
        self.connections.remove(cluster, id);
        why
    }

    async fn exchange(
        &self,
        cluster: &Name,
        link: &MeshLink,
        connection: &ClusterConnection,
        session: &mut ObservabilitySession,
        budget: &MemberBudget,
    ) -> String {
        self.trust.certificate_seen(link.identity().serial.clone(), link.identity()).await;
        let id = link.identity().spiffe_id.to_string();
        let _counted = self.trust.session(id, session.instance.clone());
        let mut news = self.trust.news();
        news.mark_changed();
        let mut sent = SentTrust::default();
        // Whether the peer lives is the transport's to judge: messages of a session may wait behind the data of requests.
        let mut review = tokio::time::interval(REVIEW);
        let mut read_at = tokio::time::Instant::now();
        loop {
            let next = async {
                tokio::time::sleep_until(read_at).await;
                session.incoming.message().await
            };
            let message = tokio::select! {
                message = next => message,
                _ = review.tick() => {
                    if self.directory.registration(cluster).is_none() {
                        link.close(CloseReason::Denied);
                        return "the cluster is not registered any more".to_owned();
                    }
                    let round_trip = link.round_trip().unwrap_or(session.round_trip);
                    self.directory.round_trip_measured(cluster, connection.id, round_trip);
                    continue;
                }
                changed = news.changed(), if session.trusts => {
                    let messages = match changed {
                        Ok(()) => sent.messages(news.borrow_and_update().as_ref()),
                        // This gateway stops.
                        Err(_) => return "the gateway stops".to_owned(),
                    };
                    for message in messages {
                        if session.outgoing.send(FromObservability { message: Some(message) }).await.is_err() {
                            return "the session was lost".to_owned();
                        }
                    }
                    continue;
                }
                () = connection.drained() => return "the connection was drained".to_owned(),
                closed = link.closed() => return closed.to_string(),
            };
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
            read_at = tokio::time::Instant::now() + budget.message(Instant::now());
            match message {
                Some(FromClusterMessage::Targets(targets)) => {
                    dropped(
                        cluster,
                        self.directory.targets_reported(cluster, connection.id, targets),
                        budget,
                    );
                }
                Some(FromClusterMessage::TargetNames(targets)) => {
                    dropped(
                        cluster,
                        self.directory.targets_named(cluster, connection.id, targets.names),
                        budget,
                    );
                }
                Some(FromClusterMessage::Target(target)) => {
                    let verdict = self.directory.target_reported(cluster, connection.id, target);
                    if let Some(verdict) = verdict.and_then(|verdict| session.changed(verdict))
                        && session.outgoing.send(FromObservability { message: Some(verdict) }).await.is_err()
                    {
                        return "the session was lost".to_owned();
                    }
                }
                Some(FromClusterMessage::CertificateRequest(request)) => {
                    let answer = self.renew(link, request.csr.to_vec()).await;
                    if session.outgoing.send(FromObservability { message: Some(answer) }).await.is_err() {
                        return "the session was lost".to_owned();
                    }
                }
                Some(FromClusterMessage::Drain(_)) => connection.drain(),
                Some(FromClusterMessage::Trust(report)) => {
                    self.trust.certificate_seen(report.serial.clone(), link.identity()).await;
                    self.trust.reported(gateway_report(link, &session.instance, report)).await;
                }
                // A second hello, or a message of a later version, is ignored.
                Some(FromClusterMessage::Hello(_)) | None => {}
            }
        }
    }

    /// Answers a certificate request of the peer of `link`. The connection has verified the peer's current certificate.
    async fn renew(&self, link: &MeshLink, csr: Vec<u8>) -> ToCluster {
        let (issuer, identity, from) =
            (self.issuer.clone(), link.identity().clone(), link.remote().to_string());
        let renewed =
            tokio::task::spawn_blocking(move || issuer.renew_from(&identity, &csr, &from, SystemTime::now()))
                .await;
        match renewed {
            Ok(Ok(enrolment)) => {
                tracing::info!(peer = %link.peer(), "a certificate was renewed");
                ToCluster::Certificate(Certificate {
                    chain: enrolment.chain.iter().map(|der| der.to_vec().into()).collect(),
                    roots: enrolment.bundle.roots().map(|der| der.to_vec().into()).collect(),
                    bundle_signature: enrolment.bundle.signature_bytes().unwrap_or_default().into(),
                })
            }
            Ok(Err(error)) => {
                if let pki::PkiError::Clone(_) = &error {
                    self.metrics.clone_locked();
                    tracing::error!(peer = %link.peer(), remote = %link.remote(), error = %error, "a copied certificate was found");
                }
                tracing::warn!(peer = %link.peer(), error = %error, "a certificate renewal was refused");
                ToCluster::Refused(enrolment::refusal(&error).message().to_owned())
            }
            Err(error) => {
                tracing::error!(peer = %link.peer(), error = %error, "the task that renews a certificate failed");
                ToCluster::Refused("the issuer failed; see the log of the observability gateway".to_owned())
            }
        }
    }
}

/// Logs what is wrong with targets that were dropped.
fn dropped(cluster: &Name, problem: Option<String>, budget: &MemberBudget) {
    if let Some(problem) = problem
        && let Some(suppressed) = budget.log()
    {
        tracing::warn!(%cluster, problem, suppressed, "a gateway reports targets that cannot be used");
    }
}

/// What was sent on a session.
#[derive(Default)]
struct SentTrust {
    denylists: Vec<Bytes>,
    bundle: Option<u64>,
}

impl SentTrust {
    /// What has changed since the last time.
    fn messages(&mut self, news: Option<&TrustNews>) -> Vec<ToCluster> {
        let Some(news) = news else { return Vec::new() };
        let mut messages = Vec::new();
        if self.bundle != Some(news.bundle.sequence()) {
            self.bundle = Some(news.bundle.sequence());
            messages.push(ToCluster::Bundle(Bundle {
                roots: news.bundle.roots().map(|der| der.to_vec().into()).collect(),
                signature: news.bundle.signature_bytes().unwrap_or_default().into(),
            }));
        }
        let new = news.denylists.iter().filter(|list| !self.denylists.contains(list));
        messages.extend(new.cloned().map(ToCluster::Denylist));
        self.denylists = news.denylists.clone();
        messages
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
    }
}
