//! The notifier as a whole.

mod failures;
mod restarts;
mod servers;
