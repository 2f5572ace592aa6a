//! The queue, as those who use it at the same time share it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use runtime::LogLimit;
use tokio::sync::watch;
use tracing::warn;

use crate::metrics::NotifierMetrics;
use crate::queue::{Queue, ReaderId};

/// The queue, its metrics, and a number that says when it has changed.
pub(crate) struct Shared {
    queue: Mutex<Queue>,
    version: watch::Sender<u64>,
    metrics: NotifierMetrics,
    full: LogLimit,
}

impl Shared {
    pub(crate) fn new(queue: Queue, metrics: NotifierMetrics) -> Self {
        let shared = Self {
            queue: Mutex::new(queue),
            version: watch::Sender::new(0),
            metrics,
            full: LogLimit::new(Instant::now()),
        };
        shared.change(|_| ());
        shared
    }

    pub(crate) fn metrics(&self) -> &NotifierMetrics {
        &self.metrics
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the queue, or changes what concerns the caller only.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&mut Queue) -> T) -> T {
        look(&mut self.lock())
    }

    /// Changes the queue, and wakes those who wait for a change.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Queue) -> T) -> T {
        let mut queue = self.lock();
        let value = change(&mut queue);
        let (waiting, counts) = (queue.waiting(), queue.take_counts());
        drop(queue);
        self.metrics.queue(waiting, counts);
        if counts.dropped > 0
            && let Some(suppressed) = self.full.admit(Instant::now())
        {
            let dropped = counts.dropped;
            warn!(dropped, suppressed, "the queue of alerts is full, the oldest were dropped");
        }
        self.version.send_modify(|version| *version += 1);
        value
    }

    /// The number of the last change, and when it grows.
    pub(crate) fn version(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
}

/// An Alertmanager as a reader of the queue, from which it is removed in the end.
pub(crate) struct SharedReader<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) id: ReaderId,
}

impl<'a> SharedReader<'a> {
    pub(crate) fn new(shared: &'a Shared, group: usize) -> Self {
        Self { shared, id: shared.change(|queue| queue.add_reader(group)) }
    }
}

impl Drop for SharedReader<'_> {
    fn drop(&mut self) {
        self.shared.change(|queue| queue.remove_reader(self.id));
    }
}
