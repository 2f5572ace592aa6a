//! The signal to stop, and the gate that the shutdown waits for.

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// The signal to stop a tree of tasks; clones are the same node of the tree.
///
/// Triggering a node triggers its descendants, but not its parent.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    token: CancellationToken,
}

impl Shutdown {
    /// The root of a new tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// A child of this node.
    pub fn child(&self) -> Self {
        Self { token: self.token.child_token() }
    }

    /// Triggers this node and its descendants. A second call has no effect.
    pub fn trigger(&self) {
        self.token.cancel();
    }

    /// Whether the signal was given.
    pub fn is_triggered(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits for the signal; returns at once when it was already given.
    ///
    /// # Cancel safety
    /// Changes nothing and may be dropped at any time.
    pub fn triggered(&self) -> WaitForCancellationFuture<'_> {
        self.token.cancelled()
    }

    /// Runs `work` until it is done; the signal drops it, which gives `None`.
    pub async fn until_triggered<F: Future>(&self, work: F) -> Option<F::Output> {
        self.token.run_until_cancelled(work).await
    }
}

/// Counts work that a shutdown must not cut in the middle (an upload, a database write): such work keeps a [`GateGuard`]
/// while it runs, and the shutdown closes the gate and waits until all guards are dropped.
#[derive(Clone, Debug, Default)]
pub struct ShutdownGate {
    tracker: TaskTracker,
}

/// Work that the shutdown waits for: it is over when the guard is dropped.
#[derive(Debug)]
pub struct GateGuard {
    _token: TaskTrackerToken,
}

impl ShutdownGate {
    /// An open gate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Enters the gate; `None` when the gate is closed, and new work must not begin.
    pub fn enter(&self) -> Option<GateGuard> {
        // Take the token before the check, so that `close` cannot happen between the two.
        let guard = GateGuard { _token: self.tracker.token() };
        (!self.tracker.is_closed()).then_some(guard)
    }

    /// The number of guards that exist.
    pub fn inside(&self) -> usize {
        self.tracker.len()
    }

    /// Closes the gate and waits until all guards are dropped.
    ///
    /// # Cancel safety
    /// The gate stays closed when the wait is dropped.
    pub async fn close(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn the_signal_goes_to_descendants_only() {
        let root = Shutdown::new();
        let (left, right) = (root.child(), root.child());
        left.trigger();
        assert!(!root.is_triggered() && !right.is_triggered());
        root.trigger();
        right.triggered().await;
        assert_eq!(right.until_triggered(std::future::pending::<()>()).await, None);
    }

    #[tokio::test]
    async fn a_closed_gate_waits_for_its_guards_and_gives_no_new_ones() {
        let gate = ShutdownGate::new();
        let guard = gate.enter().unwrap();
        assert!(gate.close().now_or_never().is_none());
        assert!(gate.enter().is_none());
        assert_eq!(gate.inside(), 1);
        drop(guard);
        gate.close().await;
    }
}
