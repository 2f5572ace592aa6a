//! The merged answer of all stores of a request.

use std::collections::VecDeque;
use std::sync::Arc;

use budget::Reservation;
use model::TimeRange;
use series::{Merge, MergedSeries, Step};
use storeapi::{PartialResponse, StoreError};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::time::Instant;

use crate::endpoints::{with_store_name, without_store_name};
use crate::fanout::awaited::Awaited;
use crate::fanout::input::{StoreInput, StoreMessage};
use crate::fanout::report::{FanoutMetrics, StoreOutcome, StoreReport};

/// Maximum number of series in a batch.
const BATCH: usize = 128;
/// Chunk bytes after which a batch is returned although it has fewer series.
const BATCH_BYTES: usize = 1 << 20;

/// One part of a merged answer.
#[derive(Debug)]
pub enum FanoutEvent {
    /// Series in label order, each with the data of every store.
    Series(Vec<MergedSeries>),
    /// A part of the answer is missing, with the cause.
    Warning(String),
}

/// The merged answer of several stores. Dropping it cancels all their requests.
pub struct Fanout {
    merge: Merge,
    /// By input number in the merge; `None` for an input that has ended.
    inputs: Vec<Option<StoreInput>>,
    /// The reservation for the series of each input in the merge.
    reservations: Vec<Option<Reservation>>,
    /// One report per input, then those of stores that could not be asked.
    reports: Vec<StoreReport>,
    warnings: VecDeque<String>,
    batch: Vec<MergedSeries>,
    batch_bytes: usize,
    /// The time range of the request.
    range: TimeRange,
    partial_response: PartialResponse,
    limit: Option<usize>,
    given: usize,
    finished: bool,
    /// The error if the memory limit of the query is reached.
    exhausted: Option<StoreError>,
    awaited: Awaited,
    began: Instant,
    metrics: FanoutMetrics,
}

impl Fanout {
    /// Merges `inputs`, each given with the name of its store.
    pub(super) fn new(
        inputs: Vec<(Arc<str>, StoreInput)>,
        range: TimeRange,
        partial_response: PartialResponse,
        limit: Option<usize>,
        metrics: FanoutMetrics,
    ) -> Self {
        let reports = inputs.iter().map(|(name, _)| StoreReport::new(name, StoreOutcome::Pending)).collect();
        Self {
            merge: Merge::new(inputs.len()),
            reservations: inputs.iter().map(|_| None).collect(),
            inputs: inputs.into_iter().map(|(_, input)| Some(input)).collect(),
            reports,
            warnings: VecDeque::new(),
            batch: Vec::new(),
            batch_bytes: 0,
            range,
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

    /// Adds a warning and a report for a store that could not be asked.
    pub(super) fn missing(&mut self, name: &Arc<str>, reason: String) {
        self.warnings.push_back(with_store_name(name, &reason));
        self.reports.push(StoreReport::new(name, StoreOutcome::Failed(reason)));
    }

    /// Adds a warning about the whole answer.
    pub(super) fn warn(&mut self, text: String) {
        self.warnings.push_back(text);
    }

    /// Records in `awaited`, from now on, which store this answer is waiting for.
    pub(crate) fn show_waits_in(&mut self, awaited: &Awaited) {
        self.awaited = awaited.clone();
    }

    /// The reports of all stores up to now.
    pub fn reports(&self) -> &[StoreReport] {
        &self.reports
    }

    /// The next part, or `None` at the end.
    ///
    /// # Errors
    /// The request rejects partial answers and a part is missing, or a memory limit is reached. Nothing follows.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
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
                // Series that arrived before a warning are returned first.
                return match self.batch.is_empty() {
                    true => warning(),
                    false => Some(Ok(self.take_batch())),
                };
            }
            match self.merge.step() {
                Step::Done => self.finish(),
                Step::Series(series) => self.add(series),
                Step::NeedsBatch(input) => match self.receive(input) {
                    Some(message) => self.handle(input, message),
                    // Complete series are returned before waiting for this store.
                    None if !self.batch.is_empty() => return Some(Ok(self.take_batch())),
                    None => {
                        let message = match &mut self.inputs[input] {
                            Some(open) => {
                                let _guard = self.awaited.enter(&self.reports[input].name);
                                open.messages.recv().await
                            }
                            None => Some(StoreMessage::End),
                        };
                        self.handle(input, message.unwrap_or_else(lost));
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

    /// A message that the store has already sent; does not wait.
    fn receive(&mut self, input: usize) -> Option<StoreMessage> {
        match &mut self.inputs[input] {
            None => Some(StoreMessage::End),
            Some(open) => match open.messages.try_recv() {
                Ok(message) => Some(message),
                Err(TryRecvError::Empty) => {
                    open.needed.notify_one();
                    None
                }
                Err(TryRecvError::Disconnected) => Some(lost()),
            },
        }
    }

    fn handle(&mut self, input: usize, message: StoreMessage) {
        let report = &mut self.reports[input];
        match message {
            StoreMessage::Series(batch, reservation, permit) => {
                // The merge requests more only after it has returned the previous series.
                self.reservations[input] = Some(reservation);
                // What the merge holds is not read ahead.
                drop(permit);
                report.responses += 1;
                report.series += batch.len() as u64;
                for chunk in batch.iter().flat_map(|series| &series.chunks) {
                    report.chunks += 1;
                    report.samples += chunk.parts().next().map_or(0, |part| part.sample_count()) as u64;
                    report.bytes += chunk.size_bytes() as u64;
                    report.resolutions.add(chunk, self.range);
                }
                if let Err(error) = self.merge.offer(input, batch) {
                    self.fail(input, error.to_string());
                }
            }
            StoreMessage::Warning(text) => self.warnings.push_back(with_store_name(&report.name, &text)),
            StoreMessage::Failed(error) => {
                let reason = without_store_name(&report.name, error.message()).to_owned();
                self.fail(input, reason);
            }
            StoreMessage::Exhausted(error) => {
                self.exhausted = Some(error);
                self.finish();
            }
            StoreMessage::End => {
                report.outcome = StoreOutcome::Answered;
                self.end(input);
            }
        }
    }

    fn fail(&mut self, input: usize, reason: String) {
        let report = &mut self.reports[input];
        tracing::warn!(store = %report.name, error = %reason, "store failed, its part of the answer is incomplete");
        self.warnings.push_back(with_store_name(&report.name, &reason));
        report.outcome = StoreOutcome::Failed(reason);
        self.end(input);
    }

    fn end(&mut self, input: usize) {
        self.reports[input].took = self.began.elapsed();
        self.inputs[input] = None;
        self.reservations[input] = None;
        self.merge.end(input);
    }

    /// Ends the answer and cancels all remaining streams.
    fn finish(&mut self) {
        self.finished = true;
        self.inputs.clear();
        self.reservations.clear();
    }
}

/// A task that ends without a last message has panicked; its answer is incomplete.
fn lost() -> StoreMessage {
    StoreMessage::Failed(StoreError::internal(
        "reading it failed unexpectedly, the task panicked; see the log",
    ))
}

impl Drop for Fanout {
    fn drop(&mut self) {
        for report in &self.reports {
            self.metrics.count(report);
        }
    }
}
