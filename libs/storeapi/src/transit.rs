//! The memory of a message that is being received.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use budget::{Budget, LimitError, Reservation};

/// What the message that is being received of one answer has reserved. Clones are the same message.
#[derive(Clone, Debug, Default)]
pub(crate) struct Transit {
    /// `None` if nothing is reserved.
    reserved: Arc<Mutex<Option<Reservation>>>,
}

impl Transit {
    /// Reserves from `budget`.
    pub(crate) fn new(budget: &Budget) -> Self {
        Self::of(Some(Reservation::new(budget)))
    }

    /// Reserves with this empty reservation.
    pub(crate) fn of(reservation: Option<Reservation>) -> Self {
        Self { reserved: Arc::new(Mutex::new(reservation)) }
    }

    /// Reserves as much as it takes to have reserved `bytes` for the message.
    pub(crate) fn grow_to(&self, bytes: usize) -> Result<(), LimitError> {
        self.lock().as_mut().map_or(Ok(()), |reserved| reserved.grow_to(bytes as u64))
    }

    /// Ends the message: from here on, the reader accounts for its memory.
    pub(crate) fn received(&self) {
        if let Some(reserved) = self.lock().as_mut() {
            reserved.release(reserved.bytes());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Reservation>> {
        // A reservation is valid after each of its methods, even if a thread panicked meanwhile.
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
