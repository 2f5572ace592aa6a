//! What the store serves and how much at once.

use model::{TimeRange, Timestamp};
use runtime::TimeArg;

use crate::meter::ReadLimits;

/// `--min-time` and `--max-time`: only samples between them are served.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeLimits {
    pub(crate) min: TimeArg,
    pub(crate) max: TimeArg,
}

impl TimeLimits {
    /// The range at this moment.
    pub(crate) fn now(self) -> TimeRange {
        self.at(crate::now())
    }

    fn at(self, now: Timestamp) -> TimeRange {
        TimeRange::new(self.min.at(now), self.max.at(now))
    }
}

/// How much the store reads at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoreLimits {
    /// What one request may read.
    pub(crate) read: ReadLimits,
    /// Series requests that run at once.
    pub(crate) concurrency: usize,
    /// Bytes of chunks that one Series request may have in memory.
    pub(crate) request_bytes: u64,
}
