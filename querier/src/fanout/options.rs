//! Settings of the fan-out.

use std::time::Duration;

use model::Labels;

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
}

impl Default for ProxyOptions {
    fn default() -> Self {
        Self {
            selector_labels: Labels::empty(),
            response_timeout: None,
            sort_bytes: 256 << 20,
            store_series: 10_000_000,
            verify_chunks: false,
        }
    }
}
