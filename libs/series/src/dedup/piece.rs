//! Parts of the answer.

use std::ops::Range;

use crate::dedup::track::Track;

/// Consecutive samples of one replica that are part of the answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Piece {
    /// The number of the replica.
    pub(crate) replica: usize,
    /// Their indices in its [`Track`]; not empty.
    pub(crate) samples: Range<usize>,
}

impl Piece {
    /// The times of its samples.
    pub(crate) fn times<'a>(&self, tracks: &'a [Track<'_>]) -> &'a [i64] {
        &tracks[self.replica].times[self.samples.clone()]
    }
}
