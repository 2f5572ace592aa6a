//! One store's stream on its way to the merge.

use std::sync::Arc;
use std::time::Duration;

use budget::{Budget, Reservation};
use futures::StreamExt;
use model::Labels;
use series::{AggrChunk, Series, SeriesSorter};
use storeapi::{Checks, SeriesFrame, SeriesRequest, SeriesStream, StoreError, checked};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::endpoints::Candidate;
use crate::fanout::proxy::ProxyOptions;
use crate::memory;

/// Messages that one store may be ahead of the merge. Each is about a mebibyte at most; one more waits in the
/// connection. Fewer would let the connection idle, more would cost memory for every store of every query.
const QUEUE: usize = 2;
/// Most warnings of one store, and the longest that is passed on. A querier that stands before many stores may have
/// many; without a bound a store could fill our memory with them.
const WARNINGS: usize = 100;
const WARNING_BYTES: usize = 2048;

/// What a store's task says to the merge.
pub(super) enum Item {
    /// Series, and what holds their memory.
    Series(Vec<Series>, Option<Reservation>),
    Warning(String),
    Failed(StoreError),
    /// The query may not hold any more; it ends, whatever other stores have.
    Exhausted(StoreError),
    End,
}

/// The receiving end; dropping it ends the task and the request behind it.
pub(super) struct Input {
    pub(super) items: mpsc::Receiver<Item>,
    _task: AbortOnDropHandle<()>,
}

impl Input {
    /// Asks the store and begins to read.
    pub(super) fn open(
        candidate: &Candidate,
        request: &SeriesRequest,
        options: &ProxyOptions,
        budget: Option<&Budget>,
    ) -> Self {
        let (queue, items) = mpsc::channel(QUEUE);
        let reader = Reader {
            candidate: candidate.clone(),
            asked: request.clone(),
            response_timeout: options.response_timeout,
            sort_bytes: options.sort_bytes,
            series_limit: options.store_series,
            budget: budget.cloned(),
            queue,
        };
        Self { items, _task: AbortOnDropHandle::new(tokio::spawn(reader.run())) }
    }
}

/// Why reading a store ended.
enum End {
    Failed(StoreError),
    Exhausted(StoreError),
}

impl From<StoreError> for End {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

/// The task that reads one store.
struct Reader {
    candidate: Candidate,
    asked: SeriesRequest,
    response_timeout: Option<Duration>,
    sort_bytes: usize,
    series_limit: u64,
    budget: Option<Budget>,
    queue: mpsc::Sender<Item>,
}

impl Reader {
    async fn run(self) {
        let last = match self.read().await {
            Ok(()) => Item::End,
            Err(End::Failed(error)) => Item::Failed(error),
            Err(End::Exhausted(error)) => Item::Exhausted(error),
        };
        // A merge that is gone has dropped this task too; there is nobody to tell.
        let _ = self.queue.send(last).await;
    }

    async fn read(&self) -> Result<(), End> {
        let info = self.candidate.info.as_deref();
        let removes = info.is_none_or(|info| info.supports_without_replica_labels);
        let shards = info.is_none_or(|info| info.supports_sharding);
        let strip = !removes && !self.asked.without_replica_labels.is_empty();
        let mut request = self.asked.clone();
        if strip {
            request.without_replica_labels.clear();
        }
        if strip || !shards {
            // Both happen here, and a limit applied before them would cut the wrong series.
            request.shard = None;
            request.limit = None;
        }
        let apply_shard = self.asked.shard.as_ref().filter(|_| request.shard.is_none());
        let checks = Checks::of(&request, self.candidate.label_sets(), &self.candidate.bound, removes);
        let stream = self.in_time(self.candidate.store.series(request)).await??;
        let mut stream = checked(stream, checks);
        let mut sorter = strip.then(|| SeriesSorter::new(self.sort_bytes));
        let (mut series, mut warnings) = (0, 0);
        let mut held = Vec::new();
        while let Some(frame) = self.next(&mut stream).await? {
            let mut batch = match frame {
                SeriesFrame::Warning(text) => {
                    warnings += 1;
                    if warnings > WARNINGS {
                        return Err(StoreError::violation(format!("more than {WARNINGS} warnings")).into());
                    }
                    self.send(Item::Warning(shortened(text))).await;
                    continue;
                }
                SeriesFrame::Series(batch) => batch,
            };
            series += batch.len() as u64;
            if series > self.series_limit {
                return Err(StoreError::limit(format!(
                    "more than {} series; narrow the selector or raise --query.max-series-per-store",
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
            let hold = self.hold(&batch)?;
            match &mut sorter {
                None => self.send(Item::Series(batch, hold)).await,
                Some(sorter) => {
                    held.extend(hold);
                    for series in batch {
                        sorter
                            .push(without(&series.labels), series.chunks)
                            .map_err(|full| StoreError::limit(full.to_string()))?;
                    }
                }
            }
        }
        if let Some(sorter) = sorter {
            let sorted = sorter.into_sorted();
            drop(held);
            let hold = self.hold(&sorted)?;
            self.send(Item::Series(sorted, hold)).await;
        }
        Ok(())
    }

    /// Counts series that wait for the merge towards the memory of the query.
    fn hold(&self, batch: &[Series]) -> Result<Option<Reservation>, End> {
        let Some(budget) = &self.budget else { return Ok(None) };
        let mut hold = Reservation::new(budget);
        let bytes = |series: &Series| -> usize {
            let chunks = series.chunks.iter().map(|chunk| size_of::<AggrChunk>() + chunk.size_bytes());
            series.labels.size_bytes() + chunks.sum::<usize>()
        };
        let all: usize = batch.iter().map(bytes).sum();
        hold.add(all as u64)
            .map_err(|error| End::Exhausted(StoreError::limit(memory::limit_with_flag(&error))))?;
        Ok(Some(hold))
    }

    async fn send(&self, item: Item) {
        let _ = self.queue.send(item).await;
    }

    async fn next(&self, stream: &mut SeriesStream) -> Result<Option<SeriesFrame>, StoreError> {
        self.in_time(stream.next()).await?.transpose()
    }

    /// Waits for the store, as long as it may take to answer.
    async fn in_time<T>(&self, work: impl Future<Output = T>) -> Result<T, StoreError> {
        match self.response_timeout {
            None => Ok(work.await),
            Some(limit) => tokio::time::timeout(limit, work).await.map_err(|_| late(limit)),
        }
    }
}

fn shortened(mut text: String) -> String {
    if text.len() > WARNING_BYTES {
        let end = (0..=WARNING_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

/// The error of a store that says nothing for longer than it may.
pub(super) fn late(limit: Duration) -> StoreError {
    StoreError::new(
        storeapi::Code::DeadlineExceeded,
        format!("no data in {limit:?} (--store.response-timeout)"),
    )
}

/// What a store said, or what went wrong with it, under its name. Connections name their address by themselves; once
/// is enough.
pub(super) fn under_name(name: &str, message: &str) -> String {
    format!("store {name}: {}", without_name(name, message))
}

/// A message without the store's name in front.
pub(crate) fn without_name<'a>(name: &str, message: &'a str) -> &'a str {
    message.strip_prefix(name).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(message)
}

/// The error of a store that cannot be asked now.
pub(super) fn unavailable(candidate: &Candidate) -> Option<(Arc<str>, String)> {
    let reason = candidate.unavailable.as_ref()?;
    Some((Arc::clone(&candidate.name), format!("not healthy: {reason}")))
}
