//! The gateway beside the querier: issues certificates, keeps the directory, sends requests to clusters.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use identity::{CredentialStore, Credentials, Expectations, Name, TrustBundle};
use mesh::Authority;
use pki::Issuer;
use proto::isthmus::mesh::v1::directory_server::DirectoryServer;
use runtime::{GrpcPorts, ListenAddress, RoleError, Shutdown, Startup};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tonic::service::RoutesBuilder;

use crate::component::{
    Gateway, Setup,
    dialing::{DialPeer, DialerSet, RunningConnection, accept, listen},
    events::log_and_count,
    on_reload, unchanged,
};
use crate::{
    config::{Config, Observability, PlainPort, Role},
    connections::ClusterConnections,
    control::observability::{ConnectionProgress, ObservabilityControl},
    directory::{Directory, service::DirectoryService},
    membership::{
        credentials::{CredentialKeeper, DataDir},
        enrolment::EnrolmentService,
        registrations::Registrations,
        renewal,
    },
    metrics::GatewayMetrics,
    proxy::local::{LocalProxyService, OutboundProxy, PortTarget},
    transport::{self, CloseReason, ConnectionEvent, MeshConnection, MeshNode},
};

pub(super) async fn build(
    setup: Setup,
    role: Observability,
    mut startup: Startup,
    metrics: Arc<GatewayMetrics>,
) -> Result<Gateway, RoleError> {
    if setup.token.is_some() {
        return Err(RoleError::failed(
            "a join token is for the gateway of a client cluster; this configuration has role: observability",
        ));
    }
    let issuer =
        Issuer::open(&role.pki_state).map_err(|error| RoleError::failed(format!("pki.state: {error}")))?;
    let issuer = Arc::new(issuer.with_leaf_ttl(role.leaf_lifetime));
    let data_dir = DataDir::open(&setup.config.data_dir)?;
    let (credentials, bundle) = own_credentials(&issuer, &data_dir).await?;
    let identity = credentials.spiffe_id().clone();
    let store = CredentialStore::new(credentials, bundle, SystemTime::now()).map_err(RoleError::failed)?;

    let directory = Arc::new(Directory::new(metrics.clone()));
    let registrations = Registrations::new(issuer.clone(), directory.clone());
    registrations.refresh().await.map_err(RoleError::failed)?;
    let connections = Arc::new(ClusterConnections::default());
    let control = Arc::new(ObservabilityControl {
        issuer: issuer.clone(),
        registrations: registrations.clone(),
        directory: directory.clone(),
        connections: connections.clone(),
        metrics: metrics.clone(),
    });

    let shutdown = startup.shutdown();
    let node =
        MeshNode::new(transport::TransportSettings::default(), store.clone(), log_and_count(metrics.clone()));
    let enrolment = EnrolmentService::new(issuer.clone(), metrics.clone());
    let component = pki::GATEWAY.parse().expect("the constant is a good name");
    let gateways = Expectations { component: Some(component), ..Expectations::default() };
    let listener = listen(&node, &role.listen, gateways, true).await?;
    let mesh = listener.local_addr();
    let attend = {
        let control = control.clone();
        move |connection| attend(&control, connection)
    };
    let accepted = attend.clone();
    let enrolled = enrolment.enrolled.clone();
    let taking =
        accept(listener, shutdown.clone(), move |connection| drop(accepted(connection)), Some(enrolment));
    startup.spawn("mesh listener", taking);

    let all_links = Arc::new(Mutex::new(vec![node.links().clone()]));
    let node_of = {
        let all_links = all_links.clone();
        let (store, metrics, directory) = (store.clone(), metrics.clone(), directory.clone());
        move |cluster: &Name| {
            let (log, directory, cluster) =
                (log_and_count(metrics.clone()), directory.clone(), cluster.clone());
            let node = MeshNode::new(transport::TransportSettings::default(), store.clone(), move |event| {
                log(event);
                match event {
                    ConnectionEvent::ConnectFailed { error, .. } => {
                        directory.connecting_failed(&cluster, &error.to_string())
                    }
                    ConnectionEvent::NameFailed { reason, .. } => {
                        directory.connecting_failed(&cluster, reason)
                    }
                    _ => {}
                }
            });
            all_links.lock().unwrap_or_else(PoisonError::into_inner).push(node.links().clone());
            node
        }
    };
    let dialers = DialerSet::new(store.clone(), setup.config.transport, shutdown.clone(), node_of, attend);
    dialers.set(&peerings(&role));

    let outbound = Arc::new(OutboundProxy::new(directory.clone(), connections.clone(), metrics.clone()));
    let ports = Arc::new(PlainPorts {
        outbound: outbound.clone(),
        grpc_ports: startup.grpc_ports(),
        stop: shutdown.clone(),
        open: tokio::sync::Mutex::default(),
        tasks: TaskTracker::new(),
    });
    ports.set(&role.targets).await?;
    let targets = ports.addresses().await;

    spawn_tasks(&mut startup, &issuer, registrations, enrolled, data_dir, store, metrics);
    let reloading = Arc::new(ObservabilityReload {
        config: tokio::sync::Mutex::new(setup.config.clone()),
        dialers,
        ports: ports.clone(),
    });
    on_reload(&setup, &startup.reload(), move |config| {
        let reloading = reloading.clone();
        async move { reloading.apply(config).await }
    });

    startup.probes().ready();
    tracing::info!(%identity, mesh = %mesh, "observability gateway");
    let router = axum::Router::new().fallback_service(LocalProxyService::named(outbound));
    *startup.services() = RoutesBuilder::from(router);
    startup.services().add_service(DirectoryServer::new(DirectoryService::new(directory)));
    let at_end = async move {
        ports.closed().await;
        for links in &*all_links.lock().unwrap_or_else(PoisonError::into_inner) {
            links.close_where(CloseReason::Shutdown, |_| true);
        }
    };
    Ok(Gateway::new(startup.serve_and_then(at_end), Some(mesh), targets))
}

/// What a reload changes.
struct ObservabilityReload {
    config: tokio::sync::Mutex<Config>,
    dialers: DialerSet,
    ports: Arc<PlainPorts>,
}

impl ObservabilityReload {
    /// Takes a new configuration, or refuses it as a whole.
    async fn apply(&self, new: Config) -> Result<(), String> {
        let mut present = self.config.lock().await;
        let (Role::Observability(old), Role::Observability(role)) = (&present.role, &new.role) else {
            return Err("role has changed: restart the gateway for that".to_owned());
        };
        unchanged("data_dir", &present.data_dir, &new.data_dir)?;
        unchanged("transport", &present.transport, &new.transport)?;
        unchanged("pki.state", &old.pki_state, &role.pki_state)?;
        unchanged("pki.leaf_lifetime", &old.leaf_lifetime, &role.leaf_lifetime)?;
        unchanged("listen", &old.listen, &role.listen)?;
        // The only step that can fail comes first.
        self.ports.set(&role.targets).await.map_err(|error| error.to_string())?;
        self.dialers.set(&peerings(role));
        *present = new;
        Ok(())
    }
}

fn peerings(role: &Observability) -> BTreeSet<DialPeer> {
    let of_cluster = |cluster: &crate::config::DialledCluster| {
        let name = cluster.name.clone();
        let addresses = cluster.dial.clone().into_iter();
        addresses.map(move |address| DialPeer { cluster: name.clone(), address })
    };
    role.clusters.iter().flat_map(of_cluster).collect()
}

/// Attends a connection in a task of its own, whoever dialled.
fn attend(control: &Arc<ObservabilityControl>, connection: MeshConnection) -> RunningConnection {
    let link = connection.link().clone();
    let (progress, seen) = watch::channel(ConnectionProgress::Opening);
    let control = control.clone();
    tokio::spawn(async move { control.attend(connection, progress).await });
    let mut up = seen.clone();
    RunningConnection {
        link,
        up: Box::pin(async move {
            if up.wait_for(|progress| matches!(progress, ConnectionProgress::Up(_))).await.is_err() {
                // The connection ended before it was up; whoever waits learns that from the link.
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

/// Our own leaf: the stored one while it is in the first half of its life, or else a new one.
async fn own_credentials(
    issuer: &Arc<Issuer>,
    data_dir: &DataDir,
) -> Result<(Credentials, TrustBundle), RoleError> {
    let now = SystemTime::now();
    let stored = data_dir.load().unwrap_or_else(|error| {
        tracing::warn!(error = %error, "the stored certificate cannot be read: a new one is issued");
        None
    });
    if let Some((credentials, bundle)) = stored
        && credentials.check(issuer.bundle(), now).is_ok()
        && credentials.spiffe_id().cluster() == issuer.cluster()
        && renewal::renew_at(credentials.identity(), &mut rand::rng()) > now
    {
        return Ok((credentials, bundle));
    }
    let issued = issue_own(issuer.clone()).await.map_err(RoleError::failed)?;
    data_dir.store(&issued.0, &issued.1)?;
    Ok(issued)
}

async fn issue_own(issuer: Arc<Issuer>) -> Result<(Credentials, TrustBundle), String> {
    let issued = tokio::task::spawn_blocking(move || {
        let component = pki::GATEWAY.parse().expect("the constant is a good name");
        issuer
            .issue_own(&component, SystemTime::now())
            .map(|credentials| (credentials, issuer.bundle().clone()))
    });
    issued.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

fn spawn_tasks(
    startup: &mut Startup,
    issuer: &Arc<Issuer>,
    registrations: Arc<Registrations>,
    enrolled: Arc<tokio::sync::Notify>,
    data_dir: DataDir,
    store: Arc<CredentialStore>,
    metrics: Arc<GatewayMetrics>,
) {
    let stop = startup.shutdown();
    startup.spawn("registrations", async move {
        stop.until_triggered(registrations.run(&enrolled)).await;
    });
    let (stop, issuer) = (startup.shutdown(), issuer.clone());
    let keeper = CredentialKeeper::new(data_dir, store, metrics);
    startup.spawn("renewal", async move {
        stop.until_triggered(keeper.keep_renewed(|| issue_own(issuer.clone()))).await;
    });
}

/// The plain ports that are open.
struct PlainPorts {
    outbound: Arc<OutboundProxy>,
    grpc_ports: GrpcPorts,
    stop: Shutdown,
    open: tokio::sync::Mutex<HashMap<ListenAddress, OpenPort>>,
    tasks: TaskTracker,
}

struct OpenPort {
    address: SocketAddr,
    /// Can be changed while the port is open.
    target: PortTarget,
    stop: Shutdown,
}

impl PlainPorts {
    /// Opens, closes and redirects ports so that exactly these are open. Requests that run go on.
    ///
    /// # Errors
    /// Names the address that cannot be listened on; nothing was changed then.
    async fn set(&self, wanted: &[PlainPort]) -> Result<(), RoleError> {
        let mut open = self.open.lock().await;
        let mut bound = Vec::new();
        for port in wanted.iter().filter(|port| !open.contains_key(&port.listen)) {
            bound.push((port, self.grpc_ports.bind(&port.listen).await?));
        }
        open.retain(|listen, port| match wanted.iter().find(|wanted| wanted.listen == *listen) {
            Some(wanted) => {
                port.target.set(wanted.name.clone());
                true
            }
            None => {
                port.stop.trigger();
                false
            }
        });
        for (port, server) in bound {
            let (address, stop) = (server.local_addr(), self.stop.child());
            let target = PortTarget::new(port.name.clone());
            let service = LocalProxyService::of(self.outbound.clone(), target.clone());
            let services = RoutesBuilder::from(axum::Router::new().fallback_service(service));
            tracing::info!(target = %port.name, %address, "a plain port accepts connections");
            let serving = server.serve(services, stop.clone());
            self.tasks.spawn(async move {
                if let Err(error) = serving.await {
                    tracing::error!(%address, error = %error, "a plain port cannot be served");
                }
            });
            open.insert(port.listen.clone(), OpenPort { address, target, stop });
        }
        Ok(())
    }

    async fn addresses(&self) -> Vec<(Authority, SocketAddr)> {
        self.open.lock().await.values().map(|port| (port.target.get(), port.address)).collect()
    }

    /// Waits until every port is closed and its last request is over.
    async fn closed(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}
