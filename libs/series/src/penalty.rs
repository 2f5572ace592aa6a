//! Decodes replicas for deduplication, and no more of them than needed.
//!
//! While the first replica misses nothing, the samples of the others do not matter, and decoding is most of the work. So the
//! first replica is decoded alone. The others are decoded only if it has a gap or a staleness marker, if by the headers of
//! their chunks they have samples before its first or after its last one or at smaller distances, or if they may be the same
//! producer.

use crate::chain;
use crate::dedup::{self, DedupRules, is_gap};
use crate::timeline::holds_markers;
use crate::{AggrChunk, DecodeError, DecodeOptions, Samples, SelectedSeries};

/// So many samples are looked up to find out whether two replicas may be one.
const PROBES: usize = 12;

impl SelectedSeries {
    /// Decodes all replicas and deduplicates them to `out`, which is empty. With `totals`, counters are decoded as running
    /// totals.
    pub(crate) fn decode_by_penalty(
        &self,
        options: &DecodeOptions,
        totals: bool,
        out: &mut Samples,
    ) -> Result<(), DecodeError> {
        let Some((preferred, others)) = self.replicas.split_first() else { return Ok(()) };
        self.decode_lane(preferred.iter(), options, totals, out)?;
        if is_enough(out, preferred, others, options) {
            return Ok(());
        }
        let mut replicas: Vec<(Samples, bool)> = Vec::with_capacity(self.replicas.len());
        let mut next = Some(std::mem::take(out));
        for lane in &self.replicas {
            let samples = match next.take() {
                Some(first) => first,
                None => {
                    let mut samples = Samples::new();
                    self.decode_lane(lane.iter(), options, totals, &mut samples)?;
                    samples
                }
            };
            if samples.is_empty() {
                continue;
            }
            let known = is_known(lane);
            let same = replicas
                .iter_mut()
                .find(|(other, other_known)| !(known && *other_known) && are_one(other, &samples));
            match same {
                Some((other, _)) if contains(other, &samples) => {}
                Some((other, _)) => *other = chain::union(&[std::mem::take(other), samples]),
                None => replicas.push((samples, known)),
            }
        }
        let mut replicas: Vec<Samples> = replicas.into_iter().map(|(samples, _)| samples).collect();
        let DecodeOptions { counter, window, .. } = *options;
        *out = match replicas.len() {
            0 | 1 => replicas.pop().unwrap_or_default(),
            _ => dedup::merge(&replicas, DedupRules { counter, totals, window }),
        };
        Ok(())
    }
}

fn is_known(lane: &[AggrChunk]) -> bool {
    lane.first().is_some_and(|chunk| chunk.producer.is_some())
}

/// Whether no sample of the other replicas can be part of the answer.
fn is_enough(
    first: &Samples,
    preferred: &[AggrChunk],
    others: &[Vec<AggrChunk>],
    options: &DecodeOptions,
) -> bool {
    let kept: Vec<i64>;
    let times = match (first.timestamps.as_slice(), first.histograms.as_slice()) {
        (floats, []) if !holds_markers(&first.values) => floats,
        ([], histograms) if !histograms.iter().any(|(_, histogram)| histogram.is_stale()) => {
            kept = histograms.iter().map(|(time, _)| *time).collect();
            &kept
        }
        _ => return false,
    };
    let (Some(&begin), Some(&last)) = (times.first(), times.last()) else { return false };
    let Some((least, most)) = dedup::distances(times).filter(|(least, most)| !is_gap(*most, *least)) else {
        return false;
    };
    let mean = last.saturating_sub(begin) / (times.len() - 1) as i64;
    let range = options.range;
    let inside = others.iter().flatten().filter(|chunk| chunk.range().overlaps(&range));
    let (mut earliest, mut latest) = (i64::MAX, i64::MIN);
    for chunk in inside {
        let claim = chunk.range();
        // Where this replica loses samples at regular distances, it has no gap, but another one has more samples.
        let samples = chunk.parts().next().map_or(0, |part| part.sample_count()) as i64;
        let length = claim.max.as_millis().saturating_sub(claim.min.as_millis());
        let regular = mean.saturating_mul(samples - 1);
        // A distance for which one of the others is a gap is shorter by a third at least.
        let is_regular = length.abs_diff(regular) <= mean.unsigned_abs() / 4;
        if samples > 1 && !is_regular && (length < regular || has_shorter_distances(chunk, most)) {
            return false;
        }
        earliest = earliest.min(claim.min.max(range.min).as_millis());
        latest = latest.max(claim.max.min(range.max).as_millis());
    }
    if begin.saturating_sub(earliest) >= least || latest.saturating_sub(last) >= least {
        return false;
    }
    let known = is_known(preferred);
    let unknown = others.iter().filter(|lane| !known || !is_known(lane));
    let mut bounds = unknown.flatten().flat_map(|chunk| [chunk.range().min, chunk.range().max]);
    bounds.all(|bound| times.binary_search(&bound.as_millis()).is_err())
}

/// Whether `longest` is a gap for the least distance of samples in a chunk, or may be one.
fn has_shorter_distances(chunk: &AggrChunk, longest: i64) -> bool {
    let Some(raw) = chunk.raw.as_ref().filter(|raw| raw.encoding.holds_floats()) else { return true };
    let (mut times, mut values) = (Vec::new(), Vec::new());
    raw.decode_floats(&mut times, &mut values).is_err()
        || dedup::distances(&times).is_none_or(|(least, _)| is_gap(longest, least))
}

/// Whether two replicas are one producer: where both have samples, at least half of those of one of them are samples of the
/// other, too. Clocks that tick in the same millisecond by chance are not enough, nor are equal times of different values.
fn are_one(a: &Samples, b: &Samples) -> bool {
    if !may_be_one(&a.timestamps, &b.timestamps, |time| *time)
        && !may_be_one(&a.histograms, &b.histograms, |(time, _)| *time)
    {
        return false;
    }
    let overlap = Overlap::of_samples(a, b);
    overlap.equal > 0 && 2 * overlap.equal >= overlap.a.min(overlap.b)
}

/// Whether one of some samples of one list has the time of a sample of the other, so that it is worth to compare them all.
fn may_be_one<T>(a: &[T], b: &[T], time: impl Fn(&T) -> i64 + Copy) -> bool {
    let (few, many) = if a.len() < b.len() { (a, b) } else { (b, a) };
    let (Some(first), Some(last)) = (many.first(), many.last()) else { return false };
    let begin = few.partition_point(|sample| time(sample) < time(first));
    let end = few.partition_point(|sample| time(sample) <= time(last)).max(begin);
    // An odd step, so that every second sample is not always left out.
    let step = ((end - begin) / PROBES) | 1;
    let mut probes = few[begin..end].iter().step_by(step).map(&time);
    probes.any(|probe| is_time_of(many, probe, time))
}

/// Whether a sample has this time. Scrapes are regular, so its place is known but for a few.
fn is_time_of<T>(samples: &[T], wanted: i64, time: impl Fn(&T) -> i64) -> bool {
    const NEAR: usize = 4;
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else { return false };
    let (since, length) = (wanted.abs_diff(time(first)), time(last).abs_diff(time(first)).max(1));
    let guess = (since as f64 / length as f64 * (samples.len() - 1) as f64) as usize;
    let near = guess.saturating_sub(NEAR)..guess.saturating_add(NEAR).min(samples.len() - 1);
    let near = samples.get(near).unwrap_or_default();
    match (near.first(), near.last()) {
        (Some(first), Some(last)) if time(first) <= wanted && wanted <= time(last) => {
            near.iter().any(|sample| time(sample) == wanted)
        }
        _ => samples.binary_search_by_key(&wanted, time).is_ok(),
    }
}

/// Whether all samples of `b` are samples of `a`.
fn contains(a: &Samples, b: &Samples) -> bool {
    Overlap::of_samples(a, b).equal == b.len()
}

/// Samples of two replicas in the time in which both have samples.
#[derive(Default)]
struct Overlap {
    a: usize,
    b: usize,
    /// Samples with equal times and values.
    equal: usize,
}

impl Overlap {
    fn of_samples(a: &Samples, b: &Samples) -> Self {
        let same_bits = |x: usize, y: usize| a.values[x].to_bits() == b.values[y].to_bits();
        let floats = Self::of(&a.timestamps, &b.timestamps, |time| *time, same_bits);
        let same = |x: usize, y: usize| a.histograms[x].1.same_observations(&b.histograms[y].1);
        let histograms = Self::of(&a.histograms, &b.histograms, |(time, _)| *time, same);
        Self {
            a: floats.a + histograms.a,
            b: floats.b + histograms.b,
            equal: floats.equal + histograms.equal,
        }
    }

    fn of<T>(a: &[T], b: &[T], time: impl Fn(&T) -> i64, same_value: impl Fn(usize, usize) -> bool) -> Self {
        let (Some(first_a), Some(first_b), Some(last_a), Some(last_b)) =
            (a.first(), b.first(), a.last(), b.last())
        else {
            return Self::default();
        };
        let (begin, end) = (time(first_a).max(time(first_b)), time(last_a).min(time(last_b)));
        let inside = |list: &[T]| {
            let first = list.partition_point(|sample| time(sample) < begin);
            (first, list.partition_point(|sample| time(sample) <= end).max(first))
        };
        let ((mut at_a, end_a), (mut at_b, end_b)) = (inside(a), inside(b));
        let mut overlap = Self { a: end_a - at_a, b: end_b - at_b, equal: 0 };
        while at_a < end_a && at_b < end_b {
            let (x, y) = (time(&a[at_a]), time(&b[at_b]));
            overlap.equal += usize::from(x == y && same_value(at_a, at_b));
            at_a += usize::from(x <= y);
            at_b += usize::from(y <= x);
        }
        overlap
    }
}
