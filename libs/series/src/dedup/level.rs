//! How the counters of two replicas continue each other where the replica changes.
//!
//! Replicas scrape one counter, so usually both have it at the same level, and nothing is changed. Three things are
//! different:
//!
//! * A scrape takes time, or the target caches its values: one replica is some scrapes **behind** the other one. Its values are
//!   raised to the last one of the answer until they are higher. This ends after a scrape or two, wherever the query begins.
//! * The replicas see different counters, such as two processes behind one address, or running totals that begin at different
//!   times. Then they are at different **levels** for good, and the answer grows by what the replica itself grew.
//! * The counter was **reset**: one of the replicas shows it.

use crate::timeline::Timeline;

/// No more samples than this are searched for the one before or after a change of replica. Only values that are not a number,
/// and samples that are left out, lie between.
const MOST_NEAR: usize = 64;

/// No more samples of the first replica are searched for a reset since the last sample of the second one.
const MOST_SINCE: usize = 1_000;

/// The sample that was appended last.
#[derive(Clone, Copy)]
pub(crate) struct Appended {
    pub(crate) replica: usize,
    /// Its index in the timeline of the replica.
    pub(crate) place: usize,
    pub(crate) time: i64,
    /// Its value in the replica and in the answer, if it was a float.
    pub(crate) value: Option<(f64, f64)>,
}

/// What happened to a counter between two samples of different replicas.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Change {
    /// Nothing that would need a correction.
    Same,
    /// It was reset.
    Reset,
    /// The second replica is behind the first one.
    Behind,
    /// The replicas are at different levels; how much the counter grew.
    Level(f64),
}

/// The samples at a change of replica.
pub(crate) struct ReplicaChange<'a, T> {
    /// The last sample of the answer, and the timeline of its replica.
    last: Appended,
    left: &'a T,
    /// The timeline of the replica that follows, and the index of the next sample.
    right: &'a T,
    place: usize,
    /// The last sample of the second replica that is not after the last one of the answer.
    known: Option<usize>,
    /// The same if it is from before a reset that the first replica shows. The second one does not show that it was reset again.
    before_reset: Option<usize>,
}

impl<'a, T: Timeline> ReplicaChange<'a, T> {
    /// A change from the replica `left`, of which `last` was appended, to the sample of the replica `right` at `place`.
    pub(crate) fn new(last: Appended, left: &'a T, right: &'a T, place: usize) -> Self {
        let mut near = (0..place).rev().take(MOST_NEAR);
        let known = near.find(|&at| right.time(at) <= last.time && is_value(right, at));
        let is_before_reset = |known: usize| {
            let before = last.value.map(|(before, _)| before);
            right.float(known) > before && fell_since(left, right.time(known), last.place)
        };
        let (before_reset, known) = match known {
            Some(known) if is_before_reset(known) => (Some(known), None),
            known => (None, known),
        };
        Self { last, left, right, place, known, before_reset }
    }

    /// What happened to a raw counter. `is_raised` if the answer is corrected at the last sample, so that a reset matters
    /// although the counter does not fall.
    pub(crate) fn of_raw(&self, is_raised: bool) -> Change {
        let (Some((before, _)), Some(value)) = (self.last.value, self.right.float(self.place)) else {
            return Change::Same;
        };
        if before > value {
            return match () {
                () if self.was_reset(before, value) => Change::Reset,
                () if self.catches_up(before, value) => Change::Behind,
                () => Change::Level(self.growth(before, value).unwrap_or(0.0)),
            };
        }
        match self.growth(before, value) {
            _ if is_raised && self.shows_reset() => Change::Reset,
            Some(growth) if self.is_above(before, value) => Change::Level(growth),
            _ => Change::Same,
        }
    }

    /// What happened to running totals. They never fall.
    pub(crate) fn of_totals(&self) -> Change {
        let (Some((before, _)), Some(value)) = (self.last.value, self.right.float(self.place)) else {
            return Change::Same;
        };
        Change::Level(self.growth(before, value).unwrap_or(value - before).max(0.0))
    }

    fn time(&self) -> i64 {
        self.right.time(self.place)
    }

    /// How much the counter grew since the last sample of the answer: in the second replica, or if that began later, in the
    /// first one.
    fn growth(&self, before: f64, value: f64) -> Option<f64> {
        let Some(known) = self.known else {
            let back = self.back()?;
            return Some(value_at(self.left, Some(self.last.place), back, self.time())? - before);
        };
        let after = (known + 1..=self.place).find(|&at| is_value(self.right, at))?;
        let at_last = value_at(self.right, Some(known), after, self.last.time)?;
        (value >= at_last).then_some(value - at_last)
    }

    /// The first sample of the first replica that is not before that of the second one.
    fn back(&self) -> Option<usize> {
        first_after(self.left, self.last.place, self.time())
    }

    /// Whether one of the replicas shows a reset between the two samples.
    fn shows_reset(&self) -> bool {
        let time = self.time();
        let start = self.right.start(self.place);
        // A start that is not before its own sample is ignored.
        if start > self.last.time && start < time {
            return true;
        }
        if self.known.is_some_and(|known| first_fall(self.right, known, self.place).is_some()) {
            return true;
        }
        let Some(back) = self.back() else { return false };
        // If the second replica falls, too, when the first one is back or a scrape later, that was a later reset.
        let next = first_after(self.right, self.place, self.left.time(back));
        let next = next.map(|next| first_after(self.right, next, i64::MIN).unwrap_or(next));
        first_fall(self.left, self.last.place, back).is_some()
            && next.is_none_or(|next| first_fall(self.right, self.place, next).is_none())
    }

    /// Whether a counter that is lower than before was reset.
    fn was_reset(&self, before: f64, value: f64) -> bool {
        if self.shows_reset() {
            return true;
        }
        // A replica that is now this much lower was lower before, too.
        let half = (before - value) / 2.0;
        if let Some(known) = self.known.or(self.before_reset)
            && let Some(at_known) = self.right.float(known)
            && let Some(at_last) = level_at(self.left, self.last.place, self.right.time(known))
            && at_last - at_known < half
        {
            return true;
        }
        // Of a replica that began later, only the first one can know. If that has ended, a fall within two scrapes that is less
        // than the growth of two scrapes shows a replica that is behind.
        let is_soon =
            self.last_scrapes().is_some_and(|span| self.time().saturating_sub(self.last.time) <= span);
        let is_small = is_soon && value >= before / 2.0 && before - value <= self.last_growth(before);
        self.known.is_none() && self.back().is_none() && !is_small
    }

    /// The sample of the first replica two scrapes before its last one.
    fn two_before(&self) -> Option<usize> {
        (0..self.last.place).rev().take(MOST_NEAR).filter(|&at| is_value(self.left, at)).take(2).last()
    }

    /// How much the counter of the first replica grew in the last two scrapes.
    fn last_growth(&self, before: f64) -> f64 {
        let earlier = self.two_before().and_then(|at| self.left.float(at));
        earlier.map_or(0.0, |earlier| before - earlier)
    }

    /// The time of the last two scrapes of the first replica, in milliseconds.
    fn last_scrapes(&self) -> Option<i64> {
        self.two_before().map(|at| self.last.time.saturating_sub(self.left.time(at)))
    }

    /// Whether the second replica is behind the first one: one of its next two samples reaches the value of the first. If there
    /// are none, it must not be lower by more than two scrapes.
    fn catches_up(&self, before: f64, value: f64) -> bool {
        let later = (self.place + 1..self.right.len()).take(MOST_NEAR).filter_map(|at| self.right.float(at));
        let mut later = later.filter(|value| !value.is_nan()).take(2).peekable();
        match later.peek() {
            Some(_) => later.any(|value| value >= before),
            None => before - value <= self.last_growth(before),
        }
    }

    /// Whether the second replica is higher by more than the counter grows: it was higher already two scrapes before the last
    /// sample of the answer, and neither of them was reset since. If it began later, it is higher than the first one is two
    /// scrapes later.
    fn is_above(&self, before: f64, value: f64) -> bool {
        let Some(known) = self.known else { return self.is_above_later(before, value) };
        let Some(at_known) = self.right.float(known) else { return false };
        let earlier = (0..known).rev().take(MOST_NEAR).find(|&at| is_value(self.right, at)).unwrap_or(known);
        let is_higher = match earlier < known {
            true => self.right.float(earlier).is_some_and(|value| value > before),
            false => at_known - before > 2.0 * (value - at_known),
        };
        if !is_higher || first_fall(self.right, earlier, self.place).is_some() {
            return false;
        }
        !fell_since(self.left, self.right.time(earlier), self.last.place)
    }

    /// The same for a replica that began later, by the next samples of the first one.
    fn is_above_later(&self, before: f64, value: f64) -> bool {
        let Some(back) = self.back() else { return false };
        let second = (back + 1..self.left.len()).take(MOST_NEAR).find(|&at| is_value(self.left, at));
        let end = second.unwrap_or(back);
        let at_end = self.left.float(end).unwrap_or(f64::NAN);
        let is_higher = match second {
            Some(_) => value > at_end,
            None => value - at_end > 2.0 * (at_end - before),
        };
        let is_jump = value - before > 2.0 * self.last_growth(before);
        is_higher && is_jump && first_fall(self.left, self.last.place, end).is_none()
    }
}

/// Whether a counter falls after its last sample that is not after `time`, up to index `to`, or may do so because there are too
/// many samples.
fn fell_since<T: Timeline>(timeline: &T, time: i64, to: usize) -> bool {
    match (0..=to).rev().take(MOST_SINCE).find(|&at| timeline.time(at) <= time) {
        Some(from) => first_fall(timeline, from, to).is_some(),
        None => to >= MOST_SINCE || first_fall(timeline, 0, to).is_some(),
    }
}

/// The first value after index `from` that is not before `time`.
fn first_after<T: Timeline>(timeline: &T, from: usize, time: i64) -> Option<usize> {
    (from + 1..timeline.len()).take(MOST_NEAR).find(|&at| timeline.time(at) >= time && is_value(timeline, at))
}

fn is_value<T: Timeline>(timeline: &T, at: usize) -> bool {
    timeline.float(at).is_some_and(|value| !value.is_nan())
}

/// The first index after `from` and up to `to` at which a counter is less than before.
pub(crate) fn first_fall<T: Timeline>(timeline: &T, from: usize, to: usize) -> Option<usize> {
    let mut before = f64::NAN;
    (from..=to).find(|&at| {
        let value = timeline.float(at).unwrap_or(f64::NAN);
        let falls = value < before;
        if !value.is_nan() {
            before = value;
        }
        falls
    })
}

/// The value of a counter at a time, by its samples around it, up to index `to`.
fn level_at<T: Timeline>(timeline: &T, to: usize, time: i64) -> Option<f64> {
    let values = |at: &usize| is_value(timeline, *at);
    let after = (0..=to).rev().take_while(|&at| timeline.time(at) >= time).filter(values).last()?;
    value_at(timeline, (0..after).rev().take(MOST_NEAR).find(values), after, time)
}

/// The value of a counter at a time between its samples at the indices `before` and `after`. Where it was reset between them,
/// or has none before, it is not more than the one after.
fn value_at<T: Timeline>(timeline: &T, before: Option<usize>, after: usize, time: i64) -> Option<f64> {
    let (after_time, after_value) = (timeline.time(after), timeline.float(after)?);
    let before = before.and_then(|at| Some((timeline.time(at), timeline.float(at)?)));
    Some(match before {
        Some((before_time, before_value)) if before_value <= after_value => {
            let part =
                time.saturating_sub(before_time) as f64 / after_time.saturating_sub(before_time) as f64;
            before_value + (after_value - before_value) * part
        }
        _ => after_value,
    })
}
