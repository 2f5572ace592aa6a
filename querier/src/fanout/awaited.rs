//! Which stores a request waits for, so that one that runs out of time can say so.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The stores that a request waits for at this moment. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Awaited(Arc<Mutex<BTreeMap<Arc<str>, usize>>>);

impl Awaited {
    /// Counts a store as waited for until the guard is dropped.
    pub(super) fn enter(&self, store: &Arc<str>) -> Waiting {
        *self.lock().entry(Arc::clone(store)).or_default() += 1;
        Waiting { awaited: self.clone(), store: Arc::clone(store) }
    }

    /// The end of a sentence about time that ran out: whom it was spent on, or nothing where nobody is waited for.
    pub(crate) fn blame(&self) -> String {
        let stores: Vec<String> = self.lock().keys().map(|store| format!("store {store}")).collect();
        if stores.is_empty() { String::new() } else { format!(", waiting for {}", stores.join(", ")) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, usize>> {
        // Counts are whole between any two statements.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the waiting for a store when dropped.
pub(super) struct Waiting {
    awaited: Awaited,
    store: Arc<str>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut stores = self.awaited.lock();
        if let Some(count) = stores.get_mut(&self.store) {
            *count -= 1;
            if *count == 0 {
                stores.remove(&self.store);
            }
        }
    }
}
