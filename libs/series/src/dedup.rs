//! Deduplication: one series of several replicas, which scrape the same targets at slightly different times.
//!
//! Using every sample would double the rate of samples and mix several clocks. Using one replica would leave its gaps. So
//! time is cut into windows ([`windows`]), a little longer than the window of the query. In each of them:
//!
//! 1. **One replica, where one is complete.** The first replica that misses nothing is used alone. It misses a sample of
//!    another one if that is an interval or more after its own last sample.
//! 2. **Each scrape once, where all miss something.** The first sample of any replica is taken, then the first one that is
//!    an interval later, and so on. With two replicas, five eighths of an interval are enough.
//!
//! The interval of scrapes is learnt from the samples around ([`interval`]). Four properties follow from this, and
//! `oracle.rs` tests them:
//!
//! * **Gaps.** A sample that is left out is less than an interval after one that is taken. So no gap is wider than an
//!   interval more than the widest one that all replicas share there.
//! * **Counts.** Samples of one replica are an interval apart, so each has another sample of the answer in the interval that
//!   ends with it: at most one sample less than in any replica. The samples of the answer are an interval apart, too, but
//!   for the boundary of two windows, and a window of the query has one boundary: at most one sample more than the truth.
//! * **Complete replicas.** A replica that misses nothing is a candidate in each window. At the boundary the samples of the
//!   next replica are added from the last one before on, so that no distance is longer than an interval.
//! * **Begin.** The boundaries are multiples of the length of the windows, so what is chosen in one depends on samples in it
//!   and after it, and on few before it. These are read too ([`first_read`]), so it does not depend on where the query begins.
//!
//! The samples themselves are corrected in three ways:
//!
//! * **Staleness markers** are not samples: they say that a scrape of one replica found nothing. One is part of the answer
//!   where all replicas have a gap, or after their end ([`markers`]).
//! * **Counters.** Raw counters stay raw, but for two cases at a change of replica ([`level`]). A replica that is behind another
//!   one would look like a reset: its values are raised until they exceed the last one. Replicas at different levels, which
//!   is usual for running totals, would add the difference to the growth: the later one is moved to the level of the earlier
//!   one, until it is reset. Samples that are changed lose their start timestamps. What a counter grows by does not depend
//!   on where the query begins, either.
//! * **Histograms.** After a change of replica, the reset hint of a histogram is removed, because it compares the histogram
//!   with a sample of its own replica.
//!
//! Thanos (`pkg/dedup/iter.go`) follows one replica until it misses two samples, and delays the other by twice the last
//! distance of two samples, also if that distance was a gap. A replica that loses samples regularly therefore leaves
//! gaps in the answer, and its counters lose their resets.

mod emit;
mod interval;
mod level;
mod markers;
mod piece;
mod track;
mod windows;

pub(crate) use emit::Emitter;
pub(crate) use interval::distances;
pub(crate) use markers::Marker;
pub(crate) use piece::Piece;
pub(crate) use track::Track;
pub(crate) use windows::first_read;

use crate::Samples;
use crate::dedup::interval::Intervals;
use crate::timeline::{FloatTimeline, MixedTimeline, Timeline};

/// Whether the distance of two samples is a gap, where samples are usually `spacing` apart: half as much again. With one
/// sample lost it is about twice as much, and with jitter it is never exact.
#[inline]
pub(crate) fn is_gap(distance: i64, spacing: i64) -> bool {
    distance >= spacing.saturating_add(spacing / 2)
}

/// How replicas are deduplicated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DedupRules {
    /// Whether a change of replica must not look like a counter reset.
    pub(crate) counter: bool,
    /// Whether the counters are running totals, which never fall.
    pub(crate) totals: bool,
    /// The window of the query, in milliseconds.
    pub(crate) window: i64,
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
    let tracks: Vec<Track<'_>> = timelines.iter().map(Track::new).collect();
    let mut intervals = Intervals::new(&tracks, windows::length(rules.window));
    let pieces = windows::choose(&tracks, &mut intervals, rules.window);
    let markers = markers::markers(&tracks, &pieces, &mut intervals);
    Emitter::new(timelines, rules.counter, rules.totals).emit(&tracks, &pieces, &markers)
}

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
