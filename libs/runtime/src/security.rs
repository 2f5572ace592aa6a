//! What guards the servers of a role: TLS, client certificates and passwords, from flags and files.

use std::net::SocketAddr;
use std::path::PathBuf;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tracing::{info, warn};

use crate::args::CommonArgs;
use crate::port_tls::PortTls;
use crate::reload::Reload;
use crate::role_error::{BoxError, ConfigMistakes, RoleError};
use crate::web_config::{WebConfig, WebGuard};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ServerLabels {
    server: &'static str,
}

/// What guards the servers of a role.
#[derive(Debug, Default)]
pub(crate) struct ServerSecurity {
    pub(crate) http: HttpSecurity,
    /// `None` for gRPC without TLS.
    pub(crate) grpc_tls: Option<PortTls>,
}

/// What guards the HTTP server.
#[derive(Debug, Default)]
pub(crate) struct HttpSecurity {
    /// `None` for plain HTTP.
    pub(crate) tls: Option<PortTls>,
    /// `None` without `--http.config`.
    pub(crate) guard: Option<WebGuard>,
}

impl HttpSecurity {
    /// Whether the server keeps strangers out: by a password, or by verified certificates of clients.
    pub(crate) fn knows_clients(&self) -> bool {
        self.guard.as_ref().is_some_and(WebGuard::asks_for_password)
            || self.tls.as_ref().is_some_and(PortTls::verifies_clients)
    }
}

/// Logs that an HTTP server without passwords can be reached from other hosts, and what it shows.
pub(crate) fn warn_if_http_is_open(address: SocketAddr, shows: &str) {
    if !address.ip().is_loopback() {
        warn!(%address, shows, "HTTP is open to all clients that reach this address; set passwords in --http.config, or restrict it with --http-address=127.0.0.1:PORT or a firewall");
    }
}

impl ServerSecurity {
    /// Reads the files that the flags name, registers the metric of failed handshakes, and lets a reload read the files
    /// again.
    ///
    /// # Errors
    /// All mistakes of the flags and of `--http.config`.
    pub(crate) fn load(
        common: &CommonArgs,
        registry: &mut Registry,
        reload: &Reload,
    ) -> Result<Self, RoleError> {
        let failures = Family::<ServerLabels, Counter>::default();
        registry.register(
            "server_tls_handshake_failures",
            "TLS handshakes with clients that failed, by server (http or grpc)",
            failures.clone(),
        );
        let failures = |server| failures.get_or_create(&ServerLabels { server }).clone();
        let mut mistakes = ConfigMistakes::default();
        let grpc = mistakes.note(common.grpc_tls.load()).flatten();
        let http = common.http_config.as_ref().filter(|path| !path.is_empty()).and_then(|path| {
            let config = mistakes.note(WebConfig::watch(PathBuf::from(path)))?;
            let guard = mistakes.note(WebGuard::new(config.clone()))?;
            Some((path, config, guard))
        });
        mistakes.or_ok(()).map_err(|mistakes| RoleError::wrong_configuration(mistakes.to_string()))?;

        let mut security = Self::default();
        if let Some(files) = grpc {
            let files = std::sync::Arc::new(files);
            let again = files.clone();
            reload.register("--grpc-server-tls-cert", move || {
                std::future::ready(again.reload().map_err(BoxError::from))
            });
            info!("gRPC is served with TLS");
            let current = move || Some((*files.current()).clone());
            security.grpc_tls = Some(PortTls::new("grpc", failures("grpc"), current));
        }
        if let Some((path, config, guard)) = http {
            let again = config.clone();
            reload.register(format!("--http.config={path}"), move || {
                std::future::ready(again.reload().map_err(BoxError::from))
            });
            let has_tls = config.current().tls.is_some();
            info!(tls = has_tls, "HTTP is served with the settings of --http.config");
            if has_tls {
                let current = move || config.current().tls.clone();
                security.http.tls = Some(PortTls::new("http", failures("http"), current));
            }
            security.http.guard = Some(guard);
        }
        Ok(security)
    }
}
