//! The series of the head or of one block, in batches, in the order of their stored labels.

use std::collections::VecDeque;
use std::sync::Arc;
use std::vec::IntoIter;

use head::{DatabaseView, FoundSeries, LocalBlock};
use series::{AggrChunk, DeletedTimes, Producer, Series};
use tsdb::{BlockError, BlockSeries, Chunk, Postings};

use crate::question::Question;

/// Most series of a batch.
const BATCH_SERIES: usize = 64;
/// Chunks of a block after which a batch ends.
const BATCH_CHUNKS: usize = 2048;
/// Most damaged parts that are reported for the head or one block and answer.
const MAX_REPORTS: usize = 8;

/// What one answer reports as missing.
#[derive(Default)]
pub(crate) struct Missing {
    texts: Vec<String>,
    of_head: usize,
}

impl Missing {
    pub(crate) fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.texts)
    }

    pub(crate) fn push(&mut self, text: String) {
        self.texts.push(text);
    }

    /// Something of the head is missing. Only the first parts are reported.
    fn of_head(&mut self, text: String) {
        self.of_head += 1;
        if self.of_head <= MAX_REPORTS {
            self.push(text);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }
}

/// The head or a block, for one answer.
pub(crate) enum Input {
    Head(IntoIter<FoundSeries>),
    Block(BlockInput),
}

/// The series of a block, for one answer.
pub(crate) struct BlockInput {
    block: Arc<LocalBlock>,
    postings: Postings,
    next: usize,
    /// Series whose chunks are not read yet.
    ahead: VecDeque<BlockSeries>,
    reports: usize,
}

impl Input {
    /// The inputs of a view. A block whose index cannot be read is missing.
    pub(crate) fn all(question: &Question, view: &DatabaseView, missing: &mut Missing) -> Vec<Self> {
        let matchers = &question.narrowed.matchers;
        let mut inputs = Vec::with_capacity(view.blocks().len() + 1);
        for block in view.blocks() {
            match block.block.index().matching(matchers) {
                Ok(postings) => inputs.push(Self::Block(BlockInput::new(Arc::clone(block), postings))),
                Err(error) => missing.push(error.to_string()),
            }
        }
        inputs.push(Self::Head(view.head().find(matchers).into_iter()));
        inputs
    }

    /// The next series; `None` at the end.
    pub(crate) fn next_batch(
        &mut self,
        question: &Question,
        view: &DatabaseView,
        missing: &mut Missing,
    ) -> Option<Vec<Series>> {
        match self {
            Self::Head(series) => {
                let batch: Vec<FoundSeries> = series.by_ref().take(BATCH_SERIES).collect();
                if batch.is_empty() {
                    return None;
                }
                Some(batch.iter().filter_map(|found| of_head(question, view, found, missing)).collect())
            }
            Self::Block(block) => block.next_batch(question, missing),
        }
    }
}

/// A series of the head; `None` if it has nothing in the range.
fn of_head(
    question: &Question,
    view: &DatabaseView,
    found: &FoundSeries,
    missing: &mut Missing,
) -> Option<Series> {
    let range = question.narrowed.range;
    if !question.is_in_shard(found.labels()) {
        return None;
    }
    let labels = found.labels().clone();
    if question.request.skip_chunks {
        return view.head().has_chunks(found, range).then_some(Series { labels, chunks: Vec::new() });
    }
    let chunks = head_chunks(view, found, question, missing);
    (!chunks.is_empty()).then_some(Series { labels, chunks })
}

/// The chunks of a series of the head. If they cannot be read, the series is missing.
pub(crate) fn head_chunks(
    view: &DatabaseView,
    found: &FoundSeries,
    question: &Question,
    missing: &mut Missing,
) -> Vec<AggrChunk> {
    match view.head().read(found, question.narrowed.range) {
        Ok(chunks) => {
            chunks.into_iter().map(|chunk| AggrChunk::raw(chunk).from_producer(question.producer)).collect()
        }
        Err(error) => {
            missing.of_head(format!("head: series {}: {error}", found.labels()));
            Vec::new()
        }
    }
}

impl BlockInput {
    fn new(block: Arc<LocalBlock>, postings: Postings) -> Self {
        Self { block, postings, next: 0, ahead: VecDeque::new(), reports: 0 }
    }

    /// The next series without their chunks; `None` at the end.
    pub(crate) fn next_entries(
        &mut self,
        question: &Question,
        missing: &mut Missing,
    ) -> Option<Vec<BlockSeries>> {
        if self.next >= self.postings.len() {
            return None;
        }
        let part = self.postings.slice(self.next..self.next + BATCH_SERIES);
        self.next += BATCH_SERIES;
        let block = Arc::clone(&self.block);
        let mut entries = Vec::with_capacity(part.len());
        for found in block.block.select_from(part, question.narrowed.range) {
            match found {
                Ok(found) if question.is_in_shard(&found.labels) => entries.push(found),
                Ok(_) => {}
                Err(error) => self.report(&error, missing),
            }
        }
        Some(entries)
    }

    fn next_batch(&mut self, question: &Question, missing: &mut Missing) -> Option<Vec<Series>> {
        while self.ahead.is_empty() {
            self.ahead = self.next_entries(question, missing)?.into();
        }
        let (mut batch, mut chunks) = (Vec::new(), 0);
        while chunks < BATCH_CHUNKS
            && let Some(entry) = self.ahead.pop_front()
        {
            chunks += entry.chunks.len();
            if question.request.skip_chunks {
                batch.push(Series { labels: entry.labels, chunks: Vec::new() });
                continue;
            }
            let chunks_read = self.read(&entry, question.producer, missing);
            if !chunks_read.is_empty() {
                batch.push(Series { labels: entry.labels, chunks: chunks_read });
            }
        }
        Some(batch)
    }

    /// The chunks of a series without deleted samples. Damaged ones are reported and left out.
    pub(crate) fn read(
        &mut self,
        entry: &BlockSeries,
        producer: Option<Producer>,
        missing: &mut Missing,
    ) -> Vec<AggrChunk> {
        let block = Arc::clone(&self.block);
        let mut read: Vec<Chunk> = Vec::with_capacity(entry.chunks.len());
        match block.block.chunks(&entry.chunks) {
            Ok(chunks) => read = chunks,
            Err(_) => {
                for meta in &entry.chunks {
                    match block.block.chunk(meta) {
                        Ok(chunk) => read.push(chunk),
                        Err(error) => self.report(&error, missing),
                    }
                }
            }
        }
        if !entry.deleted.is_empty() {
            let deleted = DeletedTimes::new(entry.deleted.iter().copied(), std::time::Duration::ZERO);
            let leave = |chunk| match deleted.leave(chunk) {
                Ok(left) => left,
                Err(error) => {
                    let id = block.block.meta().ulid;
                    self.report_text(format!("block {id}: series {}: {error}", entry.labels), missing);
                    Vec::new()
                }
            };
            read = read.into_iter().flat_map(leave).collect();
        }
        read.into_iter().map(|chunk| AggrChunk::raw(chunk).from_producer(producer)).collect()
    }

    fn report(&mut self, error: &BlockError, missing: &mut Missing) {
        self.report_text(error.to_string(), missing);
    }

    fn report_text(&mut self, text: String, missing: &mut Missing) {
        self.reports += 1;
        if self.reports <= MAX_REPORTS {
            missing.push(text);
        }
    }
}

/// Adds the chunks of another input to those of a series, without those that both have, in order of time.
pub(crate) fn join(chunks: &mut Vec<AggrChunk>, more: Vec<AggrChunk>) {
    let own = chunks.len();
    for chunk in more {
        // A block and the head share chunks until the head has dropped them.
        if !chunks[..own].contains(&chunk) {
            chunks.push(chunk);
        }
    }
    chunks.sort_by_key(|chunk| chunk.range().min);
}
