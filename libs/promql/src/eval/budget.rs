//! What a query may use, what all queries may use together, and how operators account for what they hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::LimitError;
use crate::eval::meter::Meter;
use crate::{Interrupt, QueryError};

/// What all queries of an engine may use together; clones are the same budget.
///
/// The query that asks for more than is left is the one that ends: what others hold is theirs. From then on what it still
/// holds no longer stands in the way of others, which would otherwise end as well before it has let go; but only up to an
/// eighth of the budget, by which all queries together may go beyond it for that moment.
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
    /// Of the bytes held, those of queries that were refused more and are about to let go; for a moment it may be more
    /// than they hold.
    leaving: AtomicU64,
}

impl Total {
    /// Bytes held that do not stand in the way of a query.
    fn discounted(&self) -> u64 {
        self.leaving.load(Ordering::Relaxed).min(self.max_bytes / 8)
    }
}

impl TotalBudget {
    /// A budget of `max_samples` that all queries which run at one time may have decoded, and of `max_bytes` that they
    /// may hold.
    pub fn new(max_samples: u64, max_bytes: u64) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            total: Arc::new(Total { max_samples, max_bytes, samples: zero(), held: zero(), leaving: zero() }),
        }
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
        Self::new(u64::MAX, u64::MAX)
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
    /// Whether it was refused more, so that the query is over, and what it held then and still holds.
    refused: AtomicBool,
    leaving: AtomicU64,
    total: TotalBudget,
    interrupt: Interrupt,
}

impl Budget {
    /// A budget of so many samples and bytes.
    pub(crate) fn new(limits: (u64, u64), total: TotalBudget, interrupt: Interrupt) -> Self {
        let (max_samples, max_bytes) = limits;
        let zero = || AtomicU64::new(0);
        let (samples, held, peak, leaving) = (zero(), zero(), zero(), zero());
        let refused = AtomicBool::new(false);
        Self { max_samples, max_bytes, samples, held, peak, refused, leaving, total, interrupt }
    }

    /// Ends the query when somebody asked for it.
    pub(crate) fn check(&self) -> Result<(), QueryError> {
        self.interrupt.check()
    }

    /// Counts decoded samples; where they are refused, they were not counted.
    pub(crate) fn count_samples(&self, samples: u64) -> Result<(), QueryError> {
        let wanted = self.samples.fetch_add(samples, Ordering::Relaxed).saturating_add(samples);
        let total = &self.total.total;
        let all = total.samples.fetch_add(samples, Ordering::Relaxed).saturating_add(samples);
        let others = all.saturating_sub(wanted);
        let counted = refuse("max_samples", "samples", self.max_samples, wanted, None)
            .and_then(|()| refuse("max_total_samples", "samples", total.max_samples, wanted, Some(others)));
        if counted.is_err() {
            self.samples.fetch_sub(samples, Ordering::Relaxed);
            total.samples.fetch_sub(samples, Ordering::Relaxed);
        }
        counted
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

    /// Takes more; where that is refused, nothing was taken and the query is over.
    fn take(&self, bytes: u64) -> Result<(), QueryError> {
        let wanted = self.held.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let total = &self.total.total;
        let all = total.held.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let others = all.saturating_sub(total.discounted()).saturating_sub(wanted);
        let taken = refuse("max_bytes", "bytes", self.max_bytes, wanted, None)
            .and_then(|()| refuse("max_total_bytes", "bytes", total.max_bytes, wanted, Some(others)));
        match taken {
            Ok(()) => {
                self.peak.fetch_max(wanted, Ordering::Relaxed);
            }
            Err(_) => {
                self.give_back(bytes);
                self.leave();
            }
        }
        taken
    }

    fn give_back(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        self.total.total.held.fetch_sub(bytes, Ordering::Relaxed);
        if self.refused.load(Ordering::Relaxed) {
            self.forget_leaving(bytes);
        }
    }

    /// Lets others have what is held from here on, because it is about to be given back.
    fn leave(&self) {
        if !self.refused.swap(true, Ordering::Relaxed) {
            let held = self.held.load(Ordering::Relaxed);
            self.total.total.leaving.fetch_add(held, Ordering::Relaxed);
            self.leaving.fetch_add(held, Ordering::Relaxed);
        }
    }

    fn forget_leaving(&self, bytes: u64) {
        let less = |left: u64| Some(left.saturating_sub(bytes));
        let before = self.leaving.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).unwrap_or(0);
        self.total.total.leaving.fetch_sub(before.min(bytes), Ordering::Relaxed);
    }

    /// Refuses a single piece of `bytes` that the query could not hold beside what it holds, without taking it.
    ///
    /// # Errors
    /// As [`Hold::add`].
    pub(crate) fn refuse_beyond(&self, bytes: u64) -> Result<(), QueryError> {
        let wanted = self.held.load(Ordering::Relaxed).saturating_add(bytes);
        refuse("max_bytes", "bytes", self.max_bytes, wanted, None)
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
        self.forget_leaving(u64::MAX);
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
        Self { budget: budget.clone(), meter: None, bytes: 0 }
    }

    /// The same, for the operator with this meter.
    pub(crate) fn metered(budget: &Arc<Budget>, meter: &Arc<Meter>) -> Self {
        Self { budget: budget.clone(), meter: Some(meter.clone()), bytes: 0 }
    }

    /// Holds more.
    ///
    /// # Errors
    /// When the query, or all queries together, would hold more than they may. The query is over then.
    pub fn add(&mut self, bytes: u64) -> Result<(), QueryError> {
        self.budget.take(bytes)?;
        self.bytes += bytes;
        if let Some(meter) = &self.meter {
            meter.take(bytes);
        }
        Ok(())
    }

    /// Holds `bytes`, no more and no less.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub(crate) fn exactly(&mut self, bytes: u64) -> Result<(), QueryError> {
        self.give_back(self.bytes.saturating_sub(bytes));
        self.at_least(bytes)
    }

    /// Holds `bytes`, if it does not hold as many yet.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub(crate) fn at_least(&mut self, bytes: u64) -> Result<(), QueryError> {
        if bytes > self.bytes { self.add(bytes - self.bytes) } else { Ok(()) }
    }

    /// Another for the same owner, which holds nothing yet.
    pub(crate) fn another(&self) -> Self {
        Self { budget: self.budget.clone(), meter: self.meter.clone(), bytes: 0 }
    }

    /// Moves so much of what it holds to another.
    pub(crate) fn part(&mut self, bytes: u64) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self { budget: self.budget.clone(), meter: self.meter.clone(), bytes }
    }

    /// Moves all that it holds to another.
    pub(crate) fn split(&mut self) -> Self {
        self.part(self.bytes)
    }

    /// From here on it is the memory of the operator with this meter. The query holds it all the time.
    pub(crate) fn hand_to(&mut self, meter: &Arc<Meter>) {
        meter.take(self.bytes);
        if let Some(before) = self.meter.replace(meter.clone()) {
            before.give_back(self.bytes);
        }
    }

    /// Gives back part of what is held.
    pub(crate) fn give_back(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        if let Some(meter) = &self.meter {
            meter.give_back(bytes);
        }
        self.budget.give_back(bytes);
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
        assert_eq!((budget.peak(), budget.total.held_bytes()), (100, 100));
        second.exactly(30).unwrap();
        assert_eq!(budget.total.held_bytes(), 30);
        drop(second);
        assert_eq!(budget.total.held_bytes(), 0);
    }

    #[test]
    fn what_is_handed_to_an_operator_is_held_all_the_time() {
        let budget = budget(10, 100, &TotalBudget::default());
        let meters = [Arc::new(Meter::default()), Arc::new(Meter::default())];
        let mut whole = Hold::new(&budget);
        whole.add(100).unwrap();
        let mut part = whole.part(60);
        meters.iter().for_each(|meter| part.hand_to(meter));
        assert_eq!((budget.total.held_bytes(), budget.peak()), (100, 100));
        drop(part);
        assert_eq!(budget.total.held_bytes(), 40);
        for meter in &meters {
            // Nothing of it is left.
            Hold::metered(&budget, meter).add(50).unwrap();
            assert_eq!(meter.peak_bytes(), 60);
        }
    }

    #[test]
    fn samples_add_up_to_their_limit() {
        let budget = budget(10, 0, &TotalBudget::default());
        budget.count_samples(10).unwrap();
        assert!(budget.count_samples(1).is_err());
    }

    #[test]
    fn samples_that_are_refused_leave_no_trace_in_what_all_queries_count() {
        let total = TotalBudget::new(100, 0);
        for _ in 0..3 {
            let greedy = budget(50, 0, &total);
            greedy.count_samples(40).unwrap();
            greedy.count_samples(40).unwrap_err();
            assert_eq!(total.total.samples.load(Ordering::Relaxed), 40);
        }
        assert_eq!(total.total.samples.load(Ordering::Relaxed), 0);
        let first = budget(100, 0, &total);
        first.count_samples(70).unwrap();
        let second = budget(100, 0, &total);
        second.count_samples(40).unwrap_err();
        second.count_samples(30).unwrap();
        drop((first, second));
        assert_eq!(total.total.samples.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_query_that_was_refused_does_not_stand_in_the_way_of_others() {
        let total = TotalBudget::new(10, 800);
        let (first, second) = (budget(10, 800, &total), budget(10, 800, &total));
        let (mut mine, mut theirs) = (Hold::new(&first), Hold::new(&second));
        mine.add(400).unwrap();
        theirs.add(390).unwrap();
        mine.add(20).unwrap_err();
        // The first still holds 400, but is about to let go; an eighth of the budget is lent on that.
        theirs.add(110).unwrap();
        assert_eq!(total.held_bytes(), 900);
        theirs.add(1).unwrap_err();
        drop((mine, theirs));
        drop((first, second));
        assert_eq!((total.held_bytes(), total.total.leaving.load(Ordering::Relaxed)), (0, 0));
        let third = budget(10, 800, &total);
        Hold::new(&third).add(801).unwrap_err();
        drop(third);
        Hold::new(&budget(10, 800, &total)).add(800).unwrap();
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
