//! Compares the files of a block with each other, as far as the format allows.
//!
//! ```text
//! meta.json      the id, and the number of series and of deleted intervals
//! thanos.files   the size of each file, if it is listed
//! segments       each ends with the last chunk that the index has in it
//! ```

use crate::block::Block;
use crate::error::{BlockError, BlockPart};
use crate::files::INDEX_FILE;
use crate::postings::Postings;
use crate::reference::{ChunkMeta, ChunkRef, SeriesRef};
use crate::tombstones::Tombstones;

/// So many entries are near each other and are read at once.
const NEAR_SERIES: usize = 128;

impl Block {
    /// Compares `meta.json` with the other files. Reads only a few bytes.
    pub(super) fn check_meta(&self) -> Result<(), BlockError> {
        let stats = &self.meta.stats;
        // A block without statistics was written by another program; there is nothing to compare.
        if stats.series > 0 || stats.chunks > 0 || stats.samples > 0 {
            let series = self.index.series_count()?;
            if series != stats.series {
                let what = format!("it counts {} series, but the index has {series}", stats.series);
                return Err(self.place(BlockPart::Meta).contradiction(None, what));
            }
        }
        let count = self.tombstones.as_ref().map(Tombstones::count);
        if let Some(count) = count.filter(|&count| count != stats.tombstones) {
            let what = format!("it has {count} deleted intervals, but meta.json counts {}", stats.tombstones);
            return Err(self.place(BlockPart::Tombstones).contradiction(None, what));
        }
        self.wrong_sizes().into_iter().next().map_or(Ok(()), Err)
    }

    /// The files whose sizes differ from those in `meta.json`.
    pub(super) fn wrong_sizes(&self) -> Vec<BlockError> {
        let mut wrong = Vec::new();
        let Some(thanos) = &self.meta.thanos else { return wrong };
        for file in &thanos.files {
            let found = match segment_number(&file.rel_path) {
                // When only the index is read, there are no segments.
                Some(_) if self.segments.count() == 0 => continue,
                Some(number) => self.segments.size_bytes(number),
                None if file.rel_path == INDEX_FILE => self.index.size_bytes(),
                None => continue,
            };
            if let Some(expected) = file.size_bytes.filter(|&expected| expected != found) {
                let what = format!("{} has {found} bytes, expected {expected}", file.rel_path);
                wrong.push(self.place(BlockPart::Meta).contradiction(None, what));
            }
        }
        wrong
    }

    /// Whether `meta.json` lists the sizes of all segments. They were compared when the block was opened.
    fn sizes_are_listed(&self) -> bool {
        let files = self.meta.thanos.iter().flat_map(|thanos| &thanos.files);
        let listed =
            files.filter(|file| file.size_bytes.is_some() && segment_number(&file.rel_path).is_some());
        self.segments.count() > 0 && listed.count() == self.segments.count()
    }

    /// Compares the end of each segment with the end of the last chunk that the index has in it. If they differ, segment and
    /// index were not written together.
    pub(super) fn check_segments(&self) -> Result<(), BlockError> {
        if self.sizes_are_listed() {
            return Ok(());
        }
        let all = self.index.all_postings()?;
        let chunks_of = |index: usize| self.chunks_of(&all, index);
        let count = self.segments.count() as u32;
        let mut from = 0;
        for segment in 0..count {
            let is_behind = |reference: ChunkRef| reference.segment() > segment;
            // References never fall, so all series that begin in a later segment come after those that do not.
            let is_last = segment + 1 == count && !all.is_empty();
            let low =
                match is_last && !chunks_of(all.len() - 1)?.first().is_some_and(|c| is_behind(c.reference)) {
                    true => all.len(),
                    false => self.first_that(&all, from, is_behind)?,
                };
            from = low.saturating_sub(1);
            let place = self.segments.place(segment);
            let chunks = if low == 0 { Vec::new() } else { chunks_of(low - 1)? };
            let last = chunks.iter().map(|chunk| chunk.reference).rfind(|reference| !is_behind(*reference));
            let Some(last) = last.filter(|last| last.segment() == segment) else {
                return Err(place.contradiction(None, "the index has no chunk in this segment"));
            };
            let (end, size) = (self.segments.record_end(last)?, self.segments.size_bytes(segment));
            if end != size {
                let what = format!(
                    "the last chunk that the index has in this segment ends at byte {end}, but the segment has {size} bytes"
                );
                return Err(place.contradiction(last.offset(), what));
            }
        }
        // A reference to a missing segment is an error when that chunk is read.
        Ok(())
    }

    fn chunks_of(&self, all: &Postings, index: usize) -> Result<Vec<ChunkMeta>, BlockError> {
        Ok(self.index.series(all.at(index).unwrap_or(SeriesRef(0)))?.chunks)
    }

    /// The first of the series from `from` on whose first chunk `is_behind`; the number of series if there is none. It must be so for
    /// all series after it.
    fn first_that(
        &self,
        all: &Postings,
        from: usize,
        is_behind: impl Fn(ChunkRef) -> bool,
    ) -> Result<usize, BlockError> {
        let is_behind = |chunks: &[ChunkMeta]| chunks.first().is_some_and(|chunk| is_behind(chunk.reference));
        let (mut low, mut high) = (from, all.len());
        while high - low > NEAR_SERIES {
            let middle = low + (high - low) / 2;
            match is_behind(&self.chunks_of(all, middle)?) {
                true => high = middle,
                false => low = middle + 1,
            }
        }
        for (index, entry) in (low..high).zip(self.index.scan(all.slice(low..high).into_iter())) {
            if is_behind(&entry?.chunks) {
                return Ok(index);
            }
        }
        Ok(high)
    }
}

/// The number of the segment at this path in the directory of the block, from 0.
fn segment_number(path: &str) -> Option<u32> {
    path.strip_prefix("chunks/")?.parse::<u32>().ok()?.checked_sub(1)
}
