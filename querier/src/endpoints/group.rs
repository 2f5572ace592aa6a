//! The endpoints of one source.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use mesh::{Channel, ChannelOptions};
use runtime::GrpcMetrics;
use storeapi::LabelLimits;
use tokio::time::Instant;

use crate::endpoints::NOT_ASKED;
use crate::endpoints::balanced::Members;
use crate::endpoints::endpoint::Endpoint;
use crate::endpoints::readiness::Knowledge;

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

    /// What is known about endpoints that are asked for Info.
    pub(super) fn knowledge(&self) -> Knowledge {
        let content = self.read();
        let states: Vec<_> = content.endpoints.values().map(|endpoint| endpoint.state()).collect();
        if states.is_empty() {
            return content.unknown.clone().map_or(Knowledge::Known, Knowledge::Awaited);
        }
        let is_asked = |error: &Option<String>| error.as_deref() != Some(NOT_ASKED);
        if !states.iter().all(|state| is_asked(&state.last_error)) {
            return Knowledge::Awaited(NOT_ASKED.to_owned());
        }
        let has_answered = states.iter().any(|state| state.info.is_some());
        let error = states.into_iter().find_map(|state| state.last_error);
        error.filter(|_| !has_answered).map_or(Knowledge::Known, Knowledge::Unreadable)
    }

    /// What is known about endpoints that a gateway announces: its directory, or nothing.
    pub(super) fn announced(&self) -> Knowledge {
        let content = self.read();
        let unknown = content.unknown.as_ref().filter(|_| content.endpoints.is_empty());
        unknown.map_or(Knowledge::Known, |why| Knowledge::Awaited(why.clone()))
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
