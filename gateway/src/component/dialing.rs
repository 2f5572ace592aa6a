//! Dials and accepts connections, and replaces dialled ones before the certificate of either side expires.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use futures::future::BoxFuture;
use httpclient::Proxies;
use identity::{CredentialStore, Expectations, Name};
use runtime::{ListenAddress, Shutdown};

use crate::{
    admin::report::ConnectReport,
    clock::sleep_until,
    config::DialAddress,
    membership::{enrolment::EnrolmentService, renewal},
    task,
    transport::{
        AcceptedConnection, DialTarget, Dialer, MeshConnection, MeshLink, MeshListener, MeshNode,
        TransportChoice, TransportSettings,
    },
};

/// Time limit for the hellos on a new connection; after it the new connection replaces the old one anyway.
const UP_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after the dialer could not be created.
const SETUP_RETRY_PAUSE: Duration = Duration::from_secs(5);

/// A connection that a task of its own serves.
pub(super) struct RunningConnection {
    pub(super) link: MeshLink,
    /// Resolves when the hellos were exchanged; stays pending if they never are.
    pub(super) up: BoxFuture<'static, ()>,
    /// Stops new requests on the connection. It is closed after its last request.
    pub(super) drain: Box<dyn Fn() + Send + Sync>,
}

/// A peer to keep a connection to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DialPeer {
    /// The cluster whose gateway must answer.
    pub(super) cluster: Name,
    pub(super) address: DialAddress,
}

/// Accepts the gateway of any cluster.
pub(super) fn any_gateway() -> Expectations {
    let component = pki::GATEWAY.parse().expect("the constant is a valid name");
    Expectations { component: Some(component), ..Expectations::default() }
}

/// Accepts only the gateway of `cluster`.
pub(super) fn gateway_of(cluster: &Name) -> Expectations {
    Expectations { cluster: Some(cluster.clone()), ..any_gateway() }
}

/// Keeps one connection to each of a set of peers.
pub(super) struct DialerSet {
    context: Arc<DialContext>,
    stop: Shutdown,
    running: Mutex<BTreeMap<DialPeer, Shutdown>>,
}

/// State that all dialling tasks share.
struct DialContext {
    store: Arc<CredentialStore>,
    transport_choice: TransportChoice,
    proxies: Proxies,
    node_of: Box<dyn Fn(&Name) -> MeshNode + Send + Sync>,
    start: Box<dyn Fn(MeshConnection) -> RunningConnection + Send + Sync>,
}

impl DialerSet {
    /// Dials no peer yet. `node_of` returns the node for connections to a cluster; `start` serves a new connection.
    pub(super) fn new(
        store: Arc<CredentialStore>,
        transport_choice: TransportChoice,
        proxies: Proxies,
        stop: Shutdown,
        node_of: impl Fn(&Name) -> MeshNode + Send + Sync + 'static,
        start: impl Fn(MeshConnection) -> RunningConnection + Send + Sync + 'static,
    ) -> Self {
        let context = DialContext {
            store,
            transport_choice,
            proxies,
            node_of: Box::new(node_of),
            start: Box::new(start),
        };
        Self { context: Arc::new(context), stop, running: Mutex::default() }
    }

    /// Dials exactly the `wanted` peers from now on. Connections to peers that remain are not affected; connections to
    /// other peers are drained.
    pub(super) fn set(&self, wanted: &BTreeSet<DialPeer>) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|peer, stop| {
            let keep = wanted.contains(peer);
            if !keep {
                tracing::info!(cluster = %peer.cluster, address = %peer.address, "a peer is no longer dialled");
                stop.trigger();
            }
            keep
        });
        for peer in wanted {
            if !running.contains_key(peer) {
                let stop = self.stop.child();
                running.insert(peer.clone(), stop.clone());
                task::spawn(self.context.clone().keep_connected(peer.clone(), stop));
            }
        }
    }
}

impl DialerSet {
    /// Tries once to connect to each peer, beside the connections in use.
    pub(super) fn connect_test(&self) -> BoxFuture<'static, Vec<ConnectReport>> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let (context, peers) = (self.context.clone(), running.keys().cloned().collect::<Vec<_>>());
        Box::pin(async move {
            let tried = futures::future::join_all(peers.iter().map(|peer| context.try_peer(peer))).await;
            tried.into_iter().flatten().collect()
        })
    }
}

impl DialContext {
    fn dial_target(&self, peer: &DialPeer) -> DialTarget {
        DialTarget {
            address: peer.address.to_string(),
            expectations: gateway_of(&peer.cluster),
            transport_choice: self.transport_choice,
            proxy: self.proxies.for_tls(peer.address.host(), peer.address.port()).cloned(),
        }
    }

    async fn try_peer(&self, peer: &DialPeer) -> Vec<ConnectReport> {
        let report = |address, transport: &str, took: Duration, outcome: Result<(), String>| ConnectReport {
            dial: peer.address.to_string(),
            address,
            transport: transport.to_owned(),
            seconds: took.as_secs_f64(),
            error: outcome.err().unwrap_or_default(),
        };
        // A node of its own, so that the attempts are neither logged nor counted.
        let node = MeshNode::new(TransportSettings::default(), self.store.clone(), |_| {});
        let tried = match Dialer::new(&node, self.dial_target(peer)) {
            Ok(mut dialer) => dialer.try_each().await,
            Err(error) => Err(error.to_string()),
        };
        match tried {
            Err(error) => vec![report(None, "", Duration::ZERO, Err(error))],
            Ok(trials) => trials
                .into_iter()
                .map(|trial| report(Some(trial.address), trial.transport.as_str(), trial.took, trial.outcome))
                .collect(),
        }
    }

    /// Keeps a connection to one peer until `stop` is triggered.
    async fn keep_connected(self: Arc<Self>, peer: DialPeer, stop: Shutdown) {
        let node = (self.node_of)(&peer.cluster);
        let target = self.dial_target(&peer);
        let mut current: Option<RunningConnection> = None;
        let keeping = async {
            loop {
                // Each pair of certificates gets a dialer of its own, because a new dialer dials at once.
                match Dialer::new(&node, target.clone()) {
                    Ok(dialer) => self.until_due(dialer, &mut current).await,
                    Err(error) => {
                        tracing::error!(address = %peer.address, error = %error, "the dialer cannot be created, retrying");
                        tokio::time::sleep(SETUP_RETRY_PAUSE).await;
                    }
                }
            }
        };
        stop.until_triggered(keeping).await;
        if let Some(current) = current {
            (current.drain)();
        }
    }

    /// Starts the connections of one dialer until the current connection should be replaced.
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
            let mut new = (self.start)(connection);
            let link = new.link.clone();
            let is_up = tokio::select! {
                () = &mut new.up => true,
                _ = link.closed() => false,
                () = tokio::time::sleep(UP_TIMEOUT) => !link.is_closed(),
            };
            // A connection that failed does not replace one that works.
            if is_up && let Some(old) = current.replace(new) {
                (old.drain)();
            }
        }
    }
}

/// Listens on the port of the mesh, UDP and TCP.
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

/// Accepts connections until `stop` is triggered. `start` serves each of them.
pub(super) async fn accept(
    mut listener: MeshListener,
    stop: Shutdown,
    start: Box<dyn Fn(MeshConnection) + Send + Sync>,
    enrolment: Option<Arc<EnrolmentService>>,
) {
    let accepting = async {
        loop {
            match listener.accept().await {
                AcceptedConnection::Peer(connection) => start(connection),
                AcceptedConnection::Enrolment { stream, remote } => {
                    tracing::debug!(%remote, "a cluster connected for enrolment");
                    if let Some(enrolment) = &enrolment {
                        task::spawn(enrolment.clone().serve(stream, remote.ip()));
                    }
                }
            }
        }
    };
    stop.until_triggered(accepting).await;
}
