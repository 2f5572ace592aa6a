//! The endpoints of one source.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use mesh::{Channel, ChannelOptions};
use runtime::GrpcMetrics;
use storeapi::LabelLimits;
use tokio::time::Instant;

use crate::endpoints::balanced::Members;
use crate::endpoints::endpoint::Endpoint;

/// The endpoints of one source (a flag, or the directory of a gateway) by name. Clones share them.
#[derive(Clone, Default)]
pub(super) struct EndpointGroup {
    content: Arc<RwLock<GroupContent>>,
    channel: ChannelOptions,
    labels: LabelLimits,
    metrics: Option<GrpcMetrics>,
}

/// The content of a group.
#[derive(Default)]
pub(super) struct GroupContent {
    pub(super) endpoints: BTreeMap<Arc<str>, Arc<Endpoint>>,
    /// Why the endpoints of this source are unknown; answers may then be partial.
    pub(super) unknown: Option<String>,
    /// When the address was last looked up with success.
    pub(super) looked_up: Option<Instant>,
    /// The replicas of the endpoint, if it has several.
    pub(super) members: Members,
}

impl GroupContent {
    /// Whether the last lookup was at least `interval` ago.
    pub(super) fn is_due(&self, interval: Duration) -> bool {
        self.looked_up.is_none_or(|at| at.elapsed() >= interval)
    }
}

impl EndpointGroup {
    /// Creates a group whose endpoints are unknown for this reason.
    pub(super) fn unknown(reason: &str, channel: ChannelOptions, labels: LabelLimits) -> Self {
        let content = GroupContent { unknown: Some(reason.to_owned()), ..GroupContent::default() };
        Self { content: Arc::new(RwLock::new(content)), channel, labels, metrics: None }
    }

    /// The same group, whose requests are counted.
    pub(super) fn counted_by(self, metrics: Option<GrpcMetrics>) -> Self {
        Self { metrics, ..self }
    }

    /// Whether it has a healthy endpoint of this name.
    pub(super) fn has_healthy(&self, name: &str) -> bool {
        self.read().endpoints.get(name).is_some_and(|endpoint| endpoint.state().last_error.is_none())
    }

    /// The channel to an endpoint, whose requests are counted.
    pub(super) fn counted(&self, channel: Channel) -> Channel {
        match &self.metrics {
            Some(metrics) => channel.within(&metrics.layer()),
            None => channel,
        }
    }

    /// How its endpoints are reached.
    pub(super) fn channel(&self) -> &ChannelOptions {
        &self.channel
    }

    /// Limits on the labels that its endpoints send.
    pub(super) fn labels(&self) -> LabelLimits {
        self.labels
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, GroupContent> {
        // Each change is one assignment, so the content is valid even if its writer panicked.
        self.content.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, GroupContent> {
        self.content.write().unwrap_or_else(PoisonError::into_inner)
    }
}
