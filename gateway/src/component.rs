//! Builds a gateway of either role and runs it.
//!
//! [`Gateway::build`] builds what both roles need and calls [`observability`] or [`cluster`] for the rest.

mod admin_socket;
mod cluster;
mod delivered;
mod dialing;
mod embedded;
mod events;
mod looking;
mod member;
mod observability;
mod peer_metrics;
mod plain_ports;
mod setup;

pub use self::embedded::embed;
pub use self::looking::{addresses_of_issuer, ask_running, forbid_fragments, issuer_answers};
pub use self::member::{Member, has_credentials};
pub use self::setup::{Addresses, Setup};

use futures::future::BoxFuture;
use proto::isthmus::mesh::v1::directory_server;
use runtime::{RoleError, RoleInfo, RunningRole, Startup};

use crate::{config::GatewayRole, metrics::GatewayMetrics};

/// What is known about a gateway before it starts.
pub(crate) fn role_info(role: &GatewayRole) -> RoleInfo {
    let common = RoleInfo {
        name: "gateway",
        descriptors: &[proto::DESCRIPTORS],
        cores_per_thread: 2,
        ..RoleInfo::DEFAULT
    };
    match role {
        GatewayRole::Observability(_) => RoleInfo {
            services: &[directory_server::SERVICE_NAME],
            grpc_shows: "the directory, and the samples of all clusters",
            ..common
        },
        GatewayRole::Cluster(_) => common,
    }
}

/// A gateway that listens and whose tasks run.
pub struct Gateway {
    role: RunningRole,
    addresses: Addresses,
}

impl Gateway {
    /// Binds every address and builds the gateway.
    ///
    /// # Errors
    /// As for [`Gateway::build`], or an address cannot be bound.
    // Boxed here, so that callers in other crates do not compile the whole gateway again.
    pub fn start(setup: Setup) -> BoxFuture<'static, Result<Self, RoleError>> {
        Box::pin(async move {
            let startup = Startup::bind(role_info(&setup.config.role), &setup.common).await?;
            Self::build(setup, startup).await
        })
    }

    /// Joins if the data directory has no valid certificate, binds the ports of the mesh, and starts every task.
    ///
    /// # Errors
    /// One line that names what is wrong; no task is left running.
    pub(crate) async fn build(setup: Setup, mut startup: Startup) -> Result<Self, RoleError> {
        identity::forbid_core_dumps();
        let metrics = GatewayMetrics::new(startup.registry());
        let (role, addresses) = match setup.config.role.clone() {
            GatewayRole::Observability(role) => observability::build(setup, role, startup, metrics).await?,
            GatewayRole::Cluster(role) => cluster::build(setup, role, startup, metrics).await?,
        };
        Ok(Self { role, addresses })
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
