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
use runtime::{BoxError, ListenAddress, Shutdown};

use crate::{
    config::DialAddress,
    credentials::sleep_until,
    enrolment::EnrolmentService,
    renewal,
    transport::{Connection, Dialer, Inbound, Link, Listener, Node, Preference, Target},
};

/// How long a new connection may take to exchange hellos before the old one is left to it anyway.
const UP_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a failure that can only be the machine's.
const ODD_PAUSE: Duration = Duration::from_secs(5);

/// A connection that is being attended by a task of its own.
pub(super) struct Attended {
    pub(super) link: Link,
    /// Ends when hellos were exchanged; for ever pending if they never are.
    pub(super) up: BoxFuture<'static, ()>,
    /// Asks for no new requests on it; it is closed after its last one.
    pub(super) drain: Box<dyn Fn() + Send + Sync>,
}

/// Whom to keep a connection to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Peering {
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
pub(super) struct Dialers {
    dialling: Arc<Dialling>,
    stop: Shutdown,
    running: Mutex<BTreeMap<Peering, Shutdown>>,
}

/// What all dialling tasks share.
struct Dialling {
    store: Arc<CredentialStore>,
    preference: Preference,
    node_of: Box<dyn Fn(&Name) -> Node + Send + Sync>,
    attend: Box<dyn Fn(Connection) -> Attended + Send + Sync>,
}

impl Dialers {
    /// Nobody is dialled yet. `node_of` gives the node for connections to a cluster, `attend` takes each connection.
    pub(super) fn new(
        store: Arc<CredentialStore>,
        preference: Preference,
        stop: Shutdown,
        node_of: impl Fn(&Name) -> Node + Send + Sync + 'static,
        attend: impl Fn(Connection) -> Attended + Send + Sync + 'static,
    ) -> Self {
        let dialling = Dialling { store, preference, node_of: Box::new(node_of), attend: Box::new(attend) };
        Self { dialling: Arc::new(dialling), stop, running: Mutex::default() }
    }

    /// Dials exactly these from now on. Connections to those that stay are not touched; those to others are drained.
    pub(super) fn set(&self, wanted: &BTreeSet<Peering>) {
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

impl Dialling {
    /// Keeps a connection to one peer until it is told to stop.
    async fn keep(self: Arc<Self>, peering: Peering, stop: Shutdown) {
        let node = (self.node_of)(&peering.cluster);
        let target = Target {
            address: peering.address.to_string(),
            expectations: gateway_of(&peering.cluster),
            preference: self.preference,
        };
        let mut current: Option<Attended> = None;
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
    async fn until_due(&self, mut dialer: Dialer, current: &mut Option<Attended>) {
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
    node: &Node,
    address: &ListenAddress,
    expectations: Expectations,
    enrolment: bool,
) -> io::Result<Listener> {
    let resolved = match address.host() {
        "" => SocketAddr::from((Ipv6Addr::UNSPECIFIED, address.port())),
        host => tokio::net::lookup_host((host, address.port()))
            .await
            .and_then(|mut found| found.next().ok_or_else(|| io::Error::other("no address")))
            .map_err(|error| io::Error::new(error.kind(), format!("listen address {address}: {error}")))?,
    };
    Listener::bind(node, resolved, expectations, enrolment).await
}

/// Takes connections until the word to stop.
pub(super) async fn accept(
    mut listener: Listener,
    stop: Shutdown,
    attend: impl Fn(Connection) + Send + 'static,
    enrolment: Option<Arc<EnrolmentService>>,
) -> Result<(), BoxError> {
    let taking = async {
        loop {
            match listener.accept().await {
                Inbound::Peer(connection) => attend(connection),
                Inbound::Enrolment { stream, remote } => {
                    tracing::debug!(%remote, "enrolment");
                    if let Some(enrolment) = &enrolment {
                        tokio::spawn(enrolment.clone().serve(*stream, remote.ip()));
                    }
                }
            }
        }
    };
    stop.until_triggered(taking).await;
    Ok(())
}
