//! Finds out how far samples are apart where they were not lost.

use crate::dedup::track::Track;

/// So many distances are looked at, and up to `MOST` if these do not agree.
const FEW: usize = 16;
const MOST: usize = 64;

/// The distances between neighbouring samples of each replica, by the time at which they begin.
pub(crate) struct Spacings {
    starts: Vec<i64>,
    lengths: Vec<i64>,
}

/// What some distances have in common.
struct Estimate {
    /// The least distance; not a single one that has no like.
    length: i64,
    /// Whether many of the distances are about that long.
    is_certain: bool,
}

impl Spacings {
    /// The distances in all tracks.
    pub(crate) fn new(tracks: &[Track]) -> Self {
        let pairs = |track| <[i64]>::windows(track, 2).map(|pair| (pair[0], pair[1].saturating_sub(pair[0])));
        let mut all: Vec<(i64, i64)> = tracks.iter().flat_map(|track| pairs(&track.times)).collect();
        // Fast, because the sort uses runs that are sorted already.
        all.sort_by_key(|(start, _)| *start);
        let (starts, lengths) = all.into_iter().unzip();
        Self { starts, lengths }
    }

    /// The interval of scrapes after `time`; 0 where nothing is known.
    ///
    /// Distances after `time` are used, so that the answer does not depend on where the data begins. Those before it
    /// matter in two cases: near the end of the data, and where the interval becomes shorter soon, so that the next
    /// distances are much shorter than those before.
    pub(crate) fn interval(&self, time: i64) -> i64 {
        let now = self.starts.partition_point(|&start| start < time);
        let (before, after) = self.lengths.split_at(now);
        let mut pool: Vec<i64> = Vec::with_capacity(MOST);
        pool.extend(after.iter().take(FEW));
        let mut before_pool = before.iter().rev();
        while pool.len() < FEW && !Estimate::of(&pool).is_unanimous(&pool) {
            let Some(length) = before_pool.next() else { break };
            pool.push(*length);
        }
        let mut estimate = Estimate::of(&pool);
        if !estimate.is_certain && pool.len() >= FEW {
            pool.extend(after.iter().skip(FEW).take(MOST - pool.len()));
            pool.extend(before_pool.take(MOST - pool.len()));
            estimate = Estimate::of(&pool);
        }
        if before.len() >= FEW / 2 {
            let past: Vec<i64> = before.iter().rev().take(FEW).copied().collect();
            let past = Estimate::of(&past);
            if past.is_certain && past.length > estimate.length.saturating_add(estimate.length / 2) {
                return past.length;
            }
        }
        estimate.length
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
