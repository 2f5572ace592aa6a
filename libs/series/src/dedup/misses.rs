//! When a replica missed samples that another one has, and so when it may lead.

use crate::dedup::track::Track;

/// A shorter run is not worth a change of replica.
const SHORTEST_RUN: usize = 3;

/// Whether the distance of two samples is a gap, where samples are usually `spacing` apart: half as much again. With one
/// sample lost it is about twice as much, and with jitter it is never exact.
#[inline]
pub(crate) fn is_gap(distance: i64, spacing: i64) -> bool {
    distance >= spacing.saturating_add(spacing / 2)
}

/// A time in which a replica missed nothing, and missed nothing shortly before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Run {
    /// When it begins: the time of a sample, or the least time if nothing was missed before.
    pub(crate) from: i64,
    /// Its last instant: the time of the last sample before a miss, or the greatest time.
    pub(crate) to: i64,
    /// The time of a sample of another replica that shows the miss at its end.
    pub(crate) seen: i64,
}

/// The limits of the search for misses.
#[derive(Clone, Copy)]
pub(crate) struct MissRules {
    /// The earliest sample of all replicas.
    pub(crate) start: i64,
    /// The end of the query, or the latest sample of all replicas if the query has no end.
    pub(crate) end: i64,
    /// The least distance of two samples of one replica.
    pub(crate) least: i64,
    /// How long a replica may not lead after the last sample before a miss.
    pub(crate) recovery: i64,
}

/// The runs of replica `own`, in order of time.
pub(crate) fn runs(tracks: &[Track], own: usize, rules: MissRules) -> Vec<Run> {
    let times = &tracks[own].times;
    let mut search = MissSearch { tracks, own, next: vec![0; tracks.len()], rules };
    let mut runs = Vec::new();
    let (Some(&first), Some(&last)) = (times.first(), times.last()) else { return runs };
    // The index of the first sample of the current run.
    let mut begin = 0;
    let mut from = i64::MIN;
    let back = |gap: (i64, i64), after: usize| {
        let ready = gap.1.max(gap.0.saturating_add(rules.recovery));
        after + times[after..].partition_point(|&t| t < ready)
    };
    if search.began_before(first) {
        begin = back((rules.start, first), 0);
        from = times.get(begin).copied().unwrap_or(i64::MAX);
    }
    for (index, pair) in times.windows(2).enumerate() {
        if !is_gap(pair[1].saturating_sub(pair[0]), rules.least) {
            continue;
        }
        let Some(seen) = search.seen(pair[0], pair[1]) else { continue };
        if begin + SHORTEST_RUN <= index + 1 {
            runs.push(Run { from, to: pair[0], seen });
        }
        begin = begin.max(back((pair[0], pair[1]), index + 1));
        from = times.get(begin).copied().unwrap_or(i64::MAX);
    }
    match search.seen(last, rules.end.saturating_add(1)) {
        _ if begin >= times.len() => {}
        None => runs.push(Run { from, to: i64::MAX, seen: i64::MAX }),
        Some(seen) if begin + SHORTEST_RUN <= times.len() => runs.push(Run { from, to: last, seen }),
        Some(_) => {}
    }
    runs
}

/// Looks for samples that show a miss. Gaps are given in order of time.
struct MissSearch<'a> {
    tracks: &'a [Track],
    own: usize,
    /// For each replica the index of the first sample that may be in the next gap.
    next: Vec<usize>,
    rules: MissRules,
}

impl MissSearch<'_> {
    /// Whether another replica had two samples before the first one of this replica, which came late.
    fn began_before(&self, first: i64) -> bool {
        let late = first.saturating_sub(self.rules.start);
        let others = self.tracks.iter().enumerate().filter(|(number, _)| *number != self.own);
        let earlier = others.flat_map(|(_, track)| track.times.windows(2).take_while(|pair| pair[1] < first));
        earlier.map(|pair| pair[1].saturating_sub(pair[0])).any(|spacing| spacing + spacing / 16 < late)
    }

    /// The time of the sample that shows a miss between `before` and `after`: another replica has two samples in sequence
    /// that are closer than this gap, and its second one comes when a scrape of this replica was due, too.
    fn seen(&mut self, before: i64, after: i64) -> Option<i64> {
        let gap = after.saturating_sub(before);
        if !is_gap(gap, self.rules.least) {
            return None;
        }
        for (number, track) in self.tracks.iter().enumerate().filter(|(number, _)| *number != self.own) {
            let next = &mut self.next[number];
            *next += track.times[*next..].partition_point(|&t| t <= before);
            for index in (*next).max(1)..track.times.len() {
                let time = track.times[index];
                if time >= after {
                    break;
                }
                let spacing = time.saturating_sub(track.times[index - 1]);
                if is_gap(gap, spacing) && time.saturating_sub(before) >= spacing / 5 * 4 {
                    return Some(time);
                }
            }
        }
        None
    }
}
