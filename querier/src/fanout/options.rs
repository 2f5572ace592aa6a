//! Settings of the fan-out.

use std::time::Duration;

use budget::{Budget, BudgetLimits, Interrupt, TotalBudget};
use mesh::StreamWindow;
use model::Labels;
use promql::QUERIES;
use storeapi::AnswerLimits;

/// Settings of a [`ProxyStore`](crate::ProxyStore).
#[derive(Clone, Debug)]
pub struct ProxyOptions {
    /// Labels that this querier adds to each label set it announces. They answer matchers like external
    /// labels.
    pub selector_labels: Labels,
    /// Maximum time that a store may send nothing; `None` for no limit except the query timeout.
    pub response_timeout: Option<Duration>,
    /// Maximum bytes to buffer for a store that cannot remove replica labels itself, so that its series must
    /// be sorted here.
    pub sort_bytes: usize,
    /// Maximum number of series of one store in one answer. A store that sends more is dropped from the
    /// answer. If the limit is too low, correct answers are cut; if it is too high, a broken store can use up
    /// the time of a query.
    pub store_series: u64,
    /// Whether each chunk is decoded when it arrives, so that a damaged one is dropped with a warning that names its store.
    /// Decoding takes as long as evaluating, so this is for queries that have met a damaged chunk.
    pub verify_chunks: bool,
    /// Maximum bytes of memory that one message with series, or a whole answer with labels or metadata, of one store may take.
    /// A store that sends more is dropped from the answer.
    pub store_bytes: usize,
    /// Bytes that the stores of one query may send ahead of the merge: in transit, and again as much in queues.
    pub window_bytes: usize,
    /// Maximum bytes of memory of one request that has no budget of its own, such as one that arrives over gRPC.
    pub request_bytes: u64,
    /// The memory of all requests.
    pub total: TotalBudget,
}

impl Default for ProxyOptions {
    fn default() -> Self {
        Self {
            selector_labels: Labels::empty(),
            response_timeout: None,
            sort_bytes: 256 << 20,
            store_series: 10_000_000,
            verify_chunks: false,
            store_bytes: 256 << 20,
            window_bytes: 64 << 20,
            request_bytes: u64::MAX,
            total: TotalBudget::unlimited(&QUERIES),
        }
    }
}

impl ProxyOptions {
    /// A budget for one request.
    pub(super) fn budget(&self) -> Budget {
        Budget::new(&self.total, BudgetLimits::bytes(self.request_bytes), Interrupt::new())
    }

    /// The limits on the answer of one store, which counts towards `budget`.
    pub(super) fn answer_limits(&self, window: StreamWindow, budget: &Budget) -> AnswerLimits {
        AnswerLimits::new(self.store_bytes, "--query.max-memory-per-store")
            .with_budget(budget)
            .with_window(window)
    }
}
