//! The traits that a store implements, and what their methods return.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;
use series::Series;

use crate::{
    AnswerHints, AnswerLimits, Kept, LabelNamesRequest, LabelValuesRequest, MetadataRequest, SeriesRequest,
    StoreError, StoreInfo,
};

/// One message of a Series answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeriesFrame {
    /// Series in label order. One series may continue in the next frame; it does not continue after another series has begun.
    Series(Vec<Series>),
    /// Some data is missing from the answer; the text says which and why. More frames may follow.
    Warning(String),
    /// What a store of blocks reports about its answer, for a request with hints. [`StoreClient`](crate::StoreClient) drops it.
    Hints(AnswerHints),
}

/// A Series answer: frames in label order, then the end, or one error and then the end.
///
/// Reading the stream drives the work. Dropping it cancels the work, also in the remote stores that the answer comes from.
pub type SeriesStream = BoxStream<'static, Result<SeriesFrame, StoreError>>;

/// Label names or label values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelsAnswer {
    /// Sorted and unique.
    pub values: Vec<String>,
    /// Which data is missing, and why.
    pub warnings: Vec<String>,
    /// What a store of blocks reports about its answer, for a request with hints.
    pub hints: Option<AnswerHints>,
    /// What a server keeps until the answer is sent.
    pub kept: Kept,
}

/// A source of series. The acceptance suite (module `acceptance`, feature `test-util`) is its contract.
#[tonic::async_trait]
pub trait Store: Send + Sync + 'static {
    /// The external labels and the time range of the store.
    ///
    /// # Errors
    /// When the store is not ready or not reachable.
    async fn info(&self) -> Result<StoreInfo, StoreError>;

    /// The series that match, in label order, each with the chunks that overlap the request's range.
    ///
    /// Whole chunks are sent: they may reach beyond the range and overlap each other.
    ///
    /// # Errors
    /// `InvalidArgument` when no matcher is left after those on external labels are removed. A request that cannot match
    /// any series gets an empty answer, not an error. Errors while reading come through the stream.
    async fn series(&self, request: SeriesRequest) -> Result<SeriesStream, StoreError>;

    /// The names of the labels of the series that match; of all series when there are no matchers.
    ///
    /// # Errors
    /// When the names cannot be read.
    async fn label_names(&self, request: LabelNamesRequest) -> Result<LabelsAnswer, StoreError>;

    /// The values that one label has in the series that match; in all series when there are no matchers.
    ///
    /// # Errors
    /// `InvalidArgument` when the label's name is empty; otherwise when the values cannot be read.
    async fn label_values(&self, request: LabelValuesRequest) -> Result<LabelsAnswer, StoreError>;

    /// The same store with limits on what its answers take in memory; `None` where they do not come from a peer.
    fn limited(&self, _limits: &AnswerLimits) -> Option<Arc<dyn Store>> {
        None
    }
}

/// Type, help and unit of one metric.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MetricMetadata {
    /// `counter`, `gauge`, `histogram`, `summary`, ... as the target reported it.
    pub kind: String,
    /// What it measures.
    pub help: String,
    /// Its unit, often empty.
    pub unit: String,
}

/// Metadata by metric name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetadataAnswer {
    /// Entries of each metric; more than one where targets disagree.
    pub metadata: BTreeMap<String, Vec<MetricMetadata>>,
    /// Which data is missing, and why.
    pub warnings: Vec<String>,
    /// What a server keeps until the answer is sent.
    pub kept: Kept,
}

/// A source of the type, help and unit of metrics.
#[tonic::async_trait]
pub trait MetadataStore: Send + Sync + 'static {
    /// Metadata of one metric or of all.
    ///
    /// # Errors
    /// When it cannot be read.
    async fn metric_metadata(&self, request: MetadataRequest) -> Result<MetadataAnswer, StoreError>;

    /// The same source with limits on what its answers take in memory; `None` where they do not come from a peer.
    fn limited(&self, _limits: &AnswerLimits) -> Option<Arc<dyn MetadataStore>> {
        None
    }
}

/// Reads a whole answer into memory and joins the frames of each series. For small answers and tests.
///
/// # Errors
/// The stream's error.
pub async fn collect_series(mut stream: SeriesStream) -> Result<(Vec<Series>, Vec<String>), StoreError> {
    let (mut all, mut warnings) = (Vec::<Series>::new(), Vec::new());
    while let Some(frame) = stream.next().await {
        match frame? {
            SeriesFrame::Warning(text) => warnings.push(text),
            SeriesFrame::Hints(_) => {}
            SeriesFrame::Series(batch) => {
                for series in batch {
                    match all.last_mut().filter(|last| last.labels == series.labels) {
                        Some(last) => last.chunks.extend(series.chunks),
                        None => all.push(series),
                    }
                }
            }
        }
    }
    Ok((all, warnings))
}
