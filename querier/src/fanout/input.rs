//! Reads the stream of one store and queues its messages for the merge.

use std::sync::Arc;
use std::time::Duration;

use budget::{Budget, Reservation};
use futures::StreamExt;
use model::Labels;
use series::{AggrChunk, Series, SeriesSorter};
use storeapi::{AnswerChecks, SeriesFrame, SeriesRequest, SeriesStream, StoreError, checked};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::endpoints::Candidate;
use crate::fanout::damage::DamageFilter;
use crate::fanout::options::ProxyOptions;
use crate::memory;

/// Messages that are queued per store. Each is at most about 1 MiB; one more waits in the connection. With
/// fewer the connection would be idle; with more, each store of each query would need more memory.
const QUEUE: usize = 2;
/// Maximum number of warnings per store, and maximum length of one. A querier in front of many stores may
/// send many warnings; without a limit a store could exhaust the memory.
pub(super) const WARNINGS: usize = 100;
const WARNING_BYTES: usize = 2048;

/// A message from the task of a store to the merge.
pub(super) enum StoreMessage {
    /// Series, with the reservation of their memory.
    Series(Vec<Series>, Option<Reservation>),
    Warning(String),
    Failed(StoreError),
    /// The memory limit of the query is reached. The query fails, whatever other stores send.
    Exhausted(StoreError),
    End,
}

/// The receiver. Dropping it cancels the task and its request.
pub(super) struct StoreInput {
    pub(super) messages: mpsc::Receiver<StoreMessage>,
    _task: AbortOnDropHandle<()>,
}

impl StoreInput {
    /// Sends the request to the store and starts to read.
    pub(super) fn open(
        candidate: &Candidate,
        request: &SeriesRequest,
        options: &ProxyOptions,
        budget: Option<&Budget>,
    ) -> Self {
        let (queue, messages) = mpsc::channel(QUEUE);
        let reader = StoreReader {
            candidate: candidate.clone(),
            asked: request.clone(),
            response_timeout: options.response_timeout,
            sort_bytes: options.sort_bytes,
            series_limit: options.store_series,
            damage: options.verify_chunks.then(DamageFilter::default),
            budget: budget.cloned(),
            queue,
        };
        Self { messages, _task: AbortOnDropHandle::new(tokio::spawn(reader.run())) }
    }
}

/// Why reading a store failed.
enum ReadEnd {
    Failed(StoreError),
    Exhausted(StoreError),
}

impl From<StoreError> for ReadEnd {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

/// Reads one store.
struct StoreReader {
    candidate: Candidate,
    asked: SeriesRequest,
    response_timeout: Option<Duration>,
    sort_bytes: usize,
    series_limit: u64,
    /// Removes damaged chunks; `None` if chunks are passed on without decoding them.
    damage: Option<DamageFilter>,
    budget: Option<Budget>,
    queue: mpsc::Sender<StoreMessage>,
}

impl StoreReader {
    async fn run(mut self) {
        let last = match self.forward_frames().await {
            Ok(()) => StoreMessage::End,
            Err(ReadEnd::Failed(error)) => StoreMessage::Failed(error),
            Err(ReadEnd::Exhausted(error)) => StoreMessage::Exhausted(error),
        };
        // If the merge was dropped, this task is cancelled too, and no receiver is left.
        let _ = self.queue.send(last).await;
    }

    async fn forward_frames(&mut self) -> Result<(), ReadEnd> {
        let info = self.candidate.info.as_deref();
        let removes = info.is_none_or(|info| info.supports_without_replica_labels);
        let shards = info.is_none_or(|info| info.supports_sharding);
        let strip = !removes && !self.asked.without_replica_labels.is_empty();
        let mut request = self.asked.clone();
        request.matchers = self.candidate.accepted_matchers(&self.asked.matchers, false);
        if strip {
            request.without_replica_labels.clear();
        }
        if strip || !shards {
            // Both are applied here. A limit applied by the store before that would cut the wrong series.
            request.shard = None;
            request.limit = None;
        }
        // A sidecar of Thanos announces that it supports shards, but sends all series of an old Prometheus.
        let apply_shard = self.asked.shard.as_ref();
        let checks = AnswerChecks::of(&request, self.candidate.label_sets(), &self.candidate.bound, removes);
        let stream = self.in_time(self.candidate.store.series(request)).await??;
        let mut stream = checked(stream, checks);
        let mut sorter = strip.then(|| SeriesSorter::new(self.sort_bytes));
        let (mut series, mut warnings) = (0, 0);
        let mut reservations = Vec::new();
        while let Some(frame) = self.next(&mut stream).await? {
            let mut batch = match frame {
                SeriesFrame::Warning(text) => {
                    warnings += 1;
                    if warnings > WARNINGS {
                        return Err(
                            StoreError::violation(format!("it sent more than {WARNINGS} warnings")).into()
                        );
                    }
                    self.send(StoreMessage::Warning(shortened(text))).await;
                    continue;
                }
                SeriesFrame::Series(batch) => batch,
            };
            series += batch.len() as u64;
            if series > self.series_limit {
                return Err(StoreError::limit(format!(
                    "it sent more than {} series; use a narrower selector or raise --query.max-series-per-store",
                    self.series_limit
                ))
                .into());
            }
            let without = |labels: &Labels| {
                labels.without(|name| self.asked.without_replica_labels.iter().any(|r| r == name))
            };
            if let Some(shard) = apply_shard {
                batch.retain(
                    |s| if strip { shard.keeps(&without(&s.labels)) } else { shard.keeps(&s.labels) },
                );
            }
            if let Some(damage) = &mut self.damage {
                for warning in damage.remove(&mut batch, &self.asked.aggregates) {
                    self.send(StoreMessage::Warning(warning)).await;
                }
            }
            let reservation = self.reserve(&batch)?;
            match &mut sorter {
                None => self.send(StoreMessage::Series(batch, reservation)).await,
                Some(sorter) => {
                    reservations.extend(reservation);
                    for series in batch {
                        sorter
                            .push(without(&series.labels), series.chunks)
                            .map_err(|full| StoreError::limit(full.to_string()))?;
                    }
                }
            }
        }
        if let Some(warning) = self.damage.as_ref().and_then(DamageFilter::rest) {
            self.send(StoreMessage::Warning(warning)).await;
        }
        if let Some(sorter) = sorter {
            let sorted = sorter.into_sorted();
            drop(reservations);
            let reservation = self.reserve(&sorted)?;
            self.send(StoreMessage::Series(sorted, reservation)).await;
        }
        Ok(())
    }

    /// Reserves the memory of series that wait for the merge.
    fn reserve(&self, batch: &[Series]) -> Result<Option<Reservation>, ReadEnd> {
        let Some(budget) = &self.budget else { return Ok(None) };
        let mut reservation = Reservation::new(budget);
        let bytes = |series: &Series| -> usize {
            let chunks = series.chunks.iter().map(|chunk| size_of::<AggrChunk>() + chunk.size_bytes());
            series.labels.size_bytes() + chunks.sum::<usize>()
        };
        let all: usize = batch.iter().map(bytes).sum();
        reservation
            .add(all as u64)
            .map_err(|error| ReadEnd::Exhausted(StoreError::limit(memory::limit_with_flag(&error))))?;
        Ok(Some(reservation))
    }

    async fn send(&self, message: StoreMessage) {
        let _ = self.queue.send(message).await;
    }

    async fn next(&self, stream: &mut SeriesStream) -> Result<Option<SeriesFrame>, StoreError> {
        self.in_time(stream.next()).await?.transpose()
    }

    /// Waits for the store, at most for the response timeout.
    async fn in_time<T>(&self, work: impl Future<Output = T>) -> Result<T, StoreError> {
        match self.response_timeout {
            None => Ok(work.await),
            Some(limit) => tokio::time::timeout(limit, work).await.map_err(|_| late(limit)),
        }
    }
}

pub(super) fn shortened(mut text: String) -> String {
    if text.len() > WARNING_BYTES {
        let end = (0..=WARNING_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

/// The error of a store that sends nothing for too long.
pub(super) fn late(limit: Duration) -> StoreError {
    StoreError::new(
        storeapi::Code::DeadlineExceeded,
        format!("no data within {limit:?} (--store.response-timeout)"),
    )
}

/// Name and error of a store that cannot be asked; `None` if it can.
pub(super) fn unavailable(candidate: &Candidate) -> Option<(Arc<str>, String)> {
    let reason = candidate.unavailable.as_ref()?;
    Some((Arc::clone(&candidate.name), format!("not healthy: {reason}")))
}
