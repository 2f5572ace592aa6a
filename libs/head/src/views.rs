//! Which views of a database exist, so that the head keeps what they read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::Timestamp;

use crate::cut_late::LateCut;

/// Samples that are in a block stay in the head for at most this long for views that do not know the block.
const PATIENCE: Duration = Duration::from_secs(120);

/// Which views exist. Views of one generation know the same blocks, or newer ones.
pub(crate) struct Views {
    current: Mutex<Arc<u64>>,
    waiting: Mutex<Option<Waiting>>,
    /// Views of this generation and earlier ones have lost samples of the head.
    removed_for: AtomicU64,
}

/// Samples that are in a block and may be removed from the head.
pub(crate) enum Removal {
    /// Those before a time that are in order.
    Before(Timestamp),
    /// Some that are out of order.
    Late(LateCut),
}

/// Samples that are in a block and still in the head.
struct Waiting {
    removal: Removal,
    generation: Arc<u64>,
    since: Timestamp,
}

impl Default for Views {
    fn default() -> Self {
        Self { current: Mutex::new(Arc::new(1)), waiting: Mutex::default(), removed_for: AtomicU64::new(0) }
    }
}

impl Views {
    /// The generation of a new view. The caller reads the list of blocks after this.
    pub(crate) fn enter(&self) -> Arc<u64> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the head has kept all samples for views of this generation.
    pub(crate) fn are_whole(&self, generation: u64) -> bool {
        generation > self.removed_for.load(Ordering::Acquire)
    }

    /// Notes that a block with these samples is in the list of blocks.
    pub(crate) fn was_cut(&self, removal: Removal, now: Timestamp) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let next = Arc::new(**current + 1);
        let generation = std::mem::replace(&mut *current, next);
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Waiting { removal, generation, since: now });
    }

    /// Whether samples wait for views before they are removed from the head.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// What may be removed from the head now. The caller removes it.
    pub(crate) fn removable(&self, now: Timestamp) -> Option<Removal> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let found = waiting.as_ref()?;
        // A clock that was set back must not keep samples for ever.
        let is_over = now < found.since || now >= found.since + PATIENCE;
        if Arc::strong_count(&found.generation) > 1 && !is_over {
            return None;
        }
        self.removed_for.store(*found.generation, Ordering::Release);
        waiting.take().map(|waiting| waiting.removal)
    }
}
