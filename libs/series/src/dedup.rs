//! Deduplication by penalty: one replica is used until it misses about two samples.
//!
//! Two replicas of one Prometheus scrape the same targets at slightly different times. Using every sample of both would
//! double the rate of samples and mix two clocks. So one replica is followed, and the other one is delayed by a penalty of
//! twice the last spacing of samples. When the followed replica has a gap longer than that, the other one comes first and is
//! followed from then on. More than two replicas are folded: the result of the first two with the third, and so on.
//!
//! This is the algorithm of Thanos (`pkg/dedup/iter.go`), so that both give the same samples when a replica is missing for
//! some time. There are four differences, each where Thanos gives a wrong answer:
//!
//! * **The first comparison.** When the second replica has the first sample, Thanos treats it as a change of replica and
//!   raises a counter as if the first replica had a sample before. Here no sample comes before the first one, so nothing is
//!   compared.
//! * **Spacing across a gap.** Thanos measures the spacing as the distance of the last two samples, even across a gap: after
//!   an hour in which both replicas were down, the other replica is delayed by two hours, and its samples are lost if the
//!   followed one fails in that time. Here a distance of more than twice the spacing within the followed replica does not
//!   count; the spacing within the replica is used instead.
//! * **Counter resets.** Thanos converts the counters of every replica to running totals without resets, so that `resets()`
//!   finds none, and the extrapolation of `rate()` to zero uses totals. Here raw counters stay raw, and only a false reset at
//!   a change of replica is corrected: a value lower than the one before, although neither the samples of the replica nor its
//!   start timestamp show a reset since then. The correction ends with the next reset within the replica. Samples that it
//!   raises lose their start timestamps; other samples keep them.
//! * **Histograms.** After a change of replica, the reset hint of a histogram is removed, because it compares the histogram
//!   with a sample of its own replica.

use model::TimeRange;

use crate::Samples;
use crate::timeline::{FloatTimeline, MixedTimeline, Timeline};

/// Penalty before any spacing is known, in milliseconds.
const INITIAL_PENALTY: i64 = 5_000;

/// A decoded replica.
#[derive(Default)]
pub(crate) struct Replica {
    /// Its samples.
    pub(crate) samples: Samples,
    /// Whether its counter is a running total, which never falls.
    pub(crate) resets_applied: bool,
    /// A range of time whose samples were not decoded, because they are probably not needed.
    pub(crate) unread: Option<TimeRange>,
}

/// Deduplicates two replicas: follows `a`, or `b` where `a` has gaps. With `counter`, a change of replica never looks like a
/// counter reset.
///
/// Returns none when the result could depend on samples of an [unread](Replica::unread) range.
pub(crate) fn merge(a: &Replica, b: &Replica, counter: bool) -> Option<Replica> {
    let mut out = Samples::new();
    let longest = a.samples.timestamps.len().max(b.samples.timestamps.len());
    out.timestamps.reserve(longest);
    out.values.reserve(longest);
    let complete = if a.samples.histograms.is_empty() && b.samples.histograms.is_empty() {
        let (x, y) = (FloatTimeline::new(&a.samples), FloatTimeline::new(&b.samples));
        walk(ReplicaSide::new(x, a), ReplicaSide::new(y, b), counter, &mut out)
    } else {
        let (x, y) = (MixedTimeline::new(&a.samples), MixedTimeline::new(&b.samples));
        walk(ReplicaSide::new(x, a), ReplicaSide::new(y, b), counter, &mut out)
    };
    let resets_applied = a.resets_applied || b.resets_applied;
    complete.then_some(Replica { samples: out, resets_applied, unread: None })
}

/// The sample that was appended last.
#[derive(Clone, Copy)]
struct PreviousSample {
    time: i64,
    /// Its value, if it was a float.
    value: Option<f64>,
    from_a: bool,
}

/// Returns whether the result is certain although some samples were not decoded.
fn walk<T: Timeline>(mut a: ReplicaSide<T>, mut b: ReplicaSide<T>, counter: bool, out: &mut Samples) -> bool {
    let mut last: Option<PreviousSample> = None;
    loop {
        if let Some(last) = last {
            a.seek_after(last.time);
            b.seek_after(last.time);
        }
        let use_a = match (a.time(), b.time()) {
            (None, None) => return !a.hides(a.floor, i64::MAX) && !b.hides(b.floor, i64::MAX),
            (Some(at_a), Some(at_b)) => at_a <= at_b,
            (at_a, None) => at_a.is_some(),
            (None, Some(_)) => false,
        };
        let (winner, loser) = if use_a { (&mut a, &mut b) } else { (&mut b, &mut a) };
        let Some(time) = winner.time() else { return false };
        if winner.hides(winner.floor, time) || loser.hides(loser.floor, time) {
            return false;
        }
        loser.penalty = match last {
            None => INITIAL_PENALTY,
            Some(last) => winner.spacing(time.saturating_sub(last.time)).saturating_mul(2),
        };
        winner.penalty = 0;
        let changed_from = last.filter(|last| last.from_a != use_a);
        if counter {
            winner.adjust_counter(changed_from, loser.is_total);
        }
        if winner.is_blind {
            return false;
        }
        winner.timeline.emit(winner.at, winner.adjust, changed_from.is_some(), out);
        winner.at += 1;
        let time = if winner.adjust == 0.0 { follow(winner, loser, time, out) } else { time };
        let value = winner.timeline.float(winner.at - 1).map(|value| value + winner.adjust);
        last = Some(PreviousSample { time, value, from_a: use_a });
    }
}

/// Appends the samples of `winner` that come before any sample of `loser` can, because of its penalty. Returns the time of
/// the last sample appended, which was `last` before.
#[inline]
fn follow<T: Timeline>(
    winner: &mut ReplicaSide<T>,
    loser: &mut ReplicaSide<T>,
    mut last: i64,
    out: &mut Samples,
) -> i64 {
    let start = winner.at;
    while let Some(next) = winner.time() {
        let reach = last.saturating_add(loser.penalty);
        if next > reach || winner.unread.is_some() {
            break;
        }
        loser.floor = loser.floor.max(reach);
        loser.penalty = winner.spacing(next.saturating_sub(last)).saturating_mul(2);
        last = next;
        winner.at += 1;
    }
    winner.timeline.emit_run(start..winner.at, out);
    last
}

/// One of the two replicas during deduplication.
struct ReplicaSide<T> {
    timeline: T,
    /// Index of the next candidate.
    at: usize,
    /// Milliseconds that the next candidate must be after the last sample appended.
    penalty: i64,
    /// Time after which the next candidate must be; never moves back.
    floor: i64,
    /// Whether the counter is a running total.
    is_total: bool,
    /// The amount by which counter values are raised, because they were lower than those of the other replica.
    adjust: f64,
    /// Index of the last sample for which `adjust` was checked.
    adjusted_at: usize,
    /// First and last time of the samples that were not decoded.
    unread: Option<(i64, i64)>,
    /// Whether the result depends on samples that were not decoded.
    is_blind: bool,
}

impl<T: Timeline> ReplicaSide<T> {
    fn new(timeline: T, replica: &Replica) -> Self {
        Self {
            timeline,
            at: 0,
            penalty: 0,
            floor: i64::MIN,
            is_total: replica.resets_applied,
            adjust: 0.0,
            adjusted_at: 0,
            unread: replica.unread.map(|range| (range.min.as_millis(), range.max.as_millis())),
            is_blind: false,
        }
    }

    /// Time of the next candidate; none at the end.
    #[inline]
    fn time(&self) -> Option<i64> {
        (self.at < self.timeline.len()).then(|| self.timeline.time(self.at))
    }

    /// Moves forward to the first sample after `time` plus the penalty.
    #[inline]
    fn seek_after(&mut self, time: i64) {
        self.floor = self.floor.max(time.saturating_add(self.penalty));
        while self.time().is_some_and(|time| time <= self.floor) {
            self.at += 1;
        }
    }

    /// Whether there may be samples from `from` to `to` that were not decoded.
    #[inline]
    fn hides(&self, from: i64, to: i64) -> bool {
        self.unread.is_some_and(|(min, max)| min <= to && max >= from)
    }

    /// Sets `is_blind` when there may be samples between two indices that were not decoded.
    fn look(&mut self, from: usize, to: usize) {
        self.is_blind |=
            self.unread.is_some() && self.hides(self.timeline.time(from), self.timeline.time(to));
    }

    /// The spacing of samples at the current one: its distance to the sample appended before, unless there is a gap between.
    #[inline]
    fn spacing(&mut self, distance: i64) -> i64 {
        let (from, to) = if self.at + 1 < self.timeline.len() {
            (self.at, self.at + 1)
        } else if self.at > 0 {
            (self.at - 1, self.at)
        } else {
            return distance;
        };
        self.look(from, to);
        let own = self.timeline.time(to).saturating_sub(self.timeline.time(from));
        if distance > own.saturating_mul(2) { own } else { distance }
    }

    /// Updates `adjust` for the current sample, which follows the sample `changed_from` of the other replica if there is one. A
    /// sample whose counter began after that one shows a real reset.
    fn adjust_counter(&mut self, changed_from: Option<PreviousSample>, other_is_total: bool) {
        let Some(value) = self.timeline.float(self.at) else { return };
        if self.adjust != 0.0 && self.was_reset(self.adjusted_at) {
            self.adjust = 0.0;
        }
        self.adjusted_at = self.at;
        if let Some(PreviousSample { time, value: Some(before), .. }) = changed_from
            && before > value + self.adjust
            && !self.began_after(time)
            && !self.was_reset_after(time, other_is_total)
        {
            self.adjust += before - (value + self.adjust);
        }
    }

    /// Whether the counter of the current sample began after `time`. A start that is not before its own sample is ignored.
    fn began_after(&self, time: i64) -> bool {
        let start = self.timeline.start(self.at);
        start > time && start < self.timeline.time(self.at)
    }

    /// Whether this replica has a reset between `time` and its current sample.
    fn was_reset_after(&mut self, time: i64, other_is_total: bool) -> bool {
        if self.is_total {
            return false;
        }
        let is_value = |index: &usize| self.timeline.float(*index).is_some_and(|value| !value.is_nan());
        let known = (0..self.at).rev().find(|index| self.timeline.time(*index) <= time && is_value(index));
        self.look(known.unwrap_or(0), self.at);
        // A replica that began later cannot know. Raw counters of one target fall only by a reset, so a lower value counts as
        // one, unless the other replica is a running total, which cannot be compared with a raw value.
        known.map_or(!other_is_total, |known| self.was_reset(known))
    }

    /// Whether the value falls somewhere from index `from` to the current one.
    fn was_reset(&mut self, from: usize) -> bool {
        self.look(from, self.at);
        let mut before = f64::NAN;
        for index in from..=self.at {
            match self.timeline.float(index) {
                Some(value) if value < before => return true,
                Some(value) if !value.is_nan() => before = value,
                _ => {}
            }
        }
        false
    }
}

#[cfg(test)]
mod tests;
