//! Why a query has no answer.

use crate::syntax::ParseError;

/// Why a query has no answer. The variants are what a caller can act on.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum QueryError {
    /// The text is no expression, or one that may not be asked this way. The caller has to change the query.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// The parameters contradict each other or the query: an end before the start, a step of zero.
    #[error("{0}")]
    BadParameter(String),
    /// The evaluation met data or arguments it has no answer for, such as two series with equal labels.
    #[error("{0}")]
    Execution(String),
    /// The query needs more than it may have.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The time for the query is over ([`Interrupt::time_out`](crate::Interrupt::time_out)).
    #[error("query timed out in expression evaluation")]
    Timeout,
    /// Nobody waits for the answer any more ([`Interrupt::cancel`](crate::Interrupt::cancel)).
    #[error("query was canceled in expression evaluation")]
    Canceled,
}

impl QueryError {
    /// An [`Execution`](Self::Execution) error with this text.
    pub(crate) fn execution(text: impl Into<String>) -> Self {
        QueryError::Execution(text.into())
    }
}

/// A budget that a query would overrun: which one, how large it is, and what the query wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "query would use {wanted} {unit}, more than {name}={limit} allows; select fewer series, a shorter range or a longer step"
)]
pub struct LimitError {
    /// The limit's name: `max_samples` or `max_bytes`.
    pub name: &'static str,
    /// What is counted.
    pub unit: &'static str,
    /// The limit.
    pub limit: u64,
    /// What the query had come to need when it was ended.
    pub wanted: u64,
}
