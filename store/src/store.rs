//! The buckets as a `Store`.

use std::sync::Arc;
use std::time::Instant;

use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use model::{Matcher, TimeRange};
use storeapi::{
    AnswerHints, Apis, BlockHints, LabelNamesRequest, LabelValuesRequest, LabelsAnswer, PartialResponse,
    SeriesFrame, SeriesRequest, SeriesStream, Store, StoreError, StoreInfo, TsdbInfo,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::answer::{BeginError, SeriesAnswer, Workers};
use crate::cache::Cache;
use crate::catalog::{Resolutions, UnreadableBlock};
use crate::cursor::BlockQuestion;
use crate::hints::{self, AnswerCount};
use crate::labels::{FoundLabels, LabelQuestion, LabelsOfBlocks};
use crate::limits::{StoreLimits, TimeLimits};
use crate::memory_pool::MemoryPool;
use crate::meter::RequestMeter;
use crate::metrics::StoreMetrics;
use crate::sync::CatalogHandle;

/// How often a request begins again because a block that it needs was removed meanwhile.
const RESTARTS: usize = 3;

/// Most blocks that are announced as not served.
const MAX_ANNOUNCED: usize = 20;

/// What a store is made of.
pub(crate) struct BucketStoreParts {
    pub(crate) catalog: CatalogHandle,
    pub(crate) workers: Workers,
    pub(crate) cache: Arc<Cache>,
    pub(crate) sort_memory: Arc<MemoryPool>,
    /// For what is read ahead.
    pub(crate) ahead_memory: Arc<MemoryPool>,
    pub(crate) times: TimeLimits,
    pub(crate) limits: StoreLimits,
    pub(crate) metrics: StoreMetrics,
}

/// The buckets as a `Store`.
pub(crate) struct BucketStore {
    parts: BucketStoreParts,
    /// Series requests that may run at once; others wait.
    gate: Arc<Semaphore>,
}

impl BucketStore {
    pub(crate) fn new(parts: BucketStoreParts) -> Self {
        let gate = Arc::new(Semaphore::new(parts.limits.concurrency));
        Self { parts, gate }
    }

    /// The memory of the entries that requests sort.
    #[cfg(test)]
    pub(crate) fn sort_memory(&self) -> &MemoryPool {
        &self.parts.sort_memory
    }

    /// The memory of what requests read ahead.
    #[cfg(test)]
    pub(crate) fn ahead_memory(&self) -> &MemoryPool {
        &self.parts.ahead_memory
    }

    /// The part of `range` that is served.
    fn served(&self, range: TimeRange) -> TimeRange {
        range.intersect(&self.parts.times.now())
    }

    /// The warnings about blocks that cannot be read and may have samples of the request.
    ///
    /// # Errors
    /// When the request does not permit that data is missing.
    fn warnings(
        unreadable: &[&UnreadableBlock],
        partial: PartialResponse,
    ) -> Result<Vec<String>, StoreError> {
        let text = |block: &&UnreadableBlock| format!("block {}: {}", block.key.block, block.reason);
        match unreadable.first() {
            Some(block) if partial == PartialResponse::Abort => Err(StoreError::aborted(text(block))),
            _ => Ok(unreadable.iter().map(text).collect()),
        }
    }

    /// Bytes of memory of one batch of a block, for a request of `blocks`.
    fn batch_bytes(&self, blocks: usize) -> u64 {
        // Of each block, one batch is merged while the next one is read.
        let share = self.parts.limits.request_bytes / (2 * blocks.max(1) as u64);
        share.clamp(64 << 10, 4 << 20)
    }

    /// The blocks that are not served, one line each, for those who look at the stores of a querier.
    fn unserved(&self) -> Vec<String> {
        let catalog = self.parts.catalog.current();
        let quarantine = self.parts.workers.blocks.quarantine();
        let quarantined = quarantine.iter().map(|failure| failure.reason.clone());
        let unreadable = catalog.unreadable.iter().map(|block| (block.key, &block.reason));
        let others = unreadable.chain(catalog.refused.iter().map(|(key, reason)| (*key, reason)));
        let others = others.map(|(key, reason)| format!("block {} is not served: {reason}", key.block));
        let mut all: Vec<String> = quarantined.chain(others).collect();
        if all.len() > MAX_ANNOUNCED {
            let more = all.len() - MAX_ANNOUNCED;
            all.truncate(MAX_ANNOUNCED);
            all.push(format!("{more} more blocks are not served; /api/v1/blocks of the store lists them"));
        }
        all
    }

    async fn begin(
        &self,
        request: &Arc<SeriesRequest>,
    ) -> Result<(SeriesAnswer, Option<AnswerHints>), StoreError> {
        let mut catalog = self.parts.catalog.synced()?;
        for restart in 0..=RESTARTS {
            let range = self.served(request.range);
            let permitted =
                Resolutions { max: request.max_resolution, coarser_if_needed: request.coarser_if_needed };
            let (mut selected, unreadable) = catalog.select(range, &request.matchers, permitted);
            let hints = hints::filter(&mut selected, request.block_hints.as_ref());
            let warnings = Self::warnings(&unreadable, request.partial_response)?;
            self.parts.metrics.asked(selected.len());
            let question = BlockQuestion {
                request: Arc::clone(request),
                meter: RequestMeter::new(self.parts.limits.read),
                cache: Arc::clone(&self.parts.cache),
                batch_bytes: self.batch_bytes(selected.len()),
                sort_memory: Arc::clone(&self.parts.sort_memory),
                ahead_memory: Arc::clone(&self.parts.ahead_memory),
            };
            let is_final = restart == RESTARTS;
            let workers = self.parts.workers.clone();
            match SeriesAnswer::begin(workers, Arc::new(question), selected, warnings, is_final).await {
                Ok(answer) => return Ok((answer, hints)),
                Err(BeginError::Failed(error)) => return Err(error),
                Err(BeginError::Gone) => catalog = self.parts.catalog.refreshed().await,
            }
        }
        Err(removed_too_fast())
    }

    /// The names or values of the blocks that a request for labels needs; each at the coarsest resolution, which has the same labels
    /// as finer ones.
    async fn ask_labels(
        &self,
        request: LabelRequest<'_>,
        question: &LabelQuestion,
    ) -> Result<LabelsAnswer, StoreError> {
        let mut catalog = self.parts.catalog.synced()?;
        for restart in 0..=RESTARTS {
            let range = self.served(request.range);
            let (mut selected, unreadable) = catalog.select(range, request.matchers, Resolutions::ALL);
            let hints = hints::filter(&mut selected, request.hints);
            let warnings = Self::warnings(&unreadable, request.partial)?;
            let asked = self.label_question(request.partial).ask(selected, question, restart == RESTARTS);
            match asked.boxed().await {
                Ok(FoundLabels { values, warnings: lost }) => {
                    let values = values.into_iter().collect();
                    let warnings = [warnings, lost].concat();
                    return Ok(LabelsAnswer { values, warnings, hints, ..LabelsAnswer::default() });
                }
                Err(BeginError::Failed(error)) => return Err(error),
                Err(BeginError::Gone) => catalog = self.parts.catalog.refreshed().await,
            }
        }
        Err(removed_too_fast())
    }

    fn label_question(&self, partial: PartialResponse) -> LabelsOfBlocks {
        LabelsOfBlocks {
            workers: self.parts.workers.clone(),
            cache: Arc::clone(&self.parts.cache),
            meter: RequestMeter::new(self.parts.limits.read),
            partial,
        }
    }
}

/// What selects the blocks of a request for labels.
struct LabelRequest<'a> {
    range: TimeRange,
    matchers: &'a [Matcher],
    partial: PartialResponse,
    hints: Option<&'a BlockHints>,
}

fn removed_too_fast() -> StoreError {
    StoreError::unavailable("blocks are removed faster than they can be found")
}

/// An answer that is being sent.
struct RunningAnswer {
    answer: SeriesAnswer,
    /// What is reported at the end, for a request with hints.
    hints: Option<AnswerHints>,
    wants_stats: bool,
    count: AnswerCount,
    metrics: StoreMetrics,
    /// Its place among the requests that run at once.
    _permit: Option<OwnedSemaphorePermit>,
}

impl RunningAnswer {
    async fn next(&mut self) -> Result<Option<SeriesFrame>, StoreError> {
        let frame = self.answer.next().await?;
        match &frame {
            Some(frame) => self.metrics.sent(frame),
            None => return Ok(self.hints.take().map(|hints| SeriesFrame::Hints(self.complete(hints)))),
        }
        if let Some(SeriesFrame::Series(series)) = &frame {
            self.count.sent(series);
        }
        Ok(frame)
    }

    fn complete(&self, hints: AnswerHints) -> AnswerHints {
        let stats = self.wants_stats.then(|| self.count.stats(hints.blocks.len(), self.answer.meter()));
        AnswerHints { stats, ..hints }
    }
}

impl Drop for RunningAnswer {
    fn drop(&mut self) {
        let (requests, bytes) = self.answer.read_of_buckets();
        self.metrics.read(requests, bytes);
        self.metrics.requests.answered(&self.count, self.answer.meter());
    }
}

#[tonic::async_trait]
impl Store for BucketStore {
    async fn info(&self) -> Result<StoreInfo, StoreError> {
        let producers = self.parts.catalog.synced()?.producers(self.parts.times.now());
        let range = producers.iter().map(|producer| producer.range);
        let range = range.reduce(|a, b| TimeRange::new(a.min.min(b.min), a.max.max(b.max)));
        let tsdb = |producer: &crate::catalog::ProducerRange| TsdbInfo {
            labels: producer.external.clone(),
            range: producer.range,
        };
        Ok(StoreInfo {
            component: "store".to_owned(),
            label_sets: producers.iter().map(|producer| producer.external.clone()).collect(),
            // Without blocks, the range is empty.
            range: range.unwrap_or(TimeRange { min: TimeRange::ALL.max, max: TimeRange::ALL.min }),
            supports_sharding: true,
            supports_without_replica_labels: true,
            tsdbs: producers.iter().map(tsdb).collect(),
            apis: Apis { store: true, ..Apis::default() },
            warnings: self.unserved(),
        })
    }

    async fn series(&self, request: SeriesRequest) -> Result<SeriesStream, StoreError> {
        if request.matchers.is_empty() {
            return Err(StoreError::invalid("no matchers specified"));
        }
        let (gate, asked) = (Arc::clone(&self.gate), Instant::now());
        // The semaphore is never closed.
        let permit = gate.acquire_owned().await.ok();
        self.parts.metrics.requests.waited(asked.elapsed());
        let mut count = AnswerCount::begin();
        let wants_stats = request.block_hints.as_ref().is_some_and(|hints| hints.wants_stats);
        let (answer, hints) = self.begin(&Arc::new(request)).await?;
        count.first_read();
        let metrics = self.parts.metrics.clone();
        let running = RunningAnswer { answer, hints, wants_stats, count, metrics, _permit: permit };
        let frames: BoxStream<'static, _> = stream::try_unfold(running, |mut running| async move {
            let frame = running.next().await?;
            Ok(frame.map(|frame| (frame, running)))
        })
        .boxed();
        Ok(frames)
    }

    async fn label_names(&self, request: LabelNamesRequest) -> Result<LabelsAnswer, StoreError> {
        let asked = LabelRequest {
            range: request.range,
            matchers: &request.matchers,
            partial: request.partial_response,
            hints: request.block_hints.as_ref(),
        };
        let mut answer = self.ask_labels(asked, &LabelQuestion::Names).await?;
        answer.values.retain(|name| !request.without_replica_labels.contains(name));
        answer.values.truncate(request.limit.unwrap_or(usize::MAX));
        Ok(answer)
    }

    async fn label_values(&self, request: LabelValuesRequest) -> Result<LabelsAnswer, StoreError> {
        if request.label.is_empty() {
            return Err(StoreError::invalid("label values: the label name must not be empty"));
        }
        if request.without_replica_labels.contains(&request.label) {
            return Ok(LabelsAnswer::default());
        }
        let asked = LabelRequest {
            range: request.range,
            matchers: &request.matchers,
            partial: request.partial_response,
            hints: request.block_hints.as_ref(),
        };
        let mut answer = self.ask_labels(asked, &LabelQuestion::Values(request.label.into())).await?;
        answer.values.truncate(request.limit.unwrap_or(usize::MAX));
        Ok(answer)
    }
}
