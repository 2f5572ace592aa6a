//! Instants and closed time ranges in milliseconds.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// An instant: signed milliseconds since the Unix epoch, as Prometheus stores it.
///
/// All arithmetic saturates at [`Timestamp::MIN`] and [`Timestamp::MAX`], which mean "unbounded".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The earliest instant; as a bound it means "from the beginning".
    pub const MIN: Self = Self(i64::MIN);
    /// The latest instant; as a bound it means "no end".
    pub const MAX: Self = Self(i64::MAX);
    /// The Unix epoch.
    pub const EPOCH: Self = Self(0);

    /// The instant `millis` milliseconds after the epoch (before it when negative).
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// The instant nearest to `seconds` after the epoch. Saturates; NaN becomes the epoch.
    pub fn from_secs_f64(seconds: f64) -> Self {
        Self((seconds * 1000.0).round() as i64)
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Seconds since the epoch. Loses precision only for more than 2^53 ms.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// This instant moved by `millis`, which may be negative; saturates.
    pub const fn offset_millis(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to `self`, negative when `self` is the earlier one; saturates.
    pub const fn millis_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, length: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(length.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;
    fn sub(self, length: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(length.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A closed range of instants: both ends belong to it, as in StoreAPI requests.
///
/// A range whose `min` is after its `max` is empty: it contains no instant and overlaps no range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimeRange {
    /// First instant that belongs to the range.
    pub min: Timestamp,
    /// Last instant that belongs to the range.
    pub max: Timestamp,
}

impl TimeRange {
    /// The range of all instants.
    pub const ALL: Self = Self { min: Timestamp::MIN, max: Timestamp::MAX };

    /// The range from `min` to `max`, both included.
    pub const fn new(min: Timestamp, max: Timestamp) -> Self {
        Self { min, max }
    }

    /// Whether no instant belongs to the range.
    pub fn is_empty(&self) -> bool {
        self.min > self.max
    }

    /// Whether `at` belongs to the range.
    pub fn contains(&self, at: Timestamp) -> bool {
        self.min <= at && at <= self.max
    }

    /// Whether some instant belongs to both ranges.
    pub fn overlaps(&self, other: &Self) -> bool {
        !self.is_empty() && !other.is_empty() && self.min <= other.max && other.min <= self.max
    }

    /// The instants that belong to both ranges; possibly empty.
    pub fn intersect(&self, other: &Self) -> Self {
        Self { min: self.min.max(other.min), max: self.max.min(other.max) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(min: i64, max: i64) -> TimeRange {
        TimeRange::new(Timestamp::from_millis(min), Timestamp::from_millis(max))
    }

    #[test]
    fn both_ends_of_a_range_belong_to_it() {
        assert!(range(1, 3).overlaps(&range(3, 5)));
        assert!(!range(1, 3).overlaps(&range(4, 5)));
        assert!(range(1, 3).contains(Timestamp::from_millis(3)));
        assert!(!range(3, 1).overlaps(&TimeRange::ALL));
    }

    #[test]
    fn arithmetic_saturates_at_the_unbounded_ends() {
        assert_eq!(Timestamp::MAX + Duration::from_secs(1), Timestamp::MAX);
        assert_eq!(Timestamp::MIN - Duration::MAX, Timestamp::MIN);
        assert_eq!(Timestamp::MIN.offset_millis(-5), Timestamp::MIN);
    }
}
