//! Queues series of the fan-out for the engine.

use std::sync::Arc;

use budget::{Budget, Reservation};
use promql::{SelectId, SharedSeries};
use runtime::CallContext;
use storeapi::{SeriesRequest, StoreError};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::fanout::{Awaited, Fanout, FanoutEvent, ProxyStore, ReadAhead, StoreFilter, StoreReport};
use crate::memory;
use crate::query::shared::{Recording, SharedAnswer, SharedKey, SharedSelects};

/// Batches that a feed reads ahead of the engine, each of at most 128 series or about 1 MiB.
const AHEAD: usize = 2;

enum FeedMessage {
    /// Series, with the reservation of their memory until the engine reserves it.
    Series(Vec<SharedSeries>, Reservation),
    Warning(String),
    Failed(StoreError),
    End(Vec<StoreReport>),
}

enum FeedSlot {
    /// Not requested yet.
    Closed,
    Open(mpsc::Receiver<FeedMessage>),
    /// The answer that another query has read, and the number of its next batch.
    Shared(Arc<SharedAnswer>, usize),
    Ended,
}

/// The feeds of all selects of a query, used by the thread of the engine.
///
/// When the engine needs a feed, it is opened together with the feeds that the engine will need next, so that
/// stores work in parallel. The requests of some selects are known only when the engine reaches them; these
/// are not read ahead.
pub(super) struct Feeds {
    runtime: Handle,
    context: CallContext,
    stores: ProxyStore,
    filter: StoreFilter,
    /// The request of each select; `None` if not known yet.
    requests: Vec<Option<SeriesRequest>>,
    /// All selects, in the order in which the engine will read them.
    order: Vec<usize>,
    slots: Vec<FeedSlot>,
    concurrent: usize,
    budget: Budget,
    /// What the stores of all feeds may read ahead.
    read_ahead: ReadAhead,
    awaited: Awaited,
    cancel: CancellationToken,
    /// Answers that other queries use, too.
    shared: Option<Arc<SharedSelects>>,
    warnings: Vec<String>,
    /// Each with the index of its select.
    reports: Vec<(usize, StoreReport)>,
}

impl Feeds {
    /// Creates the feeds from the requests and the reading order. Must be called within a runtime, which then
    /// runs the reads, in `context`. `cancel` cancels all feeds.
    #[expect(clippy::too_many_arguments, reason = "each is used by every feed")]
    pub(super) fn new(
        context: CallContext,
        stores: ProxyStore,
        (requests, order): (Vec<Option<SeriesRequest>>, &[SelectId]),
        filter: StoreFilter,
        concurrent: usize,
        budget: Budget,
        awaited: Awaited,
        cancel: CancellationToken,
    ) -> Self {
        let slots = requests.iter().map(|_| FeedSlot::Closed).collect();
        let order = order.iter().map(|select| select.index()).collect();
        let (runtime, read_ahead) = (Handle::current(), stores.read_ahead());
        let (warnings, reports) = (Vec::new(), Vec::new());
        Self {
            runtime,
            context,
            stores,
            filter,
            requests,
            order,
            slots,
            concurrent,
            budget,
            read_ahead,
            awaited,
            cancel,
            shared: None,
            warnings,
            reports,
        }
    }

    /// The same feeds, which use answers to equal selects of other queries, and keep theirs for these.
    pub(super) fn sharing(self, shared: Option<Arc<SharedSelects>>) -> Self {
        Self { shared, ..self }
    }

    /// The next batch of a select, or `None` at its end. `request` creates the request if it was not known
    /// before. Blocks; must not be called on a thread of the runtime.
    pub(super) fn next(
        &mut self,
        select: usize,
        request: impl FnOnce() -> SeriesRequest,
    ) -> Result<Option<Vec<SharedSeries>>, StoreError> {
        if let Some(known) = self.requests.get_mut(select) {
            known.get_or_insert_with(request);
        }
        self.open_around(select);
        let messages = match self.slots.get_mut(select) {
            Some(FeedSlot::Open(messages)) => messages,
            Some(FeedSlot::Shared(answer, next)) => {
                if let Some(batch) = answer.batches.get(*next) {
                    *next += 1;
                    return Ok(Some(batch.clone()));
                }
                self.reports.extend(answer.reports.iter().map(|report| (select, report.clone())));
                self.slots[select] = FeedSlot::Ended;
                return Ok(None);
            }
            _ => return Ok(None),
        };
        loop {
            match messages.blocking_recv() {
                Some(FeedMessage::Series(batch, reservation)) => {
                    // From here on the engine accounts for the memory.
                    drop(reservation);
                    return Ok(Some(batch));
                }
                Some(FeedMessage::Warning(text)) => self.warnings.push(text),
                Some(FeedMessage::Failed(error)) => return Err(error),
                Some(FeedMessage::End(reports)) => {
                    self.reports.extend(reports.into_iter().map(|report| (select, report)));
                    self.slots[select] = FeedSlot::Ended;
                    return Ok(None);
                }
                None => {
                    return Err(StoreError::internal(
                        "reading the stores failed unexpectedly, the task panicked; see the log",
                    ));
                }
            }
        }
    }

    /// Opens this feed, and those needed next, up to the limit and while their streams fit into the window.
    fn open_around(&mut self, wanted: usize) {
        self.open(wanted, &self.read_ahead.clone());
        let mut open = self.slots.iter().filter(|slot| matches!(slot, FeedSlot::Open(_))).count();
        for at in 0..self.order.len() {
            if open > self.concurrent || self.read_ahead.is_full() {
                return;
            }
            open += usize::from(self.open(self.order[at], &self.read_ahead.early()));
        }
    }

    /// Begins to read a select that was not read yet. Whether stores are asked for it.
    fn open(&mut self, select: usize, read_ahead: &ReadAhead) -> bool {
        let (Some(slot @ FeedSlot::Closed), Some(Some(request))) =
            (self.slots.get_mut(select), self.requests.get(select))
        else {
            return false;
        };
        let shared = self.shared.as_ref().map(|shared| (shared, SharedKey::new(request, &self.context)));
        if let Some(answer) = shared.as_ref().and_then(|(shared, key)| shared.find(key)) {
            *slot = FeedSlot::Shared(answer, 0);
            return false;
        }
        let recording = shared.map(|(shared, key)| shared.record(key));
        let (queue, messages) = mpsc::channel(AHEAD);
        let (stores, filter, budget) = (&self.stores, &self.filter, &self.budget);
        let _runtime = self.runtime.enter();
        let selected = self
            .context
            .clone()
            .sync_scope(|| stores.select_ahead(request.clone(), filter, budget, read_ahead));
        let (budget, awaited, cancel) = (budget.clone(), self.awaited.clone(), self.cancel.clone());
        self.runtime.spawn(self.context.clone().scope(async move {
            cancel.run_until_cancelled(read_select(selected, budget, awaited, queue, recording)).await;
        }));
        *slot = FeedSlot::Open(messages);
        true
    }

    /// The warnings and reports of all selects.
    pub(super) fn finish(mut self) -> (Vec<String>, Vec<(usize, StoreReport)>) {
        // Two selects that miss the same store cause one warning.
        self.warnings.sort();
        self.warnings.dedup();
        (self.warnings, self.reports)
    }
}

/// Reads one select until its end, or until the receiver is dropped.
async fn read_select(
    selected: Result<Fanout, StoreError>,
    budget: Budget,
    awaited: Awaited,
    queue: mpsc::Sender<FeedMessage>,
    mut recording: Option<Recording>,
) {
    let mut fanout = match selected {
        Ok(fanout) => fanout,
        Err(error) => {
            let _ = queue.send(FeedMessage::Failed(error)).await;
            return;
        }
    };
    fanout.show_waits_in(&awaited);
    while let Some(event) = fanout.next().await {
        let message = match event {
            Ok(FanoutEvent::Series(batch)) => {
                let batch: Vec<SharedSeries> =
                    batch.into_iter().map(|series| series.into_selected().into()).collect();
                recording = recording.and_then(|recording| recording.add(&batch));
                series_message(batch, &budget)
            }
            // Only complete answers are used again.
            Ok(FanoutEvent::Warning(text)) => {
                recording = None;
                FeedMessage::Warning(text)
            }
            Err(error) => {
                recording = None;
                FeedMessage::Failed(error)
            }
        };
        if queue.send(message).await.is_err() {
            return;
        }
    }
    if let Some(recording) = recording {
        recording.finish(fanout.reports());
    }
    let _ = queue.send(FeedMessage::End(fanout.reports().to_vec())).await;
}

fn series_message(batch: Vec<SharedSeries>, budget: &Budget) -> FeedMessage {
    let mut reservation = Reservation::new(budget);
    match reservation.add(batch.iter().map(|series| series.size_bytes()).sum::<usize>() as u64) {
        Ok(()) => FeedMessage::Series(batch, reservation),
        Err(error) => FeedMessage::Failed(memory::limit_error(&error)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use budget::{BudgetLimits, Interrupt, TotalBudget};
    use model::{TimeRange, Timestamp};
    use promql::{EngineOptions, QUERIES, Query, QueryParams};
    use series::{AggrChunk, Series};
    use storeapi::SeriesFrame;

    use super::*;
    use crate::ProxyOptions;
    use crate::tests::{Scripted, labels, local, proxy, up};

    const STORES: usize = 40;
    const SELECTS: usize = 4;
    const MESSAGE: usize = 64 << 10;
    const WINDOW: usize = 6 << 20;

    /// Stores with large series, and one that sends nothing, so that the merge waits for it.
    fn stores() -> ProxyStore {
        let frame = |store: usize, n: usize| {
            let labels = labels(&[("__name__", "up"), ("store", &format!("{store:03}-{n:03}"))]);
            let data = bytes::Bytes::from(vec![0; MESSAGE]);
            let chunk = tsdb::Chunk { range: TimeRange::ALL, encoding: tsdb::Encoding::Xor, data };
            Ok(SeriesFrame::Series(vec![Series { labels, chunks: vec![AggrChunk::raw(chunk)] }]))
        };
        let sends = |store: usize| Scripted::new((0..10).map(|n| frame(store, n)).collect());
        let all = (0..STORES).map(sends).chain([Scripted::new(Vec::new()).hanging()]);
        let all = all.enumerate().map(|(n, store)| local(&format!("{n:03}"), Arc::new(store)));
        proxy(all.collect(), ProxyOptions { window_bytes: WINDOW, ..ProxyOptions::default() })
    }

    #[tokio::test]
    async fn all_selects_of_a_query_share_one_window() {
        let limits = BudgetLimits::bytes(1 << 30);
        let budget = Budget::new(&TotalBudget::unlimited(&QUERIES), limits, Interrupt::new());
        let text = Vec::from_iter((0..SELECTS).map(|n| format!("up{n}"))).join(" + ");
        let params = QueryParams::instant(Timestamp::EPOCH);
        let query = Query::plan(&text, &params, &EngineOptions::default()).unwrap();
        let cancel = CancellationToken::new();
        let mut feeds = Feeds::new(
            CallContext::default(),
            stores(),
            (vec![Some(up()); SELECTS], &query.reading_order()),
            StoreFilter::default(),
            SELECTS,
            budget.clone(),
            Awaited::default(),
            cancel.clone(),
        );
        let engine = tokio::task::spawn_blocking(move || feeds.next(0, up).is_err());
        let all_read = async {
            while budget.peak_bytes() < (SELECTS * STORES * MESSAGE) as u64 {
                tokio::task::yield_now().await;
            }
        };
        let waited = tokio::time::timeout(std::time::Duration::from_secs(60), all_read).await;
        assert!(waited.is_ok(), "the merges have only {} bytes", budget.peak_bytes());
        // All tasks run as far as they can.
        for _ in 0..10 * SELECTS * STORES {
            tokio::task::yield_now().await;
        }
        cancel.cancel();
        assert!(engine.await.unwrap());
        // One message of each store in each merge, the window, and the streams.
        let allowed = SELECTS * STORES * (MESSAGE + 1000) + WINDOW;
        let streams = SELECTS * (STORES + 1) * (32 << 10);
        assert!((budget.peak_bytes() as usize) < allowed + streams, "{}", budget.peak_bytes());
    }
}
