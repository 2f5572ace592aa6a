//! Finds out how far samples are apart where they were not lost.

use crate::dedup::track::Track;

/// So many distances are looked at, and up to `MOST` if these do not agree.
const FEW: usize = 16;
const MOST: usize = 64;

/// So many distances are enough near the end of the data.
const LEAST: usize = 4;

/// The interval of scrapes at any time.
pub(crate) struct Intervals<'a> {
    tracks: &'a [Track],
    /// For each replica the index of the next distance. Kept, so that no memory is allocated for each question.
    next: Vec<usize>,
    least: i64,
    /// The interval where nothing is known.
    unknown: i64,
    /// The beginning of the current window.
    start: i64,
    /// The last answers in this window: times with their intervals.
    known: [(i64, i64); 4],
    /// The index of the oldest of them.
    oldest: usize,
}

/// What some distances have in common.
struct Estimate {
    /// The least distance; not a single one that has no like.
    length: i64,
    /// Whether many of the distances are about that long.
    is_certain: bool,
}

impl<'a> Intervals<'a> {
    /// The intervals of some replicas. `unknown` is the interval where no replica has two samples.
    pub(crate) fn new(tracks: &'a [Track], unknown: i64) -> Self {
        let least = tracks.iter().map(|track| least_distance(&track.times)).min().unwrap_or(unknown);
        Self {
            tracks,
            next: Vec::with_capacity(tracks.len()),
            least: least.min(unknown),
            unknown,
            start: i64::MIN,
            known: [(i64::MIN, unknown); 4],
            oldest: 0,
        }
    }

    /// A time that is not longer than any interval.
    #[inline]
    pub(crate) fn least(&self) -> i64 {
        self.least
    }

    /// Begins a window. The intervals in it depend on earlier samples only if there are too few in it and after it.
    pub(crate) fn begin_window(&mut self, start: i64) {
        self.start = start;
        self.known = [(i64::MIN, self.unknown); 4];
    }

    /// The interval of scrapes at `time`: the least distance that several of the next samples of one replica have.
    ///
    /// Distances after `time` are used, so that the answer does not depend on where the data begins. Those before it
    /// matter in two cases: near the end of the data, and where the interval becomes shorter soon, so that the next
    /// distances are much shorter than those before.
    pub(crate) fn at(&mut self, time: i64) -> i64 {
        if let Some((_, interval)) = self.known.iter().find(|(known, _)| *known == time) {
            return *interval;
        }
        let interval = self.learn(time);
        self.known[self.oldest] = (time, interval);
        self.oldest = (self.oldest + 1) % self.known.len();
        interval
    }

    fn learn(&mut self, time: i64) -> i64 {
        let mut pool = self.after(time, FEW);
        if pool.len() < FEW {
            let before = self.before(time, FEW, self.start);
            let mut earlier = before.iter();
            while pool.len() < FEW && !Estimate::of(&pool).is_unanimous(&pool) {
                let Some(length) = earlier.next() else { break };
                pool.push(*length);
            }
            if pool.len() < LEAST {
                pool.extend(self.before(time, LEAST, i64::MIN));
            }
        }
        if pool.is_empty() {
            return self.unknown;
        }
        let mut estimate = Estimate::of(&pool);
        if !estimate.is_certain && pool.len() >= FEW {
            pool = self.after(time, MOST);
            let missing = MOST - pool.len();
            pool.extend(self.before(time, missing, self.start));
            estimate = Estimate::of(&pool);
        }
        let longer = estimate.length.saturating_add(estimate.length / 2);
        if self.before(time, 2, self.start).into_iter().all(|length| length > longer) {
            let before = self.before(time, FEW, self.start);
            let past = Estimate::of(&before);
            if before.len() >= FEW / 2 && past.is_certain && past.length > longer {
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

    /// The last distances that begin before `time` and not before `floor`, the last one first.
    fn before(&mut self, time: i64, most: usize, floor: i64) -> Vec<i64> {
        self.next.clear();
        let last = |track: &Track| track.at_or_after(time).min(track.times.len().saturating_sub(1));
        self.next.extend(self.tracks.iter().map(last));
        let mut lengths = Vec::with_capacity(most);
        while lengths.len() < most {
            let places = self.tracks.iter().zip(&mut self.next);
            let open = places.filter(|(track, next)| **next > 0 && track.times[**next - 1] >= floor);
            let Some((track, next)) = open.max_by_key(|(track, next)| track.times[**next - 1]) else {
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
        lengths.len() >= LEAST && like(lengths, self.length) * 4 >= lengths.len() * 3
    }
}

/// The number of distances that are about as long as `least`.
fn like(lengths: &[i64], least: i64) -> usize {
    let most = least.saturating_add(least / 4);
    lengths.iter().filter(|length| (least..=most).contains(length)).count()
}

/// The least distance between two times in sequence; the greatest number where there is none.
fn least_distance(times: &[i64]) -> i64 {
    let later = times.iter().skip(1);
    times.iter().zip(later).fold(i64::MAX, |least, (a, b)| least.min(b.saturating_sub(*a)))
}
