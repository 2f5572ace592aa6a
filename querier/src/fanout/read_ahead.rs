//! What the stores of an answer may read ahead of the merge, together.

use std::sync::Arc;

use mesh::StreamWindow;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of one permit.
const UNIT: usize = 1 << 10;
/// Series in one message of a store, by number of stores: the merge holds one message of each store.
const BATCH: (usize, usize) = (16, 64);
/// With up to this many stores, messages have the largest batch.
const MANY_STORES: usize = 256;

/// One window for all stores of an answer. Each store may have one message in the merge. What it reads before the merge needs
/// it takes a part of the window, so that a store whose data is needed next is not slowed down by its share.
#[derive(Clone, Debug)]
pub(super) struct ReadAhead {
    permits: Arc<Semaphore>,
    units: usize,
}

impl ReadAhead {
    /// A window of `bytes`.
    pub(super) fn new(bytes: usize) -> Self {
        let units = (bytes / UNIT).clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        Self { permits: Arc::new(Semaphore::new(units)), units }
    }

    /// Waits until a message of about `bytes` fits into the window. It occupies that part until the permit is dropped.
    ///
    /// # Cancel safety
    /// Dropping the future loses its place in the queue and nothing else.
    pub(super) async fn room(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = bytes.div_ceil(UNIT).clamp(1, self.units);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        Arc::clone(&self.permits).acquire_many_owned(units).await.ok()
    }
}

/// How far each of `stores` may send ahead, so that all connections together have at most `bytes` in transit.
pub(super) fn stream_window(stores: usize, bytes: usize) -> StreamWindow {
    let large = StreamWindow::Large.bytes() as usize;
    if stores.saturating_mul(large) <= bytes { StreamWindow::Large } else { StreamWindow::Small }
}

/// Series in one message of each of `stores`. Large messages save time; with many stores they would take much memory.
pub(super) fn batch_size(stores: usize) -> usize {
    (BATCH.1 * MANY_STORES / stores.max(1)).clamp(BATCH.0, BATCH.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stores_share_one_window() {
        let window = ReadAhead::new(100 << 10);
        let first = window.room(70 << 10).await.unwrap();
        // A message that is larger than the window fits when the window is empty.
        let large = tokio::spawn({
            let window = window.clone();
            async move { window.room(1 << 30).await.unwrap() }
        });
        tokio::task::yield_now().await;
        assert!(!large.is_finished());
        drop(first);
        drop(large.await.unwrap());
        assert_eq!(window.permits.available_permits(), 100);
    }

    #[test]
    fn many_stores_get_small_windows_and_messages() {
        let of = |stores| (stream_window(stores, 64 << 20), batch_size(stores));
        assert_eq!(of(1), (StreamWindow::Large, 64));
        assert_eq!(of(64), (StreamWindow::Large, 64));
        assert_eq!(of(65), (StreamWindow::Small, 64));
        assert_eq!(of(512), (StreamWindow::Small, 32));
        assert_eq!(of(5000), (StreamWindow::Small, 16));
    }
}
