//! The instants at which a replica has a sample.

use std::borrow::Cow;

use crate::timeline::Timeline;

/// When a replica has samples. A staleness marker is not a sample here: it says that a scrape found nothing, and another
/// replica may have found something.
pub(crate) struct Track<'a> {
    /// Times of the samples, strictly ascending.
    pub(crate) times: Cow<'a, [i64]>,
    /// The index of each sample in its timeline; empty where all of the timeline are samples.
    places: Vec<usize>,
    /// The time and the index in the timeline of each staleness marker.
    pub(crate) markers: Vec<(i64, usize)>,
}

impl<'a> Track<'a> {
    /// The track of a timeline.
    pub(crate) fn new<T: Timeline>(timeline: &'a T) -> Self {
        let mut track = Self { times: timeline.times(), places: Vec::new(), markers: Vec::new() };
        track.markers = timeline.markers().into_iter().map(|place| (track.times[place], place)).collect();
        if !track.markers.is_empty() {
            let mut markers = track.markers.iter().map(|(_, place)| *place).peekable();
            track.places =
                (0..track.times.len()).filter(|place| markers.next_if_eq(place).is_none()).collect();
            track.times = track.places.iter().map(|&place| track.times[place]).collect();
        }
        track
    }

    /// A track of samples at these times.
    #[cfg(test)]
    pub(crate) fn of_times(times: Vec<i64>) -> Self {
        Self { times: times.into(), places: Vec::new(), markers: Vec::new() }
    }

    /// The index of a sample in its timeline.
    pub(crate) fn place(&self, index: usize) -> usize {
        self.places.get(index).copied().unwrap_or(index)
    }

    /// The index of the first sample that is not before `time`.
    pub(crate) fn at_or_after(&self, time: i64) -> usize {
        self.times.partition_point(|&t| t < time)
    }
}
