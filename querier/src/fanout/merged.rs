//! The merged answer of all stores that were asked.

use std::collections::VecDeque;
use std::sync::Arc;

use budget::Reservation;
use series::{Merge, MergedSeries, Step};
use storeapi::{PartialResponse, StoreError};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::time::Instant;

use crate::fanout::awaited::Awaited;
use crate::fanout::input::{Input, Item, under_name, without_name};
use crate::fanout::report::{FanoutMetrics, Outcome, StoreReport};

/// Series given out at once.
const BATCH: usize = 64;
/// Payload after which a batch is given out although it is not full.
const BATCH_BYTES: usize = 1 << 20;

/// One step of a merged answer.
#[derive(Debug)]
pub enum FanoutEvent {
    /// Series in label order, each with what every store has of it.
    Series(Vec<MergedSeries>),
    /// Something is missing, and why.
    Warning(String),
}

/// The merged answer of several stores, read step by step. Dropping it ends all requests behind it.
pub struct Fanout {
    merge: Merge,
    /// By number in the merge; `None` once it has ended.
    inputs: Vec<Option<Input>>,
    /// The memory of what each input has in the merge.
    held: Vec<Option<Reservation>>,
    /// One each for `inputs`, then those of stores that could not be asked.
    reports: Vec<StoreReport>,
    warnings: VecDeque<String>,
    batch: Vec<MergedSeries>,
    batch_bytes: usize,
    partial_response: PartialResponse,
    limit: Option<usize>,
    given: usize,
    finished: bool,
    /// Why the query ends although stores would have more to say.
    exhausted: Option<StoreError>,
    awaited: Awaited,
    began: Instant,
    metrics: FanoutMetrics,
}

impl Fanout {
    /// Merges `inputs`, each with its store's name.
    pub(super) fn new(
        inputs: Vec<(Arc<str>, Input)>,
        partial_response: PartialResponse,
        limit: Option<usize>,
        metrics: FanoutMetrics,
    ) -> Self {
        let reports = inputs.iter().map(|(name, _)| StoreReport::new(name, Outcome::Pending)).collect();
        Self {
            merge: Merge::new(inputs.len()),
            held: inputs.iter().map(|_| None).collect(),
            inputs: inputs.into_iter().map(|(_, input)| Some(input)).collect(),
            reports,
            warnings: VecDeque::new(),
            batch: Vec::new(),
            batch_bytes: 0,
            partial_response,
            limit,
            given: 0,
            finished: false,
            exhausted: None,
            awaited: Awaited::default(),
            began: Instant::now(),
            metrics,
        }
    }

    /// Says that a store should have been asked and could not be.
    pub(super) fn missing(&mut self, name: &Arc<str>, reason: String) {
        self.warnings.push_back(under_name(name, &reason));
        self.reports.push(StoreReport::new(name, Outcome::Failed(reason)));
    }

    /// Says something about the answer as a whole.
    pub(super) fn warn(&mut self, text: String) {
        self.warnings.push_back(text);
    }

    /// Tells `awaited` which store is being waited for, from now on.
    pub(crate) fn show_waits_in(&mut self, awaited: &Awaited) {
        self.awaited = awaited.clone();
    }

    /// What became of each store, so far.
    pub fn reports(&self) -> &[StoreReport] {
        &self.reports
    }

    /// The next step, or `None` at the end.
    ///
    /// # Errors
    /// Where the request does not take a partial answer: the first thing that is missing; and where its budget is
    /// exhausted. Nothing follows.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Result<FanoutEvent, StoreError>> {
        loop {
            if let Some(error) = self.exhausted.take() {
                self.batch.clear();
                return Some(Err(error));
            }
            if self.partial_response == PartialResponse::Abort
                && let Some(text) = self.warnings.pop_front()
            {
                self.finish();
                self.batch.clear();
                return Some(Err(StoreError::aborted(text)));
            }
            if !self.warnings.is_empty() || self.finished || self.batch_is_full() {
                let mut warning = || self.warnings.pop_front().map(|text| Ok(FanoutEvent::Warning(text)));
                // In the order in which they came: series first, then what ended them.
                return match self.batch.is_empty() {
                    true => warning(),
                    false => Some(Ok(self.take_batch())),
                };
            }
            match self.merge.step() {
                Step::Done => self.finish(),
                Step::Series(series) => self.add(series),
                Step::Wants(input) => match self.receive(input) {
                    Some(item) => self.take(input, item),
                    // The store makes us wait; what is complete does not have to.
                    None if !self.batch.is_empty() => return Some(Ok(self.take_batch())),
                    None => {
                        let item = match &mut self.inputs[input] {
                            Some(open) => {
                                let _waiting = self.awaited.enter(&self.reports[input].name);
                                open.items.recv().await
                            }
                            None => Some(Item::End),
                        };
                        self.take(input, item.unwrap_or_else(lost));
                    }
                },
            }
        }
    }

    fn batch_is_full(&self) -> bool {
        self.batch.len() >= BATCH || self.batch_bytes >= BATCH_BYTES
    }

    fn take_batch(&mut self) -> FanoutEvent {
        self.batch_bytes = 0;
        FanoutEvent::Series(std::mem::take(&mut self.batch))
    }

    fn add(&mut self, series: MergedSeries) {
        let chunks = series.contributions.iter().flat_map(|c| &c.chunks);
        self.batch_bytes += chunks.map(|chunk| chunk.size_bytes()).sum::<usize>();
        self.batch.push(series);
        self.given += 1;
        if self.limit.is_some_and(|limit| self.given >= limit) {
            self.finish();
        }
    }

    /// What the store has said and nobody has read, without waiting for it.
    fn receive(&mut self, input: usize) -> Option<Item> {
        match &mut self.inputs[input] {
            None => Some(Item::End),
            Some(open) => match open.items.try_recv() {
                Ok(item) => Some(item),
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Disconnected) => Some(lost()),
            },
        }
    }

    fn take(&mut self, input: usize, item: Item) {
        let report = &mut self.reports[input];
        match item {
            Item::Series(batch, hold) => {
                // The merge asks for more when it has given out what it had.
                self.held[input] = hold;
                report.responses += 1;
                report.series += batch.len() as u64;
                for chunk in batch.iter().flat_map(|series| &series.chunks) {
                    report.chunks += 1;
                    report.samples += chunk.parts().next().map_or(0, |part| part.sample_count()) as u64;
                    report.bytes += chunk.size_bytes() as u64;
                }
                if let Err(error) = self.merge.offer(input, batch) {
                    self.fail(input, error.to_string());
                }
            }
            Item::Warning(text) => self.warnings.push_back(under_name(&report.name, &text)),
            Item::Failed(error) => {
                let reason = without_name(&report.name, error.message()).to_owned();
                self.fail(input, reason);
            }
            Item::Exhausted(error) => {
                self.exhausted = Some(error);
                self.finish();
            }
            Item::End => {
                report.outcome = Outcome::Answered;
                self.end(input);
            }
        }
    }

    fn fail(&mut self, input: usize, reason: String) {
        let report = &mut self.reports[input];
        tracing::warn!(store = %report.name, error = %reason, "store did not answer in full");
        self.warnings.push_back(under_name(&report.name, &reason));
        report.outcome = Outcome::Failed(reason);
        self.end(input);
    }

    fn end(&mut self, input: usize) {
        self.reports[input].took = self.began.elapsed();
        self.inputs[input] = None;
        self.held[input] = None;
        self.merge.end(input);
    }

    /// Ends the answer; stores that still have something to say are not heard.
    fn finish(&mut self) {
        self.finished = true;
        self.inputs.clear();
        self.held.clear();
    }
}

/// A task that went away without a word can only have panicked; its store's answer is not whole.
fn lost() -> Item {
    Item::Failed(StoreError::internal("reading it ended unexpectedly"))
}

impl Drop for Fanout {
    fn drop(&mut self) {
        for report in &self.reports {
            self.metrics.count(report);
        }
    }
}
