//! What a store is asked.

use std::time::Duration;

use model::{Labels, Matcher, TimeRange};
use series::Aggregate;

/// What a missing store does to an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PartialResponse {
    /// A warning; the rest is answered.
    #[default]
    Warn,
    /// An error; nothing is answered.
    Abort,
}

/// Keeps one part of the series, chosen by a hash of their labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which part, from 0.
    pub index: u64,
    /// How many parts; at least 1.
    pub total: u64,
    /// Whether the hash covers only `labels`, or all but them.
    pub by: bool,
    /// The labels `by` speaks of.
    pub labels: Vec<String>,
}

impl Shard {
    /// Whether a series with these labels (replica labels already removed) belongs to this part.
    pub fn keeps(&self, labels: &Labels) -> bool {
        let hash = labels.shard_hash(|name| self.labels.iter().any(|l| l == name) == self.by);
        hash % self.total.max(1) == self.index
    }
}

/// What the query around a selector will do with it. A store may use it to read less; it may ignore it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryHints {
    /// Distance of the query's steps; zero where there is one step only.
    pub step: Duration,
    /// The function around the selector, such as `rate`; empty where there is none.
    pub function: String,
    /// Length of the range selector; zero for an instant selector.
    pub range: Duration,
    /// Labels of the aggregation around it.
    pub grouping: Vec<String>,
    /// Whether `grouping` is kept (`by`) or dropped (`without`).
    pub by: bool,
}

/// Asks for series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesRequest {
    /// Which instants, both ends included.
    pub range: TimeRange,
    /// All must hold.
    pub matchers: Vec<Matcher>,
    /// Coarsest downsampling that will do; zero asks for raw samples.
    pub max_resolution: Duration,
    /// Which aggregates of downsampled chunks to send.
    pub aggregates: Vec<Aggregate>,
    /// What a missing store does to the answer.
    pub partial_response: PartialResponse,
    /// Label sets alone are wanted.
    pub skip_chunks: bool,
    /// One part of the series is wanted.
    pub shard: Option<Shard>,
    /// Labels to remove from every series before sorting.
    pub without_replica_labels: Vec<String>,
    /// Most series to send; more are cut off without a word.
    pub limit: Option<usize>,
    /// Most series in one message; 0 and 1 mean one message a series.
    pub batch_size: usize,
    /// What the query will do with the series.
    pub hints: Option<QueryHints>,
}

impl SeriesRequest {
    /// Asks for the raw series that match, whole and unbatched.
    pub fn new(range: TimeRange, matchers: Vec<Matcher>) -> Self {
        Self {
            range,
            matchers,
            max_resolution: Duration::ZERO,
            aggregates: vec![Aggregate::Raw],
            partial_response: PartialResponse::Warn,
            skip_chunks: false,
            shard: None,
            without_replica_labels: Vec::new(),
            limit: None,
            batch_size: 0,
            hints: None,
        }
    }
}

/// Asks for label names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelNamesRequest {
    /// Which instants, both ends included.
    pub range: TimeRange,
    /// All must hold; empty means all series.
    pub matchers: Vec<Matcher>,
    /// What a missing store does to the answer.
    pub partial_response: PartialResponse,
    /// External labels to leave out.
    pub without_replica_labels: Vec<String>,
    /// Most names to send.
    pub limit: Option<usize>,
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
        }
    }
}

/// Asks for the values of one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelValuesRequest {
    /// Which label; must not be empty.
    pub label: String,
    /// Which instants, both ends included.
    pub range: TimeRange,
    /// All must hold; empty means all series.
    pub matchers: Vec<Matcher>,
    /// What a missing store does to the answer.
    pub partial_response: PartialResponse,
    /// A label named here has no values.
    pub without_replica_labels: Vec<String>,
    /// Most values to send.
    pub limit: Option<usize>,
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
        }
    }
}

/// Asks for metadata of metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetadataRequest {
    /// Which metric; all when absent.
    pub metric: Option<String>,
    /// Most metrics to send; `Some(0)` asks for nothing.
    pub limit: Option<usize>,
    /// What a missing store does to the answer.
    pub partial_response: PartialResponse,
}
