//! What one cluster may take of the observability gateway: connections, messages, lines of the log.
//!
//! A valid certificate does not make a cluster well-behaved. Its budget ends before that of the others is touched.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use identity::Name;
use runtime::LogLimit;

use crate::metrics::GatewayMetrics;

/// Connections of a cluster, over all of its gateways. Each gateway has one, and two for a moment while one is replaced.
const MAX_CONNECTIONS: usize = 64;
/// Messages of a cluster's sessions in a second, on average, and at once after a rest: each target of 1,000 may change twice.
const MESSAGES_PER_SECOND: f64 = 500.0;
const MESSAGES_AT_ONCE: f64 = 4_000.0;

/// The budgets of all clusters that are connected.
pub(crate) struct MemberBudgets {
    metrics: Arc<GatewayMetrics>,
    members: Mutex<BTreeMap<Name, Weak<MemberBudget>>>,
}

/// The budget of one cluster, shared by its connections.
pub(crate) struct MemberBudget {
    cluster: Name,
    metrics: Arc<GatewayMetrics>,
    log: LogLimit,
    messages: Mutex<(f64, Instant)>,
}

impl MemberBudgets {
    pub(crate) fn new(metrics: Arc<GatewayMetrics>) -> Self {
        Self { metrics, members: Mutex::default() }
    }

    /// The budget of a cluster, for one connection; `None` if it has too many.
    pub(crate) fn connect(&self, cluster: &Name) -> Option<Arc<MemberBudget>> {
        let mut members = lock(&self.members);
        members.retain(|_, budget| budget.strong_count() > 0);
        let known = members.get(cluster).and_then(Weak::upgrade);
        let budget = known.unwrap_or_else(|| {
            let (cluster, metrics, now) = (cluster.clone(), self.metrics.clone(), Instant::now());
            let messages = Mutex::new((MESSAGES_AT_ONCE, now));
            Arc::new(MemberBudget { cluster, metrics, log: LogLimit::new(now), messages })
        });
        members.insert(cluster.clone(), Arc::downgrade(&budget));
        // This one is counted, too.
        if Arc::strong_count(&budget) > MAX_CONNECTIONS {
            budget.exceeded("connections");
            return None;
        }
        Some(budget)
    }
}

impl MemberBudget {
    /// How long the next message has to wait.
    pub(crate) fn message(&self, now: Instant) -> Duration {
        let mut messages = lock(&self.messages);
        let (left, since) = *messages;
        let rest = now.saturating_duration_since(since).as_secs_f64();
        let left = (left + rest * MESSAGES_PER_SECOND).min(MESSAGES_AT_ONCE) - 1.0;
        *messages = (left, now);
        drop(messages);
        if left >= 0.0 {
            return Duration::ZERO;
        }
        self.exceeded("messages");
        Duration::from_secs_f64(-left / MESSAGES_PER_SECOND)
    }

    /// Whether another line about this cluster may be logged, and how many were not since the last one.
    pub(crate) fn log(&self) -> Option<u64> {
        self.log.admit(Instant::now())
    }

    /// Counts that the cluster has reached a limit, and names it in the log.
    pub(crate) fn exceeded(&self, limit: &'static str) {
        self.metrics.member_limited(&self.cluster, limit);
        if let Some(suppressed) = self.log() {
            tracing::warn!(cluster = %self.cluster, limit, suppressed, "a cluster has reached its limit");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cluster_cannot_take_what_another_needs() {
        let budgets = MemberBudgets::new(GatewayMetrics::unregistered());
        let (greedy, modest) = ("eu-1".parse().unwrap(), "us-1".parse().unwrap());
        let held: Vec<_> = (0..100).filter_map(|_| budgets.connect(&greedy)).collect();
        assert_eq!(held.len(), MAX_CONNECTIONS);
        assert!(budgets.connect(&modest).is_some());
        drop(held);
        assert!(budgets.connect(&greedy).is_some(), "closed connections count");
    }

    #[test]
    fn messages_wait_when_there_are_too_many() {
        let budgets = MemberBudgets::new(GatewayMetrics::unregistered());
        let (budget, began) = (budgets.connect(&"eu-1".parse().unwrap()).unwrap(), Instant::now());
        let waits = (0..5_000).map(|_| budget.message(began)).filter(|wait| !wait.is_zero()).count();
        assert_eq!(waits, 1_000);
        let wait = budget.message(began);
        assert!(wait > Duration::from_millis(1_900) && wait < Duration::from_millis(2_100), "{wait:?}");
        assert_eq!(budget.message(began + Duration::from_secs(60)), Duration::ZERO);
    }
}
