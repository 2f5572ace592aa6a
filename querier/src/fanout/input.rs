//! Reads the stream of one store and queues its messages for the merge.

use std::sync::Arc;
use std::time::Duration;

use budget::{Budget, Reservation};
use futures::StreamExt;
use mesh::StreamWindow;
use model::{Labels, TimeRange};
use runtime::CallContext;
use series::{AggrChunk, Series, SeriesSorter};
use storeapi::{AnswerChecks, AnswerLimits, SeriesFrame, SeriesRequest, SeriesStream, StoreError, checked};
use tokio::sync::{Notify, mpsc};
use tokio_util::task::AbortOnDropHandle;

use crate::endpoints::Candidate;
use crate::fanout::damage::DamageFilter;
use crate::fanout::options::ProxyOptions;
use crate::fanout::read_ahead::{OpenStream, ReadAhead, WindowPart};
use crate::memory;

/// Messages that are queued per store, within the window that all stores share.
const QUEUE: usize = 2;
/// Maximum number of warnings per store, and maximum length of one. A querier in front of many stores may
/// send many warnings; without a limit a store could exhaust the memory.
pub(super) const WARNINGS: usize = 100;
const WARNING_BYTES: usize = 2048;

/// A message from the task of a store to the merge.
pub(super) enum StoreMessage {
    /// Series, with the reservation of their memory, and with their part of the shared window if they were read ahead.
    Series(Vec<Series>, Reservation, Option<WindowPart>),
    Warning(String),
    Failed(StoreError),
    /// The memory limit of the query is reached. The query fails, whatever other stores send.
    Exhausted(StoreError),
    End,
}

/// The receiver. Dropping it cancels the task and its request.
pub(super) struct StoreInput {
    pub(super) messages: mpsc::Receiver<StoreMessage>,
    /// Notified when the merge needs the next message.
    pub(super) needed: Arc<Notify>,
    _task: AbortOnDropHandle<()>,
}

/// What all stores of an answer share; the window of the query is `read_ahead`.
pub(super) struct SharedRead<'a> {
    pub(super) options: &'a ProxyOptions,
    pub(super) budget: &'a Budget,
    pub(super) read_ahead: &'a ReadAhead,
    pub(super) window: StreamWindow,
}

impl StoreInput {
    /// Sends the request to the store and starts to read.
    pub(super) fn open(
        candidate: &Candidate,
        request: &SeriesRequest,
        shared: &SharedRead<'_>,
        stream: OpenStream,
    ) -> Self {
        let (queue, messages) = mpsc::channel(QUEUE);
        let needed = Arc::new(Notify::new());
        let options = shared.options;
        let reader = StoreReader {
            candidate: candidate.clone(),
            asked: request.clone(),
            response_timeout: options.response_timeout,
            sort_bytes: options.sort_bytes,
            series_limit: options.store_series,
            damage: options.verify_chunks.then(DamageFilter::default),
            limits: options.answer_limits(shared.window, shared.budget),
            budget: shared.budget.clone(),
            read_ahead: shared.read_ahead.clone(),
            needed: Arc::clone(&needed),
            queue,
            _stream: stream,
        };
        Self {
            messages,
            needed,
            _task: AbortOnDropHandle::new(tokio::spawn(CallContext::current().scope(reader.run()))),
        }
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
    limits: AnswerLimits,
    budget: Budget,
    read_ahead: ReadAhead,
    needed: Arc<Notify>,
    queue: mpsc::Sender<StoreMessage>,
    _stream: OpenStream,
}

impl StoreReader {
    async fn run(mut self) {
        let last = match self.forward_frames().await {
            Ok(()) => StoreMessage::End,
            Err(ReadEnd::Failed(error)) => match self.limits.refusal() {
                Some(limit) => StoreMessage::Exhausted(memory::limit_error(limit)),
                None => StoreMessage::Failed(error),
            },
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
        let store = self.candidate.limited(&self.limits);
        let stream = self.in_time(store.series(request)).await??;
        let mut stream = checked(stream, checks);
        let mut sorter = strip.then(|| SeriesSorter::new(self.sort_bytes));
        let (mut series, mut warnings) = (0, 0);
        let mut reservations = Vec::new();
        // The first message is what the merge needs of each store.
        let mut permit = None;
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
                // The querier asks for none.
                SeriesFrame::Hints(_) => continue,
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
            if let Some(damage) = self.damage.take() {
                let (damage, warnings) = self.remove_damage(damage, &mut batch).await?;
                self.damage = Some(damage);
                for warning in warnings {
                    self.send(StoreMessage::Warning(warning)).await;
                }
            }
            let reservation = self.reserve(&batch)?;
            match &mut sorter {
                None => {
                    let bytes = usize::try_from(reservation.bytes()).unwrap_or(usize::MAX);
                    self.send(StoreMessage::Series(batch, reservation, permit.take())).await;
                    permit = self.turn(bytes).await;
                }
                Some(sorter) => {
                    reservations.push(reservation);
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
            self.send(StoreMessage::Series(sorted, reservation, None)).await;
        }
        Ok(())
    }

    /// Waits until the next message, which is probably as large as the last one, may be read: there is room in the shared
    /// window, or the merge needs it.
    async fn turn(&self, bytes: usize) -> Option<WindowPart> {
        tokio::select! {
            biased;
            permit = self.read_ahead.room(bytes) => permit,
            () = self.needed.notified() => None,
        }
    }

    /// Removes damaged chunks from `batch`; returns `damage` and warnings. Every chunk is decoded, on a thread that may be busy for long.
    async fn remove_damage(
        &self,
        mut damage: DamageFilter,
        batch: &mut Vec<Series>,
    ) -> Result<(DamageFilter, Vec<String>), ReadEnd> {
        let (mut series, aggregates) = (std::mem::take(batch), self.asked.aggregates.clone());
        let mut room = Reservation::new(&self.budget);
        room.add(DamageFilter::bytes(&series, &aggregates) as u64).map_err(exhausted)?;
        let work = tokio::task::spawn_blocking(move || {
            let warnings = damage.remove(&mut series, &aggregates);
            (damage, series, warnings)
        });
        let (damage, series, warnings) =
            work.await.map_err(|error| StoreError::internal(format!("decode chunks: {error}")))?;
        *batch = series;
        Ok((damage, warnings))
    }

    /// Reserves the memory of series that wait for the merge.
    fn reserve(&self, batch: &[Series]) -> Result<Reservation, ReadEnd> {
        let mut reservation = Reservation::new(&self.budget);
        let bytes = |series: &Series| -> usize {
            let chunks = series.chunks.iter().map(|chunk| size_of::<AggrChunk>() + chunk.size_bytes());
            size_of::<Series>() + series.labels.size_bytes() + chunks.sum::<usize>()
        };
        let all: usize = batch.iter().map(bytes).sum();
        reservation.add(all as u64).map_err(exhausted)?;
        Ok(reservation)
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

/// The query has no memory left.
fn exhausted(error: budget::LimitError) -> ReadEnd {
    ReadEnd::Exhausted(memory::limit_error(&error))
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

/// What is known about a store before it is asked.
pub(super) enum Standing {
    /// It can be asked.
    Good,
    /// It can be asked, but it hides recent samples, as the text says.
    Outdated(String),
    /// It cannot be asked, for this reason.
    Missing(String),
}

/// Whether the store can be asked for samples in `range`, or for something else.
pub(super) fn standing(candidate: &Candidate, range: Option<TimeRange>) -> Standing {
    if let Some(reason) = &candidate.unavailable {
        return Standing::Missing(format!("not healthy: {reason}"));
    }
    let Some(range) = range else { return Standing::Good };
    match candidate.hidden(range) {
        None => Standing::Good,
        Some(reason) if candidate.is_in_range(range) => Standing::Outdated(reason),
        Some(reason) => Standing::Missing(reason),
    }
}
