//! The answer to a Series request: the batches of all blocks that it needs, merged.
//!
//! ```text
//! open blocks, at once → one step of each at a time, the next one while its batch is merged → frames
//! ```
//!
//! A step begins when the batch before it is used up, so a reader that stops reading stops all of them. Dropping the answer
//! cancels the requests to the buckets.

use std::collections::VecDeque;
use std::sync::Arc;

use bucket::BlockFault;
use futures::StreamExt;
use series::{AggrChunk, Merge, Series, Step};
use storeapi::{PartialResponse, SeriesFrame, StoreError};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinHandle};

use crate::blocks::{BlockFailure, Blocks};
use crate::catalog::SelectedBlock;
use crate::cursor::{Batch, BlockCursor, BlockQuestion, CursorError};
use crate::meter::RequestMeter;

/// Chunk bytes after which a frame is sent.
const FRAME_BYTES: usize = 256 << 10;
/// Series after which a frame is sent.
const FRAME_SERIES: usize = 128;
/// Blocks that are opened at once.
const OPEN_AT_ONCE: usize = 32;

/// What answers share: the open blocks, and the threads that may wait for a bucket.
#[derive(Clone)]
pub(crate) struct Workers {
    pub(crate) blocks: Arc<Blocks>,
    /// Steps that may run at once, fewer than the runtime has threads for blocking work: reads of local files use such threads
    /// themselves.
    pub(crate) steps: Arc<Semaphore>,
}

impl Workers {
    /// Runs `work` on a thread that may wait for a bucket; `None` when the program is shutting down.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        // The semaphore is never closed.
        let _permit = self.steps.acquire().await;
        finished(tokio::task::spawn_blocking(work).await)
    }
}

/// The result of a task; `None` if the runtime ended it.
fn finished<T>(joined: Result<T, JoinError>) -> Option<T> {
    match joined {
        Ok(done) => Some(done),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => None,
    }
}

type StepResult = (Box<BlockCursor>, Result<Batch, CursorError>);

/// The answer to one Series request.
pub(crate) struct SeriesAnswer {
    workers: Workers,
    question: Arc<BlockQuestion>,
    /// The step of each block that runs or is done; `None` after its last one.
    steps: Vec<Option<JoinHandle<Option<StepResult>>>>,
    merge: Merge,
    /// Warnings that are not sent yet.
    warnings: VecDeque<String>,
    ready: Vec<Series>,
    ready_bytes: usize,
    /// Number of series that may still be sent.
    left: usize,
    is_done: bool,
}

/// Why an answer could not begin.
pub(crate) enum BeginError {
    /// Blocks were removed from a bucket; the catalog is out of date.
    Gone,
    /// The answer is this error.
    Failed(StoreError),
}

impl SeriesAnswer {
    /// Opens the blocks and waits for the first batch of each, so that errors which another view of the buckets would not have
    /// are known before anything is sent. With `is_final`, blocks that are gone are like others that cannot be read.
    pub(crate) async fn begin(
        workers: Workers,
        question: Arc<BlockQuestion>,
        selected: Vec<SelectedBlock>,
        warnings: Vec<String>,
        is_final: bool,
    ) -> Result<Self, BeginError> {
        let count = selected.len();
        let mut answer = Self {
            workers,
            steps: Vec::with_capacity(count),
            merge: Merge::new(count),
            warnings: warnings.into(),
            ready: Vec::new(),
            ready_bytes: 0,
            left: question.request.limit.unwrap_or(usize::MAX),
            is_done: false,
            question,
        };
        let blocks = Arc::clone(&answer.workers.blocks);
        let reads = answer.question.meter.reads().clone();
        let opening = selected.into_iter().map(|selected| {
            let (blocks, reads) = (Arc::clone(&blocks), reads.clone());
            async move { (blocks.open(&selected.known, count, &reads).await, selected) }
        });
        let opened: Vec<_> = futures::stream::iter(opening).buffered(OPEN_AT_ONCE).collect().await;
        let mut to_compare = Vec::new();
        for (input, (opened, selected)) in opened.into_iter().enumerate() {
            let step = match opened {
                Ok(open) => {
                    to_compare.push((input, Arc::clone(&open)));
                    let cursor = BlockCursor::new(open, selected, Arc::clone(&answer.question));
                    Some(answer.spawn(Box::new(cursor)))
                }
                Err(failure) => {
                    answer.lose(failure, is_final)?;
                    answer.merge.end(input);
                    None
                }
            };
            answer.steps.push(step);
        }
        // While the first series are read.
        let comparing = to_compare.into_iter().map(|(input, open)| {
            let (blocks, reads) = (Arc::clone(&blocks), reads.clone());
            async move { (input, blocks.compare(&open, &reads).await) }
        });
        let compared: Vec<_> = futures::stream::iter(comparing).buffered(OPEN_AT_ONCE).collect().await;
        for (input, compared) in compared {
            if let Err(failure) = compared {
                answer.lose(failure, is_final)?;
                answer.merge.end(input);
                answer.steps[input] = None;
            }
        }
        for input in 0..count {
            answer.feed(input, is_final).await?;
        }
        Ok(answer)
    }

    /// The next part of the answer, or `None` at its end.
    pub(crate) async fn next(&mut self) -> Result<Option<SeriesFrame>, StoreError> {
        if let Some(warning) = self.warnings.pop_front() {
            return Ok(Some(SeriesFrame::Warning(warning)));
        }
        while !self.is_done
            && self.left > 0
            && self.ready.len() < FRAME_SERIES
            && self.ready_bytes < FRAME_BYTES
        {
            match self.merge.step() {
                // What is there is sent before more is waited for.
                Step::NeedsBatch(input) if !self.ready.is_empty() && self.is_reading(input) => break,
                Step::NeedsBatch(input) => {
                    self.feed(input, true).await.map_err(|error| match error {
                        BeginError::Failed(error) => error,
                        BeginError::Gone => StoreError::internal("a block is gone"),
                    })?;
                }
                Step::Series(merged) => {
                    let series = merged.into_series();
                    self.ready_bytes += series.chunks.iter().map(AggrChunk::size_bytes).sum::<usize>();
                    self.ready.push(series);
                    self.left -= 1;
                }
                Step::Done => self.is_done = true,
            }
        }
        if self.left == 0 {
            self.stop();
        }
        if let Some(warning) = self.warnings.pop_front() {
            return Ok(Some(SeriesFrame::Warning(warning)));
        }
        self.ready_bytes = 0;
        let ready = std::mem::take(&mut self.ready);
        Ok((!ready.is_empty()).then_some(SeriesFrame::Series(ready)))
    }

    /// What was read for the request.
    pub(crate) fn meter(&self) -> &RequestMeter {
        &self.question.meter
    }

    /// Requests that were sent to buckets so far, and the bytes of their answers.
    pub(crate) fn read_of_buckets(&self) -> (u64, u64) {
        let reads = self.question.meter.reads();
        (reads.requests(), reads.bytes())
    }

    /// Whether the step of an input has not ended yet.
    fn is_reading(&self, input: usize) -> bool {
        self.steps.get(input).and_then(Option::as_ref).is_some_and(|step| !step.is_finished())
    }

    /// Gives the merge the next batch of an input that is not empty, and starts the step after it.
    async fn feed(&mut self, input: usize, is_final: bool) -> Result<(), BeginError> {
        while self.merge.needs_batch(input) {
            let Some(step) = self.steps.get_mut(input).and_then(Option::take) else {
                self.merge.end(input);
                return Ok(());
            };
            let Some((cursor, result)) = finished(step.await).flatten() else {
                return Err(BeginError::Failed(StoreError::unavailable("the program is shutting down")));
            };
            match result {
                Ok(batch) => {
                    self.warnings.extend(batch.damaged);
                    if !batch.is_last {
                        self.steps[input] = Some(self.spawn(cursor));
                    }
                    if !batch.series.is_empty() {
                        let block = cursor_error(self.merge.offer(input, batch.series));
                        block.map_err(BeginError::Failed)?;
                    } else if batch.is_last {
                        self.merge.end(input);
                    }
                }
                Err(CursorError::Request(error)) => return Err(BeginError::Failed(error)),
                Err(CursorError::Block(failure)) => {
                    self.workers.blocks.note_failure(&failure);
                    self.lose(failure, is_final)?;
                    self.merge.end(input);
                }
            }
        }
        Ok(())
    }

    /// Goes on without a block, if the request allows it.
    fn lose(&mut self, failure: BlockFailure, is_final: bool) -> Result<(), BeginError> {
        if failure.fault == BlockFault::Gone && !is_final {
            return Err(BeginError::Gone);
        }
        if self.question.request.partial_response == PartialResponse::Abort {
            return Err(BeginError::Failed(StoreError::aborted(failure.reason)));
        }
        self.warnings.push_back(failure.reason);
        Ok(())
    }

    /// Starts the next step of a block. Its result is `None` when the program is shutting down.
    fn spawn(&self, mut cursor: Box<BlockCursor>) -> JoinHandle<Option<StepResult>> {
        let work = move || {
            let result = cursor.step();
            (cursor, result)
        };
        let workers = self.workers.clone();
        tokio::spawn(async move { workers.run(work).await })
    }

    /// Stops all steps.
    fn stop(&mut self) {
        self.is_done = true;
        self.question.meter.reads().cancel();
        self.steps.iter_mut().for_each(|step| *step = None);
    }
}

impl Drop for SeriesAnswer {
    fn drop(&mut self) {
        self.question.meter.reads().cancel();
    }
}

/// A mistake in the order of a block, which its cursor checks.
fn cursor_error(offered: Result<(), series::MergeError>) -> Result<(), StoreError> {
    offered.map_err(|error| StoreError::internal(format!("blocks are merged in the wrong order: {error}")))
}
