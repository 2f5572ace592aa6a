//! How much memory one part of the work uses.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the bytes that one part of the work has reserved, such as one operator of a query. It limits nothing; clones are
/// the same meter.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    counts: Arc<ByteCounts>,
}

#[derive(Debug, Default)]
struct ByteCounts {
    reserved: AtomicU64,
    peak: AtomicU64,
}

impl Meter {
    /// A meter at zero.
    pub fn new() -> Self {
        Self::default()
    }

    #[inline]
    pub(crate) fn add(&self, bytes: u64) {
        let reserved = self.counts.reserved.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.counts.peak.fetch_max(reserved, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn subtract(&self, bytes: u64) {
        self.counts.reserved.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Most bytes that were reserved at one time.
    pub fn peak_bytes(&self) -> u64 {
        self.counts.peak.load(Ordering::Relaxed)
    }
}
