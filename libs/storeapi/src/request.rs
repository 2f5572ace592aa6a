//! The requests to a store.

use std::time::Duration;

use model::{Labels, Matcher, TimeRange};
use series::Aggregate;

use crate::BlockHints;

/// What happens when a store does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PartialResponse {
    /// The answer has a warning and the data of the other stores.
    #[default]
    Warn,
    /// The answer is an error.
    Abort,
}

/// Selects one part of the series by a hash of their labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// The number of the part, from 0.
    pub index: u64,
    /// The number of parts; at least 1.
    pub total: u64,
    /// Whether the hash covers only `labels` (true) or all other labels (false).
    pub by: bool,
    /// The labels that `by` refers to.
    pub labels: Vec<String>,
}

impl Shard {
    /// Whether a series with these labels, without replica labels, belongs to this part.
    pub fn keeps(&self, labels: &Labels) -> bool {
        let hash = labels.shard_hash(|name| self.labels.iter().any(|l| l == name) == self.by);
        hash % self.total.max(1) == self.index
    }
}

/// What the query does with the series of a selector. A store may use this to read less, or ignore it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryHints {
    /// Distance between the steps of the query; zero for an instant query.
    pub step: Duration,
    /// The function around the selector, such as `rate`; empty if there is none.
    pub function: String,
    /// Length of the range selector; zero for an instant selector.
    pub range: Duration,
    /// The labels of the aggregation around the selector.
    pub grouping: Vec<String>,
    /// Whether `grouping` lists the labels to keep (`by`) or to drop (`without`).
    pub by: bool,
}

/// A request for series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesRequest {
    /// The time range; both ends are included.
    pub range: TimeRange,
    /// A series must satisfy all of them.
    pub matchers: Vec<Matcher>,
    /// The coarsest resolution that the store may send; zero asks for raw samples.
    pub max_resolution: Duration,
    /// Whether a store sends coarser data than that for times at which it has nothing finer: of the finest resolution that it
    /// has there. Stores of Thanos ignore this.
    pub coarser_if_needed: bool,
    /// Which aggregates of downsampled chunks to send.
    pub aggregates: Vec<Aggregate>,
    /// What happens when a store does not answer.
    pub partial_response: PartialResponse,
    /// Whether to send label sets without chunks.
    pub skip_chunks: bool,
    /// Which part of the series to send; `None`: all.
    pub shard: Option<Shard>,
    /// Labels to remove from every series before it is sorted.
    pub without_replica_labels: Vec<String>,
    /// Most series to send; further series are dropped without a warning.
    pub limit: Option<usize>,
    /// Most series in one message; 0 and 1 send one message per series.
    pub batch_size: usize,
    /// What the query does with the series.
    pub hints: Option<QueryHints>,
    /// Which blocks a store of blocks asks. With hints, the answer ends with [`SeriesFrame::Hints`](crate::SeriesFrame::Hints).
    pub block_hints: Option<BlockHints>,
}

impl SeriesRequest {
    /// Asks for all raw series that match, one per message.
    pub fn new(range: TimeRange, matchers: Vec<Matcher>) -> Self {
        Self {
            range,
            matchers,
            max_resolution: Duration::ZERO,
            coarser_if_needed: false,
            aggregates: vec![Aggregate::Raw],
            partial_response: PartialResponse::Warn,
            skip_chunks: false,
            shard: None,
            without_replica_labels: Vec::new(),
            limit: None,
            batch_size: 0,
            hints: None,
            block_hints: None,
        }
    }
}

/// A request for label names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelNamesRequest {
    /// The time range; both ends are included.
    pub range: TimeRange,
    /// A series must satisfy all of them; without matchers, all series count.
    pub matchers: Vec<Matcher>,
    /// What happens when a store does not answer.
    pub partial_response: PartialResponse,
    /// External labels to drop.
    pub without_replica_labels: Vec<String>,
    /// Most names to send.
    pub limit: Option<usize>,
    /// Which blocks a store of blocks asks.
    pub block_hints: Option<BlockHints>,
}

impl LabelNamesRequest {
    /// Asks for all names.
    pub fn new(range: TimeRange, matchers: Vec<Matcher>) -> Self {
        Self {
            range,
            matchers,
            partial_response: PartialResponse::Warn,
            without_replica_labels: Vec::new(),
            limit: None,
            block_hints: None,
        }
    }
}

/// A request for the values of one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelValuesRequest {
    /// The name of the label; must not be empty.
    pub label: String,
    /// The time range; both ends are included.
    pub range: TimeRange,
    /// A series must satisfy all of them; without matchers, all series count.
    pub matchers: Vec<Matcher>,
    /// What happens when a store does not answer.
    pub partial_response: PartialResponse,
    /// When the label is one of these, the answer has no values.
    pub without_replica_labels: Vec<String>,
    /// Most values to send.
    pub limit: Option<usize>,
    /// Which blocks a store of blocks asks.
    pub block_hints: Option<BlockHints>,
}

impl LabelValuesRequest {
    /// Asks for all values of `label`.
    pub fn new(label: &str, range: TimeRange, matchers: Vec<Matcher>) -> Self {
        Self {
            label: label.to_owned(),
            range,
            matchers,
            partial_response: PartialResponse::Warn,
            without_replica_labels: Vec::new(),
            limit: None,
            block_hints: None,
        }
    }
}

/// A request for the metadata of metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetadataRequest {
    /// The name of the metric; `None`: all metrics.
    pub metric: Option<String>,
    /// Most metrics to send; `Some(0)` gives an empty answer.
    pub limit: Option<usize>,
    /// What happens when a store does not answer.
    pub partial_response: PartialResponse,
}
