//! The stores that a request is waiting for, so that a timeout can name them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The stores that a request is waiting for at this moment. Clones share the set.
#[derive(Clone, Debug, Default)]
pub(crate) struct Awaited(Arc<Mutex<BTreeMap<Arc<str>, usize>>>);

impl Awaited {
    /// Adds a store until the guard is dropped.
    pub(super) fn enter(&self, store: &Arc<str>) -> AwaitedGuard {
        *self.lock().entry(Arc::clone(store)).or_default() += 1;
        AwaitedGuard { awaited: self.clone(), store: Arc::clone(store) }
    }

    /// The suffix of a timeout message that names these stores; empty if there are none.
    pub(crate) fn blame(&self) -> String {
        let stores: Vec<String> = self.lock().keys().map(|store| format!("store {store}")).collect();
        if stores.is_empty() { String::new() } else { format!(", waiting for {}", stores.join(", ")) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, usize>> {
        // The counts are consistent between any two statements.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes the store when dropped.
pub(super) struct AwaitedGuard {
    awaited: Awaited,
    store: Arc<str>,
}

impl Drop for AwaitedGuard {
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
