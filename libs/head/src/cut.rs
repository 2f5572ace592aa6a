//! Cuts blocks off the head, and removes what is in them.

use std::collections::HashSet;
use std::path::Path;
use std::sync::PoisonError;

use model::{TimeRange, Timestamp};
use tsdb::{BlockMeta, BlockOptions, BlockWriter, Ulid};

use crate::counts::SeriesTimes;
use crate::error::{HeadError, at};
use crate::head::{CHUNKS_DIR, Head, LOG_DIR};
use crate::log::checkpoint::{self, Kept};
use crate::log::segments::list;
use crate::merge::inside;
use crate::series::boundary_after;

impl Head {
    /// The range of the next block, the second time exclusive: from the first sample to the boundary after it. None before the
    /// head has samples of one and a half ranges.
    pub fn next_block(&self) -> Option<(Timestamp, Timestamp)> {
        let times = self.times_in_order()?;
        let (min, max) = (times.min.as_millis(), times.max.as_millis());
        if max.saturating_sub(min) <= self.block_range.saturating_mul(3) / 2 {
            return None;
        }
        Some((times.min, Timestamp::from_millis(boundary_after(min, self.block_range))))
    }

    /// Writes the samples from `min` to before `max` to a block in `dir`, with this id. The head keeps them until
    /// [`Head::truncate`]. None if there are no samples.
    ///
    /// From now on, samples before `max` are refused.
    ///
    /// # Errors
    /// When the block cannot be written, or a chunk cannot be read. There is no block then.
    pub fn cut_block(
        &self,
        dir: &Path,
        id: Ulid,
        (min, max): (Timestamp, Timestamp),
    ) -> Result<Option<BlockMeta>, HeadError> {
        {
            let mut min_valid = self.min_valid.write().unwrap_or_else(PoisonError::into_inner);
            *min_valid = (*min_valid).max(max.as_millis());
        }
        let range = TimeRange::new(min, Timestamp::from_millis(max.as_millis().saturating_sub(1)));
        let options = BlockOptions { times: Some((min, max)), ..BlockOptions::new(id) };
        let mut writer = BlockWriter::create(dir, options)?;
        for series in self.select_in_order(range) {
            let series = series?;
            let chunks = inside(series.chunks, range);
            let chunks = chunks.ok_or_else(|| HeadError::Undecodable(series.labels.clone()))?;
            writer.add_series(&series.labels, chunks)?;
        }
        if writer.series() == 0 {
            return Ok(None);
        }
        Ok(Some(writer.finish()?))
    }

    /// Removes the samples before `min_time` that are in order: chunks, series without chunks, chunk files, and most of the log.
    ///
    /// The log is cut when the lower two thirds of its segments are two or more. What is still needed of them is written to a
    /// checkpoint.
    ///
    /// # Errors
    /// When a file cannot be written or removed. The samples are gone from memory nevertheless.
    pub fn truncate(&self, min_time: Timestamp) -> Result<(), HeadError> {
        let min = min_time.as_millis();
        {
            let mut min_valid = self.min_valid.write().unwrap_or_else(PoisonError::into_inner);
            *min_valid = (*min_valid).max(min);
            self.truncate_memory(min);
        }
        self.files.truncate(min).map_err(at(&self.dir.join(CHUNKS_DIR)))?;
        self.truncate_log(min)
    }

    fn truncate_memory(&self, min: i64) {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        let (mut empty, mut times, mut chunks): (Vec<(u32, u64)>, _, _) =
            (Vec::new(), SeriesTimes::default(), 0);
        for series in index.all() {
            let mut state = series.lock();
            let before = state.chunk_count();
            state.is_removed = state.truncate(min);
            if state.is_removed {
                empty.push((series.slot, series.reference));
            }
            chunks += before - state.chunk_count();
            times.add(&state);
        }
        self.counts.remove_chunks(chunks);
        self.counts.set_times(&times);
        let removed: HashSet<u32> = empty.iter().map(|(slot, _)| *slot).collect();
        index.remove(&removed);
        self.metadata.free_unused();
        let mut unlogged = self.unlogged.lock().unwrap_or_else(PoisonError::into_inner);
        unlogged.retain(|series| !removed.contains(&series.slot));
        let mut deletions = self.deletions.write().unwrap_or_else(PoisonError::into_inner);
        deletions.retain(|slot, ranges| {
            ranges.retain(|range| range.max.as_millis() >= min);
            !removed.contains(slot) && !ranges.is_empty()
        });
        drop((index, unlogged, deletions));
        self.remember_removed(empty.into_iter().map(|(_, reference)| reference));
    }

    fn truncate_log(&self, min: i64) -> Result<(), HeadError> {
        let dir = self.dir.join(LOG_DIR);
        let in_log = at(&dir);
        let last = {
            let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            log.next_segment().map_err(&in_log)?
        };
        let Some(first) = list(&dir).map_err(&in_log)?.first().map(|segment| segment.number) else {
            return Ok(());
        };
        // The current segment is never a part of a checkpoint.
        let replaced = first + last.saturating_sub(1).saturating_sub(first) * 2 / 3;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let replaced = replaced.min(held.first_needed().map_or(u32::MAX, |needed| needed.saturating_sub(1)));
        if replaced <= first {
            return Ok(());
        }
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let references: HashSet<u64> = index.references().collect();
        drop(index);
        let metadata = |reference| {
            let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
            index.by_reference(reference).and_then(|series| series.lock().metadata.clone())
        };
        let kept = Kept {
            min_time: min,
            series: &|reference| references.contains(&reference) || held.is_needed(reference, replaced),
            metadata: &metadata,
            described: HashSet::new(),
        };
        checkpoint::write(&dir, replaced, kept).map_err(&in_log)?;
        held.forget(replaced);
        Ok(())
    }
}
