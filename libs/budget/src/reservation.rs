//! Bytes that are reserved for as long as memory is in use.

use crate::{Budget, LimitError, Meter};

/// Bytes that a buffer, or one part of the work, has reserved. Dropping it releases them.
///
/// Reserve before the memory is allocated, and keep the reservation beside the memory: in the same struct, or in the same
/// message of a channel.
#[derive(Debug)]
pub struct Reservation {
    budget: Budget,
    /// Counts them as well, for one part of the work.
    meter: Option<Meter>,
    bytes: u64,
}

impl Reservation {
    /// A reservation of zero bytes.
    pub fn new(budget: &Budget) -> Self {
        Self { budget: budget.clone(), meter: None, bytes: 0 }
    }

    /// A reservation of zero bytes whose bytes `meter` counts too.
    pub fn metered(budget: &Budget, meter: &Meter) -> Self {
        Self { budget: budget.clone(), meter: Some(meter.clone()), bytes: 0 }
    }

    /// Bytes that it has reserved.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reserves more.
    ///
    /// # Errors
    /// When the work, or all work together, would use more than its limit. What was reserved before stays reserved, and the
    /// work has to stop: the budget lets other work use its bytes from here on.
    #[inline]
    pub fn add(&mut self, bytes: u64) -> Result<(), LimitError> {
        self.budget.reserve(bytes)?;
        self.bytes += bytes;
        if let Some(meter) = &self.meter {
            meter.add(bytes);
        }
        Ok(())
    }

    /// Reserves or releases as much as it takes to have reserved `bytes`.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    #[inline]
    pub fn resize(&mut self, bytes: u64) -> Result<(), LimitError> {
        self.release(self.bytes.saturating_sub(bytes));
        self.grow_to(bytes)
    }

    /// Reserves as much as it takes to have reserved at least `bytes`.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    #[inline]
    pub fn grow_to(&mut self, bytes: u64) -> Result<(), LimitError> {
        if bytes > self.bytes { self.add(bytes - self.bytes) } else { Ok(()) }
    }

    /// Releases `bytes`, or all where that is less.
    #[inline]
    pub fn release(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        if let Some(meter) = &self.meter {
            meter.subtract(bytes);
        }
        self.budget.release(bytes);
    }

    /// A reservation of zero bytes with the same budget and meter.
    pub fn new_empty(&self) -> Self {
        Self { budget: self.budget.clone(), meter: self.meter.clone(), bytes: 0 }
    }

    /// Moves `bytes`, or all where that is less, to a new reservation. They stay reserved all the time.
    pub fn split_off(&mut self, bytes: u64) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self { budget: self.budget.clone(), meter: self.meter.clone(), bytes }
    }

    /// Moves all bytes to a new reservation. They stay reserved all the time.
    pub fn take(&mut self) -> Self {
        self.split_off(self.bytes)
    }

    /// Lets `meter` count its bytes from here on, in place of the meter before. They stay reserved all the time.
    pub fn move_to(&mut self, meter: &Meter) {
        meter.add(self.bytes);
        if let Some(before) = self.meter.replace(meter.clone()) {
            before.subtract(self.bytes);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.release(self.bytes);
    }
}
