//! Start timestamps of counters: they show resets that the values do not show, and since when a counter has
//! counted.
//!
//! Behaviour: `isStartTimestampReset`, `checkStartTimeOverlap` and `extrapolatedRate` in Prometheus 3.14's
//! `promql/functions.go`.

/// The start of a counter and the time of its sample, in milliseconds. A start of 0 means unknown.
#[derive(Clone, Copy, Debug)]
pub(super) struct CounterReading {
    pub(super) start: i64,
    pub(super) time: i64,
}

impl CounterReading {
    /// The reading of the sample at `index`, with the time `time`. `starts` may be empty.
    #[inline]
    pub(super) fn of(starts: &[i64], time: i64, index: usize) -> Self {
        Self { start: starts.get(index).copied().unwrap_or(0), time }
    }

    /// Whether the counter was started again since `previous`.
    #[inline]
    pub(super) fn is_reset_since(self, previous: Self) -> bool {
        // OpenTelemetry sets the start to the time of the sample itself if it is unknown. A later start is
        // invalid.
        if self.start == 0 || self.start >= self.time || self.start < previous.time {
            return false;
        }
        // A start at the time of the previous sample is normally that of a delta, which counts from there.
        // But if the start of the previous sample is unknown, this is the second sample of a counter that
        // began before it was first observed.
        self.start > previous.time || (previous.start != 0 && previous.start < previous.time)
    }

    /// Whether it includes increases that `previous` already included, although it has a different start.
    #[inline]
    pub(super) fn overlaps(self, previous: Self) -> bool {
        self.start != 0 && self.start < previous.time && self.start != previous.start
    }
}

/// The start of the first sample of a window, if it is inside the window and before the sample. The counter
/// was 0 at this time, so its change need not be extrapolated to the window's start.
#[inline]
pub(super) fn inside(starts: &[i64], first_time: i64, window_start: i64) -> Option<i64> {
    starts.first().copied().filter(|&start| start != 0 && start > window_start && start < first_time)
}

/// The factor by which the change since `start` is multiplied so that it covers the window up to `end`.
/// `times` are the times of the first and the last of `samples` samples.
pub(super) fn factor(start: i64, times: (i64, i64), samples: usize, end: i64) -> f64 {
    let seconds = |millis: i64| millis as f64 / 1000.0;
    let sampled = seconds(times.1 - start);
    // A single sample does not show how long the series continues after it.
    let distance = if samples > 1 { seconds(times.1 - times.0) / (samples - 1) as f64 } else { 0.0 };
    let mut to_end = seconds(end - times.1);
    if to_end >= distance * 1.1 {
        to_end = distance / 2.0;
    }
    (sampled + to_end) / sampled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_after_the_previous_sample_is_a_reset() {
        let check = |previous: (i64, i64), current: (i64, i64), reset: bool, overlaps: bool| {
            let reading = |(start, time)| CounterReading { start, time };
            let (previous, current) = (reading(previous), reading(current));
            let found = (current.is_reset_since(previous), current.overlaps(previous));
            assert_eq!(found, (reset, overlaps), "{previous:?} {current:?}");
        };
        check((5, 10), (5, 20), false, false);
        check((5, 10), (15, 20), true, false);
        check((0, 10), (15, 20), true, false);
        // The start is unknown, the sample's own time, or later.
        check((5, 10), (0, 20), false, false);
        check((5, 10), (20, 20), false, false);
        check((5, 10), (21, 20), false, false);
        // The start is the previous sample's time: a delta, unless the start of that sample is unknown, its
        // own time, or invalid.
        check((5, 10), (10, 20), true, false);
        check((0, 10), (10, 20), false, false);
        check((10, 10), (10, 20), false, false);
        check((11, 10), (10, 20), false, false);
        check((5, 10), (6, 20), false, true);
    }

    #[test]
    fn a_change_since_a_start_is_extrapolated_only_to_the_end() {
        assert_eq!(factor(0, (60_000, 120_000), 2, 120_000), 1.0);
        assert_eq!(factor(0, (60_000, 120_000), 2, 150_000), 1.25);
        assert_eq!(factor(0, (60_000, 120_000), 2, 300_000), 1.25);
        assert_eq!(factor(30_000, (60_000, 60_000), 1, 300_000), 1.0);
        assert_eq!(inside(&[], 10, 0), None);
        assert_eq!([0, 5, 6, 10].map(|start| inside(&[start], 10, 5)), [None, None, Some(6), None]);
    }
}
