//! The time of one evaluation of a group.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The time of one evaluation of a group.
///
/// A query may take as long as the interval of its group, and not much longer than until the next evaluation is due. If one does not end
/// in this time, the rules after it are left out as soon as the next evaluation is due, so that this begins on time. A group whose queries
/// are slow but end is evaluated as a whole, and less often.
#[derive(Debug)]
pub(crate) struct Iteration {
    /// When the next evaluation is due.
    due: Instant,
    interval: Duration,
    /// Longest time of a query.
    limit: Duration,
    has_hung: AtomicBool,
}

impl Iteration {
    /// An evaluation that is followed by another one after `left`.
    pub(crate) fn new(left: Duration, interval: Duration, limit: Duration) -> Self {
        Self { due: Instant::now() + left, interval, limit, has_hung: AtomicBool::new(false) }
    }

    /// How long a query that begins now may take; `None` if its rule is left out.
    pub(crate) fn time_for_query(&self) -> Option<Duration> {
        let left = self.due.saturating_duration_since(Instant::now());
        if left.is_zero() && self.has_hung.load(Ordering::Relaxed) {
            return None;
        }
        Some(left.max(self.interval / 2).min(self.interval).min(self.limit))
    }

    /// A query did not end in its time.
    pub(crate) fn has_hung(&self) {
        self.has_hung.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[tokio::test(start_paused = true)]
    async fn a_query_that_hangs_ends_when_the_next_evaluation_is_due() {
        let iteration = Iteration::new(seconds(30), seconds(30), seconds(120));
        assert_eq!(iteration.time_for_query(), Some(seconds(30)));
        advance(seconds(10)).await;
        assert_eq!(iteration.time_for_query(), Some(seconds(20)));
        // Near the end, a query has half an interval.
        advance(seconds(15)).await;
        assert_eq!(iteration.time_for_query(), Some(seconds(15)));
        // A slow group is evaluated as a whole.
        advance(seconds(20)).await;
        assert_eq!(iteration.time_for_query(), Some(seconds(15)));
        iteration.has_hung();
        assert_eq!(iteration.time_for_query(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_of_a_query_holds() {
        let iteration = Iteration::new(seconds(30), seconds(30), seconds(5));
        assert_eq!(iteration.time_for_query(), Some(seconds(5)));
        iteration.has_hung();
        // There is time for the others.
        assert_eq!(iteration.time_for_query(), Some(seconds(5)));
        // The first evaluation after a late one.
        assert_eq!(Iteration::new(seconds(2), seconds(30), seconds(60)).time_for_query(), Some(seconds(15)));
    }
}
