//! A question and its settings.

use std::time::Duration;

use budget::Interrupt;
use model::Timestamp;
use promql::QueryParams;
use series::Dedup;
use storeapi::{PartialResponse, Shard};

use crate::fanout::StoreFilter;
use crate::query::lookback::DynamicLookback;

/// A query with its settings.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) text: String,
    pub(crate) start: Timestamp,
    pub(crate) end: Timestamp,
    /// `None` for an instant query.
    pub(crate) step: Option<Duration>,
    pub(crate) lookback: Duration,
    /// Whether the lookback depends on the resolution of the data.
    pub(crate) dynamic_lookback: Option<DynamicLookback>,
    /// How replicas are merged; `Off` if `replica_labels` is empty.
    pub(crate) dedup: Dedup,
    /// Replica labels; empty if replicas are not merged.
    pub(crate) replica_labels: Vec<String>,
    pub(crate) partial_response: PartialResponse,
    pub(crate) stores: StoreFilter,
    /// The part of the series to evaluate; `None` for all.
    pub(crate) shard: Option<Shard>,
    /// Coarsest downsampling resolution allowed.
    pub(crate) max_resolution: Duration,
    pub(crate) timeout: Duration,
    /// Whether to measure each operator.
    pub(crate) analyze: bool,
    /// Whether selects may be answered as they were answered to another question a few seconds ago.
    pub(crate) allows_shared: bool,
}

impl Question {
    /// Whether selects are shared with other questions. Those of some stores only are not.
    pub(super) fn shares_selects(&self) -> bool {
        self.allows_shared && self.stores.allows_all()
    }

    pub(super) fn params(&self, interrupt: Interrupt) -> QueryParams {
        QueryParams {
            start: self.start,
            end: self.end,
            step: self.step,
            lookback: self.lookback,
            dedup: self.dedup,
            replica_labels: self.replica_labels.clone(),
            interrupt,
        }
    }
}
