//! The result of a question: an answer with its costs, or an error.

use std::time::Duration;

use promql::{QueryError, QueryOutput};
use storeapi::StoreError;

use crate::fanout::StoreReport;

/// An answer, and the stores it came from.
#[derive(Debug)]
pub(crate) struct QueryAnswer {
    pub(crate) output: QueryOutput,
    /// Warnings about missing parts.
    pub(crate) warnings: Vec<String>,
    /// The reports of stores, each with the index of its select.
    pub(crate) stores: Vec<(usize, StoreReport)>,
    /// The coarsest resolution that the question permits.
    pub(crate) max_resolution: Duration,
    pub(crate) timings: Timings,
}

/// Durations of the phases of a query.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Timings {
    /// Parsing and planning.
    pub(crate) planning: Duration,
    /// Waiting for a free slot.
    pub(crate) queue: Duration,
    /// Reading and evaluating all series; includes waits for stores.
    pub(crate) evaluation: Duration,
    /// Assembling and sorting the answer.
    pub(crate) assembly: Duration,
}

/// The cost of an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueryCost {
    /// Decoded samples.
    pub(super) samples: u64,
    /// Whether a store is missing from it.
    pub(super) partial: bool,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// The engine failed.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// A store failed, and the request rejects partial answers.
    #[error(transparent)]
    Stores(#[from] StoreError),
    /// The timeout expired, with the stores that the query was waiting for.
    #[error("{}{}", QueryError::Timeout, blame)]
    Late {
        /// Suffix of the message; empty if the query was not waiting for a store.
        blame: String,
    },
    /// The timeout expired before a slot was free.
    #[error("query timed out in query queue")]
    Queue,
    /// The evaluation panicked.
    #[error("query evaluation panicked; see the log")]
    Lost,
}
