//! Who answers the expressions of rules: queriers over HTTP, or the engine of this process over all stores.

mod config;
mod http;
mod parameters;

use std::time::Duration;

use model::Timestamp;
use promql::VectorSample;
use querier::GlobalQueries;
use rules::PartialResponse;

pub(crate) use config::parse_queriers;
pub(crate) use http::{HttpMethod, HttpQueriers, HttpQueriersOptions};

/// The lookback of queries that restore alerts.
pub(crate) const LOOKBACK: Duration = Duration::from_secs(300);

/// A query at one instant.
#[derive(Clone, Debug)]
pub(crate) struct RuleQuery {
    pub(crate) text: String,
    pub(crate) at: Timestamp,
    pub(crate) partial_response: PartialResponse,
    /// Whether samples of up to [`LOOKBACK`] ago count, whatever the querier is set to.
    pub(crate) has_fixed_lookback: bool,
    pub(crate) timeout: Duration,
}

/// An answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct SourceAnswer {
    pub(crate) samples: Vec<VectorSample>,
    /// Which data is missing, and why.
    pub(crate) warnings: Vec<String>,
}

/// Who answers the expressions of rules.
pub(crate) enum QuerySource {
    /// Queriers over HTTP, of which one answers.
    Http(HttpQueriers),
    /// The engine of this process.
    Global(Box<GlobalQueries>),
}

impl QuerySource {
    /// Answers a query.
    ///
    /// # Errors
    /// There is no complete answer in time; with [`PartialResponse::Warn`], no answer at all.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the query.
    pub(crate) async fn query(&self, query: &RuleQuery) -> Result<SourceAnswer, String> {
        match self {
            Self::Http(queriers) => queriers.query(query).await,
            Self::Global(queries) => {
                let partial_response = match query.partial_response {
                    PartialResponse::Warn => storeapi::PartialResponse::Warn,
                    PartialResponse::Abort => storeapi::PartialResponse::Abort,
                };
                let lookback = query.has_fixed_lookback.then_some(LOOKBACK);
                let answer =
                    queries.instant(&query.text, query.at, partial_response, lookback, query.timeout).await?;
                let samples = rules::samples_of(answer.value)?;
                Ok(SourceAnswer { samples, warnings: answer.warnings })
            }
        }
    }
}
