//! Queues series of the fan-out for the engine.

use budget::{Budget, Reservation};
use promql::SelectId;
use runtime::CallContext;
use series::SelectedSeries;
use storeapi::{SeriesRequest, StoreError};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::fanout::{Awaited, FanoutEvent, ProxyStore, StoreFilter, StoreReport};
use crate::memory;

/// Batches that a feed reads ahead of the engine, each of at most 64 series or about 1 MiB.
const AHEAD: usize = 2;

enum FeedMessage {
    /// Series, with the reservation of their memory until the engine reserves it.
    Series(Vec<SelectedSeries>, Reservation),
    Warning(String),
    Failed(StoreError),
    End(Vec<StoreReport>),
}

enum FeedSlot {
    /// Not requested yet.
    Closed,
    Open(mpsc::Receiver<FeedMessage>),
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
    awaited: Awaited,
    cancel: CancellationToken,
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
        let runtime = Handle::current();
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
            awaited,
            cancel,
            warnings,
            reports,
        }
    }

    /// The next batch of a select, or `None` at its end. `request` creates the request if it was not known
    /// before. Blocks; must not be called on a thread of the runtime.
    pub(super) fn next(
        &mut self,
        select: usize,
        request: impl FnOnce() -> SeriesRequest,
    ) -> Result<Option<Vec<SelectedSeries>>, StoreError> {
        if let Some(known) = self.requests.get_mut(select) {
            known.get_or_insert_with(request);
        }
        self.open_around(select);
        let Some(FeedSlot::Open(messages)) = self.slots.get_mut(select) else { return Ok(None) };
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

    /// Opens this feed, and those needed next, up to the limit.
    fn open_around(&mut self, wanted: usize) {
        self.open(wanted);
        let mut open = self.slots.iter().filter(|slot| matches!(slot, FeedSlot::Open(_))).count();
        for at in 0..self.order.len() {
            if open > self.concurrent {
                return;
            }
            open += usize::from(self.open(self.order[at]));
        }
    }

    fn open(&mut self, select: usize) -> bool {
        let (Some(slot @ FeedSlot::Closed), Some(Some(request))) =
            (self.slots.get_mut(select), self.requests.get(select))
        else {
            return false;
        };
        let (queue, messages) = mpsc::channel(AHEAD);
        let (stores, request, filter) = (self.stores.clone(), request.clone(), self.filter.clone());
        let (budget, awaited) = (self.budget.clone(), self.awaited.clone());
        let cancel = self.cancel.clone();
        let context = self.context.clone();
        self.runtime.spawn(context.scope(async move {
            cancel.run_until_cancelled(read_select(stores, request, filter, budget, awaited, queue)).await;
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
    stores: ProxyStore,
    request: SeriesRequest,
    filter: StoreFilter,
    budget: Budget,
    awaited: Awaited,
    queue: mpsc::Sender<FeedMessage>,
) {
    let mut fanout = match stores.select_within(request, &filter, &budget) {
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
                let batch: Vec<_> = batch.into_iter().map(|series| series.into_selected()).collect();
                let mut reservation = Reservation::new(&budget);
                match reservation.add(batch.iter().map(SelectedSeries::size_bytes).sum::<usize>() as u64) {
                    Ok(()) => FeedMessage::Series(batch, reservation),
                    Err(error) => FeedMessage::Failed(StoreError::limit(memory::limit_with_flag(&error))),
                }
            }
            Ok(FanoutEvent::Warning(text)) => FeedMessage::Warning(text),
            Err(error) => FeedMessage::Failed(error),
        };
        if queue.send(message).await.is_err() {
            return;
        }
    }
    let _ = queue.send(FeedMessage::End(fanout.reports().to_vec())).await;
}
