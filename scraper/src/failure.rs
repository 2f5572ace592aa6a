//! Why a scrape fails.

use model::Labels;

/// Why a scrape counts as failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScrapeFailure {
    /// The target did not send an exposition.
    #[error("{0}")]
    Fetch(String),
    /// The exposition is longer than allowed, which the text says.
    #[error("{0}")]
    BodyLimit(String),
    /// The exposition cannot be read.
    #[error("{0}")]
    Parse(String),
    /// It has too many samples.
    #[error("sample limit exceeded ({0})")]
    SampleLimit(usize),
    /// The labels of a series exceed a limit.
    #[error("{0}")]
    LabelLimit(String),
    /// A native histogram has too many buckets, whatever its resolution.
    #[error("histogram bucket limit exceeded ({0})")]
    BucketLimit(usize),
    /// A name is not accepted.
    #[error("invalid metric name or label names: {0}")]
    Names(Labels),
    /// Relabelling removed the name of a metric.
    #[error("missing metric name ({0})")]
    NoName(Labels),
}
