//! The observability side of control sessions: receives the clusters' targets and answers their certificate requests.

use std::sync::Arc;

use identity::Name;
use proto::isthmus::mesh::v1::from_observability::Message as ToCluster;
use tokio::sync::watch;

use crate::control::{
    HELLO_TIMEOUT,
    copies::{LiveSession, OtherProcess},
    exchange::{END_GRACE, Exchange},
    member_budget::MemberBudget,
    opened::{ObservabilitySession, open},
    shared::ObservabilityControl,
};
use crate::{
    connections::ClusterConnection,
    directory::SessionId,
    transport::{self, CloseReason, ConnectionEnd, MeshClient, MeshLink},
};

/// Why a newcomer is refused.
const COPIED: &str =
    "another process uses the certificate of this gateway, or one that it was renewed from: stop the copy";

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
        let live = match self.admit(&link, &mut session).await {
            Ok(live) => live,
            Err(why) => return why,
        };
        let id = SessionId(link.id());
        let connection = ClusterConnection::new(id, Arc::new(client), link.transport());
        let _counted = self.metrics.connection(cluster, link.transport());
        self.directory.session_opened(cluster, id, &session.instance, link.transport());
        self.connections.add(cluster, connection.clone());
        progress.send_replace(ConnectionProgress::Up(DrainHandle(Arc::downgrade(&connection))));
        let exchange =
            Exchange { control: self, cluster, link: &link, connection: &connection, live: &live, budget };
        let why = exchange.run(&mut session).await;
        self.connections.remove(cluster, id);
        why
    }

    /// Refuses a process that uses the certificate of another one. Returns why, after the connection was closed.
    async fn admit(
        &self,
        link: &MeshLink,
        session: &mut ObservabilitySession,
    ) -> Result<LiveSession, String> {
        let line = self.trust.line_of(link.identity().serial.clone()).await;
        let admitted = tokio::select! {
            admitted = self.processes.admit(link, &session.run, line) => admitted,
            closed = link.closed() => return Err(closed.to_string()),
        };
        match admitted {
            Ok(live) => Ok(live),
            Err(other) => Err(self.refuse_copy(link, session, &other).await),
        }
    }

    /// Tells the newcomer that another process uses its certificate, and closes its connection. Returns why.
    async fn refuse_copy(
        &self,
        link: &MeshLink,
        session: &mut ObservabilitySession,
        other: &OtherProcess,
    ) -> String {
        self.metrics.clone_found();
        tracing::error!(
            peer = %link.peer(), remote = %link.remote(), serial = link.identity().serial, other = %other.remote,
            other_serial = other.serial,
            "two processes use the certificate of one gateway, the newcomer is refused; find out which one is the copy"
        );
        let why = format!("{COPIED}; it is connected from {}", other.remote.ip());
        // It ends the session when it has read why. An earlier version does not.
        let read = async {
            session.send([ToCluster::Refused(why.clone())]).await;
            while let Ok(Some(_)) = session.incoming.message().await {}
        };
        let _ = tokio::time::timeout(END_GRACE, read).await;
        link.close(CloseReason::Copied);
        why
    }
}
