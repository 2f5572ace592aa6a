//! Builds a gateway of either role, runs it, and ends it.
//!
//! What both roles share is here: servers for people and components, the node of the mesh, reload, the order of the
//! end. [`observability`] and [`cluster`] add what one role does.

mod cluster;
mod dialing;
mod events;
mod handshake_log;
mod observability;

pub(crate) use self::cluster::config_for_join;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use mesh::Authority;
use pki::JoinToken;
use runtime::{
    BoxError, GrpcMetrics, GrpcOptions, GrpcServer, HttpServer, ListenAddress, Metrics, Probes, Registry,
    Reload, Shutdown, Supervisor, admin_routes,
};
use tonic::service::RoutesBuilder;

use crate::{
    config::{Config, ConfigError, Role},
    membership::{credentials::DataDirError, join::JoinError},
    metrics::GatewayMetrics,
};

/// What a gateway is started with.
#[derive(Debug)]
pub struct Setup {
    /// Checked configuration.
    pub config: Config,
    /// The file it came from, which a reload reads again; `None` where there is nothing to reload.
    pub config_file: Option<PathBuf>,
    /// Redeemed when the data folder holds no valid certificate; only for the cluster role.
    pub token: Option<JoinToken>,
    /// Metrics, probes, reload.
    pub http_address: ListenAddress,
    /// Directory and targets by name; health and reflection in both roles.
    pub grpc_address: ListenAddress,
    /// How long open requests may take after the word to stop.
    pub grace: Duration,
    /// Age after which a local gRPC connection is asked to reconnect; `None` for never.
    pub max_connection_age: Option<Duration>,
}

/// Why a gateway did not start, in one line.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] runtime::BindError),
    /// The mesh's port cannot be listened on.
    #[error(transparent)]
    Mesh(#[from] std::io::Error),
    /// The issuing CA's folder cannot be used.
    #[error("pki.state: {0}")]
    Pki(#[from] pki::PkiError),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl From<DataDirError> for StartError {
    fn from(error: DataDirError) -> Self {
        Self::Other(error.to_string())
    }
}

impl From<JoinError> for StartError {
    fn from(error: JoinError) -> Self {
        Self::Other(error.to_string())
    }
}

impl From<identity::CredentialsError> for StartError {
    fn from(error: identity::CredentialsError) -> Self {
        Self::Other(error.to_string())
    }
}

/// A gateway that listens; its tasks run.
pub struct Gateway {
    supervisor: Supervisor,
    addresses: Addresses,
}

/// Where a gateway listens, with the ports that the system chose.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// Metrics, probes, reload.
    pub http: SocketAddr,
    /// The local gRPC port.
    pub grpc: SocketAddr,
    /// The mesh, UDP and TCP; `None` where nobody dials in.
    pub mesh: Option<SocketAddr>,
    /// Plain ports as they were at the start.
    pub targets: Vec<(Authority, SocketAddr)>,
}

impl Gateway {
    /// Joins if need be, binds every address and starts every task.
    ///
    /// # Errors
    /// One line that names what is wrong; nothing runs then.
    pub async fn start(setup: Setup) -> Result<Self, StartError> {
        let shared = Shared::new(&setup).await?;
        match setup.config.role.clone() {
            Role::Observability(role) => observability::start(setup, role, shared).await,
            Role::Cluster(role) => cluster::start(setup, role, shared).await,
        }
    }

    /// Where it listens.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Ends the gateway as a signal does.
    pub fn shutdown(&self) -> Shutdown {
        self.supervisor.shutdown()
    }

    /// Reloads the configuration as a signal does.
    pub fn reload(&self) -> Reload {
        self.supervisor.reload()
    }

    /// Runs until the end.
    pub async fn run(self) -> ExitCode {
        self.supervisor.run().await
    }
}

/// What both roles start from.
struct Shared {
    registry: Registry,
    metrics: Arc<GatewayMetrics>,
    grpc_metrics: GrpcMetrics,
    probes: Probes,
    supervisor: Supervisor,
    http: HttpServer,
    grpc: GrpcServer,
    grpc_options: GrpcOptions,
    grace: Duration,
}

impl Shared {
    async fn new(setup: &Setup) -> Result<Self, StartError> {
        let mut registry = Registry::default();
        let metrics = GatewayMetrics::new(&mut registry);
        let grpc_metrics = GrpcMetrics::server(&mut registry, &[proto::DESCRIPTORS])
            .map_err(|error| StartError::Other(format!("the program's own descriptors: {error}")))?;
        let probes = Probes::new();
        let supervisor = Supervisor::new(probes.clone(), setup.grace);
        let grpc_options = GrpcOptions {
            max_connection_age: setup.max_connection_age,
            grace: setup.grace,
            ..GrpcOptions::default()
        };
        let http = HttpServer::bind(&setup.http_address).await?;
        let grpc = GrpcServer::bind(&setup.grpc_address, grpc_options.clone()).await?;
        let grace = setup.grace;
        Ok(Self { registry, metrics, grpc_metrics, probes, supervisor, http, grpc, grpc_options, grace })
    }

    /// Starts both servers. `at_end` follows when the last local request is over.
    fn serve(
        mut self,
        services: RoutesBuilder,
        at_end: impl Future<Output = ()> + Send + 'static,
    ) -> (Supervisor, SocketAddr, SocketAddr) {
        let (http_address, grpc_address) = (self.http.local_addr(), self.grpc.local_addr());
        let shutdown = self.supervisor.shutdown();
        let routes = admin_routes(Metrics::new(self.registry), self.probes.clone(), self.supervisor.reload());
        let (http, grace, stop) = (self.http, self.grace, shutdown.clone());
        self.supervisor.spawn("http", async move {
            http.serve(routes, grace, stop).await;
            Ok::<(), BoxError>(())
        });
        let (grpc, metrics, probes) = (self.grpc, self.grpc_metrics, self.probes);
        self.supervisor.spawn("grpc", async move {
            let served = grpc.serve(services, &[proto::DESCRIPTORS], metrics, probes, shutdown).await;
            at_end.await;
            served
        });
        (self.supervisor, http_address, grpc_address)
    }
}

/// Registers what a reload does with a configuration that was read again and found good.
fn on_reload<F, R>(setup: &Setup, reload: &Reload, apply: F)
where
    F: Fn(Config) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), String>> + Send + 'static,
{
    let Some(path) = setup.config_file.clone() else { return };
    let apply = Arc::new(apply);
    reload.register(path.display().to_string(), move || {
        let (path, apply) = (path.clone(), apply.clone());
        async move { apply(Config::load(&path)?).await.map_err(BoxError::from) }
    });
}

/// Refuses what cannot change while the gateway runs.
fn unchanged<T: PartialEq>(field: &str, old: &T, new: &T) -> Result<(), String> {
    if old == new { Ok(()) } else { Err(format!("{field} has changed: restart the gateway for that")) }
}
