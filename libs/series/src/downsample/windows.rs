//! Where windows end, and how many of them are in a chunk.

use std::ops::Range;

/// Distance of raw samples that the number of windows is estimated with, as in Thanos.
pub(super) const RAW_RESOLUTION: i64 = 60_000;

/// Windows in a chunk on average, at most.
const WINDOWS_PER_CHUNK: u64 = 140;

/// Samples that are aggregated into one chunk, at most. A chunk can count 65,535 windows, and each has at least one sample.
/// Only samples that are less than half a second apart reach this limit.
pub(super) const MAX_SAMPLES: usize = 60_000;

/// The last millisecond of the window that contains `t`.
pub(super) fn window_end(t: i64, resolution: i64) -> i64 {
    // The remainder is not negative, also before 1970, so the end is never before `t`.
    t.saturating_add(resolution - 1 - t.rem_euclid(resolution))
}

/// Into how many chunks to divide the aggregates of `samples`, which are from `min` to `max` and about `from` apart: enough that
/// a chunk has no more than 140 windows on average, if samples are evenly distributed.
pub(super) fn chunk_count(min: i64, max: i64, from: i64, to: i64, samples: usize) -> usize {
    let length = max.saturating_sub(min).max(0);
    // Thanos computes this with floats, and so decides here too.
    let fullness = (samples as f64 / (length as f64 / from as f64)).min(1.0);
    let windows = ((length / to) as f64 * fullness) as u64 + 1;
    usize::try_from(windows / (WINDOWS_PER_CHUNK + 1) + 1).unwrap_or(usize::MAX)
}

/// The windows of samples: for each, the time of its point and the indices of its samples.
pub(super) struct Windows<'a> {
    times: &'a [i64],
    resolution: i64,
    /// No point is later: the time of the last sample.
    last: i64,
    next: usize,
}

impl<'a> Windows<'a> {
    /// The windows of samples at `times`, which ascend.
    pub(super) fn new(times: &'a [i64], resolution: i64) -> Self {
        Self { times, resolution, last: times.last().copied().unwrap_or(0), next: 0 }
    }
}

impl Iterator for Windows<'_> {
    type Item = (i64, Range<usize>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let start = self.next;
        let first = *self.times.get(start)?;
        let point = window_end(first, self.resolution).min(self.last);
        let inside = self.times[start + 1..].iter().take_while(|t| **t <= point).count();
        self.next = start + 1 + inside;
        Some((point, start..self.next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_end_before_multiples_of_the_resolution_also_before_1970() {
        for (t, end) in [(0, 9), (9, 9), (10, 19), (-1, -1), (-10, -1), (-11, -11), (-20, -11)] {
            assert_eq!(window_end(t, 10), end, "{t}");
        }
        assert_eq!(window_end(i64::MAX, 10), i64::MAX);
        assert_eq!(window_end(i64::MIN, 10), i64::MIN + 7);
    }

    #[test]
    fn a_point_is_at_the_end_of_its_window_or_at_the_last_sample() {
        let windows: Vec<_> = Windows::new(&[-3, 0, 1, 9, 10, 35], 10).collect();
        assert_eq!(windows, [(-1, 0..1), (9, 1..4), (19, 4..5), (35, 5..6)]);
        assert_eq!(Windows::new(&[], 10).count(), 0);
    }

    #[test]
    fn chunks_have_at_most_140_windows_on_average() {
        let minute = 60_000;
        let full = |windows: i64| chunk_count(0, windows * 300_000, minute, 300_000, windows as usize * 5);
        assert_eq!([139, 140, 280, 281].map(full), [1, 2, 2, 3]);
        // Half of the samples are missing.
        assert_eq!(chunk_count(0, 280 * 300_000, minute, 300_000, 700), 2);
        assert_eq!(chunk_count(0, 278 * 300_000, minute, 300_000, 695), 1);
        assert_eq!(chunk_count(5, 5, minute, 300_000, 1), 1);
        assert_eq!(chunk_count(i64::MIN, i64::MAX, 1, 1, usize::MAX), usize::MAX / 141 / 2 + 1);
    }
}
