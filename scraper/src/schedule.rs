//! When a target is scraped, and which time its samples get.

use std::time::Duration;

use model::Timestamp;

use crate::clock::to_timestamp;

/// A scrape that is later than its time by no more than this gets the time that it should have had, because samples at equal distances
/// take less space. At most a hundredth of the interval.
const TOLERANCE_NANOS: i64 = 2_000_000;

/// The time until the first scrape of a target with this hash: targets are spread over the interval, and a target has the same place in
/// it after each start.
pub(crate) fn until_first(now_nanos: i64, interval: Duration, hash: u64) -> Duration {
    let interval = interval.as_nanos().max(1);
    let passed = u128::from(now_nanos.unsigned_abs()) % interval;
    let place = u128::from(hash) % interval;
    let wait = (interval - passed + place) % interval;
    Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX))
}

/// The times of the scrapes of a target.
pub(crate) struct ScrapeTimes {
    interval: i64,
    /// The time that the last scrape should have had.
    planned: i64,
}

impl ScrapeTimes {
    /// The first scrape is at `first_nanos`.
    pub(crate) fn new(first_nanos: i64, interval: Duration) -> Self {
        Self { interval: i64::try_from(interval.as_nanos()).unwrap_or(i64::MAX).max(1), planned: first_nanos }
    }

    /// The time of a scrape that begins now.
    pub(crate) fn at(&mut self, now_nanos: i64) -> Timestamp {
        let tolerance = TOLERANCE_NANOS.min(self.interval / 100);
        let passed = now_nanos - self.planned;
        if passed < -tolerance {
            // The clock was set back: scrapes have a new place in the interval.
            self.planned = now_nanos;
            return to_timestamp(now_nanos);
        }
        // A timer may be early by a little. Scrapes may have been left out, or the clock was set forward.
        self.planned += passed.saturating_add(tolerance) / self.interval * self.interval;
        let is_close = now_nanos - self.planned <= tolerance;
        to_timestamp(if is_close { self.planned } else { now_nanos })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn targets_are_spread_over_the_interval_and_keep_their_place() {
        let interval = Duration::from_secs(10);
        for hash in [0, 1, 4_999_999_999, 9_999_999_999, u64::MAX, 123_456_789_012_345] {
            for now in [0, 1, 17 * SECOND, 1_700_000_000_123_456_789] {
                let wait = until_first(now, interval, hash);
                assert!(wait < interval);
                let first = now as u128 + wait.as_nanos();
                assert_eq!(
                    first % interval.as_nanos(),
                    u128::from(hash) % interval.as_nanos(),
                    "{hash} {now}"
                );
            }
        }
    }

    #[test]
    fn scrapes_get_their_planned_time_if_they_are_almost_in_time() {
        let mut times = ScrapeTimes::new(1_000 * SECOND + 123_456_789, Duration::from_secs(10));
        let mut check = |nanos: i64, expected: i64| {
            assert_eq!(times.at(1_000 * SECOND + nanos).as_millis(), 1_000_000 + expected, "{nanos}");
        };
        check(123_456_789, 123);
        check(10 * SECOND + 123_456_789 + 2_000_000, 10_123);
        check(20 * SECOND + 123_456_789 + 2_000_001, 20_125);
        check(30 * SECOND + 123_456_789 + 9 * SECOND, 39_123);
        // Two were left out.
        check(60 * SECOND + 124_000_000, 60_123);
        // A timer may be early by a little.
        check(70 * SECOND + 123_000_000, 70_123);
        check(80 * SECOND + 123_456_789, 80_123);
    }

    #[test]
    fn a_short_interval_has_a_smaller_tolerance() {
        let mut times = ScrapeTimes::new(0, Duration::from_millis(100));
        assert_eq!(times.at(0).as_millis(), 0);
        assert_eq!(times.at(101_000_000).as_millis(), 100);
        assert_eq!(times.at(201_000_001).as_millis(), 201);
    }

    #[test]
    fn a_clock_that_jumps_gives_new_times() {
        let mut times = ScrapeTimes::new(10 * SECOND, Duration::from_secs(10));
        assert_eq!(times.at(20 * SECOND + 1).as_millis(), 20_000);
        let hour = 3_600 * SECOND;
        assert_eq!(times.at(hour + 33 * SECOND).as_millis(), 3_633_000);
        assert_eq!(times.at(40 * SECOND).as_millis(), 40_000);
        assert_eq!(times.at(50 * SECOND + 1_000_000).as_millis(), 50_000, "the new place in the interval");
    }
}
