//! How a running query is told to end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::QueryError;

const RUNNING: u8 = 0;
const CANCELED: u8 = 1;
const TIMED_OUT: u8 = 2;

/// A flag shared by a query and whoever may end it. The engine has no clock: the driver raises the flag when
/// the deadline passes or the caller has gone, and every operator looks at it.
///
/// The first cause wins; a raised flag stays raised.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    state: Arc<AtomicU8>,
    #[cfg(test)]
    fuse: Arc<Fuse>,
}

/// Counts looks at the flag and raises it at one of them, for tests of how soon a query ends.
#[cfg(test)]
#[derive(Debug)]
struct Fuse {
    looks: std::sync::atomic::AtomicU64,
    blows_at: u64,
}

#[cfg(test)]
impl Default for Fuse {
    fn default() -> Self {
        Self { looks: Default::default(), blows_at: u64::MAX }
    }
}

impl Interrupt {
    /// A flag that is not raised.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the query with [`QueryError::Canceled`].
    pub fn cancel(&self) {
        self.raise(CANCELED);
    }

    /// Ends the query with [`QueryError::Timeout`].
    pub fn time_out(&self) {
        self.raise(TIMED_OUT);
    }

    fn raise(&self, cause: u8) {
        // Losing the race means that another cause came first, which is the one to report.
        let _ = self.state.compare_exchange(RUNNING, cause, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Succeeds while nobody has ended the query.
    ///
    /// # Errors
    /// [`QueryError::Canceled`] or [`QueryError::Timeout`].
    pub fn check(&self) -> Result<(), QueryError> {
        #[cfg(test)]
        if self.fuse.looks.fetch_add(1, Ordering::Relaxed) == self.fuse.blows_at {
            self.cancel();
        }
        match self.state.load(Ordering::Relaxed) {
            RUNNING => Ok(()),
            CANCELED => Err(QueryError::Canceled),
            _ => Err(QueryError::Timeout),
        }
    }
}

#[cfg(test)]
impl Interrupt {
    /// A flag that counts how often it is looked at.
    pub(crate) fn counting() -> Self {
        Self::default()
    }

    /// A flag that is raised after so many looks at it.
    pub(crate) fn fused(looks: u64) -> Self {
        let fuse = Fuse { blows_at: looks, ..Fuse::default() };
        Self { state: Arc::default(), fuse: Arc::new(fuse) }
    }

    /// How often it was looked at.
    pub(crate) fn looks(&self) -> u64 {
        self.fuse.looks.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cause_wins_and_stays() {
        let flag = Interrupt::new();
        assert_eq!(flag.check(), Ok(()));
        let other = flag.clone();
        other.time_out();
        other.cancel();
        assert_eq!(flag.check(), Err(QueryError::Timeout));
    }
}
