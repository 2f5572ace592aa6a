//! Finds out how far samples are apart where they were not lost.

use crate::dedup::track::Track;

/// So many distances are looked at, and up to `MOST` if these do not agree.
const FEW: usize = 16;
const MOST: usize = 64;

/// The distances between neighbouring samples of each replica, by the time at which they begin.
pub(crate) struct Spacings<'a> {
    tracks: &'a [Track],
    /// For each replica the index of the next distance. Kept, so that no memory is allocated for each question.
    next: Vec<usize>,
}

/// What some distances have in common.
struct Estimate {
    /// The least distance; not a single one that has no like.
    length: i64,
    /// Whether many of the distances are about that long.
    is_certain: bool,
}

impl<'a> Spacings<'a> {
    /// The distances in all tracks.
    pub(crate) fn new(tracks: &'a [Track]) -> Self {
        Self { tracks, next: Vec::with_capacity(tracks.len()) }
    }

    /// The interval of scrapes after `time`; 0 where nothing is known.
    ///
    /// Distances after `time` are used, so that the answer does not depend on where the data begins. Those before it
    /// matter in two cases: near the end of the data, and where the interval becomes shorter soon, so that the next
    /// distances are much shorter than those before.
    pub(crate) fn interval(&mut self, time: i64) -> i64 {
        let mut pool = self.after(time, FEW);
        let before = self.before(time, FEW);
        let mut earlier = before.iter();
        while pool.len() < FEW && !Estimate::of(&pool).is_unanimous(&pool) {
            let Some(length) = earlier.next() else { break };
            pool.push(*length);
        }
        let mut estimate = Estimate::of(&pool);
        if !estimate.is_certain && pool.len() >= FEW {
            pool = self.after(time, MOST);
            let missing = MOST - pool.len();
            pool.extend(self.before(time, missing));
            estimate = Estimate::of(&pool);
        }
        if before.len() >= FEW / 2 {
            let past = Estimate::of(&before);
            if past.is_certain && past.length > estimate.length.saturating_add(estimate.length / 2) {
                return past.length;
            }
        }
        estimate.length
    }

    /// The first distances that begin at `time` or later.
    fn after(&mut self, time: i64, most: usize) -> Vec<i64> {
        self.next.clear();
        self.next.extend(self.tracks.iter().map(|track| track.at_or_after(time)));
        let mut lengths = Vec::with_capacity(most);
        while lengths.len() < most {
            let places = self.tracks.iter().zip(&mut self.next);
            let open = places.filter(|(track, next)| **next + 1 < track.times.len());
            let Some((track, next)) = open.min_by_key(|(track, next)| track.times[**next]) else { break };
            lengths.push(track.times[*next + 1].saturating_sub(track.times[*next]));
            *next += 1;
        }
        lengths
    }

    /// The last distances that begin before `time`, the last one first.
    fn before(&mut self, time: i64, most: usize) -> Vec<i64> {
        self.next.clear();
        let last = |track: &Track| track.at_or_after(time).min(track.times.len().saturating_sub(1));
        self.next.extend(self.tracks.iter().map(last));
        let mut lengths = Vec::with_capacity(most);
        while lengths.len() < most {
            let places = self.tracks.iter().zip(&mut self.next).filter(|(_, next)| **next > 0);
            let Some((track, next)) = places.max_by_key(|(track, next)| track.times[**next - 1]) else {
                break;
            };
            *next -= 1;
            lengths.push(track.times[*next + 1].saturating_sub(track.times[*next]));
        }
        lengths
    }
}

impl Estimate {
    fn of(lengths: &[i64]) -> Self {
        let Some(&least) = lengths.iter().min() else { return Self { length: 0, is_certain: false } };
        let about = like(lengths, least);
        if about * 5 >= lengths.len() * 2 {
            return Self { length: least, is_certain: true };
        }
        // A single one may be a restart.
        let others = lengths.iter().filter(|length| **length > least).min();
        let length = if about > 1 { least } else { others.copied().unwrap_or(least) };
        Self { length, is_certain: false }
    }

    /// Whether there are several distances and nearly all are about as long.
    fn is_unanimous(&self, lengths: &[i64]) -> bool {
        lengths.len() >= 4 && like(lengths, self.length) * 4 >= lengths.len() * 3
    }
}

/// The number of distances that are about as long as `least`.
fn like(lengths: &[i64], least: i64) -> usize {
    let most = least.saturating_add(least / 4);
    lengths.iter().filter(|length| (least..=most).contains(length)).count()
}
