//! What a gateway of either role is built from, and how it reloads its configuration.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use mesh::Authority;
use pki::JoinToken;
use runtime::{BoxError, CommonArgs, Reload, RunningRole};

use crate::config::Config;

/// What a gateway is built from.
#[derive(Debug)]
pub struct Setup {
    /// Checked configuration.
    pub config: Config,
    /// The configuration file, which a reload reads again; `None` if there is nothing to reload.
    pub config_file: Option<PathBuf>,
    /// The token to join with if the data directory has no valid certificate. Only for the cluster role.
    pub token: Option<JoinToken>,
    /// The file of the token, which is read again after the certificate has expired.
    pub join_file: Option<PathBuf>,
    /// The flags that every role has.
    pub common: CommonArgs,
}

/// The addresses at which a gateway listens, with the ports that the system chose.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// Metrics, probes, reload.
    pub http: SocketAddr,
    /// The local gRPC port.
    pub grpc: SocketAddr,
    /// The mesh, UDP and TCP; `None` if the gateway only dials.
    pub mesh: Option<SocketAddr>,
    /// Plain ports at the time of the start.
    pub targets: Vec<(Authority, SocketAddr)>,
}

impl Addresses {
    pub(super) fn new(
        role: &RunningRole,
        mesh: Option<SocketAddr>,
        targets: Vec<(Authority, SocketAddr)>,
    ) -> Self {
        Self { http: role.http_address(), grpc: role.grpc_address(), mesh, targets }
    }
}

/// Registers `apply`, which a reload calls with the configuration from the file if it is valid.
pub(super) fn on_reload<F, R>(setup: &Setup, reload: &Reload, apply: F)
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

/// Rejects a change of a field that cannot change while the gateway runs.
pub(super) fn unchanged<T: PartialEq>(field: &str, old: &T, new: &T) -> Result<(), String> {
    if old == new {
        Ok(())
    } else {
        Err(format!("{field}: the value has changed; restart the gateway to apply it"))
    }
}
