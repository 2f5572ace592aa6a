//! The word to stop, and the gate at which the end waits.

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// A node in the tree of those who must stop together; clones are the same node.
///
/// Triggering a node triggers all below it, never its parent.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    token: CancellationToken,
}

impl Shutdown {
    /// The root of a tree of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// A node below this one.
    pub fn child(&self) -> Self {
        Self { token: self.token.child_token() }
    }

    /// Tells this node and all below it to stop. Telling them again changes nothing.
    pub fn trigger(&self) {
        self.token.cancel();
    }

    /// Whether the word to stop was given.
    pub fn is_triggered(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits for the word to stop; at once when it was given already. Cancel safe.
    pub fn triggered(&self) -> WaitForCancellationFuture<'_> {
        self.token.cancelled()
    }

    /// Runs `work` until it is done or the word to stop comes, which drops it.
    pub async fn until_triggered<F: Future>(&self, work: F) -> Option<F::Output> {
        self.token.run_until_cancelled(work).await
    }
}

/// Lets work in until it is closed, then waits for those inside: what must not be cut in the middle
/// (an upload, a database write) holds a [`GateGuard`] while it runs.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    tracker: TaskTracker,
}

/// Held by work that the end of the role waits for.
#[derive(Debug)]
pub struct GateGuard {
    _token: TaskTrackerToken,
}

impl Gate {
    /// An open gate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Enters, or gets `None` where the gate is closed and new work must not begin.
    pub fn enter(&self) -> Option<GateGuard> {
        // The token is taken before the look at the gate, so that `close` cannot slip between them.
        let guard = GateGuard { _token: self.tracker.token() };
        (!self.tracker.is_closed()).then_some(guard)
    }

    /// How many are inside.
    pub fn inside(&self) -> usize {
        self.tracker.len()
    }

    /// Closes the gate and waits until nobody is inside. Closed it stays, even if the wait is dropped.
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
    async fn the_word_to_stop_goes_down_the_tree_only() {
        let root = Shutdown::new();
        let (left, right) = (root.child(), root.child());
        left.trigger();
        assert!(!root.is_triggered() && !right.is_triggered());
        root.trigger();
        right.triggered().await;
        assert_eq!(right.until_triggered(std::future::pending::<()>()).await, None);
    }

    #[tokio::test]
    async fn a_closed_gate_waits_for_those_inside_and_lets_nobody_in() {
        let gate = Gate::new();
        let guard = gate.enter().unwrap();
        assert!(gate.close().now_or_never().is_none());
        assert!(gate.enter().is_none());
        assert_eq!(gate.inside(), 1);
        drop(guard);
        gate.close().await;
    }
}
