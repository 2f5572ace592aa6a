//! Staleness markers of the answer.

use crate::dedup::interval::Intervals;
use crate::dedup::is_gap;
use crate::dedup::piece::Piece;
use crate::dedup::track::Track;

/// A staleness marker that is part of the answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Marker {
    /// The number of the replica.
    pub(crate) replica: usize,
    /// Its index in the timeline of the replica.
    pub(crate) place: usize,
    /// Its time.
    pub(crate) time: i64,
}

/// The markers of an answer, in order of time.
///
/// A series is stale when every replica says so. So a marker counts only where all replicas have a gap, or after their end; of
/// each replica the first one there, and of these the last one.
pub(crate) fn markers(tracks: &[Track<'_>], pieces: &[Piece], intervals: &mut Intervals<'_>) -> Vec<Marker> {
    let mut all: Vec<Marker> = Vec::new();
    for (replica, track) in tracks.iter().enumerate() {
        all.extend(track.markers.iter().map(|&(time, place)| Marker { replica, place, time }));
    }
    if all.is_empty() {
        return all;
    }
    all.sort_by_key(|marker| marker.time);
    let mut kept = Vec::new();
    let mut times = pieces.iter().flat_map(|piece| piece.times(tracks)).copied().peekable();
    let mut before = None;
    let mut rest = all.into_iter().peekable();
    while let Some(marker) = rest.peek().copied() {
        while let Some(time) = times.next_if(|&time| time <= marker.time) {
            before = Some(time);
        }
        let after = times.peek().copied();
        let mut seen = vec![false; tracks.len()];
        let mut last = None;
        while let Some(marker) = rest.next_if(|marker| after.is_none_or(|after| marker.time < after)) {
            if !std::mem::replace(&mut seen[marker.replica], true) && before.is_none_or(|t| t < marker.time) {
                last = Some(marker);
            }
        }
        kept.extend(last.filter(|marker| is_gap_at(tracks, marker.time, intervals)));
    }
    kept
}

/// Whether no replica has a sample for longer than an interval around `time`.
fn is_gap_at(tracks: &[Track<'_>], time: i64, intervals: &mut Intervals<'_>) -> bool {
    let before = tracks.iter().filter_map(|track| track.times[..track.at_or_after(time)].last()).max();
    let after = tracks.iter().filter_map(|track| track.times.get(track.at_or_after(time))).min();
    match (before, after) {
        (Some(&before), Some(&after)) => is_gap(after.saturating_sub(before), intervals.at(before)),
        _ => true,
    }
}
