//! Which targets the observability side does not read although they are healthy, as its gateways say.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use identity::Name;
use proto::isthmus::mesh::v1::{Target, TargetVerdict};

use crate::{metrics::GatewayMetrics, peer_text::bounded};

/// The verdicts of all sessions, and the health of the targets as a metric.
pub(crate) struct TargetVerdicts {
    metrics: Arc<GatewayMetrics>,
    state: Mutex<VerdictState>,
}

#[derive(Default)]
struct VerdictState {
    /// Whether a target answers, for all targets.
    healthy: BTreeMap<String, bool>,
    /// The reason, by session and target.
    refused: BTreeMap<(u64, String), String>,
}

impl VerdictState {
    fn reason(&self, target: &str) -> Option<&String> {
        self.refused.iter().find(|((_, name), _)| name == target).map(|(_, reason)| reason)
    }
}

impl TargetVerdicts {
    pub(crate) fn new(metrics: Arc<GatewayMetrics>) -> Arc<Self> {
        Arc::new(Self { metrics, state: Mutex::default() })
    }

    /// Why the observability side does not read a target; `None` if it does, or has not said.
    pub(crate) fn refused(&self, target: &Name) -> Option<String> {
        self.lock().reason(target.as_str()).cloned()
    }

    /// Records the targets as they were polled.
    pub(crate) fn polled(&self, targets: &[Target]) {
        let mut state = self.lock();
        let present = targets.iter().map(|target| (target.name.clone(), target.healthy)).collect();
        let before = std::mem::replace(&mut state.healthy, present);
        for gone in before.keys().filter(|name| !state.healthy.contains_key(*name)) {
            self.metrics.target_removed(gone);
        }
        state.refused.retain(|(_, name), _| targets.iter().any(|target| target.name == *name));
        for (name, healthy) in &state.healthy {
            self.metrics.target_health(name, *healthy && state.reason(name).is_none());
        }
    }

    /// Records what a session said about a target. Names that are not those of targets are ignored.
    pub(super) fn judged(&self, session: u64, verdict: &TargetVerdict) {
        let mut state = self.lock();
        let Some((name, healthy)) = state.healthy.get_key_value(&verdict.name) else { return };
        let (name, healthy) = (name.clone(), *healthy);
        let reason = bounded(&verdict.refused);
        match reason.as_str() {
            "" => {
                tracing::info!(target = name, "the observability side reads the target again");
                state.refused.remove(&(session, name.clone()));
            }
            _ => {
                tracing::warn!(target = name, reason, "the observability side does not read the target");
                state.refused.insert((session, name.clone()), reason);
            }
        }
        self.metrics.target_health(&name, healthy && state.reason(&name).is_none());
    }

    /// Forgets what a session said.
    pub(super) fn session_ended(&self, session: u64) {
        self.lock().refused.retain(|(said_by, _), _| *said_by != session);
    }

    fn lock(&self) -> MutexGuard<'_, VerdictState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
