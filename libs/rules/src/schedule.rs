//! When a group is evaluated.

use std::time::Duration;

use model::{Labels, Timestamp};

/// The instants at which a group is evaluated: every interval, with an offset by which groups are spread over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    interval_nanos: i128,
    offset_nanos: i128,
}

/// The next evaluation of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextEvaluation {
    /// Its instant, not after the present.
    pub at: Timestamp,
    /// Number of evaluations that were left out because the group fell behind.
    pub missed: u64,
}

const NANOS: i128 = 1_000_000;

impl Schedule {
    /// The schedule of the group `name` in `file`. The offset is that of Prometheus. An interval of less than a millisecond is
    /// taken for one.
    pub fn new(file: &str, name: &str, interval: Duration) -> Self {
        let interval_nanos = (interval.as_nanos() as i128).max(NANOS);
        // Both names are fixed and different.
        let labels = Labels::from_pairs([("file", file), ("name", name)]).unwrap_or_else(|_| Labels::empty());
        let offset_nanos = i128::from(labels.shard_hash(|_| true)) % interval_nanos;
        Self { interval_nanos, offset_nanos }
    }

    /// Time between evaluations.
    pub fn interval(&self) -> Duration {
        Duration::from_nanos(u64::try_from(self.interval_nanos).unwrap_or(u64::MAX))
    }

    /// The last instant of the schedule that is not after `now`.
    pub fn at_or_before(&self, now: Timestamp) -> Timestamp {
        let now = i128::from(now.as_millis()) * NANOS + (NANOS - 1);
        let slot = (now - self.offset_nanos).div_euclid(self.interval_nanos);
        Self::timestamp(slot * self.interval_nanos + self.offset_nanos)
    }

    /// The first instant of the schedule after `now`, where a group begins.
    pub fn after(&self, now: Timestamp) -> Timestamp {
        let slot = (i128::from(now.as_millis()) * NANOS + (NANOS - 1) - self.offset_nanos)
            .div_euclid(self.interval_nanos);
        Self::timestamp((slot + 1) * self.interval_nanos + self.offset_nanos)
    }

    /// The evaluation after that of `last`, if it is due at `now`. A group that fell behind continues with the latest instant.
    pub fn next(&self, last: Timestamp, now: Timestamp) -> Option<NextEvaluation> {
        let at = self.at_or_before(now);
        if at <= last {
            return None;
        }
        let steps =
            (i128::from(at.millis_since(last)) * NANOS + self.interval_nanos / 2) / self.interval_nanos;
        Some(NextEvaluation { at, missed: u64::try_from(steps - 1).unwrap_or(0) })
    }

    fn timestamp(nanos: i128) -> Timestamp {
        let millis = nanos.div_euclid(NANOS);
        Timestamp::from_millis(i64::try_from(millis).unwrap_or(if millis < 0 { i64::MIN } else { i64::MAX }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn instants_are_an_interval_apart_and_spread_by_group() {
        let minute = Duration::from_secs(60);
        let mut offsets: Vec<i64> = (0..100)
            .map(|group| {
                let schedule = Schedule::new("/rules.yml", &format!("group {group}"), minute);
                let first = schedule.at_or_before(at(1_700_000_000_000));
                assert_eq!(schedule.after(first).millis_since(first), 60_000);
                assert_eq!(schedule.at_or_before(first), first);
                assert_eq!(schedule.after(first.offset_millis(-1)), first);
                first.as_millis().rem_euclid(60_000)
            })
            .collect();
        offsets.sort_unstable();
        offsets.dedup();
        assert!(offsets.len() > 95, "{offsets:?}");
        assert!(offsets[0] < 5_000 && offsets[offsets.len() - 1] > 55_000, "{offsets:?}");
    }

    #[test]
    fn a_group_that_fell_behind_continues_with_the_latest_instant() {
        let schedule = Schedule::new("f", "g", Duration::from_secs(30));
        let first = schedule.after(at(1_000_000));
        assert_eq!(schedule.next(first, first.offset_millis(29_999)), None);
        let next = |after: i64| {
            schedule
                .next(first, first.offset_millis(after))
                .map(|next| (next.at.millis_since(first), next.missed))
        };
        assert_eq!(next(30_000), Some((30_000, 0)));
        assert_eq!(next(59_999), Some((30_000, 0)));
        assert_eq!(next(60_000), Some((60_000, 1)));
        assert_eq!(next(305_000), Some((300_000, 9)));
    }

    #[test]
    fn odd_intervals_and_times_are_bounded() {
        for interval in [Duration::ZERO, Duration::from_nanos(1), Duration::from_millis(7), Duration::MAX] {
            let schedule = Schedule::new("f", "g", interval);
            for now in [Timestamp::MIN, at(-1), at(0), Timestamp::MAX] {
                assert!(schedule.at_or_before(now) <= now || now == Timestamp::MIN, "{interval:?} {now}");
                let _ = schedule.next(now, Timestamp::MAX);
            }
        }
    }
}
