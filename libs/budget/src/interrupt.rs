//! How work that runs is stopped from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::Stop;

const RUNNING: u8 = 0;
const CANCELLED: u8 = 1;
const TIMED_OUT: u8 = 2;

/// A flag shared by work and by the caller that may stop it. Clones are the same flag.
///
/// Work has no clock. The caller raises the flag when the deadline passes or the result is not needed any more, and work
/// calls [`check`](Self::check) often enough to stop soon. The first cause wins; a raised flag stays raised.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    state: Arc<AtomicU8>,
    #[cfg(feature = "test-util")]
    checks: Option<Arc<CheckCount>>,
}

impl Interrupt {
    /// A flag that is not raised.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops the work with [`Stop::Cancelled`].
    pub fn cancel(&self) {
        self.raise(CANCELLED);
    }

    /// Stops the work with [`Stop::TimedOut`].
    pub fn time_out(&self) {
        self.raise(TIMED_OUT);
    }

    fn raise(&self, cause: u8) {
        // Where this fails, another cause came first, which is the one to report.
        let _ = self.state.compare_exchange(RUNNING, cause, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Succeeds as long as the flag is not raised. Costs one relaxed load.
    ///
    /// # Errors
    /// [`Stop::Cancelled`] or [`Stop::TimedOut`], whichever came first.
    #[inline]
    pub fn check(&self) -> Result<(), Stop> {
        #[cfg(feature = "test-util")]
        self.count_check();
        match self.state.load(Ordering::Relaxed) {
            RUNNING => Ok(()),
            CANCELLED => Err(Stop::Cancelled),
            _ => Err(Stop::TimedOut),
        }
    }
}

/// How often a flag was checked, and after how many checks it is raised.
#[cfg(feature = "test-util")]
#[derive(Debug)]
struct CheckCount {
    count: std::sync::atomic::AtomicU64,
    cancel_after: u64,
}

#[cfg(feature = "test-util")]
impl Interrupt {
    /// A flag that counts how often it is checked.
    pub fn counting() -> Self {
        Self::cancelled_after(u64::MAX)
    }

    /// A flag that counts how often it is checked, and that is raised by the check which follows the first `checks`.
    pub fn cancelled_after(checks: u64) -> Self {
        let checks = CheckCount { count: Default::default(), cancel_after: checks };
        Self { state: Arc::default(), checks: Some(Arc::new(checks)) }
    }

    /// How often a [counting](Self::counting) flag was checked.
    pub fn checks(&self) -> u64 {
        self.checks.as_ref().map_or(0, |checks| checks.count.load(Ordering::Relaxed))
    }

    fn count_check(&self) {
        if let Some(checks) = &self.checks
            && checks.count.fetch_add(1, Ordering::Relaxed) == checks.cancel_after
        {
            self.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cause_wins_and_stays() {
        let flag = Interrupt::new();
        assert_eq!(flag.check(), Ok(()));
        let clone = flag.clone();
        clone.time_out();
        clone.cancel();
        assert_eq!(flag.check(), Err(Stop::TimedOut));
    }
}
