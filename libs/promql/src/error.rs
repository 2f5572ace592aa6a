//! Why a query has no answer.

use std::fmt;

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
        Self::Execution(text.into())
    }
}

/// A budget that a query would overrun: which one, how large it is, and what the query wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitError {
    /// The limit's name: `max_samples` or `max_bytes`, or with `total` in between where it is for all queries.
    pub name: &'static str,
    /// What is counted.
    pub unit: &'static str,
    /// The limit.
    pub limit: u64,
    /// What the query had come to need when it was ended.
    pub wanted: u64,
    /// What other queries use, where the limit is for all queries together.
    pub others: Option<u64>,
    /// What in the query needs so much and where it stands, where the text alone shows it.
    pub place: Option<String>,
}

impl fmt::Display for LimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, unit, limit, wanted, others, place } = self;
        if let Some(place) = place {
            write!(f, "{place}: ")?;
        }
        write!(f, "query would use {wanted} {unit}")?;
        if let Some(others) = others {
            write!(f, " beside the {others} of other queries")?;
        }
        write!(f, ", more than {name}={limit} allows; ")?;
        if others.is_some() {
            f.write_str("ask again when fewer queries run, or ")?;
        }
        f.write_str("select fewer series, a shorter range or a longer step")
    }
}

impl std::error::Error for LimitError {}
