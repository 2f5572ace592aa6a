//! The gateway of a client cluster: joins, keeps connections to observability gateways, and serves its targets within
//! its policy.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use futures::FutureExt;
use http::Request;
use httpclient::Proxies;
use identity::{CredentialStore, Credentials, Name, SpiffeId, TrustBundle};
use pki::KeyAndCsr;
use proto::isthmus::mesh::v1::control_server::ControlServer;
use runtime::{FirstToStop, Probes, RoleError, RunningRole, Shutdown, Startup};
use tonic::body::Body;
use tower::ServiceExt;

use crate::component::{
    admin_socket::{own_targets, spawn_admin, spawn_pause},
    dialing::{DialPeer, DialerSet, RunningConnection, accept, gateway_of, listen},
    events::log_and_count,
    member::Member,
    peer_metrics,
    setup::{Addresses, Setup, on_reload, unchanged},
};
use crate::{
    access_log::{AccessLog, AccessLogOptions},
    admin::view::GatewayView,
    config::{ClusterRole, Config, DialAddress, GatewayRole},
    control::{
        MAX_MESSAGE_BYTES,
        cluster::{ClusterControl, ClusterSessions, SessionHandle},
        poller::Poller,
        verdicts::TargetVerdicts,
    },
    membership::{
        credentials::{CredentialKeeper, Membership, at_its_time},
        received::{bundle_of, certificates},
        recovery::Recovery,
    },
    metrics::{GatewayMetrics, PeerMetrics},
    proxy::inbound::InboundProxy,
    serving::ServingSwitch,
    task,
    transport::{self, MeshConnection, MeshLinks, MeshNode, ServiceHandler},
    trust::held::HeldTrust,
};

/// Paths that begin with this are for the control session; all other requests are for a target.
const CONTROL_PREFIX: &str = "/isthmus.mesh.v1.Control/";

pub(super) async fn build(
    setup: Setup,
    role: ClusterRole,
    mut startup: Startup,
    metrics: Arc<GatewayMetrics>,
) -> Result<(RunningRole, Addresses), RoleError> {
    let (config, token) = (&setup.config, setup.token.clone());
    if let Some(token) = &token {
        role.identity.check_token(token).map_err(RoleError::wrong_configuration)?;
    }
    let member = Member::join(&config.data_dir, token, &config.proxy, role.listen.as_ref()).await?;
    let member = member.with_join_file(setup.join_file.clone());
    role.identity
        .check_member(member.identity(), member.environment())
        .map_err(RoleError::wrong_configuration)?;
    let probes = startup.probes();
    let mesh = attach(&setup, role, member, probes, &mut startup, metrics).await?;
    let running = startup.serve();
    let addresses = Addresses::new(&running, mesh, Vec::new());
    Ok((running, addresses))
}

/// Starts every task on a role that begins; `probes` are those of the gateway. Returns the address of the mesh, if it listens.
pub(super) async fn attach(
    setup: &Setup,
    role: ClusterRole,
    member: Member,
    probes: Probes,
    startup: &mut Startup,
    metrics: Arc<GatewayMetrics>,
) -> Result<Option<SocketAddr>, RoleError> {
    let Member { data_dir, credentials, bundle, membership, join_file } = member;
    let identity = credentials.spiffe_id().clone();
    let store = CredentialStore::new(credentials, bundle, SystemTime::now()).map_err(RoleError::failed)?;
    let instance = data_dir.instance()?;
    let keeper = Arc::new(CredentialKeeper::new(data_dir.clone(), store.clone(), metrics.clone()));
    let proxies = Proxies::of(&setup.config.proxy).map_err(RoleError::wrong_configuration)?;
    let recovery = Recovery::new(data_dir.clone(), membership.clone(), proxies, join_file);
    let trust = HeldTrust::load(data_dir, keeper.clone(), metrics.clone());
    let node =
        MeshNode::new(transport::TransportSettings::default(), store.clone(), log_and_count(metrics.clone()))
            .with_guard(trust.guard().clone());

    let proxies = Proxies::of(&setup.config.proxy).map_err(RoleError::wrong_configuration)?;
    let switch = ServingSwitch::open(&setup.config.data_dir);
    let cluster = identity.cluster().clone();
    let inbound = Arc::new(InboundProxy::new(cluster, &role.targets, role.policy.clone(), switch.clone()));
    inbound
        .log_to(open_access_log(role.access_log.as_ref(), &metrics).map_err(RoleError::wrong_configuration)?);
    let verdicts = TargetVerdicts::new(metrics.clone());
    let poller = Poller::new(inbound.clone(), role.info_interval, verdicts.clone());
    let sessions = ClusterSessions::new(poller.targets(), instance, verdicts.clone());
    let service = Arc::new(ClusterService {
        sessions: sessions.clone(),
        inbound: inbound.clone(),
        metrics: metrics.peer(membership.issuer.cluster()),
        gateway_metrics: metrics.clone(),
        membership: membership.clone(),
        trust: trust.clone(),
    });

    let first = startup.first_to_stop();
    let shutdown = first.shutdown.clone();
    let mut mesh = None;
    if let Some(address) = &role.listen {
        let listener = listen(&node, address, gateway_of(membership.issuer.cluster()), false).await?;
        mesh = Some(listener.local_addr());
        let service = service.clone();
        let start = move |connection| drop(service.clone().start(connection));
        startup.spawn("mesh listener", accept(listener, shutdown.clone(), Box::new(start), None));
    }
    let start = {
        let service = service.clone();
        move |connection| service.clone().start(connection)
    };
    let node_of = {
        let node = node.clone();
        move |_: &Name| node.clone()
    };
    let dialers =
        Arc::new(DialerSet::new(store.clone(), setup.config.transport, proxies, shutdown, node_of, start));
    dialers.set(&peers_to_dial(&role, &membership)?);

    let (links, shown, stop) = (node.links().clone(), metrics.clone(), first.shutdown.clone());
    startup.spawn("peer metrics", async move {
        stop.until_triggered(peer_metrics::publish(move || links.list(), shown)).await;
    });
    spawn_pause(startup, &switch, node.links().clone(), first.shutdown.clone());
    let (links, testing, known) = (node.links().clone(), dialers.clone(), trust.clone());
    let view = GatewayView {
        role: "cluster",
        started: Instant::now(),
        store: store.clone(),
        links: Box::new(move || links.list()),
        targets: Box::new(own_targets(inbound.clone(), poller.targets(), verdicts)),
        connect_test: Box::new(move || testing.connect_test()),
        audit_log: Box::new(move || known.audit_text()),
        switch: Some(switch),
    };
    spawn_admin(startup, &setup.config.data_dir, view, first.shutdown.clone());

    let grace = setup.common.grace_period();
    spawn_tasks(startup, &sessions, &poller, &keeper, recovery, &first.shutdown);
    let (stop, links) = (first.shutdown.clone(), node.links().clone());
    startup.spawn("denylist age", async move {
        stop.until_triggered(trust.close_when_stale(&links)).await;
    });
    spawn_readiness(startup, &sessions, probes, first.shutdown.clone());
    spawn_drain(startup, sessions, node.links().clone(), first, grace);
    let reloading = Arc::new(ClusterReload {
        config: Mutex::new(setup.config.clone()),
        inbound,
        poller,
        dialers,
        identity: identity.clone(),
        membership,
        metrics,
    });
    on_reload(setup, &startup.reload(), move |config| {
        let reloading = reloading.clone();
        async move { reloading.apply(config) }
    });

    match mesh {
        Some(mesh) => {
            tracing::info!(%identity, %mesh, "the cluster gateway has started; the mesh accepts only observability gateways with a certificate of the trust domain")
        }
        None => tracing::info!(%identity, "the cluster gateway has started"),
    }
    Ok(mesh)
}

/// What a reload changes.
struct ClusterReload {
    config: Mutex<Config>,
    inbound: Arc<InboundProxy>,
    poller: Arc<Poller>,
    dialers: Arc<DialerSet>,
    identity: SpiffeId,
    membership: Membership,
    metrics: Arc<GatewayMetrics>,
}

impl ClusterReload {
    /// Applies a new configuration, or rejects it as a whole.
    fn apply(&self, new: Config) -> Result<(), String> {
        let mut present = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        let (GatewayRole::Cluster(old), GatewayRole::Cluster(role)) = (&present.role, &new.role) else {
            return Err("role: the value has changed; restart the gateway to apply it".to_owned());
        };
        unchanged("data_dir", &present.data_dir, &new.data_dir)?;
        unchanged("transport", &present.transport, &new.transport)?;
        unchanged("proxy", &present.proxy, &new.proxy)?;
        unchanged("listen", &old.listen, &role.listen)?;
        role.identity.check_member(&self.identity, &self.membership.environment)?;
        let peers = peers_to_dial(role, &self.membership).map_err(|error| error.to_string())?;
        if old.access_log != role.access_log {
            self.inbound.log_to(open_access_log(role.access_log.as_ref(), &self.metrics)?);
        }
        self.inbound.replace(&role.targets, role.policy.clone());
        self.poller.reconfigured(role.info_interval);
        self.dialers.set(&peers);
        *present = new;
        Ok(())
    }
}

fn open_access_log(
    options: Option<&AccessLogOptions>,
    metrics: &GatewayMetrics,
) -> Result<Option<AccessLog>, String> {
    let Some(options) = options else { return Ok(None) };
    let opened = AccessLog::open(options, metrics.access_lines_dropped());
    opened.map(Some).map_err(|error| format!("access_log.file {}: {error}", options.file.display()))
}

/// The peers to dial: the configured ones; without any, those of the token, unless this gateway listens.
fn peers_to_dial(role: &ClusterRole, membership: &Membership) -> Result<BTreeSet<DialPeer>, RoleError> {
    let addresses: &[DialAddress] = match (&role.dial[..], &role.listen) {
        ([], Some(_)) => &[],
        ([], None) => &membership.addresses,
        (dial, _) => dial,
    };
    if addresses.is_empty() && role.listen.is_none() {
        return Err(RoleError::wrong_configuration(
            "neither `dial` nor `listen` is set, and the token contains no address; set one of them",
        ));
    }
    let cluster = membership.issuer.cluster();
    Ok(addresses
        .iter()
        .map(|address| DialPeer { cluster: cluster.clone(), address: address.clone() })
        .collect())
}

/// Requests a certificate with a new key over the control session. It must be valid under the roots that are in use.
async fn request_leaf(
    sessions: &ClusterSessions,
    store: &CredentialStore,
) -> Result<(Credentials, TrustBundle), String> {
    let held = store.current();
    let identity = held.credentials.spiffe_id();
    let key = KeyAndCsr::generate().map_err(|error| error.to_string())?;
    let answer = sessions.request_certificate(key.csr_der().to_vec()).await?;
    let bundle = bundle_of(identity.trust_domain(), answer.roots, &answer.bundle_signature);
    let bundle = bundle.map_err(|error| error.to_string())?;
    let chain = certificates(answer.chain).collect();
    let credentials = key.into_credentials(chain, &held.bundle, identity, SystemTime::now());
    Ok((credentials.map_err(|error| error.to_string())?, bundle))
}

fn spawn_tasks(
    startup: &mut Startup,
    sessions: &Arc<ClusterSessions>,
    poller: &Arc<Poller>,
    keeper: &Arc<CredentialKeeper>,
    recovery: Recovery,
    shutdown: &Shutdown,
) {
    let (poller, stop) = (poller.clone(), shutdown.clone());
    startup.spawn("targets", async move {
        stop.until_triggered(poller.run()).await;
    });

    let (keeper, renewing, stop) = (keeper.clone(), sessions.clone(), shutdown.clone());
    startup.spawn("renewal", async move {
        let mut issue = || request_leaf(&renewing, keeper.store()).boxed();
        stop.until_triggered(keeper.keep_renewed(&mut issue, &at_its_time, Some(Box::new(recovery)))).await;
    });
}

/// Reports whether the gateway is connected.
fn spawn_readiness(startup: &mut Startup, sessions: &Arc<ClusterSessions>, probes: Probes, stop: Shutdown) {
    let mut count = sessions.count();
    startup.spawn("readiness", async move {
        let follow = async {
            loop {
                match *count.borrow_and_update() {
                    0 => probes.not_ready("not connected to an observability gateway"),
                    _ => probes.ready(),
                }
                if count.changed().await.is_err() {
                    return;
                }
            }
        };
        stop.until_triggered(follow).await;
    });
}

/// Asks for no new requests after the signal, and waits for the running ones before the servers stop.
fn spawn_drain(
    startup: &mut Startup,
    sessions: Arc<ClusterSessions>,
    links: MeshLinks,
    first: FirstToStop,
    grace: Duration,
) {
    // `None` only if the role has stopped already.
    let guard = first.gate.enter();
    startup.spawn("drain", async move {
        first.shutdown.triggered().await;
        sessions.drain_all();
        let drained = async {
            while links.list().iter().any(|link| link.streams() > 0) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(grace, drained).await.is_err() {
            tracing::warn!("the grace period is over, closing connections with running requests");
        }
        links.close_at_end().await;
        drop(guard);
    });
}

/// Serves connections to observability gateways, whichever side dialled.
struct ClusterService {
    sessions: Arc<ClusterSessions>,
    inbound: Arc<InboundProxy>,
    metrics: PeerMetrics,
    gateway_metrics: Arc<GatewayMetrics>,
    membership: Membership,
    trust: Arc<HeldTrust>,
}

impl ClusterService {
    /// Starts to serve a connection, in a task of its own.
    fn start(self: Arc<Self>, connection: MeshConnection) -> RunningConnection {
        let state = Arc::new(SessionHandle::default());
        let link = connection.link().clone();
        let control = ClusterControl::new(self.sessions.clone(), state.clone(), self.trust.clone());
        let control = ControlServer::new(control).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let (inbound, metrics, trust) = (self.inbound.clone(), self.metrics.clone(), self.trust.clone());
        let service = tower::service_fn(move |request: Request<Body>| {
            let (control, inbound, metrics) = (control.clone(), inbound.clone(), metrics.clone());
            let trust = trust.clone();
            async move {
                if request.uri().path().starts_with(CONTROL_PREFIX) {
                    return control.oneshot(request).await;
                }
                if let Some(why) = trust.refuses_requests(SystemTime::now()) {
                    return Ok(tonic::Status::unavailable(why).into_http());
                }
                Ok(inbound.serve(&metrics, request).await)
            }
        });
        let counted = self.gateway_metrics.connection(self.membership.issuer.cluster(), link.transport());
        let link = connection.serve(Arc::new(ServiceHandler::new(service)));
        let ended = link.clone();
        task::spawn(async move {
            let why = ended.closed().await;
            drop(counted);
            tracing::info!(peer = %ended.peer(), %why, age = ?ended.age(), "a connection has ended");
        });
        let (up, drain) = (state.clone(), state);
        RunningConnection {
            link,
            up: Box::pin(async move { up.is_up().await }),
            drain: Box::new(move || drain.drain()),
        }
    }
}
