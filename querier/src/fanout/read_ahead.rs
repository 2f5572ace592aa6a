//! What the stores of a query may read ahead of the merge, together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use budget::{Budget, LimitError, Reservation};
use mesh::StreamWindow;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of one permit.
const UNIT: usize = 1 << 10;
/// Series in one message of a store, by number of stores: the merge holds one message of each store.
const BATCH: (usize, usize) = (16, 64);
/// With up to this many stores, messages have the largest batch.
const MANY_STORES: usize = 256;

/// One window for all stores of a query. Each store may have one message in the merge of each selector. What it reads before
/// the merge needs it takes a part of the window, so that a store whose data is needed next is not slowed down by its share.
///
/// Selectors that are read before the engine needs them use at most half of the window. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct ReadAhead {
    window: Arc<SharedWindow>,
    /// Whether the engine does not need this selector yet.
    early: bool,
}

#[derive(Debug)]
struct SharedWindow {
    bytes: usize,
    units: usize,
    permits: Arc<Semaphore>,
    /// For selectors that the engine does not need yet.
    early_permits: Arc<Semaphore>,
    /// Bytes that the connections of all open streams may have in transit.
    in_transit: AtomicUsize,
}

/// A part of the window. It is free again when this is dropped.
pub(super) struct WindowPart {
    _all: OwnedSemaphorePermit,
    _early: Option<OwnedSemaphorePermit>,
}

impl ReadAhead {
    /// A window of `bytes`.
    pub(crate) fn new(bytes: usize) -> Self {
        let units = (bytes / UNIT).clamp(2, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        let window = SharedWindow {
            bytes,
            units,
            permits: Arc::new(Semaphore::new(units)),
            early_permits: Arc::new(Semaphore::new(units / 2)),
            in_transit: AtomicUsize::new(0),
        };
        Self { window: Arc::new(window), early: false }
    }

    /// The same window for a selector that the engine does not need yet.
    pub(crate) fn early(&self) -> Self {
        Self { early: true, ..self.clone() }
    }

    /// Whether open streams may already have as much in transit as the window allows.
    pub(crate) fn is_full(&self) -> bool {
        self.window.in_transit.load(Ordering::Relaxed) >= self.window.bytes
    }

    /// Waits until a message of about `bytes` fits into the window. It occupies that part until the part is dropped.
    ///
    /// # Cancel safety
    /// Dropping the future loses its place in the queue and nothing else.
    pub(super) async fn room(&self, bytes: usize) -> Option<WindowPart> {
        let most = if self.early { self.window.units / 2 } else { self.window.units };
        let units = u32::try_from(bytes.div_ceil(UNIT).clamp(1, most)).unwrap_or(u32::MAX);
        // The semaphores are never closed.
        let part = async |permits: &Arc<Semaphore>| Arc::clone(permits).acquire_many_owned(units).await.ok();
        let early = match self.early {
            true => Some(part(&self.window.early_permits).await?),
            false => None,
        };
        Some(WindowPart { _all: part(&self.window.permits).await?, _early: early })
    }

    /// Windows for the streams of `stores`, reserved from `budget`. They are large while all streams of the query together fit
    /// into its window, and memory is not short. Small ones are used otherwise, so that a query over many stores needs little.
    ///
    /// # Errors
    /// The memory limit is reached.
    pub(super) fn streams(&self, stores: usize, budget: &Budget) -> Result<StreamWindows, LimitError> {
        let bytes = |window: StreamWindow| stores.saturating_mul(window.bytes() as usize);
        let large = bytes(StreamWindow::Large);
        let in_transit = self.window.in_transit.load(Ordering::Relaxed);
        let fits = in_transit.saturating_add(large) <= self.window.bytes && budget.has_spare(large as u64);
        let window = if fits { StreamWindow::Large } else { StreamWindow::Small };
        let mut reserved = Reservation::new(budget);
        reserved.add(bytes(window) as u64)?;
        Ok(StreamWindows { window, reserved, shared: Arc::clone(&self.window) })
    }
}

/// What the connections of some streams may have in transit.
pub(super) struct StreamWindows {
    pub(super) window: StreamWindow,
    reserved: Reservation,
    shared: Arc<SharedWindow>,
}

impl StreamWindows {
    /// The part of one stream.
    pub(super) fn take(&mut self) -> OpenStream {
        let bytes = self.window.bytes();
        self.shared.in_transit.fetch_add(bytes as usize, Ordering::Relaxed);
        let reserved = self.reserved.split_off(bytes.into());
        OpenStream { bytes: bytes as usize, _reserved: reserved, shared: Arc::clone(&self.shared) }
    }
}

/// What the connection of one stream may have in transit, until this is dropped.
pub(super) struct OpenStream {
    bytes: usize,
    _reserved: Reservation,
    shared: Arc<SharedWindow>,
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.shared.in_transit.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Series in one message of each of `stores`. Large messages save time; with many stores they would take much memory.
pub(super) fn batch_size(stores: usize) -> usize {
    (BATCH.1 * MANY_STORES / stores.max(1)).clamp(BATCH.0, BATCH.1)
}

#[cfg(test)]
mod tests {
    use budget::{BudgetLimits, Interrupt, TotalBudget};
    use promql::QUERIES;

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
        assert_eq!(window.window.permits.available_permits(), 100);
    }

    #[tokio::test]
    async fn selectors_that_are_not_needed_yet_use_half_of_the_window() {
        let window = ReadAhead::new(100 << 10);
        let early = window.early().room(1 << 30).await.unwrap();
        assert_eq!(window.window.permits.available_permits(), 50);
        drop(window.room(50 << 10).await.unwrap());
        drop(early);
        assert_eq!(window.window.early_permits.available_permits(), 50);
    }

    fn budget(bytes: u64) -> Budget {
        Budget::new(&TotalBudget::unlimited(&QUERIES), BudgetLimits::bytes(bytes), Interrupt::new())
    }

    #[test]
    fn many_stores_get_small_windows_and_messages() {
        let of = |stores| {
            let streams = ReadAhead::new(64 << 20).streams(stores, &budget(1 << 30)).unwrap();
            (streams.window, batch_size(stores))
        };
        assert_eq!(of(1), (StreamWindow::Large, 64));
        assert_eq!(of(64), (StreamWindow::Large, 64));
        assert_eq!(of(65), (StreamWindow::Small, 64));
        assert_eq!(of(512), (StreamWindow::Small, 32));
        assert_eq!(of(5000), (StreamWindow::Small, 16));
    }

    #[test]
    fn streams_of_all_selectors_share_what_is_in_transit_and_count_towards_the_budget() {
        let (window, budget) = (ReadAhead::new(64 << 20), budget(1 << 30));
        let mut first = window.streams(40, &budget).unwrap();
        let open: Vec<OpenStream> = (0..40).map(|_| first.take()).collect();
        assert_eq!((first.window, budget.peak_bytes()), (StreamWindow::Large, 40 << 20));
        assert_eq!(window.streams(40, &budget).unwrap().window, StreamWindow::Small);
        let mut second = window.early().streams(24, &budget).unwrap();
        assert_eq!(second.window, StreamWindow::Large);
        let more: Vec<OpenStream> = (0..24).map(|_| second.take()).collect();
        assert!(window.is_full());
        drop((open, more));
        assert!(!window.is_full());
        assert_eq!(window.streams(40, &budget).unwrap().window, StreamWindow::Large);
        // Memory is short.
        let short = self::budget(100 << 20);
        assert_eq!(window.streams(60, &short).unwrap().window, StreamWindow::Small);
        assert!(window.streams(60, &self::budget(1 << 20)).is_err());
    }
}
