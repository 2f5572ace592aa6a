//! The memory of a list that is received.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use budget::{Budget, LimitError, Reservation};
use compression::MessageMemory;

use crate::StoreError;
use crate::transit::Transit;

/// Counts a list while it is decoded, and keeps its memory reserved until the last clone is dropped.
#[derive(Clone, Debug)]
pub struct AnswerMemory {
    shared: Arc<Mutex<SharedMemory>>,
    /// Most bytes that may be counted here.
    limit: u64,
    /// Where the limit comes from.
    source: &'static str,
    used: Arc<AtomicU64>,
    transit: Transit,
}

#[derive(Debug)]
struct SharedMemory {
    /// `None` if nothing is reserved.
    reservation: Option<Reservation>,
    exhausted: Option<LimitError>,
}

impl AnswerMemory {
    /// Memory without a limit, for lists of a trusted source.
    pub fn unlimited() -> Self {
        Self::of(None)
    }

    /// Memory that is reserved from `budget`.
    pub fn new(budget: &Budget) -> Self {
        Self::of(Some(Reservation::new(budget)))
    }

    fn of(reservation: Option<Reservation>) -> Self {
        let shared = SharedMemory { reservation, exhausted: None };
        let shared = Arc::new(Mutex::new(shared));
        Self { shared, limit: u64::MAX, source: "", used: Arc::default(), transit: Transit::default() }
    }

    /// Memory for the part of one store: of the same reservation, and at most `limit` bytes. `source` says in an error
    /// where the limit comes from, such as `of --flag`.
    pub fn for_store(&self, limit: u64, source: &'static str) -> Self {
        let transit = Transit::of(self.lock().reservation.as_ref().map(Reservation::new_empty));
        Self { shared: Arc::clone(&self.shared), limit, source, used: Arc::default(), transit }
    }

    /// Most bytes that may be counted here.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Why the reservation could not grow, if it could not. The list is then incomplete, whatever other stores send.
    pub fn exhausted(&self) -> Option<LimitError> {
        self.lock().exhausted.clone()
    }

    /// Counts `bytes` before they are allocated.
    ///
    /// # Errors
    /// `ResourceExhausted` if there is a limit that they would exceed.
    pub fn add(&self, bytes: usize) -> Result<(), StoreError> {
        let bytes = bytes as u64;
        let used = self.used.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if used > self.limit {
            return Err(self.too_large());
        }
        let mut shared = self.lock();
        let Some(reservation) = &mut shared.reservation else { return Ok(()) };
        reservation.add(bytes).map_err(|limit| {
            let error = StoreError::limit(limit.to_string());
            shared.exhausted.get_or_insert(limit);
            error
        })
    }

    /// The memory of messages of at most `most` bytes while they are received.
    pub(crate) fn message_memory(&self, most: usize) -> MessageMemory {
        let memory = self.clone();
        MessageMemory::new(most, "", move |bytes| {
            memory.transit.grow_to(bytes).map_err(|limit| {
                let error = StoreError::limit(limit.to_string());
                memory.lock().exhausted.get_or_insert(limit);
                error.into()
            })
        })
    }

    /// A message was received. From here on, its parts are counted.
    pub(crate) fn received(&self) {
        self.transit.received();
    }

    /// The error of a store that sends more than the limit.
    pub(crate) fn too_large(&self) -> StoreError {
        StoreError::limit(format!("it sent more than {} bytes, the limit {}", self.limit, self.source))
    }

    fn lock(&self) -> MutexGuard<'_, SharedMemory> {
        // Each change is one assignment, so the content is valid even if its writer panicked.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use budget::{BudgetLimits, Consumers, Interrupt, TotalBudget};

    use super::*;

    static TESTS: Consumers = Consumers { one: "test", many: "tests", advice: "send less" };

    #[test]
    fn each_store_has_a_limit_and_all_share_the_budget() {
        let total = TotalBudget::new(&TESTS, BudgetLimits::UNLIMITED);
        let memory = AnswerMemory::new(&Budget::new(&total, BudgetLimits::bytes(100), Interrupt::new()));
        let (a, b) = (memory.for_store(60, "of the test"), memory.for_store(60, ""));
        a.add(50).unwrap();
        let error = a.add(20).unwrap_err();
        assert!(error.message().contains("more than 60 bytes, the limit of the test"), "{error}");
        assert_eq!(memory.exhausted(), None);
        let error = b.add(55).unwrap_err();
        assert!(error.message().contains("max_bytes=100"), "{error}");
        assert!(memory.exhausted().is_some());
        assert_eq!(total.reserved_bytes(), 50);
        drop((a, b, memory));
        assert_eq!(total.reserved_bytes(), 0);
    }
}
