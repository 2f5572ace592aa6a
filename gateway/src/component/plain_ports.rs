//! The plain ports of the observability gateway: one HTTP/2 port without TLS for each configured target.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use mesh::Authority;
use runtime::{GrpcPorts, ListenAddress, RoleError, Shutdown};
use tokio_util::task::TaskTracker;
use tonic::service::RoutesBuilder;

use crate::{
    config::PlainPort,
    proxy::local::{LocalProxyService, OutboundProxy, PortTarget},
    task,
};

/// The plain ports that are open.
pub(super) struct PlainPorts {
    outbound: Arc<OutboundProxy>,
    grpc_ports: GrpcPorts,
    stop: Shutdown,
    open: tokio::sync::Mutex<HashMap<ListenAddress, OpenPort>>,
    tasks: TaskTracker,
}

struct OpenPort {
    address: SocketAddr,
    /// A reload can change it while the port is open.
    target: PortTarget,
    stop: Shutdown,
}

impl PlainPorts {
    /// No port is open yet. All ports close when `stop` is triggered.
    pub(super) fn new(outbound: Arc<OutboundProxy>, grpc_ports: GrpcPorts, stop: Shutdown) -> Self {
        Self { outbound, grpc_ports, stop, open: tokio::sync::Mutex::default(), tasks: TaskTracker::new() }
    }

    /// Opens, closes and redirects ports so that exactly `wanted` are open. Running requests continue.
    ///
    /// # Errors
    /// An address cannot be bound. The error names it, and nothing was changed.
    pub(super) async fn set(&self, wanted: &[PlainPort]) -> Result<(), RoleError> {
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
            server.warn_if_open(&format!("all samples of {}", port.name));
            let serving = server.serve(services, stop.clone());
            task::spawn(self.tasks.track_future(async move {
                if let Err(error) = serving.await {
                    tracing::error!(%address, error = %error, "a plain port cannot be served");
                }
            }));
            open.insert(port.listen.clone(), OpenPort { address, target, stop });
        }
        Ok(())
    }

    /// The target and the bound address of each open port.
    pub(super) async fn addresses(&self) -> Vec<(Authority, SocketAddr)> {
        self.open.lock().await.values().map(|port| (port.target.get(), port.address)).collect()
    }

    /// Waits until every port is closed and its last request has finished.
    pub(super) async fn closed(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}
