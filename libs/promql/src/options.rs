//! What a query is asked with: its parameters, and the settings of the engine.

use std::time::Duration;

use budget::{Interrupt, TotalBudget};
use model::Timestamp;
use series::Dedup;

use crate::error::QUERIES;
use crate::syntax::ParseOptions;

/// What is asked beside the expression.
#[derive(Clone, Debug)]
pub struct QueryParams {
    /// First instant that is evaluated.
    pub start: Timestamp,
    /// Bound of the last instant that is evaluated, included; equal to `start` for an instant query.
    pub end: Timestamp,
    /// Distance of the instants; `None` for an instant query.
    pub step: Option<Duration>,
    /// How old a sample an instant selector still takes, the exact age excluded. Prometheus' default is 5 minutes.
    pub lookback: Duration,
    /// How replicas are made one series.
    pub dedup: Dedup,
    /// Labels that selectors may ask for but that series do not have any more, because they told replicas apart.
    pub replica_labels: Vec<String>,
    /// How the query is ended before its time.
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
    /// Which parts of the language are on.
    pub parse: ParseOptions,
    /// The step of a subquery that names none. Prometheus takes its evaluation interval, 1 minute by default.
    pub subquery_step: Duration,
    /// Keeps the names of metrics until the end of the query, so that operators on the way still see them, as Prometheus'
    /// feature `promql-delayed-name-removal` does. Off, a name goes where the value is no longer that of the metric:
    /// `sum by (__name__) (rate(x[5m]))` then has no name to group by.
    pub delayed_name_removal: bool,
    /// Most samples that a query may decode. A small limit refuses large queries; a large one lets a single query keep
    /// a core busy for long: a core decodes and evaluates some 40 million a second.
    pub max_samples: u64,
    /// Most bytes that the operators of a query may hold at one time. Past it the query ends with an error
    /// instead of the process.
    pub max_bytes: u64,
    /// What all queries that are planned with it, or with a clone of it, may use together.
    pub total: TotalBudget,
    /// Carries matchers of one side of a binary operator over to the other, so that series which find no partner are not
    /// fetched, nor warned of. Off by default: the value is the same only where series carry all labels that their selectors
    /// ask for, and stores behind a Thanos querier with selector labels answer for labels that their series do not have.
    pub propagate_matchers: bool,
    /// Lets `rate`, `irate`, `increase` and `resets` learn from start timestamps of resets that values do not show, and
    /// `start_timestamp` give them. Off by default, as in Prometheus; samples without start timestamps are not affected.
    pub use_start_timestamps: bool,
    /// Threads that decode and evaluate, at least 1. The answer does not depend on it.
    pub workers: usize,
}

impl Default for EngineOptions {
    /// 200 million samples and 1 GiB a query, no limit for all queries together, as many workers as the machine has cores, only the stable language.
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
