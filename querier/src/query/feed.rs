//! Series on their way from the fan-out to the engine.

use budget::{Budget, Reservation};
use promql::SelectId;
use series::SelectedSeries;
use storeapi::{SeriesRequest, StoreError};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::fanout::{Awaited, FanoutEvent, ProxyStore, StoreFilter, StoreReport};
use crate::memory;

/// Batches that a feed reads ahead of the engine, each of at most 64 series or about a mebibyte.
const AHEAD: usize = 2;

enum Item {
    /// Series, and what holds their memory until the engine does.
    Series(Vec<SelectedSeries>, Reservation),
    Warning(String),
    Failed(StoreError),
    End(Vec<StoreReport>),
}

enum Slot {
    /// Not asked for yet.
    Closed,
    Open(mpsc::Receiver<Item>),
    Ended,
}

/// The feeds of all selects of a query, used from the engine's thread.
///
/// A feed is opened when the engine first wants it, together with those that it will want next, so that stores work
/// while the engine does. What is to be asked of some is known only then; nothing reads ahead of those.
pub(super) struct Feeds {
    runtime: Handle,
    stores: ProxyStore,
    filter: StoreFilter,
    /// What is asked for each select; `None` where that is not known yet.
    requests: Vec<Option<SeriesRequest>>,
    /// All selects, as the engine is going to want them.
    order: Vec<usize>,
    slots: Vec<Slot>,
    concurrent: usize,
    budget: Budget,
    awaited: Awaited,
    cancel: CancellationToken,
    warnings: Vec<String>,
    /// Each with its select.
    reports: Vec<(usize, StoreReport)>,
}

impl Feeds {
    /// Takes what to ask for each select and the order in which they are read. Must be called within a runtime, which then
    /// does the reading. `cancel` ends all feeds.
    pub(super) fn new(
        stores: ProxyStore,
        (requests, order): (Vec<Option<SeriesRequest>>, &[SelectId]),
        filter: StoreFilter,
        concurrent: usize,
        budget: Budget,
        awaited: Awaited,
        cancel: CancellationToken,
    ) -> Self {
        let slots = requests.iter().map(|_| Slot::Closed).collect();
        let order = order.iter().map(|select| select.index()).collect();
        let runtime = Handle::current();
        let (warnings, reports) = (Vec::new(), Vec::new());
        Self {
            runtime,
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

    /// The next batch of a select, or `None` at its end; `request` tells what to ask for, if that was not known before.
    /// Blocks; must not be called on the runtime's own threads.
    pub(super) fn next(
        &mut self,
        select: usize,
        request: impl FnOnce() -> SeriesRequest,
    ) -> Result<Option<Vec<SelectedSeries>>, StoreError> {
        if let Some(known) = self.requests.get_mut(select) {
            known.get_or_insert_with(request);
        }
        self.open_around(select);
        let Some(Slot::Open(items)) = self.slots.get_mut(select) else { return Ok(None) };
        loop {
            match items.blocking_recv() {
                Some(Item::Series(batch, hold)) => {
                    // From here on the engine holds them.
                    drop(hold);
                    return Ok(Some(batch));
                }
                Some(Item::Warning(text)) => self.warnings.push(text),
                Some(Item::Failed(error)) => return Err(error),
                Some(Item::End(reports)) => {
                    self.reports.extend(reports.into_iter().map(|report| (select, report)));
                    self.slots[select] = Slot::Ended;
                    return Ok(None);
                }
                None => return Err(StoreError::internal("reading the stores ended unexpectedly")),
            }
        }
    }

    /// Opens the wanted feed, and those that are wanted next as long as not too many are open.
    fn open_around(&mut self, wanted: usize) {
        self.open(wanted);
        let mut open = self.slots.iter().filter(|slot| matches!(slot, Slot::Open(_))).count();
        for at in 0..self.order.len() {
            if open > self.concurrent {
                return;
            }
            open += usize::from(self.open(self.order[at]));
        }
    }

    fn open(&mut self, select: usize) -> bool {
        let (Some(slot @ Slot::Closed), Some(Some(request))) =
            (self.slots.get_mut(select), self.requests.get(select))
        else {
            return false;
        };
        let (queue, items) = mpsc::channel(AHEAD);
        let (stores, request, filter) = (self.stores.clone(), request.clone(), self.filter.clone());
        let (budget, awaited) = (self.budget.clone(), self.awaited.clone());
        let cancel = self.cancel.clone();
        self.runtime.spawn(async move {
            cancel.run_until_cancelled(read(stores, request, filter, budget, awaited, queue)).await;
        });
        *slot = Slot::Open(items);
        true
    }

    /// What all selects together have to report.
    pub(super) fn finish(mut self) -> (Vec<String>, Vec<(usize, StoreReport)>) {
        // Two selects that miss the same store say so once.
        self.warnings.sort();
        self.warnings.dedup();
        (self.warnings, self.reports)
    }
}

/// Reads one select to its end, or until nobody listens.
async fn read(
    stores: ProxyStore,
    request: SeriesRequest,
    filter: StoreFilter,
    budget: Budget,
    awaited: Awaited,
    queue: mpsc::Sender<Item>,
) {
    let mut fanout = match stores.select_within(request, &filter, Some(&budget)) {
        Ok(fanout) => fanout,
        Err(error) => {
            let _ = queue.send(Item::Failed(error)).await;
            return;
        }
    };
    fanout.show_waits_in(&awaited);
    while let Some(event) = fanout.next().await {
        let item = match event {
            Ok(FanoutEvent::Series(batch)) => {
                let batch: Vec<_> = batch.into_iter().map(|series| series.into_selected()).collect();
                let mut hold = Reservation::new(&budget);
                match hold.add(batch.iter().map(SelectedSeries::size_bytes).sum::<usize>() as u64) {
                    Ok(()) => Item::Series(batch, hold),
                    Err(error) => Item::Failed(StoreError::limit(memory::limit_with_flag(&error))),
                }
            }
            Ok(FanoutEvent::Warning(text)) => Item::Warning(text),
            Err(error) => Item::Failed(error),
        };
        if queue.send(item).await.is_err() {
            return;
        }
    }
    let _ = queue.send(Item::End(fanout.reports().to_vec())).await;
}
