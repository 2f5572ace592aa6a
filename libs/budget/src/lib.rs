//! Limits on memory and samples, and the ways to stop work that runs.
//!
//! A [`TotalBudget`] limits what all work of a process may use together, a [`Budget`] what one query, request or compaction
//! may use. Work makes a [`Reservation`] for what it is about to allocate and drops it with the memory. An [`Interrupt`]
//! stops work that is cancelled or late.
//!
//! No I/O, no clock, no threads: nothing here measures memory. The counters are as exact as the sizes that callers report.
//!
//! ```
//! use budget::{Budget, BudgetLimits, Consumers, Interrupt, Reservation, Stop, TotalBudget};
//!
//! static QUERIES: Consumers =
//!     Consumers { one: "query", many: "queries", advice: "select fewer series" };
//!
//! fn load(budget: &Budget, pages: &[&[u8]]) -> Result<Vec<u8>, Stop> {
//!     let mut reserved = Reservation::new(budget);
//!     let mut loaded = Vec::new();
//!     for page in pages {
//!         budget.check()?;
//!         reserved.add(page.len() as u64)?;
//!         loaded.extend_from_slice(page);
//!     }
//!     Ok(loaded)
//! }
//!
//! let total = TotalBudget::new(&QUERIES, BudgetLimits { bytes: 1 << 30, ..BudgetLimits::UNLIMITED });
//! let interrupt = Interrupt::new();
//! let budget = Budget::new(&total, BudgetLimits::bytes(8), interrupt.clone());
//! assert!(load(&budget, &[b"page", b"page"]).is_ok());
//! let error = load(&budget, &[b"page", b"long page"]).unwrap_err();
//! assert_eq!(error.to_string(), "query would use 13 bytes, more than max_bytes=8 allows; select fewer series");
//! interrupt.cancel();
//! assert_eq!(load(&budget, &[b"page"]), Err(Stop::Cancelled));
//! ```

mod budget;
mod error;
mod interrupt;
mod limits;
mod meter;
mod reservation;
mod total;

#[cfg(test)]
mod tests;

pub use budget::Budget;
pub use error::{LimitError, Stop};
pub use interrupt::Interrupt;
pub use limits::{BudgetLimits, Consumers, LimitKind};
pub use meter::Meter;
pub use reservation::Reservation;
pub use total::TotalBudget;
