//! Measures the phases of a query.

use std::sync::LazyLock;
use std::time::Duration;

/// Measures consecutive phases.
pub(super) struct Stopwatch(Duration);

impl Stopwatch {
    pub(super) fn begin() -> Self {
        Self(clock())
    }

    /// The time since the start, or since the last call.
    pub(super) fn end(&mut self) -> Duration {
        let now = clock();
        now - std::mem::replace(&mut self.0, now)
    }
}

/// The time since the first call.
pub(super) fn clock() -> Duration {
    static BEGAN: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);
    BEGAN.elapsed()
}
