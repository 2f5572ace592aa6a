//! Leaves out aggregates of times of which there are raw samples.

use crate::AggrChunk;

/// The longest gap that windows of 5 minutes and of 1 hour do not show, in milliseconds.
const GAPS: [i64; 2] = [300_000, 3_600_000];

/// Removes each chunk of aggregates whose whole range has raw samples of the same producer. `chunks` are sorted by min time.
///
/// A store may send aggregates although another one has the raw samples, because it has retired its own. Where chunks of both
/// overlap, [`mixed`](crate::mixed) decides for each window, which takes longer. Raw chunks cover a range if they begin before its first window, end after its
/// last one, and leave no gap that is longer than a window: between two chunks, there is the time of one scrape.
pub(crate) fn drop_covered(chunks: &mut Vec<AggrChunk>) {
    let raw = chunks.iter().filter(|chunk| chunk.raw.is_some()).count();
    if raw == 0 || raw == chunks.len() {
        return;
    }
    let covered = GAPS.map(|gap| stretches(chunks.iter(), gap));
    chunks.retain(|chunk| {
        let is_coarse = chunk.estimated_resolution().as_millis() >= GAPS[1] as u128;
        let (gap, stretches) = (GAPS[usize::from(is_coarse)], &covered[usize::from(is_coarse)]);
        let (min, max) = range(chunk);
        // The first window begins before its point. The last point has the time of the last sample.
        let begin = min.saturating_sub(gap).saturating_add(1);
        let begun = stretches.partition_point(|stretch| stretch.0 <= begin);
        let is_covered = begun.checked_sub(1).is_some_and(|at| stretches[at].1 >= max);
        chunk.raw.is_some() || !is_covered
    });
}

/// The stretches of time that raw chunks cover without a longer gap than this one. `chunks` are sorted by min time.
pub(crate) fn stretches<'a>(chunks: impl Iterator<Item = &'a AggrChunk>, gap: i64) -> Vec<(i64, i64)> {
    let mut stretches: Vec<(i64, i64)> = Vec::new();
    for (min, max) in chunks.filter(|chunk| chunk.raw.is_some()).map(range) {
        match stretches.last_mut() {
            Some((_, end)) if min <= end.saturating_add(gap) => *end = max.max(*end),
            _ => stretches.push((min, max)),
        }
    }
    stretches
}

fn range(chunk: &AggrChunk) -> (i64, i64) {
    (chunk.range().min.as_millis(), chunk.range().max.as_millis())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::{chunk, raw};

    /// Windows of 5 minutes that end at these minutes.
    fn windows(minutes: &[i64]) -> AggrChunk {
        let sums = minutes.iter().map(|minute| (minute * 60_000 - 1, 1.0)).collect::<Vec<_>>();
        AggrChunk { sum: Some(chunk(&sums)), ..AggrChunk::default() }
            .with_resolution(Duration::from_secs(300))
    }

    /// One raw sample a minute.
    fn minutes(range: std::ops::Range<i64>) -> AggrChunk {
        raw(&range.map(|minute| (minute * 60_000, 1.0)).collect::<Vec<_>>())
    }

    #[test]
    fn aggregates_are_left_out_where_raw_samples_have_no_gap() {
        fn check(mut chunks: Vec<AggrChunk>, aggregates: usize) {
            chunks.sort_by_key(|chunk| (chunk.range().min, chunk.range().max));
            let raw = chunks.iter().filter(|chunk| chunk.raw.is_some()).count();
            drop_covered(&mut chunks);
            let left = chunks.iter().filter(|chunk| chunk.raw.is_some()).count();
            assert_eq!((left, chunks.len() - left), (raw, aggregates), "{chunks:?}");
        }
        let hour = || windows(&[5, 10, 15, 55, 60]);
        check(vec![hour(), minutes(0..30), minutes(30..61)], 0);
        check(vec![hour(), minutes(0..33), minutes(36..61)], 0);
        check(vec![hour(), minutes(0..60)], 1);
        check(vec![hour(), minutes(1..61)], 1);
        check(vec![hour(), minutes(0..70), minutes(1..2), minutes(2..3)], 0);
        check(vec![hour(), minutes(0..30), minutes(36..61)], 1);
        check(vec![hour(), minutes(0..30)], 1);
        check(vec![hour(), minutes(12..61)], 1);
        check(vec![hour(), minutes(70..80)], 1);
        check(vec![hour(), windows(&[65, 70]), minutes(0..61)], 1);
        check(vec![hour()], 1);
        check(vec![minutes(0..9)], 0);
    }
}
