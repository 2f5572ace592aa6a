//! Which resolutions the data of an answer has, and at which times.

use std::time::Duration;

use model::TimeRange;
use series::AggrChunk;

/// The time from the first to the last data of each resolution. Raw samples have a resolution of zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolutions(Vec<(Duration, TimeRange)>);

impl Resolutions {
    /// Adds the part of a chunk that is `within` the range of the request.
    pub(super) fn add(&mut self, chunk: &AggrChunk, within: TimeRange) {
        self.extend(chunk.estimated_resolution(), chunk.range().intersect(&within));
    }

    /// Leaves out what is not within `range`: data that was read only to choose replicas.
    pub(crate) fn cut(&mut self, range: TimeRange) {
        self.0.iter_mut().for_each(|(_, found)| *found = found.intersect(&range));
        self.0.retain(|(_, found)| !found.is_empty());
    }

    /// Adds all of another list.
    pub(crate) fn add_all(&mut self, others: &Self) {
        others.0.iter().for_each(|(resolution, range)| self.extend(*resolution, *range));
    }

    fn extend(&mut self, resolution: Duration, range: TimeRange) {
        if range.is_empty() {
            return;
        }
        match self.0.iter_mut().find(|(known, _)| *known == resolution) {
            Some((_, all)) => *all = TimeRange::new(all.min.min(range.min), all.max.max(range.max)),
            None => {
                self.0.push((resolution, range));
                self.0.sort_by_key(|(resolution, _)| *resolution);
            }
        }
    }

    /// Each resolution, the finest first, with the time from its first to its last data.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Duration, TimeRange)> {
        self.0.iter().copied()
    }

    /// The coarsest one; zero without data.
    pub(crate) fn coarsest(&self) -> Duration {
        self.0.last().map_or(Duration::ZERO, |(resolution, _)| *resolution)
    }
}
