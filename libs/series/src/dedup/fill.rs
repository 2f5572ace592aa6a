//! Fills gaps of the answer with the samples of other replicas.

use crate::dedup::interval::Spacings;
use crate::dedup::misses::is_gap;
use crate::dedup::piece::Piece;
use crate::dedup::track::Track;

/// Fills gaps, replica by replica: first with the samples of the first replica, then what is left with those of the second,
/// and so on. A sample fills a gap if it is at least half an interval after the sample before the gap and before the one
/// after it, so that as many samples are put into a gap as were lost there.
pub(crate) struct Filler<'a> {
    tracks: &'a [Track],
    /// The least distance of two samples of one replica.
    least: i64,
    /// The earliest sample of all replicas.
    start: i64,
    /// The end of the query.
    end: i64,
    spacings: Spacings<'a>,
    out: Vec<Piece>,
}

impl<'a> Filler<'a> {
    /// A filler for these replicas.
    pub(crate) fn new(tracks: &'a [Track], least: i64, start: i64, end: i64) -> Self {
        Filler { tracks, least, start, end, spacings: Spacings::new(tracks), out: Vec::new() }
    }

    /// The pieces with their gaps filled.
    pub(crate) fn fill(mut self, pieces: Vec<Piece>) -> Vec<Piece> {
        let mut before = None;
        for piece in pieces {
            let times = piece.times(self.tracks);
            self.fill_gap(before, times.first().copied(), 0);
            before = times.last().copied();
            self.push(piece, 0);
        }
        self.fill_gap(before, None, 0);
        self.out
    }

    /// Whether the distance between two samples of the answer is a gap.
    pub(crate) fn is_hole(&mut self, before: i64, after: i64) -> bool {
        self.hole(before, after).is_some()
    }

    /// The interval of scrapes, if there is a gap between two samples of one replica.
    fn hole(&mut self, before: i64, after: i64) -> Option<i64> {
        let distance = after.saturating_sub(before);
        let interval = self.interval_if_gap(distance, before)?;
        is_gap(distance, interval).then_some(interval)
    }

    /// The interval of scrapes at `time`, if a distance can be a gap: no interval is shorter than the least distance. So it
    /// is not searched for where samples are as close as usual.
    #[inline]
    fn interval_if_gap(&mut self, distance: i64, time: i64) -> Option<i64> {
        is_gap(distance, self.least).then(|| self.interval(time))
    }

    /// The interval of scrapes, if there is a gap between samples of two replicas. One that is filled in part is a gap only
    /// if another sample is missing there, or if the others together have much smaller gaps.
    fn gap_between(&mut self, before: i64, after: i64) -> Option<i64> {
        let distance = after.saturating_sub(before);
        if distance <= self.least {
            return None;
        }
        let interval = self.interval(before);
        let is_empty = distance >= interval.saturating_add(interval / 4 * 3);
        let is_covered = || distance > self.widest(before, after).saturating_add(interval);
        (is_empty || distance > interval && is_covered()).then_some(interval)
    }

    /// The first and last instant at which a sample fills a gap. `interval` is that of scrapes before the gap.
    fn zone_between(&mut self, before: i64, after: i64, interval: i64) -> (i64, i64) {
        let half = |interval: i64| (interval / 2).max(1);
        let later = self.interval(after);
        let later = if later == 0 { interval } else { later.min(interval) };
        (before.saturating_add(half(interval)), after.saturating_sub(half(later)))
    }

    /// The widest distance between two samples of any replicas from `before` to `after`.
    fn widest(&self, before: i64, after: i64) -> i64 {
        let mut times = vec![before, after];
        for track in self.tracks {
            times.extend(&track.times[track.after(before)..track.at_or_after(after)]);
        }
        times.sort_unstable();
        times.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap_or(0)
    }

    fn interval(&mut self, time: i64) -> i64 {
        self.spacings.interval(time)
    }

    /// Adds a piece, and what replicas from `replica` on have in its gaps.
    fn push(&mut self, piece: Piece, replica: usize) {
        let mut begin = piece.samples.start;
        let times = piece.times(self.tracks);
        for (index, pair) in times.windows(2).enumerate() {
            if let Some(interval) = self.hole(pair[0], pair[1]) {
                let next = piece.samples.start + index + 1;
                let known = self.out.len();
                self.out.push(Piece { replica: piece.replica, samples: begin..next });
                let zone = self.zone_between(pair[0], pair[1], interval);
                self.fill_zone(Some(pair[0]), Some(pair[1]), replica, Some(zone));
                if self.out.len() == known + 1 {
                    self.out.pop();
                } else {
                    begin = next;
                }
            }
        }
        self.out.push(Piece { replica: piece.replica, samples: begin..piece.samples.end });
    }

    /// Fills the gap between two samples with those of replicas from `from` on. None means that the answer has no sample
    /// before the gap, or after it.
    fn fill_gap(&mut self, before: Option<i64>, after: Option<i64>, from: usize) {
        self.fill_zone(before, after, from, None);
    }

    /// Like [`fill_gap`](Self::fill_gap), with the first and last instant at which a sample fills the gap, if it is known.
    fn fill_zone(
        &mut self,
        before: Option<i64>,
        after: Option<i64>,
        from: usize,
        mut zone: Option<(i64, i64)>,
    ) {
        for (replica, track) in self.tracks.iter().enumerate().skip(from) {
            let first = before.map_or(0, |time| track.after(time));
            let last = after.map_or(track.times.len(), |time| track.at_or_after(time));
            if first >= last {
                continue;
            }
            let (min, max) = match zone {
                Some(zone) => zone,
                None => {
                    let Some(found) = self.zone(before, after) else { return };
                    *zone.insert(found)
                }
            };
            let samples = first.max(track.at_or_after(min))..last.min(track.after(max));
            let (Some(&begin), Some(&end)) =
                (track.times.get(samples.start), track.times.get(samples.end.wrapping_sub(1)))
            else {
                continue;
            };
            if samples.is_empty() {
                continue;
            }
            self.fill_gap(before, Some(begin), replica + 1);
            self.push(Piece { replica, samples }, replica + 1);
            return self.fill_gap(Some(end), after, replica + 1);
        }
    }

    /// The first and last instant at which a sample fills a gap; none if it is not a gap.
    fn zone(&mut self, before: Option<i64>, after: Option<i64>) -> Option<(i64, i64)> {
        match (before, after) {
            (None, None) => Some((i64::MIN, i64::MAX)),
            (None, Some(after)) => {
                let distance = after.saturating_sub(self.start);
                let interval = self.interval_if_gap(distance, after)?;
                is_gap(distance, interval).then(|| (i64::MIN, after.saturating_sub((interval / 2).max(1))))
            }
            (Some(before), None) => {
                let distance = self.end.saturating_sub(before);
                let interval = self.interval_if_gap(distance, before)?;
                is_gap(distance, interval).then(|| (before.saturating_add((interval / 2).max(1)), i64::MAX))
            }
            (Some(before), Some(after)) => {
                let interval = self.gap_between(before, after)?;
                Some(self.zone_between(before, after, interval))
            }
        }
    }
}
