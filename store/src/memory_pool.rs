//! Memory that all requests share: a request takes a part of it, and works with less where there is none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Memory that can be taken. It counts bytes, and allocates nothing.
#[derive(Debug)]
pub(crate) struct MemoryPool {
    free_bytes: AtomicU64,
}

/// Memory that one request has taken. It is given back when it is dropped.
#[derive(Debug)]
pub(crate) struct TakenMemory {
    from: Arc<MemoryPool>,
    bytes: u64,
}

impl MemoryPool {
    pub(crate) fn new(bytes: u64) -> Self {
        Self { free_bytes: AtomicU64::new(bytes) }
    }

    /// Takes nothing yet.
    pub(crate) fn begin(self: &Arc<Self>) -> TakenMemory {
        TakenMemory { from: Arc::clone(self), bytes: 0 }
    }

    /// Takes a quarter of what is free, at most `most` bytes; nothing if that is less than `least`.
    pub(crate) fn take_quarter(self: &Arc<Self>, least: u64, most: u64) -> TakenMemory {
        let mut taken = self.begin();
        let share = (self.free_bytes.load(Ordering::Relaxed) / 4).min(most);
        if share >= least {
            taken.grow(share);
        }
        taken
    }

    /// Takes memory; returns whether there is enough.
    pub(crate) fn take(&self, bytes: u64) -> bool {
        let less = |free: u64| free.checked_sub(bytes);
        self.free_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    /// Memory that no request uses.
    #[cfg(test)]
    pub(crate) fn free_bytes(&self) -> u64 {
        self.free_bytes.load(Ordering::Relaxed)
    }
}

impl TakenMemory {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes more; returns whether there is enough.
    pub(crate) fn grow(&mut self, bytes: u64) -> bool {
        let is_enough = self.from.take(bytes);
        if is_enough {
            self.bytes += bytes;
        }
        is_enough
    }
}

impl Drop for TakenMemory {
    fn drop(&mut self) {
        self.from.free_bytes.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_given_back() {
        let pool = Arc::new(MemoryPool::new(1000));
        let first = pool.take_quarter(100, 200);
        let second = pool.take_quarter(100, 1000);
        assert_eq!((first.bytes(), second.bytes(), pool.free_bytes()), (200, 200, 600));
        assert_eq!(pool.take_quarter(151, 1000).bytes(), 0);
        let mut third = pool.begin();
        assert!(third.grow(600) && !third.grow(1));
        drop((first, third));
        assert_eq!((second.bytes(), pool.free_bytes()), (200, 800));
    }
}
