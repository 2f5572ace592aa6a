//! What is asked of the folder, without what external labels answer.

use model::{Labels, Matcher, TimeRange};
use series::Producer;
use storeapi::SeriesRequest;

/// A request after its matchers for external labels were evaluated.
pub(crate) struct Narrowed {
    pub(crate) external: Labels,
    pub(crate) matchers: Vec<Matcher>,
    pub(crate) range: TimeRange,
}

/// What is asked of the folder.
pub(crate) struct Question {
    pub(crate) narrowed: Narrowed,
    pub(crate) request: SeriesRequest,
    pub(crate) producer: Option<Producer>,
}

impl Question {
    /// The labels of a series as they are sent.
    pub(crate) fn sent(&self, stored: &Labels) -> Labels {
        let is_removed =
            |name: &str| self.request.without_replica_labels.iter().any(|removed| removed == name);
        stored.extended(&self.narrowed.external).without(is_removed)
    }

    pub(crate) fn is_in_shard(&self, stored: &Labels) -> bool {
        self.request.shard.as_ref().is_none_or(|shard| shard.keeps(&self.sent(stored)))
    }
}
