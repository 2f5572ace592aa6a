//! What a query may use, and how operators account for what they hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::LimitError;
use crate::{Interrupt, QueryError};

/// The limits of one query and what it has used of them; shared by all its operators and workers.
#[derive(Debug)]
pub(crate) struct Budget {
    max_samples: u64,
    max_bytes: u64,
    samples: AtomicU64,
    held: AtomicU64,
    peak: AtomicU64,
    interrupt: Interrupt,
}

impl Budget {
    pub(crate) fn new(max_samples: u64, max_bytes: u64, interrupt: Interrupt) -> Self {
        let zero = || AtomicU64::new(0);
        Budget { max_samples, max_bytes, samples: zero(), held: zero(), peak: zero(), interrupt }
    }

    /// Ends the query when somebody asked for it.
    pub(crate) fn check(&self) -> Result<(), QueryError> {
        self.interrupt.check()
    }

    /// Counts decoded samples.
    pub(crate) fn count_samples(&self, samples: u64) -> Result<(), QueryError> {
        let wanted = self.samples.fetch_add(samples, Ordering::Relaxed).saturating_add(samples);
        self.refuse_samples(wanted)
    }

    /// Refuses a query whose plan alone shows that it needs `wanted` samples or values.
    pub(crate) fn refuse_samples(&self, wanted: u64) -> Result<(), QueryError> {
        if wanted > self.max_samples {
            let limit = self.max_samples;
            return Err(LimitError { name: "max_samples", unit: "samples", limit, wanted }.into());
        }
        Ok(())
    }

    fn take(&self, bytes: u64) -> Result<(), QueryError> {
        let wanted = self.held.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        self.peak.fetch_max(wanted, Ordering::Relaxed);
        if wanted > self.max_bytes {
            let limit = self.max_bytes;
            return Err(LimitError { name: "max_bytes", unit: "bytes", limit, wanted }.into());
        }
        Ok(())
    }

    /// Samples decoded so far.
    pub(crate) fn samples(&self) -> u64 {
        self.samples.load(Ordering::Relaxed)
    }

    /// Most bytes held at one time so far.
    pub(crate) fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }
}

/// Bytes that an operator holds; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Hold {
    /// Holds nothing yet.
    pub(crate) fn new(budget: &Arc<Budget>) -> Self {
        Hold { budget: budget.clone(), bytes: 0 }
    }

    /// Holds more.
    ///
    /// # Errors
    /// When the query would hold more than it may.
    pub(crate) fn add(&mut self, bytes: u64) -> Result<(), QueryError> {
        self.bytes += bytes;
        self.budget.take(bytes)
    }

    /// Gives back part of what is held.
    pub(crate) fn give_back(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.budget.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_free_again() {
        let budget = Arc::new(Budget::new(10, 100, Interrupt::new()));
        let mut first = Hold::new(&budget);
        first.add(80).unwrap();
        let error = Hold::new(&budget).add(30).unwrap_err();
        assert!(error.to_string().contains("110 bytes, more than max_bytes=100"), "{error}");
        drop(first);
        Hold::new(&budget).add(100).unwrap();
        assert_eq!(budget.peak(), 110);
    }

    #[test]
    fn samples_add_up_to_their_limit() {
        let budget = Budget::new(10, 0, Interrupt::new());
        budget.count_samples(10).unwrap();
        assert!(budget.count_samples(1).is_err());
    }
}
