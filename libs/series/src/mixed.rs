//! Raw and downsampled chunks of one producer that overlap: one store has retired raw blocks that another one still has.
//!
//! Time is cut into the windows of the downsampled chunks. Each window has the samples of one kind: raw ones where they cover at
//! least half of it, otherwise aggregates. So no sample counts twice, and raw samples are used wherever there are any.

use std::collections::HashSet;

use crate::covered::stretches;
use crate::dedup::{Emitter, Marker, Piece, Track};
use crate::timeline::MixedTimeline;
use crate::{AggrChunk, Samples};

/// Whether raw chunks overlap downsampled ones. All chunks are sorted by min time.
pub(crate) fn is_in<'a>(chunks: impl Iterator<Item = &'a AggrChunk>) -> bool {
    let mut ends = [None; 2];
    chunks.into_iter().any(|chunk| {
        let kind = usize::from(chunk.raw.is_some());
        ends[kind] = ends[kind].max(Some(chunk.range().max));
        ends[1 - kind].is_some_and(|end| chunk.range().min <= end)
    })
}

/// The samples of both kinds of chunks, decoded from the chunks of `lane`, as one series. `totals` are running totals of
/// counters: where the kind changes, the answer grows by what the counter grew.
pub(crate) fn choose<'a>(
    lane: impl Iterator<Item = &'a AggrChunk> + Clone,
    raw: &Samples,
    aggregates: &Samples,
    totals: bool,
) -> Samples {
    let resolution = lane.clone().map(|chunk| chunk.estimated_resolution().as_millis()).max().unwrap_or(0);
    let windows = Windows { length: i64::try_from(resolution).unwrap_or(i64::MAX).max(1) };
    let covered = stretches(lane, windows.length);
    let timelines = [MixedTimeline::new(raw), MixedTimeline::new(aggregates)];
    let tracks = [Track::new(&timelines[0]), Track::new(&timelines[1])];
    let aggregated: HashSet<i64> = tracks[1]
        .times
        .iter()
        .map(|&time| windows.of(time))
        .filter(|&window| !windows.is_covered(window, &covered))
        .collect();
    let is_taken = |replica: usize, time: i64| aggregated.contains(&windows.of(time)) == (replica == 1);
    let mut all: Vec<(i64, usize, usize)> = Vec::new();
    for (replica, track) in tracks.iter().enumerate() {
        let taken = track.times.iter().enumerate().filter(|(_, time)| is_taken(replica, **time));
        all.extend(taken.map(|(place, &time)| (time, replica, place)));
    }
    all.sort_unstable();
    let mut pieces: Vec<Piece> = Vec::new();
    for (_, replica, place) in all {
        match pieces.last_mut() {
            Some(last) if last.replica == replica && last.samples.end == place => last.samples.end += 1,
            _ => pieces.push(Piece { replica, samples: place..place + 1 }),
        }
    }
    let markers = tracks[0].markers.iter().filter(|(time, _)| is_taken(0, *time));
    let markers: Vec<Marker> = markers.map(|&(time, place)| Marker { replica: 0, place, time }).collect();
    Emitter::new(&timelines, totals, totals).emit(&tracks, &pieces, &markers)
}

/// The windows of downsampled chunks, which begin at multiples of their length, in milliseconds.
struct Windows {
    length: i64,
}

impl Windows {
    /// The number of the window of a sample.
    fn of(&self, time: i64) -> i64 {
        time.div_euclid(self.length)
    }

    /// Whether stretches of time, which are sorted, cover at least half of a window.
    fn is_covered(&self, window: i64, stretches: &[(i64, i64)]) -> bool {
        let begin = window.saturating_mul(self.length);
        let end = begin.saturating_add(self.length);
        let first = stretches.partition_point(|(_, to)| *to < begin);
        let inside = stretches[first..].iter().take_while(|(from, _)| *from < end);
        let covered = inside.map(|&(from, to)| to.min(end).saturating_sub(from.max(begin)));
        covered.fold(0i64, i64::saturating_add) >= self.length / 2
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tsdb::Aggregate;

    use super::*;
    use crate::DecodeOptions;
    use crate::testing::{OPTIONS, Random, chunk, cut, decode_all, floats};

    const MINUTE: i64 = 60_000;
    const WINDOW: i64 = 5;
    const MINUTES: i64 = 600;

    /// A counter that grows by 2 a minute and begins anew at these minutes.
    fn counter(minute: i64, resets: &[i64]) -> f64 {
        let since = resets.iter().rev().find(|reset| **reset <= minute).copied().unwrap_or(-1_000);
        2.0 * (minute - since) as f64
    }

    /// Windows of 5 minutes with a sample a minute, of the minutes `range`.
    fn windows(range: std::ops::Range<i64>, resets: &[i64]) -> AggrChunk {
        let (mut sums, mut totals, mut last) = (Vec::new(), Vec::new(), None);
        let mut total = 0.0;
        for minute in range.clone() {
            let value = counter(minute, resets);
            total += last.map_or(value, |last| if value < last { value } else { value - last });
            last = Some(value);
            if minute % WINDOW == WINDOW - 1 || minute == range.end - 1 {
                let time = if minute == range.end - 1 { minute * MINUTE } else { (minute + 1) * MINUTE - 1 };
                sums.push((time, (minute % WINDOW + 1) as f64));
                totals.push((time, total));
            }
        }
        AggrChunk { sum: Some(chunk(&sums)), counter: Some(chunk(&totals)), ..AggrChunk::default() }
            .with_resolution(Duration::from_secs(300))
    }

    #[test]
    fn chunks_that_follow_each_other_do_not_overlap() {
        let raw =
            |range: std::ops::Range<i64>| cut(&range.map(|n| (n * MINUTE, 1.0)).collect::<Vec<_>>(), 500);
        let check = |parts: Vec<Vec<AggrChunk>>, expected: bool| {
            let mut chunks = parts.concat();
            chunks.sort_by_key(|chunk| chunk.range().min);
            assert_eq!(is_in(chunks.iter()), expected);
        };
        check(vec![raw(0..100), vec![windows(100..200, &[])], raw(200..300)], false);
        check(vec![raw(0..110), vec![windows(100..200, &[])]], true);
        check(vec![vec![windows(0..100, &[])], raw(50..60), vec![windows(100..200, &[])]], true);
        check(vec![raw(0..100), raw(50..150)], false);
    }

    #[test]
    fn each_window_has_samples_of_one_kind_and_raw_ones_where_there_are_any() {
        for seed in 0..500 {
            let random = &mut Random::seeded(seed);
            let from = random.below(MINUTES as usize) as i64;
            let to = from + 1 + random.below((MINUTES - from) as usize) as i64;
            let raw: Vec<(i64, f64)> = (from..to).map(|minute| (minute * MINUTE, 1.0)).collect();
            let middle = 5 * random.below(120) as i64;
            let parts = [(0, middle), (middle, MINUTES)].into_iter().filter(|(from, to)| from < to);
            let mut lane: Vec<AggrChunk> = parts.map(|(from, to)| windows(from..to, &[])).collect();
            lane.extend(cut(&raw, 1 + random.below(120)));
            lane.sort_by_key(|chunk| (chunk.range().min, chunk.range().max));
            let options = DecodeOptions { aggregate: Aggregate::Sum, ..OPTIONS };
            let out = floats(vec![lane], &options);
            let sum: f64 = out.iter().map(|(_, value)| value).sum();
            assert!((sum - MINUTES as f64).abs() <= 6.0, "seed {seed}: {sum} of {from}..{to}");
            let missing = raw.iter().filter(|sample| !out.contains(sample)).count();
            assert!(missing <= 6, "seed {seed}: {missing} of {from}..{to}");
        }
    }

    #[test]
    fn a_counter_grows_as_the_true_one_where_the_kind_changes() {
        for seed in 0..500 {
            let random = &mut Random::seeded(seed);
            let mut resets: Vec<i64> = (0..random.below(4)).map(|_| random.below(600) as i64).collect();
            resets.sort_unstable();
            let from = random.below(MINUTES as usize - 20) as i64;
            let to = from + 20 + random.below((MINUTES - from - 20) as usize + 1) as i64;
            let raw: Vec<(i64, f64)> =
                (from..to).map(|minute| (minute * MINUTE, counter(minute, &resets))).collect();
            let mut lane = vec![windows(0..MINUTES, &resets)];
            lane.extend(cut(&raw, 1 + random.below(120)));
            lane.sort_by_key(|chunk| (chunk.range().min, chunk.range().max));
            let options = DecodeOptions { aggregate: Aggregate::Counter, counter: true, ..OPTIONS };
            let out = decode_all(vec![lane], &options).unwrap();
            assert!(out.values.is_sorted(), "seed {seed}");
            let grown = out.values[out.values.len() - 1] - out.values[0];
            let first = out.timestamps[0].div_euclid(MINUTE);
            let step = |minute: i64| {
                let (before, value) = (counter(minute - 1, &resets), counter(minute, &resets));
                if value < before { value } else { value - before }
            };
            let truth: f64 = (first + 1..MINUTES).map(step).sum();
            assert!((grown - truth).abs() <= 4.0, "seed {seed}: {grown} of {truth}, raw {from}..{to}");
        }
    }
}
