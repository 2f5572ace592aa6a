//! Work that the text of a request alone can make long: parsing, planning, compiling regular expressions.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// Runs such work away from the threads that serve connections, on as many threads as the machine has cores. Clones share
/// the threads.
#[derive(Clone, Debug)]
pub(crate) struct Planner {
    turns: Arc<Semaphore>,
}

impl Planner {
    pub(crate) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { turns: Arc::new(Semaphore::new(cores)) }
    }

    /// Does `work`; `None` where it panicked.
    ///
    /// # Cancel safety
    /// Work that has begun is done to its end, which the engine's limits keep near, and counts as long as it lasts.
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
