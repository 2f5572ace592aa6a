//! Writes out-of-order samples to blocks.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, PoisonError};

use model::{TimeRange, Timestamp};
use tsdb::{BlockMeta, BlockOptions, BlockWriter, Compaction, Ulid};

use crate::chunk_format::StoredChunk;
use crate::counts::SeriesTimes;
use crate::cut_state::CutState;
use crate::error::{HeadError, at};
use crate::head::{CHUNKS_DIR, Head, LATE_LOG_DIR};
use crate::log::buffered::BufferedLog;
use crate::log::marker::{LoggedMarker, marker_record};
use crate::log::segments::list;
use crate::merge::{inside, merged, without};
use crate::series::{Series, boundary_after};
use crate::value::decoded;

/// The hint of blocks of out-of-order samples.
pub(crate) const LATE_HINT: &str = "from-out-of-order";

/// The out-of-order samples up to some time, which are written to blocks.
pub struct LateCut {
    /// The series in the order of their labels, each with the number of its chunks.
    series: Vec<(Arc<Series>, usize)>,
    /// Segments of the log before this one have no other samples.
    segment: Option<u32>,
}

impl LateCut {
    /// Whether there are no out-of-order samples.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// The last place of a chunk, as marks name it.
    fn last_place(&self) -> Option<u64> {
        let chunks = self.series.iter().flat_map(|(series, count)| stored(series, *count));
        chunks.map(|chunk| chunk.place.number()).max()
    }
}

impl Head {
    /// Begins to write the out-of-order samples so far to blocks: they are completed as chunks. Samples that arrive from now on are not
    /// a part of it.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn begin_late_cut(&self) -> Result<LateCut, HeadError> {
        let dir = self.dir.join(LATE_LOG_DIR);
        let mut log = self.late_log.lock().unwrap_or_else(PoisonError::into_inner);
        let mut late: Vec<Arc<Series>> = {
            let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
            index.all().filter(|series| series.lock().late.is_some()).cloned().collect()
        };
        late.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        if log.is_none() && !(late.is_empty() && list(&dir).map_err(at(&dir))?.is_empty()) {
            *log = Some(self.create_late_log().map_err(at(&dir))?);
        }
        let (mut series, mut markers) = (Vec::with_capacity(late.len()), Vec::new());
        for of_series in late {
            let marker = self.store_late(&of_series).map_err(at(&self.dir.join(CHUNKS_DIR)))?;
            markers.extend(marker);
            let count = of_series.lock().late.as_deref().map_or(0, |late| late.stored.len());
            series.push((of_series, count));
        }
        let segment = log.as_mut().map(|log| next_segment(log, &markers)).transpose().map_err(at(&dir))?;
        Ok(LateCut { series, segment })
    }

    /// Writes the samples of a cut to blocks in `dir`, one for each range with samples. The head keeps them until [`Head::end_late_cut`].
    ///
    /// # Errors
    /// When a block cannot be written, or a chunk cannot be read. Blocks that were written before are removed.
    pub fn cut_late_blocks(
        &self,
        dir: &Path,
        cut: &LateCut,
        mut new_id: impl FnMut() -> Ulid,
    ) -> Result<Vec<BlockMeta>, HeadError> {
        let windows: Vec<(i64, Ulid)> =
            self.late_windows(cut)?.into_iter().map(|begin| (begin, new_id())).collect();
        let log_dir = self.dir.join(LATE_LOG_DIR);
        let Some((segment, place)) = cut.segment.zip(cut.last_place()) else { return Ok(Vec::new()) };
        let ids: Vec<Ulid> = windows.iter().map(|(_, id)| *id).collect();
        CutState::Writing(ids.clone()).save(&log_dir).map_err(at(&log_dir))?;
        let written = self.write_late_blocks(dir, cut, &windows).and_then(|blocks| {
            CutState::Written { segment, place }.save(&log_dir).map_err(at(&log_dir))?;
            Ok(blocks)
        });
        if written.is_err() {
            // Their samples will be written again.
            ids.iter().for_each(|id| drop(std::fs::remove_dir_all(dir.join(id.to_string()))));
            let _ = CutState::remove(&log_dir);
        }
        written
    }

    fn write_late_blocks(
        &self,
        dir: &Path,
        cut: &LateCut,
        windows: &[(i64, Ulid)],
    ) -> Result<Vec<BlockMeta>, HeadError> {
        let deletions = self.deletions.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut blocks = Vec::new();
        for (begin, id) in windows {
            let times = (*begin, begin.saturating_add(self.block_range));
            let block = (Timestamp::from_millis(times.0), Timestamp::from_millis(times.1));
            blocks.extend(self.write_late_block(dir, cut, *id, block, &deletions)?);
        }
        Ok(blocks)
    }

    /// The begins of the ranges of blocks in which a cut has chunks.
    fn late_windows(&self, cut: &LateCut) -> Result<BTreeSet<i64>, HeadError> {
        let begin_of = |time: i64| boundary_after(time, self.block_range).saturating_sub(self.block_range);
        let mut windows = BTreeSet::new();
        for (series, count) in &cut.series {
            for chunk in stored(series, *count) {
                let (first, last) =
                    (begin_of(chunk.range.min.as_millis()), begin_of(chunk.range.max.as_millis()));
                windows.extend([first, last]);
                if last.saturating_sub(first) > self.block_range {
                    // Not all ranges between: a log may have any times.
                    let samples =
                        self.read_stored(&[chunk])?.iter().filter_map(decoded).flatten().collect::<Vec<_>>();
                    windows.extend(samples.iter().map(|sample| begin_of(sample.time)));
                }
            }
        }
        Ok(windows)
    }

    /// Writes the samples of a cut from `min` to before `max` to a block. None if there are no samples.
    fn write_late_block(
        &self,
        dir: &Path,
        cut: &LateCut,
        id: Ulid,
        (min, max): (Timestamp, Timestamp),
        deletions: &HashMap<u32, Vec<TimeRange>>,
    ) -> Result<Option<BlockMeta>, HeadError> {
        let range = TimeRange::new(min, Timestamp::from_millis(max.as_millis().saturating_sub(1)));
        let mut writer: Option<BlockWriter> = None;
        for (series, count) in &cut.series {
            let mut stored = stored(series, *count);
            stored.retain(|chunk| chunk.range.overlaps(&range));
            let chunks = inside(merged(Vec::new(), self.read_stored(&stored)?), range);
            let mut chunks = chunks.ok_or_else(|| HeadError::Undecodable(series.labels.clone()))?;
            if let Some(deleted) = deletions.get(&series.slot) {
                chunks = chunks.iter().flat_map(|chunk| without(chunk, deleted)).collect();
            }
            if chunks.is_empty() {
                continue;
            }
            let writer = match &mut writer {
                Some(writer) => writer,
                None => writer.insert(BlockWriter::create(dir, late_block(id, (min, max)))?),
            };
            writer.add_series(&series.labels, chunks)?;
        }
        Ok(writer.map(BlockWriter::finish).transpose()?)
    }

    /// Removes the samples of a cut.
    ///
    /// # Errors
    /// When a file cannot be removed. The samples are gone from memory nevertheless.
    pub fn end_late_cut(&self, cut: LateCut) -> Result<(), HeadError> {
        let dir = self.dir.join(LATE_LOG_DIR);
        for (series, count) in &cut.series {
            let chunks = stored(series, *count);
            self.files.forget_late(&chunks).map_err(at(&self.dir.join(CHUNKS_DIR)))?;
        }
        if let Some(segment) = cut.segment {
            for old in list(&dir).map_err(at(&dir))?.iter().filter(|old| old.number < segment) {
                std::fs::remove_file(&old.path).map_err(at(&old.path))?;
            }
        }
        CutState::remove(&dir).map_err(at(&dir))?;
        self.remove_late(cut.series);
        let min = self.times_in_order().map_or(i64::MIN, |times| times.min.as_millis());
        self.files.truncate(min).map_err(at(&self.dir.join(CHUNKS_DIR)))
    }
}

impl Head {
    /// Removes the first late chunks of some series. Nothing is appended meanwhile.
    fn remove_late(&self, cut: Vec<(Arc<Series>, usize)>) {
        let _no_commit = self.min_valid.write().unwrap_or_else(PoisonError::into_inner);
        for (series, count) in cut {
            let mut state = series.lock();
            let Some(late) = state.late.as_deref_mut() else { continue };
            let count = count.min(late.stored.len());
            self.files.release_late(late.stored.drain(..count).as_slice());
            self.counts.remove_chunks(count);
            if late.range().is_none() {
                state.late = None;
            }
        }
        let mut times = SeriesTimes::default();
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        index.all().for_each(|series| times.add(&series.lock()));
        self.counts.set_times(&times);
    }
}

/// The first chunks of a series in files.
fn stored(series: &Series, count: usize) -> Vec<StoredChunk> {
    let state = series.lock();
    state.late.iter().flat_map(|late| late.stored.iter().take(count)).copied().collect()
}

/// Marks the samples so far as stored, and begins a new segment. Returns its number.
fn next_segment(log: &mut BufferedLog, markers: &[LoggedMarker]) -> std::io::Result<u32> {
    let records: Vec<Vec<u8>> = markers.chunks(1 << 16).map(marker_record).collect();
    log.log(records, 0)?;
    log.next_segment()
}

fn late_block(id: Ulid, times: (Timestamp, Timestamp)) -> BlockOptions {
    let compaction = Compaction {
        level: 1,
        sources: vec![id],
        hints: vec![LATE_HINT.to_owned()],
        ..Compaction::default()
    };
    BlockOptions { times: Some(times), compaction: Some(compaction), ..BlockOptions::new(id) }
}
