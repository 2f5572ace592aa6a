//! The gateway of the observability cluster: issues certificates, publishes the directory, sends requests to clusters.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Instant, SystemTime},
};

use futures::{FutureExt, future::join_all};
use httpclient::Proxies;
use identity::{CredentialStore, Credentials, Name, TrustBundle};
use pki::Issuer;
use proto::isthmus::mesh::v1::directory_server::DirectoryServer;
use runtime::{RoleError, RunningRole, Startup};
use tokio::sync::watch;
use tonic::service::RoutesBuilder;

use crate::component::{
    admin_socket::{all_targets, spawn_admin},
    delivered,
    dialing::{DialPeer, DialerSet, RunningConnection, accept, any_gateway, listen},
    events::log_and_count,
    peer_metrics,
    plain_ports::PlainPorts,
    setup::{Addresses, Setup, on_reload, unchanged},
};
use crate::{
    admin::view::GatewayView,
    config::{Config, GatewayRole, ObservabilityRole},
    connections::ClusterConnections,
    control::{
        member_budget::MemberBudgets, observability::ConnectionProgress, shared::ObservabilityControl,
    },
    directory::{Directory, service::DirectoryService},
    membership::{
        credentials::{CredentialKeeper, DataDir},
        enrolment::EnrolmentService,
        outbound_enrolment::OutboundEnrolment,
        registrations::Registrations,
        renewal,
    },
    metrics::GatewayMetrics,
    proxy::local::{LocalProxyService, OutboundProxy},
    task,
    transport::{self, ConnectionEvent, MeshConnection, MeshLink, MeshLinks, MeshNode},
    trust::{issued::IssuedTrust, issued_audit::IssuedAudit},
};

pub(super) async fn build(
    setup: Setup,
    role: ObservabilityRole,
    mut startup: Startup,
    metrics: Arc<GatewayMetrics>,
) -> Result<(RunningRole, Addresses), RoleError> {
    if setup.token.is_some() {
        return Err(RoleError::wrong_configuration(
            "a join token is given, but the configuration has role: observability; only the gateway of a client cluster joins",
        ));
    }
    metrics.register_issuer(startup.registry());
    delivered::take_over(&role)?;
    let issuer = open_issuer(&role)?;
    let proxies = Proxies::of(&setup.config.proxy).map_err(RoleError::wrong_configuration)?;
    let data_dir = DataDir::open(&setup.config.data_dir)?;
    let (credentials, bundle) = own_credentials(&issuer, &data_dir).await?;
    let identity = credentials.spiffe_id().clone();
    let store = CredentialStore::new(credentials, bundle, SystemTime::now()).map_err(RoleError::failed)?;

    let directory = Arc::new(Directory::new(metrics.clone()));
    let registrations = Registrations::new(issuer.clone(), directory.clone());
    registrations.refresh().await.map_err(RoleError::failed)?;
    let trust = IssuedTrust::load(issuer.clone(), metrics.clone()).await.map_err(RoleError::failed)?;
    let connections = Arc::new(ClusterConnections::default());
    let control = Arc::new(ObservabilityControl {
        issuer: issuer.clone(),
        registrations: registrations.clone(),
        directory: directory.clone(),
        connections: connections.clone(),
        metrics: metrics.clone(),
        budgets: MemberBudgets::new(metrics.clone()),
        trust: trust.clone(),
        processes: Arc::default(),
    });

    let shutdown = startup.shutdown();
    let node =
        MeshNode::new(transport::TransportSettings::default(), store.clone(), log_and_count(metrics.clone()))
            .with_guard(trust.guard().clone());
    let enrolment = EnrolmentService::new(issuer.clone(), metrics.clone());
    let listener = listen(&node, &role.listen, any_gateway(), true).await?;
    let mesh = listener.local_addr();
    let start = {
        let control = control.clone();
        move |connection| start_connection(&control, connection)
    };
    let start_accepted = start.clone();
    let enrolled = enrolment.enrolled.clone();
    let outbound = OutboundEnrolment::new(enrolment.clone(), &store)?;
    let start_accepted = Box::new(move |connection| drop(start_accepted(connection)));
    startup.spawn("mesh listener", accept(listener, shutdown.clone(), start_accepted, Some(enrolment)));

    let all_links = Arc::new(Mutex::new(vec![node.links().clone()]));
    let node_of = node_for_each_cluster(&store, &metrics, &directory, &trust, outbound, all_links.clone());
    let dialers = Arc::new(DialerSet::new(
        store.clone(),
        setup.config.transport,
        proxies,
        shutdown.clone(),
        node_of,
        start,
    ));
    dialers.set(&peers_to_dial(&role));
    let (links, shown, stop) = (all_links.clone(), metrics.clone(), shutdown.clone());
    startup.spawn("peer metrics", async move {
        stop.until_triggered(peer_metrics::publish(move || open_links(&links), shown)).await;
    });
    let view = view(&store, &directory, all_links.clone(), dialers.clone(), trust.audit().clone());
    spawn_admin(&mut startup, data_dir.path(), view, shutdown.clone());

    let outbound = Arc::new(OutboundProxy::new(directory.clone(), connections.clone(), metrics.clone()));
    let ports = Arc::new(PlainPorts::new(outbound.clone(), startup.grpc_ports(), shutdown.clone()));
    ports.set(&role.targets).await?;
    let targets = ports.addresses().await;

    let keeper = Arc::new(CredentialKeeper::new(data_dir, store, metrics));
    spawn_tasks(&mut startup, &issuer, registrations, trust, enrolled, keeper);
    if let Some(issuer) = role.delivered.clone() {
        let (stop, state) = (startup.shutdown(), role.pki_state.clone());
        startup.spawn("delivered issuing CA", async move {
            stop.until_triggered(delivered::watch(issuer, state)).await;
        });
    }
    let reloading = Arc::new(ObservabilityReload {
        config: tokio::sync::Mutex::new(setup.config.clone()),
        dialers,
        ports: ports.clone(),
    });
    on_reload(&setup, &startup.reload(), move |config| {
        let reloading = reloading.clone();
        async move { reloading.apply(config).await }
    });

    let stopping = startup.shutdown();
    startup.probes().ready();
    tracing::info!(%identity, mesh = %mesh, "the observability gateway has started; the mesh accepts gateways with a certificate of the trust domain, and clusters with a join token");
    let router = axum::Router::new().fallback_service(LocalProxyService::named(outbound));
    *startup.services() = RoutesBuilder::from(router);
    startup.services().add_service(DirectoryServer::new(DirectoryService::new(directory, stopping)));
    let at_end = async move {
        ports.closed().await;
        let nodes = all_links.lock().unwrap_or_else(PoisonError::into_inner).clone();
        join_all(nodes.iter().map(MeshLinks::close_at_end)).await;
    };
    let running = startup.serve_and_then(at_end);
    let addresses = Addresses::new(&running, Some(mesh), targets);
    Ok((running, addresses))
}

/// The connections of all nodes.
fn open_links(links: &Mutex<Vec<MeshLinks>>) -> Vec<MeshLink> {
    let links = links.lock().unwrap_or_else(PoisonError::into_inner);
    links.iter().flat_map(MeshLinks::list).collect()
}

/// What the admin socket shows.
fn view(
    store: &Arc<CredentialStore>,
    directory: &Arc<Directory>,
    links: Arc<Mutex<Vec<MeshLinks>>>,
    dialers: Arc<DialerSet>,
    audit: Arc<IssuedAudit>,
) -> GatewayView {
    GatewayView {
        role: "observability",
        started: Instant::now(),
        store: store.clone(),
        links: Box::new(move || open_links(&links)),
        targets: Box::new(all_targets(directory.clone())),
        connect_test: Box::new(move || dialers.connect_test()),
        audit_log: Box::new(move || audit.text()),
        switch: None,
    }
}

/// Opens the issuer with the settings of the configuration.
fn open_issuer(role: &ObservabilityRole) -> Result<Arc<Issuer>, RoleError> {
    let issuer = Issuer::open(&role.pki_state)
        .map_err(|error| RoleError::wrong_configuration(format!("pki.state: {error}")))?;
    issuer
        .check_agreement()
        .map_err(|error| RoleError::wrong_configuration(format!("pki.state: {error}")))?;
    let issuer = issuer.with_actor("gateway").with_leaf_ttl(role.leaf_lifetime);
    Ok(Arc::new(issuer.with_recovery(role.recover_expired)))
}

/// Makes the node for connections to a cluster, and adds its connections to `all_links`.
fn node_for_each_cluster(
    store: &Arc<CredentialStore>,
    metrics: &Arc<GatewayMetrics>,
    directory: &Arc<Directory>,
    trust: &IssuedTrust,
    outbound: Arc<OutboundEnrolment>,
    all_links: Arc<Mutex<Vec<MeshLinks>>>,
) -> impl Fn(&Name) -> MeshNode + Send + Sync + 'static {
    let guard = trust.guard().clone();
    let (store, metrics, directory) = (store.clone(), metrics.clone(), directory.clone());
    move |cluster: &Name| {
        let node = dialling_node(cluster, &store, &metrics, &directory, &outbound);
        let node = node.with_guard(guard.clone());
        all_links.lock().unwrap_or_else(PoisonError::into_inner).push(node.links().clone());
        node
    }
}

/// The node for connections that this gateway dials to `cluster`. Its failures are shown in the directory.
fn dialling_node(
    cluster: &Name,
    store: &Arc<CredentialStore>,
    metrics: &Arc<GatewayMetrics>,
    directory: &Arc<Directory>,
    outbound: &Arc<OutboundEnrolment>,
) -> MeshNode {
    let (log, directory, cluster) = (log_and_count(metrics.clone()), directory.clone(), cluster.clone());
    let outbound = outbound.clone();
    MeshNode::new(transport::TransportSettings::default(), store.clone(), move |event| {
        log(event);
        match event {
            ConnectionEvent::ConnectFailed { error, .. } => {
                directory.connecting_failed(&cluster, &error.to_string());
                outbound.offer(error.address);
            }
            ConnectionEvent::NameFailed { reason, .. } => directory.connecting_failed(&cluster, reason),
            _ => {}
        }
    })
}

/// What a reload changes.
struct ObservabilityReload {
    config: tokio::sync::Mutex<Config>,
    dialers: Arc<DialerSet>,
    ports: Arc<PlainPorts>,
}

impl ObservabilityReload {
    /// Applies a new configuration, or rejects it as a whole.
    async fn apply(&self, new: Config) -> Result<(), String> {
        let mut present = self.config.lock().await;
        let (GatewayRole::Observability(old), GatewayRole::Observability(role)) = (&present.role, &new.role)
        else {
            return Err("role: the value has changed; restart the gateway to apply it".to_owned());
        };
        unchanged("data_dir", &present.data_dir, &new.data_dir)?;
        unchanged("transport", &present.transport, &new.transport)?;
        unchanged("proxy", &present.proxy, &new.proxy)?;
        unchanged("pki.state", &old.pki_state, &role.pki_state)?;
        unchanged("pki.issuer_dir", &old.delivered, &role.delivered)?;
        unchanged("pki.leaf_lifetime", &old.leaf_lifetime, &role.leaf_lifetime)?;
        unchanged("pki.recover_expired", &old.recover_expired, &role.recover_expired)?;
        unchanged("listen", &old.listen, &role.listen)?;
        // The only step that can fail comes first.
        self.ports.set(&role.targets).await.map_err(|error| error.to_string())?;
        self.dialers.set(&peers_to_dial(role));
        *present = new;
        Ok(())
    }
}

fn peers_to_dial(role: &ObservabilityRole) -> BTreeSet<DialPeer> {
    let of_cluster = |cluster: &crate::config::DialledCluster| {
        let name = cluster.name.clone();
        let addresses = cluster.dial.clone().into_iter();
        addresses.map(move |address| DialPeer { cluster: name.clone(), address })
    };
    role.clusters.iter().flat_map(of_cluster).collect()
}

/// Starts a task that runs the session on a connection, whichever side dialled.
fn start_connection(control: &Arc<ObservabilityControl>, connection: MeshConnection) -> RunningConnection {
    let link = connection.link().clone();
    let (progress, seen) = watch::channel(ConnectionProgress::Opening);
    let control = control.clone();
    task::spawn(async move { control.run(connection, progress).await });
    let mut up = seen.clone();
    RunningConnection {
        link,
        up: Box::pin(async move {
            if up.wait_for(|progress| matches!(progress, ConnectionProgress::Up(_))).await.is_err() {
                // The connection ended before it was up. The waiting dialer sees that on the link.
                std::future::pending::<()>().await;
            }
        }),
        drain: Box::new(move || {
            if let ConnectionProgress::Up(connection) = &*seen.borrow() {
                connection.drain();
            }
        }),
    }
}

/// The leaf of this gateway: the stored one while its renewal is not due, otherwise a new one.
async fn own_credentials(
    issuer: &Arc<Issuer>,
    data_dir: &DataDir,
) -> Result<(Credentials, TrustBundle), RoleError> {
    let now = SystemTime::now();
    let stored = data_dir.load().unwrap_or_else(|error| {
        tracing::warn!(error = %error, "the stored certificate cannot be read, issuing a new one");
        None
    });
    if let Some((credentials, bundle)) = stored
        && credentials.check(&issuer.bundle(), now).is_ok()
        && credentials.spiffe_id().cluster() == issuer.cluster()
        && renewal::renew_at(credentials.identity(), &mut rand::rng()) > now
        && issuer.denylists(now).is_ok_and(|lists| lists.denies(credentials.identity()).is_none())
    {
        return Ok((credentials, bundle));
    }
    let issued = issue_own(issuer.clone()).await.map_err(RoleError::failed)?;
    data_dir.store(&issued.0, &issued.1)?;
    Ok(issued)
}

async fn issue_own(issuer: Arc<Issuer>) -> Result<(Credentials, TrustBundle), String> {
    let issued = tokio::task::spawn_blocking(move || {
        let component = pki::GATEWAY.parse().expect("the constant is a valid name");
        issuer.issue_own(&component, SystemTime::now()).map(|credentials| (credentials, issuer.bundle()))
    });
    issued.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

fn spawn_tasks(
    startup: &mut Startup,
    issuer: &Arc<Issuer>,
    registrations: Arc<Registrations>,
    trust: Arc<IssuedTrust>,
    enrolled: Arc<tokio::sync::Notify>,
    keeper: Arc<CredentialKeeper>,
) {
    let (stop, mut news, guard) = (startup.shutdown(), trust.news(), trust.guard().clone());
    startup.spawn("inventory", async move {
        stop.until_triggered(trust.run(&registrations, &enrolled)).await;
    });
    let (stop, adopting) = (startup.shutdown(), keeper.clone());
    startup.spawn("trust bundle", async move {
        let adopt = async {
            while news.changed().await.is_ok() {
                let offered = news.borrow_and_update().as_ref().map(|news| news.bundle.clone());
                if let Some(offered) = offered {
                    // A refusal was logged.
                    let _ = adopting.adopt_bundle(&offered).await;
                }
            }
        };
        stop.until_triggered(adopt).await;
    });
    let (stop, issuer) = (startup.shutdown(), issuer.clone());
    startup.spawn("renewal", async move {
        let mut issue = || issue_own(issuer.clone()).boxed();
        // A gateway whose own leaf is denied, with its issuing CA or alone, gets another one at once.
        let denied = move |leaf: identity::PeerIdentity| -> futures::future::BoxFuture<'static, ()> {
            let guard = guard.clone();
            Box::pin(async move { drop(guard.denied(&leaf).await) })
        };
        stop.until_triggered(keeper.keep_renewed(&mut issue, &denied, None)).await;
    });
}
