//! Counts connections that a server closes before their first request.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RefusedLabels {
    server: &'static str,
    reason: &'static str,
}

/// The counters of all servers of a role.
#[derive(Clone, Debug, Default)]
pub(crate) struct RefusedConnections(Family<RefusedLabels, Counter>);

/// The counters of one server; the default is registered nowhere.
#[derive(Clone, Debug, Default)]
pub(crate) struct RefusedByServer {
    /// Too many connections were open.
    pub(crate) full: Counter,
    /// The client sent no byte in time.
    pub(crate) silent: Counter,
}

impl RefusedConnections {
    /// Registers the counters.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let refused = Self::default();
        let help = "Connections that were closed before a request, by server (http or grpc) and reason (full or silent)";
        registry.register("isthmus_server_refused_connections", help, refused.0.clone());
        refused
    }

    /// The counters of the server `http` or `grpc`.
    pub(crate) fn of(&self, server: &'static str) -> RefusedByServer {
        let counter = |reason| self.0.get_or_create(&RefusedLabels { server, reason }).clone();
        RefusedByServer { full: counter("full"), silent: counter("silent") }
    }
}
