//! Why a query has no answer.

use budget::{Consumers, LimitError, Stop};
use series::DecodeError;

use crate::syntax::ParseError;

/// Queries, as errors of a [`TotalBudget`](budget::TotalBudget) name them.
pub static QUERIES: Consumers = Consumers {
    one: "query",
    many: "queries",
    advice: "select fewer series, a shorter range or a longer step",
};

/// Why a query has no answer. The variants are what a caller can act on.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum QueryError {
    /// The text is not a valid expression, or not one that this kind of query allows. The caller has to change the query.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// The parameters contradict each other or the query: an end before the start, a step of zero.
    #[error("{0}")]
    BadParameter(String),
    /// The evaluation found data or arguments that have no answer, such as two series with equal labels.
    #[error("{0}")]
    Execution(String),
    /// A chunk of a series cannot be decoded. The caller may ask again without the damaged chunks.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The query needs more than a limit allows.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The time for the query is over ([`Interrupt::time_out`](budget::Interrupt::time_out)).
    #[error("query timed out in expression evaluation")]
    Timeout,
    /// The caller does not need the answer any more ([`Interrupt::cancel`](budget::Interrupt::cancel)).
    #[error("query was canceled in expression evaluation")]
    Canceled,
}

impl QueryError {
    /// An [`Execution`](Self::Execution) error with this text.
    pub(crate) fn execution(text: impl Into<String>) -> Self {
        Self::Execution(text.into())
    }
}

impl From<Stop> for QueryError {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Limit(limit) => Self::Limit(limit),
            Stop::TimedOut => Self::Timeout,
            Stop::Cancelled => Self::Canceled,
        }
    }
}
