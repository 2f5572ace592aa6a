//! What a query may use, what all queries may use together, and how operators account for what they hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::meter::Meter;
use crate::error::LimitError;
use crate::{Interrupt, QueryError};

/// What all queries of an engine may use together; clones are the same budget.
///
/// The query that asks for more than is left is the one that ends: what others hold is theirs.
#[derive(Clone, Debug)]
pub struct TotalBudget {
    total: Arc<Total>,
}

#[derive(Debug)]
struct Total {
    max_samples: u64,
    max_bytes: u64,
    samples: AtomicU64,
    held: AtomicU64,
}

impl TotalBudget {
    /// A budget of `max_samples` that all queries which run at one time may have decoded, and of `max_bytes` that they
    /// may hold.
    pub fn new(max_samples: u64, max_bytes: u64) -> Self {
        let zero = || AtomicU64::new(0);
        TotalBudget { total: Arc::new(Total { max_samples, max_bytes, samples: zero(), held: zero() }) }
    }

    /// Bytes that are held now.
    pub fn held_bytes(&self) -> u64 {
        self.total.held.load(Ordering::Relaxed)
    }

    /// An account of at most `max_bytes` for something other than a query.
    pub fn account(&self, max_bytes: u64) -> Account {
        Account { budget: Arc::new(Budget::new((u64::MAX, max_bytes), self.clone(), Interrupt::new())) }
    }
}

impl Default for TotalBudget {
    /// No limit beside those of each query.
    fn default() -> Self {
        TotalBudget::new(u64::MAX, u64::MAX)
    }
}

/// The memory of a query as its driver sees it: what lies between the stores and the engine counts too.
#[derive(Clone, Debug)]
pub struct Account {
    pub(crate) budget: Arc<Budget>,
}

impl Account {
    /// Holds nothing yet.
    pub fn hold(&self) -> Hold {
        Hold::new(&self.budget)
    }
}

/// The limits of one query and what it has used of them; shared by all its operators and workers.
#[derive(Debug)]
pub(crate) struct Budget {
    max_samples: u64,
    max_bytes: u64,
    samples: AtomicU64,
    held: AtomicU64,
    peak: AtomicU64,
    total: TotalBudget,
    interrupt: Interrupt,
}

impl Budget {
    /// A budget of so many samples and bytes.
    pub(crate) fn new(limits: (u64, u64), total: TotalBudget, interrupt: Interrupt) -> Self {
        let (max_samples, max_bytes) = limits;
        let zero = || AtomicU64::new(0);
        let (samples, held, peak) = (zero(), zero(), zero());
        Budget { max_samples, max_bytes, samples, held, peak, total, interrupt }
    }

    /// Ends the query when somebody asked for it.
    pub(crate) fn check(&self) -> Result<(), QueryError> {
        self.interrupt.check()
    }

    /// The flag by which somebody asks for the end.
    pub(crate) fn interrupt(&self) -> Interrupt {
        self.interrupt.clone()
    }

    /// Counts decoded samples.
    pub(crate) fn count_samples(&self, samples: u64) -> Result<(), QueryError> {
        let wanted = self.samples.fetch_add(samples, Ordering::Relaxed).saturating_add(samples);
        refuse("max_samples", "samples", self.max_samples, wanted, None)?;
        let total = &self.total.total;
        let all = total.samples.fetch_add(samples, Ordering::Relaxed).saturating_add(samples);
        refuse("max_total_samples", "samples", total.max_samples, wanted, Some(all.saturating_sub(wanted)))
    }

    /// Refuses a query whose plan alone shows that some series has a value at each of `steps` steps; `place` says what
    /// has so many and where it stands.
    pub(crate) fn refuse_steps(&self, steps: u64, place: impl FnOnce() -> String) -> Result<(), QueryError> {
        let samples = refuse("max_samples", "samples", self.max_samples, steps, None);
        let bytes = steps.saturating_mul(8);
        let fits = samples.and_then(|()| refuse("max_bytes", "bytes", self.max_bytes, bytes, None));
        fits.map_err(|error| match error {
            QueryError::Limit(limit) => LimitError { place: Some(place()), ..limit }.into(),
            other => other,
        })
    }

    fn take(&self, bytes: u64) -> Result<(), QueryError> {
        let wanted = self.held.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let total = &self.total.total;
        let all = total.held.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        self.peak.fetch_max(wanted, Ordering::Relaxed);
        refuse("max_bytes", "bytes", self.max_bytes, wanted, None)?;
        refuse("max_total_bytes", "bytes", total.max_bytes, wanted, Some(all.saturating_sub(wanted)))
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

impl Drop for Budget {
    fn drop(&mut self) {
        self.total.total.samples.fetch_sub(*self.samples.get_mut(), Ordering::Relaxed);
    }
}

/// Refuses what goes beyond a limit; `others` is what other queries use of it.
fn refuse(
    name: &'static str,
    unit: &'static str,
    limit: u64,
    wanted: u64,
    others: Option<u64>,
) -> Result<(), QueryError> {
    if wanted.saturating_add(others.unwrap_or(0)) <= limit {
        return Ok(());
    }
    Err(LimitError { name, unit, limit, wanted, others, place: None }.into())
}

/// Bytes that are held for a query; given back when it is dropped.
#[derive(Debug)]
pub struct Hold {
    budget: Arc<Budget>,
    /// Whose memory it is.
    meter: Option<Arc<Meter>>,
    bytes: u64,
}

impl Hold {
    /// Holds nothing yet.
    pub(crate) fn new(budget: &Arc<Budget>) -> Self {
        Hold { budget: budget.clone(), meter: None, bytes: 0 }
    }

    /// The same, for the operator with this meter.
    pub(crate) fn metered(budget: &Arc<Budget>, meter: &Arc<Meter>) -> Self {
        Hold { budget: budget.clone(), meter: Some(meter.clone()), bytes: 0 }
    }

    /// Holds more.
    ///
    /// # Errors
    /// When the query, or all queries together, would hold more than they may.
    pub fn add(&mut self, bytes: u64) -> Result<(), QueryError> {
        self.bytes += bytes;
        if let Some(meter) = &self.meter {
            meter.take(bytes);
        }
        self.budget.take(bytes)
    }

    /// Holds `bytes`, if it does not hold as many yet.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub(crate) fn at_least(&mut self, bytes: u64) -> Result<(), QueryError> {
        if bytes > self.bytes { self.add(bytes - self.bytes) } else { Ok(()) }
    }

    /// Another for the same owner, which holds nothing yet.
    pub(crate) fn another(&self) -> Hold {
        Hold { budget: self.budget.clone(), meter: self.meter.clone(), bytes: 0 }
    }

    /// Moves all that it holds to another.
    pub(crate) fn split(&mut self) -> Hold {
        let bytes = std::mem::take(&mut self.bytes);
        Hold { budget: self.budget.clone(), meter: self.meter.clone(), bytes }
    }

    /// Gives back part of what is held.
    pub(crate) fn give_back(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        if let Some(meter) = &self.meter {
            meter.give_back(bytes);
        }
        self.budget.held.fetch_sub(bytes, Ordering::Relaxed);
        self.budget.total.total.held.fetch_sub(bytes, Ordering::Relaxed);
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

    fn budget(samples: u64, bytes: u64, total: &TotalBudget) -> Arc<Budget> {
        Arc::new(Budget::new((samples, bytes), total.clone(), Interrupt::new()))
    }

    #[test]
    fn what_is_dropped_is_free_again() {
        let budget = budget(10, 100, &TotalBudget::default());
        let mut first = Hold::new(&budget);
        first.add(80).unwrap();
        let error = Hold::new(&budget).add(30).unwrap_err();
        assert!(error.to_string().contains("110 bytes, more than max_bytes=100"), "{error}");
        drop(first);
        let mut second = Hold::new(&budget);
        second.add(60).unwrap();
        second.at_least(100).unwrap();
        assert_eq!((budget.peak(), budget.total.held_bytes()), (110, 100));
        drop(second);
        assert_eq!(budget.total.held_bytes(), 0);
    }

    #[test]
    fn samples_add_up_to_their_limit() {
        let budget = budget(10, 0, &TotalBudget::default());
        budget.count_samples(10).unwrap();
        assert!(budget.count_samples(1).is_err());
    }

    #[test]
    fn the_query_that_finds_nothing_left_ends_and_says_so() {
        let total = TotalBudget::new(10, 100);
        let (first, second) = (budget(10, 100, &total), budget(10, 100, &total));
        let mut held = Hold::new(&first);
        held.add(70).unwrap();
        let error = Hold::new(&second).add(40).unwrap_err().to_string();
        assert_eq!(
            error,
            "query would use 40 bytes beside the 70 of other queries, more than max_total_bytes=100 allows; \
             ask again when fewer queries run, or select fewer series, a shorter range or a longer step"
        );
        drop(held);
        Hold::new(&second).add(100).unwrap();
        first.count_samples(6).unwrap();
        assert!(second.count_samples(6).unwrap_err().to_string().contains("max_total_samples=10"));
        drop(first);
        let third = budget(10, 100, &total);
        third.count_samples(4).unwrap();
    }
}
