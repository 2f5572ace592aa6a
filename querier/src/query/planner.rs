//! Work whose duration depends on the text of a request: parsing, planning, compiling regular expressions.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// Runs such work outside the threads that serve connections, on at most as many threads as there are CPU
/// cores. Clones share the limit.
#[derive(Clone, Debug)]
pub(crate) struct Planner {
    turns: Arc<Semaphore>,
}

impl Planner {
    pub(crate) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { turns: Arc::new(Semaphore::new(cores)) }
    }

    /// Runs `work`; `None` if it panicked.
    ///
    /// # Cancel safety
    /// Work that has started runs to its end, which the limits of the engine bound, and occupies its slot
    /// until then.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        // The semaphore is never closed.
        let turn = Arc::clone(&self.turns).acquire_owned().await.ok()?;
        let work = move || {
            let _turn = turn;
            work()
        };
        tokio::task::spawn_blocking(work).await.ok()
    }
}
