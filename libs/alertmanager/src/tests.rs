//! The notifier as a whole.

mod failures;
mod kills;
mod real;
mod restarts;
mod servers;
mod with_alertmanager;
