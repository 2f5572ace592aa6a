//! Connections that this gateway makes, takes, and replaces before a certificate at either end expires.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use futures::future::BoxFuture;
use identity::{CredentialStore, Expectations, Name};
use runtime::{ListenAddress, Shutdown};

use crate::{
    config::DialAddress,
    membership::{credentials::sleep_until, enrolment::EnrolmentService, renewal},
    transport::{
        AcceptedConnection, DialTarget, Dialer, MeshConnection, MeshLink, MeshListener, MeshNode,
        TransportChoice,
    },
};

/// How long a new connection may take to exchange hellos before the old one is left to it anyway.
const UP_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a failure that can only be the machine's.
const ODD_PAUSE: Duration = Duration::from_secs(5);

/// A connection that is being attended by a task of its own.
pub(super) struct RunningConnection {
    pub(super) link: MeshLink,
    /// Ends when hellos were exchanged; for ever pending if they never are.
    pub(super) up: BoxFuture<'static, ()>,
    /// Asks for no new requests on it; it is closed after its last one.
    pub(super) drain: Box<dyn Fn() + Send + Sync>,
}

/// Whom to keep a connection to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DialPeer {
    /// Whose gateway must be there.
    pub(super) cluster: Name,
    pub(super) address: DialAddress,
}

/// Expects the gateway of a cluster.
pub(super) fn gateway_of(cluster: &Name) -> Expectations {
    let component = pki::GATEWAY.parse().expect("the constant is a good name");
    Expectations { cluster: Some(cluster.clone()), component: Some(component), ..Expectations::default() }
}

/// Keeps one connection to each of a set of peers.
pub(super) struct DialerSet {
    dialling: Arc<DialContext>,
    stop: Shutdown,
    running: Mutex<BTreeMap<DialPeer, Shutdown>>,
}

/// What all dialling tasks share.
struct DialContext {
    store: Arc<CredentialStore>,
    transport_choice: TransportChoice,
    node_of: Box<dyn Fn(&Name) -> MeshNode + Send + Sync>,
    attend: Box<dyn Fn(MeshConnection) -> RunningConnection + Send + Sync>,
}

impl DialerSet {
    /// Nobody is dialled yet. `node_of` gives the node for connections to a cluster, `attend` takes each connection.
    pub(super) fn new(
        store: Arc<CredentialStore>,
        transport_choice: TransportChoice,
        stop: Shutdown,
        node_of: impl Fn(&Name) -> MeshNode + Send + Sync + 'static,
        attend: impl Fn(MeshConnection) -> RunningConnection + Send + Sync + 'static,
    ) -> Self {
        let dialling =
            DialContext { store, transport_choice, node_of: Box::new(node_of), attend: Box::new(attend) };
        Self { dialling: Arc::new(dialling), stop, running: Mutex::default() }
    }

    /// Dials exactly these from now on. Connections to those that stay are not touched; those to others are drained.
    pub(super) fn set(&self, wanted: &BTreeSet<DialPeer>) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|peering, stop| {
            let keep = wanted.contains(peering);
            if !keep {
                tracing::info!(cluster = %peering.cluster, address = %peering.address, "no longer dialled");
                stop.trigger();
            }
            keep
        });
        for peering in wanted {
            if !running.contains_key(peering) {
                let stop = self.stop.child();
                running.insert(peering.clone(), stop.clone());
                tokio::spawn(self.dialling.clone().keep(peering.clone(), stop));
            }
        }
    }
}

impl DialContext {
    /// Keeps a connection to one peer until it is told to stop.
    async fn keep(self: Arc<Self>, peering: DialPeer, stop: Shutdown) {
        let node = (self.node_of)(&peering.cluster);
        let target = DialTarget {
            address: peering.address.to_string(),
            expectations: gateway_of(&peering.cluster),
            transport_choice: self.transport_choice,
        };
        let mut current: Option<RunningConnection> = None;
        let keeping = async {
            loop {
                // A dialer of its own for each pair of certificates: it dials at once, whatever there is already.
                match Dialer::new(&node, target.clone()) {
                    Ok(dialer) => self.until_due(dialer, &mut current).await,
                    Err(error) => {
                        tracing::error!(address = %peering.address, error = %error, "set up dialling");
                        tokio::time::sleep(ODD_PAUSE).await;
                    }
                }
            }
        };
        stop.until_triggered(keeping).await;
        if let Some(current) = current {
            (current.drain)();
        }
    }

    /// Takes the connections of one dialer until the present one should be replaced.
    async fn until_due(&self, mut dialer: Dialer, current: &mut Option<RunningConnection>) {
        let mut due: Option<SystemTime> = None;
        loop {
            let connection = match due {
                None => dialer.next().await,
                Some(due) => tokio::select! {
                    connection = dialer.next() => connection,
                    () = sleep_until(due) => return,
                },
            };
            let ours = self.store.current().credentials.identity().clone();
            due = renewal::replace_connection_at([&ours, connection.link().identity()], SystemTime::now());
            let mut new = (self.attend)(connection);
            let link = new.link.clone();
            let is_up = tokio::select! {
                () = &mut new.up => true,
                _ = link.closed() => false,
                () = tokio::time::sleep(UP_TIMEOUT) => !link.is_closed(),
            };
            // A connection that came to nothing does not push out one that works.
            if is_up && let Some(old) = current.replace(new) {
                (old.drain)();
            }
        }
    }
}

/// Listens on the mesh's port, UDP and TCP.
pub(super) async fn listen(
    node: &MeshNode,
    address: &ListenAddress,
    expectations: Expectations,
    enrolment: bool,
) -> io::Result<MeshListener> {
    let resolved = match address.host() {
        "" => SocketAddr::from((Ipv6Addr::UNSPECIFIED, address.port())),
        host => tokio::net::lookup_host((host, address.port()))
            .await
            .and_then(|mut found| found.next().ok_or_else(|| io::Error::other("no address")))
            .map_err(|error| io::Error::new(error.kind(), format!("listen address {address}: {error}")))?,
    };
    MeshListener::bind(node, resolved, expectations, enrolment).await
}

/// Takes connections until the word to stop.
pub(super) async fn accept(
    mut listener: MeshListener,
    stop: Shutdown,
    attend: impl Fn(MeshConnection) + Send + 'static,
    enrolment: Option<Arc<EnrolmentService>>,
) {
    let taking = async {
        loop {
            match listener.accept().await {
                AcceptedConnection::Peer(connection) => attend(connection),
                AcceptedConnection::Enrolment { stream, remote } => {
                    tracing::debug!(%remote, "enrolment");
                    if let Some(enrolment) = &enrolment {
                        tokio::spawn(enrolment.clone().serve(*stream, remote.ip()));
                    }
                }
            }
        }
    };
    stop.until_triggered(taking).await;
}
