//! What start timestamps tell of a counter: resets that its values do not show, and from where it counted.
//!
//! Behaviour: `isStartTimestampReset`, `checkStartTimeOverlap` and `extrapolatedRate` in Prometheus 3.14's
//! `promql/functions.go`.

/// When a counter began and when it was read, in milliseconds; a start of 0 is not known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    pub(super) start: i64,
    pub(super) time: i64,
}

impl Reading {
    /// The sample at `index` of a list of samples and one of starts, which may be empty.
    #[inline]
    pub(super) fn of(starts: &[i64], time: i64, index: usize) -> Self {
        Self { start: starts.get(index).copied().unwrap_or(0), time }
    }

    /// Whether the counter began anew since `previous`.
    #[inline]
    pub(super) fn is_reset_since(self, previous: Self) -> bool {
        // A start that is that of its own sample is how OpenTelemetry says that it is not known; a later one is wrong.
        if self.start == 0 || self.start >= self.time || self.start < previous.time {
            return false;
        }
        // A start at the sample before is that of a delta, which counts from there; but where that sample's own start is
        // not known, it is the second of a counter that began before it was seen.
        self.start > previous.time || (previous.start != 0 && previous.start < previous.time)
    }

    /// Whether it counts, but not since when `previous` counted, what that had counted already.
    #[inline]
    pub(super) fn overlaps(self, previous: Self) -> bool {
        self.start != 0 && self.start < previous.time && self.start != previous.start
    }
}

/// The start of the first sample of a window, if it lies between the window's beginning (excluded) and the sample. The
/// counter then was 0 there, and its change need not be guessed.
#[inline]
pub(super) fn inside(starts: &[i64], first_time: i64, window_start: i64) -> Option<i64> {
    starts.first().copied().filter(|&start| start != 0 && start > window_start && start < first_time)
}

/// What the change since `start` has to be multiplied with so that it covers the window up to `end`. `times` are those of
/// the first and last of so many samples.
pub(super) fn factor(start: i64, times: (i64, i64), samples: usize, end: i64) -> f64 {
    let seconds = |millis: i64| millis as f64 / 1000.0;
    let sampled = seconds(times.1 - start);
    // A single sample says nothing of how long a series goes on behind it.
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
    fn a_reset_is_a_start_since_the_sample_before() {
        let check = |previous: (i64, i64), current: (i64, i64), reset: bool, overlaps: bool| {
            let reading = |(start, time)| Reading { start, time };
            let (previous, current) = (reading(previous), reading(current));
            let found = (current.is_reset_since(previous), current.overlaps(previous));
            assert_eq!(found, (reset, overlaps), "{previous:?} {current:?}");
        };
        check((5, 10), (5, 20), false, false);
        check((5, 10), (15, 20), true, false);
        check((0, 10), (15, 20), true, false);
        // Unknown, its own time, and later.
        check((5, 10), (0, 20), false, false);
        check((5, 10), (20, 20), false, false);
        check((5, 10), (21, 20), false, false);
        // At the sample before: a delta, unless that one's start is unknown, its own time, or wrong.
        check((5, 10), (10, 20), true, false);
        check((0, 10), (10, 20), false, false);
        check((10, 10), (10, 20), false, false);
        check((11, 10), (10, 20), false, false);
        check((5, 10), (6, 20), false, true);
    }

    #[test]
    fn the_change_since_a_start_is_extrapolated_to_the_end_only() {
        assert_eq!(factor(0, (60_000, 120_000), 2, 120_000), 1.0);
        assert_eq!(factor(0, (60_000, 120_000), 2, 150_000), 1.25);
        assert_eq!(factor(0, (60_000, 120_000), 2, 300_000), 1.25);
        assert_eq!(factor(30_000, (60_000, 60_000), 1, 300_000), 1.0);
        assert_eq!(inside(&[], 10, 0), None);
        assert_eq!([0, 5, 6, 10].map(|start| inside(&[start], 10, 5)), [None, None, Some(6), None]);
    }
}
