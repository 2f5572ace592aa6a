//! A circuit breaker: a server that fails is not asked for a while.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Counts of a closed breaker begin again after this time, as in Thanos.
const INTERVAL: Duration = Duration::from_secs(10);
/// An operation that was given up after this time counts as failed: those who wait for answers have deadlines.
const GIVEN_UP: Duration = Duration::from_secs(1);

/// `set_async_circuit_breaker_config`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct BreakerOptions {
    /// With fewer operations, the breaker never opens.
    pub(super) min_requests: u32,
    /// Failures in a row after which it opens.
    pub(super) consecutive_failures: u32,
    /// Failures, as part of all operations, from which on it opens.
    pub(super) failure_percent: f64,
    /// How long it stays open.
    pub(super) open: Duration,
    /// Operations that must succeed before it closes again.
    pub(super) half_open: u32,
}

impl BreakerOptions {
    /// What is used where the configuration does not switch it on: a server that hangs must not delay every request.
    pub(super) const ALWAYS: Self = Self {
        min_requests: 0,
        consecutive_failures: 2,
        failure_percent: 1.1,
        open: Duration::from_secs(5),
        half_open: 1,
    };
}

/// The state of one kind of operation of one server.
#[derive(Debug)]
pub(super) struct Breaker {
    options: BreakerOptions,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Closed { since: Instant, requests: u32, failures: u32, in_a_row: u32 },
    Open { until: Instant },
    HalfOpen { running: u32, succeeded: u32 },
}

impl State {
    fn closed() -> Self {
        Self::Closed { since: Instant::now(), requests: 0, failures: 0, in_a_row: 0 }
    }
}

/// An operation that was admitted. Dropped without a result, it counts only if it took long.
#[derive(Debug)]
pub(super) struct Admitted<'a> {
    breaker: &'a Breaker,
    began: Instant,
    is_counted: bool,
}

/// What a result changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    None,
    /// The server is not asked for this time.
    Opened(Duration),
    Closed,
}

impl Breaker {
    pub(super) fn new(options: BreakerOptions) -> Self {
        Self { options, state: Mutex::new(State::closed()) }
    }

    /// A permit for an operation; `None` while the server is not asked.
    pub(super) fn admit(&self) -> Option<Admitted<'_>> {
        let mut state = self.lock();
        if let State::Open { until } = *state {
            if until > Instant::now() {
                return None;
            }
            *state = State::HalfOpen { running: 0, succeeded: 0 };
        }
        if let State::HalfOpen { running, succeeded } = &mut *state {
            if *running + *succeeded >= self.options.half_open.max(1) {
                return None;
            }
            *running += 1;
        }
        Some(Admitted { breaker: self, began: Instant::now(), is_counted: false })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, is_ok: bool) -> Change {
        let options = &self.options;
        let mut state = self.lock();
        let opens = match &mut *state {
            State::Closed { since, requests, failures, in_a_row } => {
                if since.elapsed() > INTERVAL {
                    (*since, *requests, *failures) = (Instant::now(), 0, 0);
                }
                *requests += 1;
                *failures += u32::from(!is_ok);
                *in_a_row = if is_ok { 0 } else { *in_a_row + 1 };
                !is_ok
                    && *requests >= options.min_requests
                    && (*in_a_row >= options.consecutive_failures
                        || f64::from(*failures) / f64::from(*requests) >= options.failure_percent)
            }
            // Its result comes late.
            State::Open { .. } => false,
            State::HalfOpen { running, succeeded } if is_ok => {
                *running = running.saturating_sub(1);
                *succeeded += 1;
                if *succeeded >= options.half_open.max(1) {
                    *state = State::closed();
                    return Change::Closed;
                }
                false
            }
            State::HalfOpen { .. } => true,
        };
        if opens {
            *state = State::Open { until: Instant::now() + options.open };
            return Change::Opened(options.open);
        }
        Change::None
    }

    fn release(&self) {
        if let State::HalfOpen { running, .. } = &mut *self.lock() {
            *running = running.saturating_sub(1);
        }
    }
}

impl Admitted<'_> {
    /// Counts the result.
    pub(super) fn finish(mut self, is_ok: bool) -> Change {
        self.is_counted = true;
        self.breaker.note(is_ok)
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        if self.is_counted {
            return;
        }
        if self.began.elapsed() >= GIVEN_UP {
            self.breaker.note(false);
        } else {
            self.breaker.release();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(breaker: &Breaker) -> Change {
        breaker.admit().unwrap().finish(false)
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_after_failures_in_a_row_and_closes_after_a_success() {
        let breaker = Breaker::new(BreakerOptions::ALWAYS);
        assert_eq!(fail(&breaker), Change::None);
        assert_eq!(breaker.admit().unwrap().finish(true), Change::None);
        assert_eq!(fail(&breaker), Change::None);
        assert_eq!(fail(&breaker), Change::Opened(Duration::from_secs(5)));
        assert!(breaker.admit().is_none());
        tokio::time::advance(Duration::from_secs(6)).await;
        let probe = breaker.admit().unwrap();
        assert!(breaker.admit().is_none(), "one operation probes");
        assert_eq!(probe.finish(false), Change::Opened(Duration::from_secs(5)));
        tokio::time::advance(Duration::from_secs(6)).await;
        drop(breaker.admit().unwrap());
        assert_eq!(breaker.admit().unwrap().finish(true), Change::Closed);
        assert_eq!(fail(&breaker), Change::None);
    }

    #[tokio::test(start_paused = true)]
    async fn operations_that_were_given_up_after_a_long_time_count() {
        let breaker = Breaker::new(BreakerOptions::ALWAYS);
        for wait in [10, 10, 10, 1_500, 1_500] {
            let given_up = breaker.admit().unwrap();
            tokio::time::advance(Duration::from_millis(wait)).await;
            drop(given_up);
        }
        assert!(breaker.admit().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_configured_counts_are_kept() {
        let options = BreakerOptions {
            min_requests: 10,
            consecutive_failures: 100,
            failure_percent: 0.5,
            open: Duration::from_secs(1),
            half_open: 2,
        };
        let breaker = Breaker::new(options);
        for number in 0..9 {
            assert_eq!(breaker.admit().unwrap().finish(number % 2 == 0), Change::None);
        }
        assert_eq!(fail(&breaker), Change::Opened(options.open));
        tokio::time::advance(Duration::from_secs(2)).await;
        let (one, other) = (breaker.admit().unwrap(), breaker.admit().unwrap());
        assert_eq!((one.finish(true), other.finish(true)), (Change::None, Change::Closed));
    }
}
