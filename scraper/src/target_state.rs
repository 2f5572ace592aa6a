//! What is known of the scrapes of a target.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use promapi::{ApiTime, TargetHealth};

/// The last scrape of a target.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastScrape {
    pub(crate) health: TargetHealth,
    /// Why it failed; empty if it did not.
    pub(crate) error: String,
    pub(crate) at: ApiTime,
    pub(crate) duration: Duration,
}

/// The last scrape of a target, for its loop to write and for others to read.
#[derive(Debug, Default)]
pub(crate) struct TargetState(Mutex<LastScrape>);

impl TargetState {
    pub(crate) fn last(&self) -> LastScrape {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes a scrape that began at `nanos` since the epoch.
    pub(crate) fn note(&self, nanos: i64, duration: Duration, error: Option<String>) {
        let health = if error.is_none() { TargetHealth::Up } else { TargetHealth::Down };
        let below_second = i32::try_from(nanos.rem_euclid(1_000_000_000)).unwrap_or_default();
        let at = ApiTime::from_unix(nanos.div_euclid(1_000_000_000), below_second);
        let last = LastScrape { health, error: error.unwrap_or_default(), at, duration };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = last;
    }
}
