//! What a head contains, counted while it changes, so that metrics and queries look at no series.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use model::{TimeRange, Timestamp};

use crate::late::LateSamples;
use crate::series::SeriesState;

/// The numbers of a head. Code that changes a series changes them afterwards.
///
/// Times can only be narrowed by a look at all series, while nothing is appended: [`Counts::set_times`].
pub(crate) struct Counts {
    chunks: AtomicUsize,
    /// The first sample that is in order; `i64::MAX` without such samples.
    first: AtomicI64,
    /// The first and the last sample that are out of order; `i64::MAX` and `i64::MIN` without such samples.
    first_late: AtomicI64,
    last_late: AtomicI64,
}

impl Default for Counts {
    fn default() -> Self {
        let times = SeriesTimes::default();
        Self {
            chunks: AtomicUsize::new(0),
            first: AtomicI64::new(times.first),
            first_late: AtomicI64::new(times.first_late),
            last_late: AtomicI64::new(times.last_late),
        }
    }
}

impl Counts {
    pub(crate) fn add_chunks(&self, count: usize) {
        self.chunks.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn remove_chunks(&self, count: usize) {
        self.chunks.fetch_sub(count, Ordering::Relaxed);
    }

    /// Number of chunks.
    pub(crate) fn chunks(&self) -> usize {
        self.chunks.load(Ordering::Relaxed)
    }

    /// A sample in order was added.
    pub(crate) fn add_time(&self, time: i64) {
        self.first.fetch_min(time, Ordering::Relaxed);
    }

    /// A sample out of order was added.
    pub(crate) fn add_late_time(&self, time: i64) {
        self.first_late.fetch_min(time, Ordering::Relaxed);
        self.last_late.fetch_max(time, Ordering::Relaxed);
    }

    /// Replaces the times, after samples were removed. Nothing may be appended meanwhile.
    pub(crate) fn set_times(&self, times: &SeriesTimes) {
        self.first.store(times.first, Ordering::Relaxed);
        self.first_late.store(times.first_late, Ordering::Relaxed);
        self.last_late.store(times.last_late, Ordering::Relaxed);
    }

    /// The times of the samples that are in order, of which the last one is known.
    pub(crate) fn times_in_order(&self, last: i64) -> Option<TimeRange> {
        range(self.first.load(Ordering::Relaxed), last)
    }

    /// The times of the samples that are out of order.
    pub(crate) fn late_times(&self) -> Option<TimeRange> {
        range(self.first_late.load(Ordering::Relaxed), self.last_late.load(Ordering::Relaxed))
    }
}

fn range(first: i64, last: i64) -> Option<TimeRange> {
    let range = || TimeRange::new(Timestamp::from_millis(first), Timestamp::from_millis(last));
    (first <= last).then(range)
}

/// The times of several series, found by a look at each of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SeriesTimes {
    first: i64,
    /// The last sample that is in order; `i64::MIN` without such samples.
    pub(crate) last: i64,
    first_late: i64,
    last_late: i64,
}

impl Default for SeriesTimes {
    fn default() -> Self {
        Self { first: i64::MAX, last: i64::MIN, first_late: i64::MAX, last_late: i64::MIN }
    }
}

impl SeriesTimes {
    pub(crate) fn add(&mut self, state: &SeriesState) {
        if let Some(times) = state.times() {
            self.first = self.first.min(times.min.as_millis());
            self.last = self.last.max(times.max.as_millis());
        }
        if let Some(late) = state.late.as_deref().and_then(LateSamples::range) {
            self.first_late = self.first_late.min(late.min.as_millis());
            self.last_late = self.last_late.max(late.max.as_millis());
        }
    }
}
