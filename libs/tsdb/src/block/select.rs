//! The series of a block that match.

use model::{Labels, TimeRange, Timestamp};

use crate::block::Block;
use crate::error::BlockError;
use crate::index::SeriesScan;
use crate::postings::{IntoIter, Postings};
use crate::{ChunkMeta, SeriesRef};

/// A series of a block with its chunks in the range of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockSeries {
    /// Its place in the index.
    pub reference: SeriesRef,
    /// Its labels.
    pub labels: Labels,
    /// The chunks that overlap the range, without those that are deleted whole, sorted by time; at least one.
    pub chunks: Vec<ChunkMeta>,
    /// Intervals whose samples are deleted but still in the chunks: sorted, disjoint, both ends included.
    pub deleted: Vec<TimeRange>,
}

impl BlockSeries {
    /// Whether the sample at `at` is deleted.
    pub fn is_deleted(&self, at: Timestamp) -> bool {
        let next = self.deleted.partition_point(|interval| interval.max < at);
        self.deleted.get(next).is_some_and(|interval| interval.contains(at))
    }
}

/// The series of a block that match, in the order of their labels: [`Block::select`].
///
/// Memory: four bytes for each series that matches, and half a MiB of the index, or what [`BlockSelection::reading_at_once`] allows.
pub struct BlockSelection<'a> {
    block: &'a Block,
    scan: SeriesScan<'a, IntoIter>,
    range: TimeRange,
    last: Option<Labels>,
    keeps_deleted: bool,
}

impl<'a> BlockSelection<'a> {
    pub(super) fn new(block: &'a Block, postings: Postings, range: TimeRange) -> Self {
        let scan = block.index.scan(postings.into_iter());
        BlockSelection { block, scan, range, last: None, keeps_deleted: false }
    }

    /// Keeps the chunks that tombstones delete whole, and the series of which nothing else is left, for a caller that accounts
    /// for every sample.
    #[must_use]
    pub fn with_deleted_chunks(mut self) -> Self {
        self.keeps_deleted = true;
        self
    }

    /// Reads about so many bytes of the index at once, instead of half a MiB.
    #[must_use]
    pub fn reading_at_once(mut self, at_once_bytes: u64) -> Self {
        self.scan = self.scan.reading_at_once(at_once_bytes);
        self
    }

    fn read(&mut self) -> Option<Result<BlockSeries, BlockError>> {
        loop {
            let mut entry = match self.scan.next()? {
                Ok(entry) => entry,
                Err(error) => return Some(Err(error)),
            };
            if self.last.as_ref().is_some_and(|last| *last >= entry.labels) {
                let place = self.block.index.place();
                let what = format!("series {} does not sort after the one before it", entry.labels);
                return Some(Err(place.malformed(None, what)));
            }
            self.last = Some(entry.labels.clone());
            if let Some(chunk) = entry.chunks.iter().find(|chunk| chunk.range.is_empty()) {
                let place = self.block.index.place();
                let (min, max) = (chunk.range.min, chunk.range.max);
                let what = format!("a chunk of {} begins at {min}, after its end at {max}", entry.labels);
                let offset = self.block.index.series_offset(entry.reference);
                return Some(Err(place.malformed(offset, what)));
            }
            let deleted = self.block.tombstones().of(entry.reference);
            entry.chunks.retain(|chunk| {
                let whole = |interval: &TimeRange| {
                    interval.contains(chunk.range.min) && interval.contains(chunk.range.max)
                };
                chunk.range.overlaps(&self.range) && (self.keeps_deleted || !deleted.iter().any(whole))
            });
            if !entry.chunks.is_empty() {
                return Some(Ok(BlockSeries {
                    reference: entry.reference,
                    labels: entry.labels,
                    chunks: entry.chunks,
                    deleted: deleted.to_vec(),
                }));
            }
        }
    }
}

impl Iterator for BlockSelection<'_> {
    type Item = Result<BlockSeries, BlockError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read()
    }
}
