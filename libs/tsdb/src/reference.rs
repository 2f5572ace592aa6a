//! Where a series is in the index, and a chunk in the segments.

use model::TimeRange;

/// The place of a series in the index; postings are lists of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesRef(pub u32);

/// The place of a chunk in the segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkRef(pub u64);

impl ChunkRef {
    /// The chunk whose record begins at byte `offset` of segment `segment`, counted from 0.
    pub fn new(segment: u32, offset: u32) -> Self {
        Self(u64::from(segment) << 32 | u64::from(offset))
    }

    /// Which segment, counted from 0.
    pub fn segment(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Byte of the segment at which the record begins.
    pub fn offset(self) -> u64 {
        self.0 & u64::from(u32::MAX)
    }
}

/// The entry of a chunk in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkMeta {
    /// Where it is.
    pub reference: ChunkRef,
    /// Times of the first and last sample, both included. A damaged index may have them in the wrong order.
    pub range: TimeRange,
}
