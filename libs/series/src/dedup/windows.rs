//! Chooses the samples of the answer, window by window.

use std::ops::Range;

use crate::dedup::interval::Intervals;
use crate::dedup::is_gap;
use crate::dedup::piece::Piece;
use crate::dedup::track::Track;

/// Samples of two replicas that are closer than this are the same scrape, in milliseconds and as a part of the spacing.
const SAME_MILLIS: i64 = 10;
const SAME_PART: i64 = 64;

/// No more than this is read before a window to learn the interval of scrapes, in milliseconds.
const MOST_BEFORE: i64 = 900_000;

/// The length of the windows for a query with this window, in milliseconds: longer by an interval of scrapes, because the
/// samples of the next replica are added at the boundary. An interval is at most half of a useful window, and ten minutes.
pub(crate) fn length(window: i64) -> i64 {
    window.saturating_add((window / 2).min(600_000)).max(1)
}

/// The first instant whose samples matter to the answer from `begin` on: the beginning of the window before, but at most
/// [`MOST_BEFORE`] before the one that contains `begin`. So the intervals of scrapes and the last sample before the window
/// are known, and the answer does not depend on where it begins.
pub(crate) fn first_read(begin: i64, window: i64) -> i64 {
    let length = length(window);
    begin.div_euclid(length).saturating_mul(length).saturating_sub(length.min(MOST_BEFORE))
}

/// The number of times before `end`; all if it is the greatest time. Fast where there are few.
fn before(times: &[i64], end: i64) -> usize {
    if end == i64::MAX {
        return times.len();
    }
    let mut most = 16;
    while times.get(most).is_some_and(|time| *time < end) {
        most *= 2;
    }
    times[..most.min(times.len())].partition_point(|time| *time < end)
}

/// The samples of the answer, in order of time. `window` is that of the query, in milliseconds.
pub(crate) fn choose<'a>(tracks: &'a [Track<'a>], intervals: &mut Intervals<'a>, window: i64) -> Vec<Piece> {
    let firsts = tracks.iter().filter_map(|track| track.times.first());
    let Some(&earliest) = firsts.min() else { return Vec::new() };
    let none = vec![0; tracks.len()];
    let mut chooser = Chooser {
        tracks,
        intervals,
        earliest,
        begins: none.clone(),
        ends: none,
        gap: 0,
        is_mixed: false,
        pieces: Vec::new(),
    };
    let length = length(window);
    let mut next = Some(earliest);
    while let Some(first) = next {
        let start = first.div_euclid(length).saturating_mul(length);
        let whole = chooser.next_gap().map_or(start, |gap| gap.div_euclid(length).saturating_mul(length));
        if whole > start {
            // Windows in which the first replica has no gap are taken together.
            chooser.begin_window(start, whole);
            chooser.take_one(0);
        } else {
            chooser.choose_window(start, start.saturating_add(length));
        }
        let rest = tracks.iter().zip(&chooser.ends).filter_map(|(track, &end)| track.times.get(end));
        next = rest.min().copied();
    }
    chooser.pieces
}

/// Goes through the windows in order of time.
struct Chooser<'a, 'b> {
    tracks: &'a [Track<'a>],
    intervals: &'b mut Intervals<'a>,
    /// The first sample of all replicas.
    earliest: i64,
    /// For each replica the index of its first sample in the window, and of the first one after it.
    begins: Vec<usize>,
    ends: Vec<usize>,
    /// The index of the last sample of the first replica before its next gap.
    gap: usize,
    /// Whether several replicas were used in the window before.
    is_mixed: bool,
    pieces: Vec<Piece>,
}

impl Chooser<'_, '_> {
    /// The time of the last sample of the first replica before its next gap, where it has a sample before the next window. Up
    /// to then it [has no gap](Self::has_no_gap).
    fn next_gap(&mut self) -> Option<i64> {
        let (own, least) = (&*self.tracks[0].times, self.intervals.least());
        let begin = self.ends[0].checked_sub(1)?;
        if self.gap <= begin {
            let distances = own[begin..].iter().zip(&own[begin + 1..]);
            let regular = distances.take_while(|(a, b)| !is_gap(b.saturating_sub(**a), least));
            self.gap = begin + regular.count();
        }
        own.get(self.gap).copied()
    }

    /// Chooses samples from `start` on and before `end`.
    fn choose_window(&mut self, start: i64, end: i64) {
        self.begin_window(start, end);
        match (0..self.tracks.len()).find(|&replica| self.misses_nothing(replica)) {
            Some(replica) => self.take_one(replica),
            None => self.take_each_scrape(),
        }
    }

    fn begin_window(&mut self, start: i64, end: i64) {
        self.begins.clone_from(&self.ends);
        for (track, index) in self.tracks.iter().zip(&mut self.ends) {
            *index += before(&track.times[*index..], end);
        }
        self.intervals.begin_window(start);
    }

    /// Whether a replica misses no sample that another one has in the window, and not the last one before it.
    fn misses_nothing(&mut self, replica: usize) -> bool {
        if self.has_no_gap(replica) {
            return true;
        }
        let own = &self.tracks[replica].times;
        for (other, track) in self.tracks.iter().enumerate().filter(|(other, _)| *other != replica) {
            let begin = self.begins[other].saturating_sub(1);
            let samples = &track.times[begin..self.ends[other]];
            let Some(first) = samples.first() else { continue };
            let mut next = own.partition_point(|time| time <= first);
            let mut previous = begin.checked_sub(1).map_or(i64::MIN, |previous| track.times[previous]);
            for &time in samples {
                while own.get(next).is_some_and(|&own| own <= time) {
                    next += 1;
                }
                if next < self.begins[replica] {
                    // What it missed before its last sample before the window does not matter.
                    previous = time;
                    continue;
                }
                let before = next.checked_sub(1).map(|before| own[before]);
                if self.is_missed(before, (previous, time), own.get(next).copied()) {
                    return false;
                }
                previous = time;
            }
        }
        true
    }

    /// Whether a replica has samples before and after the window, and no distance between them that could be a gap. Then it
    /// misses nothing, whatever the others have.
    fn has_no_gap(&self, replica: usize) -> bool {
        let (own, begin, end) = (&self.tracks[replica].times, self.begins[replica], self.ends[replica]);
        if begin == 0 || end >= own.len() {
            return false;
        }
        let around = &own[begin - 1..=end];
        let distances = around.iter().zip(&around[1..]).map(|(a, b)| b.saturating_sub(*a));
        !is_gap(distances.max().unwrap_or(0), self.intervals.least())
    }

    /// Whether a replica missed the second of two samples that another one has in sequence. `before` and `after` are its own
    /// samples around that one.
    #[inline]
    fn is_missed(&mut self, before: Option<i64>, (previous, time): (i64, i64), after: Option<i64>) -> bool {
        let least = self.intervals.least();
        let Some(before) = before else {
            let late = after.unwrap_or(i64::MAX).saturating_sub(self.earliest);
            return is_gap(late, least) && is_gap(late, self.intervals.at(time));
        };
        let since = time.saturating_sub(before);
        let Some(after) = after else {
            // The replica has no later sample: it misses what is a whole interval after its last one.
            return since >= least && since >= self.intervals.at(before);
        };
        let distance = after.saturating_sub(before);
        if !is_gap(distance, least) || since < least / 8 * 7 {
            return false;
        }
        let interval = self.intervals.at(before);
        if !is_gap(distance, interval) || since < interval / 8 * 7 {
            return false;
        }
        // Where the interval becomes longer, a distance can be longer than those before and yet not be a gap.
        previous > before && is_gap(distance, time.saturating_sub(previous))
            || is_gap(distance, self.intervals.at(after))
    }

    /// Takes the samples of one replica. Those after the last sample of the window before are added, so that no two are
    /// further apart than in the two replicas.
    fn take_one(&mut self, replica: usize) {
        let times = &self.tracks[replica].times;
        let (mut begin, end) = (self.begins[replica], self.ends[replica]);
        let last = self.last();
        while begin > 0 && last.is_none_or(|last| times[begin - 1] > last) {
            begin -= 1;
        }
        let follows = self.pieces.last().is_some_and(|piece| piece.replica == replica);
        if let (Some(last), [first, second, ..]) = (last, &times[begin..])
            && !follows
            && first.saturating_sub(last) < SAME_MILLIS.min(second.saturating_sub(*first) / SAME_PART)
        {
            begin += 1;
        }
        if begin < end && std::mem::replace(&mut self.is_mixed, false) {
            self.drop_last_if_same(times[begin]);
        }
        self.push(replica, begin..end.max(begin));
    }

    /// Takes the first sample of any replica, then the first one that is another scrape, and so on.
    fn take_each_scrape(&mut self) {
        self.is_mixed = true;
        let mut next = self.begins.clone();
        let mut taken: Option<(i64, usize)> = None;
        loop {
            let heads = next.iter().zip(&self.ends).zip(self.tracks).enumerate();
            let open = heads.filter(|(_, ((next, end), _))| next < end);
            let first = open.map(|(replica, ((&next, _), track))| (track.times[next], replica)).min();
            let Some((time, replica)) = first else { return };
            let is_taken = match taken {
                Some((last, taken)) => replica == taken || self.are_two_scrapes(last, time),
                None => true,
            };
            if is_taken {
                if taken.is_none() {
                    self.drop_last_if_same(time);
                }
                taken = Some((time, replica));
                self.push(replica, next[replica]..next[replica] + 1);
            }
            next[replica] += 1;
        }
    }

    /// Whether samples of two replicas are two scrapes, and not one scrape by two clocks.
    fn are_two_scrapes(&mut self, last: i64, time: i64) -> bool {
        let distance = time.saturating_sub(last);
        distance >= self.least_step(self.intervals.least())
            && [last, time].into_iter().any(|at| {
                let interval = self.intervals.at(at);
                distance >= self.least_step(interval)
            })
    }

    /// The least distance of two scrapes, where scrapes are `interval` apart.
    ///
    /// Of two clocks, one is at most half an interval before the other. A change from one to the other and back takes whole
    /// intervals, so nothing is counted twice. With more clocks, each change could gain a part of an interval.
    fn least_step(&self, interval: i64) -> i64 {
        let places = self.tracks.iter().zip(&self.begins);
        match places.filter(|(track, begin)| **begin < track.times.len()).count() {
            0..=2 => interval / 8 * 5,
            _ => interval,
        }
    }

    /// Drops the last sample of the window before if it is the same scrape as the first one of this window, at `time`.
    fn drop_last_if_same(&mut self, time: i64) {
        let Some(last) = self.last() else { return };
        let interval = self.intervals.at(last).min(self.intervals.at(time));
        if time.saturating_sub(last) < interval - self.least_step(interval)
            && let Some(piece) = self.pieces.last_mut()
        {
            piece.samples.end -= 1;
            if piece.samples.is_empty() {
                self.pieces.pop();
            }
        }
    }

    /// The time of the last sample that was taken.
    fn last(&self) -> Option<i64> {
        self.pieces.last().and_then(|piece| piece.times(self.tracks).last()).copied()
    }

    fn push(&mut self, replica: usize, samples: Range<usize>) {
        match self.pieces.last_mut() {
            _ if samples.is_empty() => {}
            Some(last) if last.replica == replica && last.samples.end == samples.start => {
                last.samples.end = samples.end;
            }
            _ => self.pieces.push(Piece { replica, samples }),
        }
    }
}
