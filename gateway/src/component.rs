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

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use mesh::Authority;
use pki::JoinToken;
use runtime::{BoxError, CommonArgs, Reload, RoleError, RoleInfo, RunningRole, Startup};

use crate::{
    config::{Config, Role},
    metrics::GatewayMetrics,
};

pub(crate) const ROLE: RoleInfo = RoleInfo { name: "gateway", descriptors: &[proto::DESCRIPTORS] };

/// What a gateway is built from.
#[derive(Debug)]
pub struct Setup {
    /// Checked configuration.
    pub config: Config,
    /// The file of the configuration, which a reload reads again; `None` where there is nothing to reload.
    pub config_file: Option<PathBuf>,
    /// Redeemed when the data folder holds no valid certificate; only for the cluster role.
    pub token: Option<JoinToken>,
    /// The flags that every role has.
    pub common: CommonArgs,
}

/// A gateway that listens; its tasks run.
pub struct Gateway {
    role: RunningRole,
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
    /// Binds every address and builds the gateway.
    ///
    /// # Errors
    /// As for [`Gateway::build`], or an address cannot be bound.
    pub async fn start(setup: Setup) -> Result<Self, RoleError> {
        let startup = Startup::bind(ROLE, &setup.common).await?;
        Self::build(setup, startup).await
    }

    /// Joins if the data folder holds no valid certificate, binds the ports of the mesh, and starts every task.
    ///
    /// # Errors
    /// One line that names what is wrong; no task is left running.
    pub async fn build(setup: Setup, mut startup: Startup) -> Result<Self, RoleError> {
        let metrics = GatewayMetrics::new(startup.registry());
        match setup.config.role.clone() {
            Role::Observability(role) => observability::build(setup, role, startup, metrics).await,
            Role::Cluster(role) => cluster::build(setup, role, startup, metrics).await,
        }
    }

    fn new(role: RunningRole, mesh: Option<SocketAddr>, targets: Vec<(Authority, SocketAddr)>) -> Self {
        let addresses = Addresses { http: role.http_address(), grpc: role.grpc_address(), mesh, targets };
        Self { role, addresses }
    }

    /// The addresses of all ports.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The running role, to stop it, to reload its configuration, and to wait for its end.
    pub fn into_role(self) -> RunningRole {
        self.role
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
