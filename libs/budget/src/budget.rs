//! What one piece of work may use.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::{BudgetLimits, Interrupt, LimitError, LimitKind, Stop, TotalBudget};

/// The limits of one piece of work, such as a query, and what it has used of them. Clones are the same budget, so that all
/// threads of the work can share it.
#[derive(Clone, Debug)]
pub struct Budget {
    usage: Arc<BudgetUsage>,
}

#[derive(Debug)]
struct BudgetUsage {
    limits: BudgetLimits,
    samples: AtomicU64,
    reserved: AtomicU64,
    peak: AtomicU64,
    /// Whether a reservation was refused, so that the work is about to stop.
    refused: AtomicBool,
    /// What was reserved at the time of the refusal and is not released yet.
    releasing: AtomicU64,
    total: TotalBudget,
    interrupt: Interrupt,
}

impl Budget {
    /// A budget within `total`, for work that `interrupt` stops.
    pub fn new(total: &TotalBudget, limits: BudgetLimits, interrupt: Interrupt) -> Self {
        let zero = || AtomicU64::new(0);
        let (samples, reserved, peak, releasing) = (zero(), zero(), zero(), zero());
        let (refused, total) = (AtomicBool::new(false), total.clone());
        let usage = BudgetUsage { limits, samples, reserved, peak, refused, releasing, total, interrupt };
        Self { usage: Arc::new(usage) }
    }

    /// Succeeds as long as the work is not interrupted. Loops call it for each series, file or request.
    ///
    /// # Errors
    /// As [`Interrupt::check`].
    #[inline]
    pub fn check(&self) -> Result<(), Stop> {
        self.usage.interrupt.check()
    }

    /// Counts samples before they are decoded. They stay counted until the last clone of the budget is dropped.
    ///
    /// # Errors
    /// When they are too many for this work or for all work together. They are not counted then.
    #[inline]
    pub fn count_samples(&self, samples: u64) -> Result<(), LimitError> {
        let BudgetUsage { limits, total, .. } = &*self.usage;
        let needed = self.usage.samples.fetch_add(samples, Ordering::Relaxed).saturating_add(samples);
        let others = total.add_samples(samples).saturating_sub(needed);
        if needed <= limits.samples && needed.saturating_add(others) <= total.limits().samples {
            return Ok(());
        }
        self.usage.samples.fetch_sub(samples, Ordering::Relaxed);
        total.subtract_samples(samples);
        Err(self.exceeded((LimitKind::Samples, limits.samples), LimitKind::TotalSamples, needed, others))
    }

    /// Reserves bytes.
    #[inline]
    pub(crate) fn reserve(&self, bytes: u64) -> Result<(), LimitError> {
        let BudgetUsage { limits, total, .. } = &*self.usage;
        let needed = self.usage.reserved.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let others = total.add_bytes(bytes).saturating_sub(needed);
        if needed <= limits.bytes && needed.saturating_add(others) <= total.limits().bytes {
            self.usage.peak.fetch_max(needed, Ordering::Relaxed);
            return Ok(());
        }
        self.release(bytes);
        self.note_refusal();
        Err(self.exceeded((LimitKind::Bytes, limits.bytes), LimitKind::TotalBytes, needed, others))
    }

    /// The error of work that needs more than its own limit, or else than the total, allows.
    #[cold]
    fn exceeded(
        &self,
        (own, own_limit): (LimitKind, u64),
        all: LimitKind,
        needed: u64,
        others: u64,
    ) -> LimitError {
        if needed > own_limit {
            return self.error(own, own_limit, needed, None);
        }
        let limits = self.usage.total.limits();
        let limit = if all == LimitKind::TotalSamples { limits.samples } else { limits.bytes };
        self.error(all, limit, needed, Some(others))
    }

    fn error(&self, kind: LimitKind, limit: u64, needed: u64, used_by_others: Option<u64>) -> LimitError {
        let consumers = self.usage.total.consumers();
        LimitError { kind, limit, needed, used_by_others, part: None, consumers }
    }

    /// Releases reserved bytes.
    #[inline]
    pub(crate) fn release(&self, bytes: u64) {
        self.usage.reserved.fetch_sub(bytes, Ordering::Relaxed);
        self.usage.total.subtract_bytes(bytes);
        if self.usage.refused.load(Ordering::Relaxed) {
            self.usage.note_release(bytes);
        }
    }

    /// Lets other work use what is reserved from here on, because it is about to be released.
    #[cold]
    fn note_refusal(&self) {
        if !self.usage.refused.swap(true, Ordering::Relaxed) {
            let reserved = self.usage.reserved.load(Ordering::Relaxed);
            self.usage.total.add_releasing(reserved);
            self.usage.releasing.fetch_add(reserved, Ordering::Relaxed);
        }
    }

    /// Checks a need that is known before the work begins: `samples` to decode in all, and `bytes` to reserve at one time.
    ///
    /// # Errors
    /// When one of them is more than this work may use. Nothing is counted or reserved in either case, and what other work
    /// uses does not matter.
    pub fn check_need(&self, samples: u64, bytes: u64) -> Result<(), LimitError> {
        let limits = self.usage.limits;
        if samples > limits.samples {
            return Err(self.error(LimitKind::Samples, limits.samples, samples, None));
        }
        if bytes > limits.bytes {
            return Err(self.error(LimitKind::Bytes, limits.bytes, bytes, None));
        }
        Ok(())
    }

    /// Checks whether one buffer of `bytes` fits in addition to what is reserved, without reserving it.
    ///
    /// # Errors
    /// When this work may not use as much. What other work uses does not matter.
    #[inline]
    pub fn check_room(&self, bytes: u64) -> Result<(), LimitError> {
        let needed = self.usage.reserved.load(Ordering::Relaxed).saturating_add(bytes);
        self.check_need(0, needed)
    }

    /// Whether `bytes` more would leave at least half of the bytes of this work, and of all work together, unused. For memory
    /// that makes work faster and that it can do without.
    pub fn has_spare(&self, bytes: u64) -> bool {
        let BudgetUsage { limits, total, reserved, .. } = &*self.usage;
        let fits = |reserved: u64, limit: u64| reserved.saturating_add(bytes) <= limit / 2;
        fits(reserved.load(Ordering::Relaxed), limits.bytes)
            && fits(total.reserved_bytes(), total.limits().bytes)
    }

    /// Samples counted so far.
    pub fn samples(&self) -> u64 {
        self.usage.samples.load(Ordering::Relaxed)
    }

    /// Most bytes that were reserved at one time.
    pub fn peak_bytes(&self) -> u64 {
        self.usage.peak.load(Ordering::Relaxed)
    }
}

impl BudgetUsage {
    #[cold]
    fn note_release(&self, bytes: u64) {
        let less = |left: u64| Some(left.saturating_sub(bytes));
        let before = self.releasing.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).unwrap_or(0);
        self.total.subtract_releasing(before.min(bytes));
    }
}

impl Drop for BudgetUsage {
    fn drop(&mut self) {
        self.note_release(u64::MAX);
        self.total.subtract_samples(*self.samples.get_mut());
    }
}
