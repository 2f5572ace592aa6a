//! What the sessions of an observability gateway share.

use std::sync::Arc;

use pki::Issuer;

use crate::control::{copies::LiveProcesses, member_budget::MemberBudgets};
use crate::{
    connections::ClusterConnections, directory::Directory, membership::registrations::Registrations,
    metrics::GatewayMetrics, trust::issued::IssuedTrust,
};

/// Runs the sessions of an observability gateway (`observability`); state that they share.
pub(crate) struct ObservabilityControl {
    pub(crate) issuer: Arc<Issuer>,
    pub(crate) registrations: Arc<Registrations>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) connections: Arc<ClusterConnections>,
    pub(crate) metrics: Arc<GatewayMetrics>,
    pub(crate) budgets: MemberBudgets,
    pub(crate) trust: Arc<IssuedTrust>,
    pub(crate) processes: Arc<LiveProcesses>,
}
