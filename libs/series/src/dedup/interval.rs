//! Finds out how far samples are apart where they were not lost.

use crate::dedup::track::Track;

/// So many distances are looked at, and up to `MOST` if these do not agree.
const FEW: usize = 16;
const MOST: usize = 64;

/// So many distances are enough near the end of the data.
const LEAST: usize = 4;

/// The interval of scrapes at any time.
pub(crate) struct Intervals<'a> {
    tracks: &'a [Track<'a>],
    least: i64,
    /// The interval where nothing is known.
    unknown: i64,
    /// The beginning of the current window.
    start: i64,
    distances: Distances<'a>,
    /// The last answers in this window: times with their intervals.
    known: [(i64, i64); 4],
    /// The index of the oldest of them.
    oldest: usize,
}

/// The distances of samples of all replicas in the order in which they begin. Found as far as they are asked for.
struct Distances<'a> {
    /// The samples of each replica, and the index at which its next distance begins.
    next: Vec<(&'a [i64], usize)>,
    /// Distances that begin before this time are not in the list.
    from: i64,
    begins: Vec<i64>,
    lengths: Vec<i64>,
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
    pub(crate) fn new(tracks: &'a [Track<'a>], unknown: i64) -> Self {
        let least = tracks.iter().filter_map(|track| distances(&track.times)).map(|(least, _)| least).min();
        Self {
            tracks,
            least: least.unwrap_or(unknown).min(unknown),
            unknown,
            start: i64::MIN,
            distances: Distances::new(tracks),
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
    #[inline]
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
        let (before, after) = self.distances.around(time, self.start, FEW);
        let estimate = Estimate::of(after);
        if after.len() >= FEW && estimate.is_certain {
            return past_length(before, estimate.length).unwrap_or(estimate.length);
        }
        let Some(estimate) = self.learn_from_more(time) else { return self.unknown };
        let (before, _) = self.distances.around(time, self.start, 0);
        past_length(before, estimate.length).unwrap_or(estimate.length)
    }

    /// What is learnt where the next distances are too few, or do not agree; none where there are no distances at all.
    fn learn_from_more(&mut self, time: i64) -> Option<Estimate> {
        let (before, after) = self.distances.around(time, self.start, MOST);
        let (few, mut earlier) = (after.len().min(FEW), before.iter().rev());
        let mut pool = after[..few].to_vec();
        while pool.len() < FEW && !Estimate::of(&pool).is_unanimous(&pool) {
            let Some(length) = earlier.next() else { break };
            pool.push(*length);
        }
        if pool.len() < LEAST {
            pool.extend(last_before(self.tracks, time, LEAST));
        }
        if pool.is_empty() {
            return None;
        }
        let estimate = Estimate::of(&pool);
        if estimate.is_certain || pool.len() < FEW {
            return Some(estimate);
        }
        pool.clear();
        pool.extend(after.iter().chain(before.iter().rev()).take(MOST));
        Some(Estimate::of(&pool))
    }
}

/// The length of the last distances, where they are much longer than the next ones: the interval becomes shorter soon.
fn past_length(before: &[i64], next: i64) -> Option<i64> {
    let longer = next.saturating_add(next / 2);
    if before.iter().rev().take(2).any(|length| *length <= longer) {
        return None;
    }
    let before = &before[before.len().saturating_sub(FEW)..];
    let past = Estimate::of(before);
    (before.len() >= FEW / 2 && past.is_certain && past.length > longer).then_some(past.length)
}

impl<'a> Distances<'a> {
    fn new(tracks: &'a [Track<'a>]) -> Self {
        let next = tracks.iter().map(|track| (&*track.times, 0)).collect();
        Self { next, from: i64::MAX, begins: Vec::new(), lengths: Vec::new() }
    }

    /// The distances that begin before `time`, but not before `floor`, and at most `most` that begin at `time` or later.
    fn around(&mut self, time: i64, floor: i64, most: usize) -> (&[i64], &[i64]) {
        let from = time.min(floor);
        if from < self.from || self.begins.last().is_some_and(|last| *last < from) {
            self.restart(from);
        }
        while self.begins.last().is_none_or(|last| *last < time) && self.find_next() {}
        let middle = self.begins.partition_point(|begin| *begin < time);
        while self.begins.len() < middle + most && self.find_next() {}
        let first = self.begins[..middle].partition_point(|begin| *begin < floor);
        (&self.lengths[first..middle], &self.lengths[middle..self.lengths.len().min(middle + most)])
    }

    fn restart(&mut self, from: i64) {
        self.from = from;
        self.begins.clear();
        self.lengths.clear();
        // Room for a window and the distances after it.
        self.begins.reserve(MOST);
        self.lengths.reserve(MOST);
        self.next.iter_mut().for_each(|(times, next)| *next = times.partition_point(|time| *time < from));
    }

    /// Adds the next distance to the list; false at the end.
    #[inline]
    fn find_next(&mut self) -> bool {
        let open = self.next.iter_mut().filter_map(|(times, next)| match times.get(*next..) {
            Some([begin, end, ..]) => Some((*begin, *end, next)),
            _ => None,
        });
        let Some((begin, end, next)) = open.min_by_key(|(begin, _, _)| *begin) else { return false };
        *next += 1;
        self.begins.push(begin);
        self.lengths.push(end.saturating_sub(begin));
        true
    }
}

/// The last distances that begin before `time`, the last one first.
fn last_before(tracks: &[Track<'_>], time: i64, most: usize) -> Vec<i64> {
    let last = |track: &Track<'_>| track.at_or_after(time).min(track.times.len().saturating_sub(1));
    let mut next: Vec<usize> = tracks.iter().map(last).collect();
    let mut lengths = Vec::with_capacity(most);
    while lengths.len() < most {
        let open = tracks.iter().zip(&mut next).filter(|(_, next)| **next > 0);
        let Some((track, next)) = open.max_by_key(|(track, next)| track.times[**next - 1]) else { break };
        *next -= 1;
        lengths.push(track.times[*next + 1].saturating_sub(track.times[*next]));
    }
    lengths
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

/// The least and the greatest distance between two times in sequence; none where there are no two times.
pub(crate) fn distances(times: &[i64]) -> Option<(i64, i64)> {
    // Several at once, so that one need not wait for the other.
    const LANES: usize = 4;
    let later = times.get(1..)?;
    let (mut least, mut most) = ([i64::MAX; LANES], [i64::MIN; LANES]);
    let (earlier, later) = (times[..later.len()].as_chunks::<LANES>(), later.as_chunks::<LANES>());
    for (a, b) in earlier.0.iter().zip(later.0) {
        for lane in 0..LANES {
            let distance = b[lane].saturating_sub(a[lane]);
            least[lane] = least[lane].min(distance);
            most[lane] = most[lane].max(distance);
        }
    }
    let rest = || earlier.1.iter().zip(later.1).map(|(a, b)| b.saturating_sub(*a));
    let least = least.into_iter().chain(rest()).min()?;
    let most = most.into_iter().chain(rest()).max()?;
    (least <= most).then_some((least, most))
}
