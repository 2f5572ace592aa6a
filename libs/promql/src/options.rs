//! The parameters of a query and the settings of the engine.

use std::time::Duration;

use budget::{Interrupt, TotalBudget};
use model::Timestamp;
use series::Dedup;

use crate::error::QUERIES;
use crate::syntax::ParseOptions;

/// The parameters of a query, apart from the expression.
#[derive(Clone, Debug)]
pub struct QueryParams {
    /// First instant that is evaluated.
    pub start: Timestamp,
    /// No instant after this one is evaluated; equal to `start` for an instant query.
    pub end: Timestamp,
    /// Distance between instants; `None` for an instant query.
    pub step: Option<Duration>,
    /// An instant selector takes samples that are younger than this. Prometheus' default is 5 minutes.
    pub lookback: Duration,
    /// How replicas are merged into one series.
    pub dedup: Dedup,
    /// Labels that identify replicas. Series do not have them any more, although selectors may name them. Without such labels,
    /// no samples are read for deduplication only.
    pub replica_labels: Vec<String>,
    /// Stops the query before it has an answer.
    pub interrupt: Interrupt,
}

impl QueryParams {
    /// A query at one instant, with a lookback of 5 minutes and replicas merged by penalty.
    pub fn instant(at: Timestamp) -> Self {
        Self {
            start: at,
            end: at,
            step: None,
            lookback: Duration::from_secs(300),
            dedup: Dedup::Penalty,
            replica_labels: Vec::new(),
            interrupt: Interrupt::new(),
        }
    }

    /// A query at `start`, `start + step`, ... up to `end`, otherwise as [`instant`](Self::instant).
    pub fn range(start: Timestamp, end: Timestamp, step: Duration) -> Self {
        Self { end, step: Some(step), ..Self::instant(start) }
    }
}

/// Settings that all queries of an engine share.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Which parts of the language are enabled.
    pub parse: ParseOptions,
    /// The step of a subquery that does not name one. Prometheus uses its evaluation interval, 1 minute by default.
    pub subquery_step: Duration,
    /// Keeps the names of metrics until the end of the query, so that all operators see them, as Prometheus' feature
    /// `promql-delayed-name-removal` does. Off by default: a name is dropped where the value is no longer that of the metric,
    /// so that `sum by (__name__) (rate(x[5m]))` has no name to group by.
    pub delayed_name_removal: bool,
    /// Most samples that a query may decode. A small limit rejects large queries. A large one lets a single query keep
    /// a core busy for long: a core decodes and evaluates about 40 million a second.
    pub max_samples: u64,
    /// Most bytes that the operators of a query may use at one time. A query that needs more stops with an error, so that
    /// the process does not run out of memory.
    pub max_bytes: u64,
    /// What all queries that are planned with these options, or with a clone of them, may use together.
    pub total: TotalBudget,
    /// Applies matchers of one side of a binary operator to the other side too. Series without a partner are then not
    /// fetched, and cause no warnings. Off by default: the value is the same only if series carry all labels that they are
    /// selected by, and a Thanos querier with selector labels answers for labels that its series do not have.
    pub propagate_matchers: bool,
    /// Lets `rate`, `irate`, `increase` and `resets` detect resets by start timestamps, also where values do not show them,
    /// and lets `start_timestamp` return them. Off by default, as in Prometheus. Samples without start timestamps are not
    /// affected.
    pub use_start_timestamps: bool,
    /// Number of threads that decode and evaluate, at least 1. The answer does not depend on it.
    pub workers: usize,
}

impl Default for EngineOptions {
    /// 200 million samples and 1 GiB for each query, no limit for all queries together, as many workers as the machine has
    /// cores, only the stable language.
    fn default() -> Self {
        Self {
            parse: ParseOptions::default(),
            subquery_step: Duration::from_secs(60),
            delayed_name_removal: false,
            max_samples: 200_000_000,
            max_bytes: 1 << 30,
            total: TotalBudget::unlimited(&QUERIES),
            propagate_matchers: false,
            use_start_timestamps: false,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}
