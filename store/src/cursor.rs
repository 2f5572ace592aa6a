//! The series of one block for one request, in batches. Each step blocks its thread while the bucket answers, and no thread is
//! used between two steps.
//!
//! ```text
//! expand    matchers → the series that match, from the cache or by one read of postings lists
//! scan      entries of the next series → labels and places of chunks, within the slice and the shard
//! fetch     their chunks, all at once
//! order     external labels attached, replica labels removed, in the order of StoreAPI; `sorted` where the index has another order
//! ```

use std::ops::Range;
use std::sync::Arc;

use bucket::BlockFault;
use model::{Labels, Matcher};
use series::{AggrChunk, DeletedTimes, Reorder, Series};
use storeapi::{PartialResponse, SeriesRequest, StoreError};
use tsdb::{BlockError, BlockSeries, Chunk, ChunkMeta, SeriesRef};

use crate::ahead::ReadAhead;
use crate::blocks::{BlockFailure, OpenBlock};
use crate::cache::{Cache, Expanded};
use crate::catalog::SelectedBlock;
use crate::deleted::is_left;
use crate::expand::expand;
use crate::memory_pool::MemoryPool;
use crate::meter::RequestMeter;
use crate::reading::{ReadRefused, reading_ahead};
use crate::sorted::{FirstEntries, Place, SortedEntries, SortedEntry};

/// Series of the first batch: few, so that the answer begins soon.
const FIRST_SERIES: usize = 64;
/// An answer of at most so many series of a block is read at once.
const SMALL_SERIES: usize = 2048;
/// Most series of a batch.
const MAX_SERIES: usize = 4096;
/// What a chunk is taken to have where the next one does not show it.
const CHUNK_BYTES: u64 = 512;
/// Most damaged parts that are reported for one block and request.
const MAX_REPORTS: usize = 8;

/// What a request asks of a block, besides its matchers and slice.
pub(crate) struct BlockQuestion {
    pub(crate) request: Arc<SeriesRequest>,
    pub(crate) meter: RequestMeter,
    pub(crate) cache: Arc<Cache>,
    /// Bytes of memory after which a batch ends.
    pub(crate) batch_bytes: u64,
    /// For entries that are sorted.
    pub(crate) sort_memory: Arc<MemoryPool>,
    /// For what is read ahead.
    pub(crate) ahead_memory: Arc<MemoryPool>,
}

/// The next series of a block.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// In the order of StoreAPI.
    pub(crate) series: Vec<Series>,
    /// Parts of the block that are damaged and missing in the answer.
    pub(crate) damaged: Vec<String>,
    /// Whether no series follows.
    pub(crate) is_last: bool,
}

/// Why a block gives no more series.
#[derive(Debug)]
pub(crate) enum CursorError {
    /// The whole request ends.
    Request(StoreError),
    /// This block cannot be read.
    Block(BlockFailure),
}

impl From<StoreError> for CursorError {
    fn from(error: StoreError) -> Self {
        Self::Request(error)
    }
}

/// The series of one block for one request.
pub(crate) struct BlockCursor {
    open: Arc<OpenBlock>,
    selected: SelectedBlock,
    question: Arc<BlockQuestion>,
    /// The external labels that are attached.
    attached: Labels,
    state: State,
    /// Series of the next batch.
    batch_series: usize,
    ahead: ReadAhead,
    reports: usize,
    /// Whether all series were read once, so that they are counted and their damage is reported.
    is_repeat: bool,
}

enum State {
    Begin,
    /// The index has the order of the answer, but for series that the reorder holds back.
    Streamed {
        expanded: Arc<Expanded>,
        next: usize,
        reorder: Reorder,
    },
    /// The order of the index does not help, so entries were read and sorted: all of them, or the first ones.
    Sorted {
        expanded: Arc<Expanded>,
        entries: SortedEntries,
    },
    Done,
}

/// A series whose chunks are not read yet.
struct Entry {
    /// As stored while streaming, as sent after sorting.
    labels: Labels,
    reference: SeriesRef,
    /// Those that are not deleted whole.
    chunks: Vec<ChunkMeta>,
    deleted: DeletedTimes,
}

impl BlockCursor {
    pub(crate) fn new(open: Arc<OpenBlock>, selected: SelectedBlock, question: Arc<BlockQuestion>) -> Self {
        let removed = &question.request.without_replica_labels;
        let attached = open.known.external.without(|name| removed.iter().any(|other| other == name));
        let ahead = ReadAhead::new(&question.ahead_memory);
        Self {
            open,
            selected,
            question,
            attached,
            ahead,
            state: State::Begin,
            batch_series: FIRST_SERIES,
            reports: 0,
            is_repeat: false,
        }
    }

    /// The next batch, which may be empty although it is not the last one.
    ///
    /// # Errors
    /// When the block cannot be read, or the request must end.
    pub(crate) fn step(&mut self) -> Result<Batch, CursorError> {
        let reads = self.question.meter.reads().clone();
        reads.enter(|| self.next_batch())
    }

    fn next_batch(&mut self) -> Result<Batch, CursorError> {
        let mut batch = Batch::default();
        if let State::Begin = self.state {
            self.state = self.begin(&mut batch)?;
        }
        match std::mem::replace(&mut self.state, State::Done) {
            State::Begin | State::Done => batch.is_last = true,
            State::Streamed { expanded, mut next, mut reorder } => {
                let (entries, after) = self.scan(&expanded, next, &mut batch)?;
                let ahead = self.ahead_bytes(&expanded, next..after, &entries);
                next = after;
                let is_last = next >= expanded.postings.len();
                let series = reading_ahead(ahead, || self.fetch(entries, &mut batch))?;
                let out_of_order = |error: &series::OutOfOrder| {
                    self.corrupt(format!("block {}: {error}", self.open.known.key.block))
                };
                for Series { labels, chunks } in series {
                    let offered = reorder.offer_stored(labels, chunks, &mut batch.series);
                    offered.map_err(|error| out_of_order(&error))?;
                }
                if is_last {
                    reorder.finish(&mut batch.series).map_err(|error| out_of_order(&error))?;
                    batch.is_last = true;
                } else {
                    self.state = State::Streamed { expanded, next, reorder };
                }
            }
            State::Sorted { expanded, mut entries } => {
                let mut part = Vec::new();
                let mut bytes = 0;
                while part.len() < MAX_SERIES && bytes < self.question.batch_bytes {
                    let Some(SortedEntry { place, chunks, deleted }) = entries.pop() else { break };
                    bytes += memory_bytes(&place.labels, &chunks);
                    let Place { labels, reference } = place;
                    part.push(Entry { labels, reference, chunks, deleted });
                }
                let series = self.fetch(part, &mut batch)?;
                batch.series = series;
                match entries.after().cloned() {
                    // The memory of the entries is given back before the next ones are read.
                    Some(after) if entries.is_empty() => {
                        drop(entries);
                        self.is_repeat = true;
                        let entries = self.sort(&expanded, Some(after), &mut batch)?;
                        self.state = State::Sorted { expanded, entries };
                    }
                    None if entries.is_empty() => batch.is_last = true,
                    _ => self.state = State::Sorted { expanded, entries },
                }
            }
        }
        Ok(batch)
    }

    /// Finds the series that match, and decides how they get into order.
    fn begin(&mut self, batch: &mut Batch) -> Result<State, CursorError> {
        let expanded = expand(&self.open, &self.selected.matchers, &self.question.cache);
        let expanded = expanded.map_err(|error| self.failed(&error))?;
        if expanded.left.is_empty() {
            self.question.meter.count_series(expanded.postings.len() as u64)?;
        }
        let removed = &self.question.request.without_replica_labels;
        let stored = |name: &str| self.open.block.index().label_names().any(|(stored, _)| stored == name);
        let keeps_order = !self.open.known.external.iter().any(|label| stored(label.name))
            && !removed.iter().any(|name| stored(name));
        if keeps_order {
            if expanded.postings.len() <= SMALL_SERIES {
                // A small first batch would cost a round trip to the bucket, and the answer has no other batch.
                self.batch_series = MAX_SERIES;
            }
            let reorder = Reorder::new(&self.open.known.external, removed);
            return Ok(State::Streamed { expanded, next: 0, reorder });
        }
        let entries = self.sort(&expanded, None, batch)?;
        Ok(State::Sorted { expanded, entries })
    }

    /// The first entries after a place in the order of the answer.
    fn sort(
        &mut self,
        expanded: &Expanded,
        after: Option<Place>,
        batch: &mut Batch,
    ) -> Result<SortedEntries, CursorError> {
        let mut first = FirstEntries::new(&self.question.sort_memory, after);
        let mut next = 0;
        self.batch_series = MAX_SERIES;
        while next < expanded.postings.len() {
            // Nothing else notices that the request was cancelled if all pages are in memory.
            let admitted = self.question.meter.reads().admit(0, 0);
            admitted.map_err(|refused| CursorError::Request(RequestMeter::refused(refused)))?;
            let (part, position) = self.scan(expanded, next, batch)?;
            next = position;
            for Entry { labels, reference, chunks, deleted } in part {
                let place = Place { labels: self.sent(&labels), reference };
                first.offer(SortedEntry { place, chunks, deleted });
            }
        }
        Ok(first.finish())
    }

    /// The entries of the next series from position `next` on, and the position after them.
    ///
    /// More entries are read than are used, so that the small first batch and the next one together need one request.
    fn scan(
        &mut self,
        expanded: &Expanded,
        next: usize,
        batch: &mut Batch,
    ) -> Result<(Vec<Entry>, usize), CursorError> {
        let request = Arc::clone(&self.question.request);
        let step = self.ahead.entries(next, self.question.batch_bytes);
        let most = request.limit.unwrap_or(usize::MAX).max(FIRST_SERIES).min(step.series);
        let part = expanded.postings.slice(next..next + most);
        let references: Vec<SeriesRef> = part.iter().collect();
        let mut entries = Vec::new();
        let (mut bytes, mut used) = (0, references.len());
        let open = Arc::clone(&self.open);
        let mut selection = open.block.select_from(part, self.selected.slice);
        if let Some(bytes) = step.at_once_bytes {
            selection = selection.reading_at_once(bytes);
        }
        for found in selection {
            let found = match found {
                Ok(found) => found,
                // The first pass has reported it.
                Err(error) if self.is_repeat && BlockFault::of_read(&error) == BlockFault::Corrupt => {
                    continue;
                }
                Err(error) => {
                    self.report(&error, batch)?;
                    continue;
                }
            };
            let reference = found.reference;
            let is_kept = expanded.left.iter().all(|matcher: &Matcher| matcher.matches_labels(&found.labels))
                && self.is_in_shard(&found.labels);
            if is_kept && let Some(entry) = self.entry(found, batch)? {
                bytes += memory_bytes(&entry.labels, &entry.chunks);
                entries.push(entry);
            }
            let is_full = bytes >= self.question.batch_bytes && !request.skip_chunks;
            if is_full || entries.len() >= self.batch_series {
                used = references.partition_point(|other| *other <= reference);
                break;
            }
        }
        if !expanded.left.is_empty() && !self.is_repeat {
            self.question.meter.count_series(entries.len() as u64)?;
        }
        self.batch_series = MAX_SERIES;
        self.ahead.note(entries.len(), bytes);
        Ok((entries, next + used))
    }

    /// Bytes of chunks to read after those of `entries`, which are at these positions.
    fn ahead_bytes(&mut self, expanded: &Expanded, positions: Range<usize>, entries: &[Entry]) -> u64 {
        let request = &self.question.request;
        // With a limit it is not known which series are still wanted.
        if request.skip_chunks || request.limit.is_some() {
            return 0;
        }
        let begin = |entry: Option<&Entry>| Some(entry?.chunks.first()?.reference);
        let (Some(first), Some(last)) = (begin(entries.first()), begin(entries.last())) else { return 0 };
        if first.segment() != last.segment() {
            return 0;
        }
        let bytes = last.offset().saturating_sub(first.offset());
        self.ahead.chunk_bytes(&expanded.postings, positions.start, positions.end, bytes)
    }

    /// A series without its deleted chunks; none if nothing of it is left.
    fn entry(&mut self, found: BlockSeries, batch: &mut Batch) -> Result<Option<Entry>, CursorError> {
        let BlockSeries { reference, labels, mut chunks, .. } = found;
        let deleted = self.selected.known.deleted(&labels);
        if !deleted.is_empty() {
            chunks.retain(|chunk| !deleted.covers(&chunk.range));
            let is_left = match self.question.request.skip_chunks {
                // Whether a sample is left is seen when the chunks are read.
                false => Ok(!chunks.is_empty()),
                true => is_left(&self.open.block, &chunks, &deleted),
            };
            match is_left {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(error) => {
                    self.report(&error, batch)?;
                    return Ok(None);
                }
            }
        }
        Ok(Some(Entry { labels, reference, chunks, deleted }))
    }

    /// Reads the chunks of `entries`, all at once. Damaged ones are reported and left out.
    fn fetch(&mut self, entries: Vec<Entry>, batch: &mut Batch) -> Result<Vec<Series>, CursorError> {
        if self.question.request.skip_chunks {
            return Ok(entries
                .into_iter()
                .map(|entry| Series { labels: entry.labels, chunks: Vec::new() })
                .collect());
        }
        let metas: Vec<ChunkMeta> = entries.iter().flat_map(|entry| entry.chunks.iter().copied()).collect();
        self.question.meter.count_chunks(metas.len() as u64)?;
        let mut chunks = match self.open.block.chunks(&metas) {
            Ok(chunks) => chunks.into_iter().map(Some).collect::<Vec<_>>(),
            Err(error) if BlockFault::of_read(&error) == BlockFault::Corrupt => {
                self.open.doubt();
                self.one_by_one(&metas, batch)?
            }
            Err(error) => return Err(self.failed(&error)),
        }
        .into_iter();
        let question = Arc::clone(&self.question);
        let wanted = &question.request.aggregates;
        let (producer, resolution) = (self.open.known.producer, self.open.known.meta.resolution());
        let mut out = Vec::with_capacity(entries.len());
        for entry in entries {
            let mut of_series = Vec::with_capacity(entry.chunks.len());
            let stored = chunks.by_ref().take(entry.chunks.len()).flatten();
            for chunk in self.unmasked(stored, &entry, batch)? {
                match AggrChunk::from_block(chunk, wanted) {
                    Ok(chunk) if chunk.parts().next().is_some() => {
                        of_series.push(chunk.from_producer(producer).with_resolution(resolution))
                    }
                    Ok(_) => {}
                    Err(error) => {
                        let text =
                            format!("block {}: series {}: {error}", self.open.known.key.block, entry.labels);
                        self.report_text(text, batch)?;
                    }
                }
            }
            if !of_series.is_empty() {
                out.push(Series { labels: entry.labels, chunks: of_series });
            }
        }
        Ok(out)
    }

    /// What is not deleted of the chunks of a series. A chunk that would have to be decoded for that and is damaged is left out.
    fn unmasked(
        &mut self,
        chunks: impl Iterator<Item = Chunk>,
        entry: &Entry,
        batch: &mut Batch,
    ) -> Result<Vec<Chunk>, CursorError> {
        if entry.deleted.is_empty() {
            return Ok(chunks.collect());
        }
        let mut left = Vec::new();
        for chunk in chunks {
            match entry.deleted.leave(chunk) {
                Ok(parts) => left.extend(parts),
                Err(error) => {
                    let text =
                        format!("block {}: series {}: {error}", self.open.known.key.block, entry.labels);
                    self.report_text(text, batch)?;
                }
            }
        }
        Ok(left)
    }

    /// The labels of a series as they are sent.
    fn sent(&self, stored: &Labels) -> Labels {
        let removed = &self.question.request.without_replica_labels;
        stored.without(|name| removed.iter().any(|other| other == name)).extended(&self.attached)
    }

    fn is_in_shard(&self, stored: &Labels) -> bool {
        self.question.request.shard.as_ref().is_none_or(|shard| shard.keeps(&self.sent(stored)))
    }

    /// Reads chunks of which at least one is damaged; `None` for those that are.
    fn one_by_one(
        &mut self,
        metas: &[ChunkMeta],
        batch: &mut Batch,
    ) -> Result<Vec<Option<Chunk>>, CursorError> {
        let mut chunks = Vec::with_capacity(metas.len());
        for meta in metas {
            match self.open.block.chunk(meta) {
                Ok(chunk) => chunks.push(Some(chunk)),
                Err(error) => {
                    self.report(&error, batch)?;
                    chunks.push(None);
                }
            }
        }
        Ok(chunks)
    }

    /// Reports a damaged part; any other error ends the block.
    fn report(&mut self, error: &BlockError, batch: &mut Batch) -> Result<(), CursorError> {
        match BlockFault::of_read(error) {
            BlockFault::Corrupt => self.report_text(error.to_string(), batch),
            _ => Err(self.failed(error)),
        }
    }

    fn report_text(&mut self, text: String, batch: &mut Batch) -> Result<(), CursorError> {
        if self.question.request.partial_response == PartialResponse::Abort {
            return Err(CursorError::Request(StoreError::aborted(text)));
        }
        self.reports += 1;
        if self.reports <= MAX_REPORTS {
            batch.damaged.push(text);
        }
        Ok(())
    }

    fn failed(&self, error: &BlockError) -> CursorError {
        match ReadRefused::of(error) {
            Some(refused) => CursorError::Request(RequestMeter::refused(refused)),
            None => CursorError::Block(BlockFailure::of_read(self.open.known.key, error)),
        }
    }

    fn corrupt(&self, reason: String) -> CursorError {
        CursorError::Block(BlockFailure { key: self.open.known.key, fault: BlockFault::Corrupt, reason })
    }
}

/// What a series takes in a batch. Where chunks are small, most of it is not their bytes.
fn memory_bytes(labels: &Labels, chunks: &[ChunkMeta]) -> u64 {
    let around = size_of::<Series>() + labels.size_bytes() + chunks.len() * size_of::<AggrChunk>();
    around as u64 + estimated_bytes(chunks)
}

/// Bytes of chunks that follow each other in a segment, by the distances between them.
fn estimated_bytes(chunks: &[ChunkMeta]) -> u64 {
    let distance = |pair: &[ChunkMeta]| {
        let (a, b) = (pair[0].reference, pair[1].reference);
        if a.segment() == b.segment() { b.offset().saturating_sub(a.offset()) } else { CHUNK_BYTES }
    };
    let known: u64 = chunks.windows(2).map(distance).sum();
    let last = known.checked_div(chunks.len().saturating_sub(1) as u64).unwrap_or(CHUNK_BYTES);
    known + last
}
