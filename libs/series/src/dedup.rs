//! Deduplication: one series of several replicas, which scrape the same targets at slightly different times.
//!
//! Using every sample would double the rate of samples and mix several clocks. Using one replica would leave its gaps. So
//! one replica leads at each time, and the gaps that are left are filled:
//!
//! 1. **Who leads.** The first replica leads while it misses nothing. A replica has missed a sample where it has a gap in
//!    which another replica goes on ([`misses`]). It then does not lead from its last sample before the gap on, for as long
//!    as the window of the query, and the next replica that missed nothing leads ([`lead`]). So a replica that loses every
//!    third sample does not lead at all, and within a window the leader changes at most from a replica to another one and
//!    back. No sample of a leader is left out. So where one replica is whole, two samples of the answer in sequence are
//!    never further apart than those of that replica.
//! 2. **What fills gaps.** Where no replica leads, because all lost samples, the samples of the first one are taken. Gaps
//!    that are left are filled with samples of the others that are half an interval or more from the samples around the gap
//!    ([`fill`]). So every gap is filled whenever any replica has the sample, and none is filled twice. The interval is the
//!    distance at which samples are where none was lost ([`interval`]).
//!
//! Whether a sample is part of the answer depends on the samples around it, on misses up to one window before it, and on
//! nothing else. It does not depend on the sample with which the query began. Nor do misses in which all replicas share, as
//! when a target is down, change the leader.
//!
//! The samples themselves are corrected in three ways:
//!
//! * **Staleness markers** are not samples: they say that a scrape of one replica found nothing. One is part of the answer
//!   where the answer has a gap, or after its end ([`markers`]).
//! * **Counter resets.** Raw counters stay raw. Only a false reset at a change of replica is corrected: a value lower than
//!   the one before, although neither replica shows a reset in between, nor does the start timestamp. The correction ends
//!   with the next reset within the replica. Samples that it raises lose their start timestamps ([`emit`]).
//! * **Histograms.** After a change of replica, the reset hint of a histogram is removed, because it compares the histogram
//!   with a sample of its own replica.
//!
//! Thanos (`pkg/dedup/iter.go`) follows one replica until it misses two samples, and delays the other by twice the last
//! distance of two samples, also if that distance was a gap. A replica that loses samples regularly therefore leaves
//! gaps in the answer, and its counters lose their resets.

mod emit;
mod fill;
mod interval;
mod lead;
mod markers;
mod misses;
mod piece;
mod track;

use crate::Samples;
use crate::dedup::emit::Emitter;
use crate::dedup::fill::Filler;
use crate::dedup::misses::MissRules;
use crate::dedup::piece::Piece;
use crate::dedup::track::Track;
use crate::timeline::{FloatTimeline, MixedTimeline, Timeline};

pub(crate) use misses::is_gap;

/// How replicas are deduplicated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DedupRules {
    /// Whether a change of replica must not look like a counter reset.
    pub(crate) counter: bool,
    /// Whether the counters are running totals, which never fall.
    pub(crate) totals: bool,
    /// How long a replica does not lead after the last sample before a miss, in milliseconds.
    pub(crate) recovery: i64,
    /// The end of the query; the greatest time if it has none.
    pub(crate) end: i64,
}

/// Deduplicates replicas, in order of preference.
pub(crate) fn merge(replicas: &[Samples], rules: DedupRules) -> Samples {
    if replicas.iter().all(|replica| replica.histograms.is_empty()) {
        merge_timelines(&replicas.iter().map(FloatTimeline::new).collect::<Vec<_>>(), rules)
    } else {
        merge_timelines(&replicas.iter().map(MixedTimeline::new).collect::<Vec<_>>(), rules)
    }
}

fn merge_timelines<T: Timeline>(timelines: &[T], rules: DedupRules) -> Samples {
    let tracks: Vec<Track> = timelines.iter().map(Track::new).collect();
    let least = tracks.iter().map(|track| least_distance(&track.times)).min().unwrap_or(i64::MAX);
    let latest = tracks.iter().filter_map(|track| track.times.last()).max().copied();
    let start = tracks.iter().filter_map(|track| track.times.first()).min().copied();
    let end = if rules.end == i64::MAX { latest.unwrap_or(i64::MAX) } else { rules.end };
    let start = start.unwrap_or(i64::MIN);
    let rules_of_misses = MissRules { start, end, least, recovery: rules.recovery };
    let runs: Vec<_> = (0..tracks.len()).map(|own| misses::runs(&tracks, own, rules_of_misses)).collect();
    let led: Vec<Piece> = lead::lead(&tracks, &runs, rules.recovery);
    let pieces = Filler::new(&tracks, least, start, end).fill(led);
    let markers = markers::markers(&tracks, &pieces, &mut Filler::new(&tracks, least, start, end));
    Emitter::new(timelines, rules.counter, rules.totals).emit(&tracks, &pieces, &markers)
}

fn least_distance(times: &[i64]) -> i64 {
    let later = times.iter().skip(1);
    times.iter().zip(later).fold(i64::MAX, |least, (a, b)| least.min(b.saturating_sub(*a)))
}

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
