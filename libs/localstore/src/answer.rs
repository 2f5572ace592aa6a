//! The answer to a Series request, frame by frame.
//!
//! Head and blocks are merged by their stored labels. External labels change the order little, unless a series has a label with the
//! name of an external or removed label: then the series, without their chunks, are sorted in memory ([`Sorted`]).

use std::collections::VecDeque;

use head::DatabaseView;
use series::{AggrChunk, Merge, Reorder, Series, Step};
use storeapi::{PartialResponse, SeriesFrame, StoreError};

use crate::input::{Input, Missing, join};
use crate::question::Question;
use crate::sorted::Sorted;

/// Chunk bytes after which a frame is sent.
const FRAME_BYTES: usize = 256 << 10;
/// Most series of a frame.
const FRAME_SERIES: usize = 128;

/// An answer that is being sent.
pub(crate) struct Answer {
    question: Question,
    view: DatabaseView,
    state: State,
    missing: Missing,
    /// Series that may still be sent.
    left: usize,
    ready: VecDeque<Series>,
}

enum State {
    Begin,
    Merged { inputs: Vec<Input>, merge: Merge, reorder: Reorder },
    Sorted(Sorted),
    Done,
}

impl Answer {
    pub(crate) fn new(question: Question, view: DatabaseView, warnings: Vec<String>) -> Self {
        let left = question.request.limit.unwrap_or(usize::MAX);
        let mut missing = Missing::default();
        warnings.into_iter().for_each(|warning| missing.push(warning));
        Self { question, view, state: State::Begin, missing, left, ready: VecDeque::new() }
    }

    /// The next frame; `None` at the end. It reads files.
    ///
    /// # Errors
    /// When the head cannot be read, something is missing and the request does not permit that, or the answer took so long that the
    /// head has dropped what it needs.
    pub(crate) fn next_frame(&mut self) -> Result<Option<SeriesFrame>, StoreError> {
        if let State::Begin = self.state {
            self.state = self.begin()?;
        }
        let mut warnings = self.missing.take();
        if !warnings.is_empty() {
            if self.question.request.partial_response == PartialResponse::Abort {
                return Err(StoreError::aborted(warnings.swap_remove(0)));
            }
            let last = warnings.pop();
            warnings.into_iter().for_each(|warning| self.missing.push(warning));
            return Ok(last.map(SeriesFrame::Warning));
        }
        let (mut frame, mut bytes) = (Vec::new(), 0);
        while frame.len() < FRAME_SERIES && bytes < FRAME_BYTES && self.left > 0 {
            if self.ready.is_empty() && !self.advance()? {
                break;
            }
            let Some(series) = self.ready.pop_front() else { continue };
            bytes += series.chunks.iter().map(AggrChunk::size_bytes).sum::<usize>();
            self.left -= 1;
            frame.push(series);
        }
        if !self.view.is_whole() {
            return Err(StoreError::unavailable(
                "the answer took so long that its samples have moved from the head to a block; ask again",
            ));
        }
        if !frame.is_empty() {
            return Ok(Some(SeriesFrame::Series(frame)));
        }
        self.state = State::Done;
        // What was found missing at last is reported before the end.
        if self.missing.is_empty() { Ok(None) } else { self.next_frame() }
    }

    fn begin(&mut self) -> Result<State, StoreError> {
        let inputs = Input::all(&self.question, &self.view, &mut self.missing);
        let request = &self.question.request;
        let changed = |name: &str| {
            self.question.narrowed.external.get(name).is_some()
                || request.without_replica_labels.iter().any(|removed| removed == name)
        };
        let stored = crate::labels::stored_names(&self.view);
        if stored.iter().any(|name| changed(name)) {
            let sorted = Sorted::new(inputs, &self.question, &self.view, &mut self.missing)?;
            return Ok(State::Sorted(sorted));
        }
        let reorder = Reorder::new(&self.question.narrowed.external, &request.without_replica_labels);
        Ok(State::Merged { merge: Merge::new(inputs.len()), inputs, reorder })
    }

    /// Gets more series ready. Returns whether there may be more.
    fn advance(&mut self) -> Result<bool, StoreError> {
        match &mut self.state {
            State::Begin | State::Done => Ok(false),
            State::Sorted(sorted) => {
                let next = sorted.next(&self.question, &self.view, &mut self.missing);
                let is_more = next.is_some();
                self.ready.extend(next.flatten());
                Ok(is_more)
            }
            State::Merged { inputs, merge, reorder } => {
                let mut ready = Vec::new();
                let is_more = match merge.step() {
                    Step::NeedsBatch(number) => {
                        let batch = inputs[number].next_batch(&self.question, &self.view, &mut self.missing);
                        let offered = batch.map(|batch| merge.offer(number, batch));
                        match offered {
                            Some(Ok(())) => {}
                            Some(Err(error)) => {
                                self.missing.push(error.to_string());
                                merge.end(number);
                            }
                            None => merge.end(number),
                        }
                        true
                    }
                    Step::Series(merged) => {
                        let mut chunks = Vec::new();
                        for contribution in merged.contributions {
                            join(&mut chunks, contribution.chunks);
                        }
                        reorder.offer_stored(merged.labels, chunks, &mut ready).map_err(out_of_order)?;
                        true
                    }
                    Step::Done => {
                        let State::Merged { reorder, .. } = std::mem::replace(&mut self.state, State::Done)
                        else {
                            return Ok(false);
                        };
                        reorder.finish(&mut ready).map_err(out_of_order)?;
                        !ready.is_empty()
                    }
                };
                self.ready.extend(ready);
                Ok(is_more)
            }
        }
    }
}

fn out_of_order(error: series::OutOfOrder) -> StoreError {
    StoreError::unavailable(format!("{error}; a new label has the name of an external label, ask again"))
}
