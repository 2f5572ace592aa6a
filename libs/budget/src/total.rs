//! What all work together may use.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{BudgetLimits, Consumers};

/// What all work of one kind may use together, such as all queries of a process. Clones are the same budget.
///
/// A request for more than is left is refused, and the work that made it stops. Bytes that other work has reserved are not
/// touched. After a refusal, the bytes of the refused work do not count against other work, which would otherwise be refused
/// too before they are released. That is limited to an eighth of the budget, by which all work together may exceed it for
/// that moment.
#[derive(Clone, Debug)]
pub struct TotalBudget {
    counters: Arc<TotalCounters>,
}

#[derive(Debug)]
struct TotalCounters {
    consumers: &'static Consumers,
    limits: BudgetLimits,
    samples: AtomicU64,
    reserved: AtomicU64,
    /// Of the reserved bytes, those of budgets that were refused more and are about to release what they have. For a moment
    /// it may be more than they have.
    releasing: AtomicU64,
}

impl TotalBudget {
    /// A budget for all `consumers` that run at one time.
    pub fn new(consumers: &'static Consumers, limits: BudgetLimits) -> Self {
        let zero = || AtomicU64::new(0);
        let counters =
            TotalCounters { consumers, limits, samples: zero(), reserved: zero(), releasing: zero() };
        Self { counters: Arc::new(counters) }
    }

    /// A budget that only counts: the limits of each [`Budget`](crate::Budget) are the only ones.
    pub fn unlimited(consumers: &'static Consumers) -> Self {
        Self::new(consumers, BudgetLimits::UNLIMITED)
    }

    /// Bytes that are reserved now.
    pub fn reserved_bytes(&self) -> u64 {
        self.counters.reserved.load(Ordering::Relaxed)
    }

    /// Samples that running work has decoded.
    pub fn samples(&self) -> u64 {
        self.counters.samples.load(Ordering::Relaxed)
    }

    pub(crate) fn consumers(&self) -> &'static Consumers {
        self.counters.consumers
    }

    pub(crate) fn limits(&self) -> &BudgetLimits {
        &self.counters.limits
    }

    /// Counts samples and returns the new sum.
    #[inline]
    pub(crate) fn add_samples(&self, samples: u64) -> u64 {
        self.counters.samples.fetch_add(samples, Ordering::Relaxed).saturating_add(samples)
    }

    #[inline]
    pub(crate) fn subtract_samples(&self, samples: u64) {
        self.counters.samples.fetch_sub(samples, Ordering::Relaxed);
    }

    /// Counts bytes and returns the new sum, without those that are about to be released.
    #[inline]
    pub(crate) fn add_bytes(&self, bytes: u64) -> u64 {
        let reserved = self.counters.reserved.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let releasing = self.counters.releasing.load(Ordering::Relaxed);
        reserved.saturating_sub(releasing.min(self.counters.limits.bytes / 8))
    }

    #[inline]
    pub(crate) fn subtract_bytes(&self, bytes: u64) {
        self.counters.reserved.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Counts bytes that are about to be released.
    pub(crate) fn add_releasing(&self, bytes: u64) {
        self.counters.releasing.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Ends what [`add_releasing`](Self::add_releasing) began.
    pub(crate) fn subtract_releasing(&self, bytes: u64) {
        self.counters.releasing.fetch_sub(bytes, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(crate) fn releasing(&self) -> u64 {
        self.counters.releasing.load(Ordering::Relaxed)
    }
}
