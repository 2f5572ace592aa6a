//! A query: its parameters, the settings of the engine, and the way from text to plan.

use std::sync::Arc;
use std::time::Duration;

use budget::{Budget, Interrupt, TotalBudget};
use model::{Matcher, TimeRange, Timestamp};
use series::{Aggregate, Dedup};

use crate::eval::Evaluation;
use crate::eval::meter::Clock;
use crate::eval::order;
use crate::plan::Plan;
use crate::plan::explain::PlanNode;
use crate::syntax::functions::ValueType;
use crate::{NeededLabels, ParseOptions, QUERIES, QueryError};

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

/// Names one select of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SelectId(pub(crate) usize);

impl SelectId {
    /// The select's place in [`Query::selects`].
    pub fn index(self) -> usize {
        self.0
    }
}

/// Series that a query needs. Expressions that need the same ones share a select.
#[derive(Clone, Debug, PartialEq)]
pub struct Select {
    /// All of them have to hold.
    pub matchers: Vec<Matcher>,
    /// The samples that matter; lookback, offsets and `@` are worked in. Samples outside do no harm.
    pub range: TimeRange,
    /// What the samples are for.
    pub hints: SelectHints,
    /// Whether more matchers are to come, which follow from the series of other selects: the info series of `info()` are
    /// those of the instances and jobs of its first argument. Such a select is to be asked for as [`Evaluation::select`]
    /// has it, once [`Evaluation::next_select`] names it; it never does where no series are needed after all.
    pub late: bool,
}

/// What the samples of a select are for. Hints may be ignored; the answer to raw data is the same. Where selectors share
/// a select, `func` and `range` are those of the first, and the others hold for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SelectHints {
    /// The function or aggregation directly around the selector; empty where there is none.
    pub func: String,
    /// The length of a range selector; zero for an instant selector.
    pub range: Duration,
    /// Distance of the evaluations; zero for an instant query.
    pub step: Duration,
    /// The grouping labels of an aggregation directly around the selector.
    pub grouping: Vec<String>,
    /// Whether `grouping` is `by` (or else `without`).
    pub by: bool,
    /// The labels that matter to the answer, whatever stands around the selector.
    pub labels: NeededLabels,
    /// How coarse data may be, where the function around a selector needs several samples of its range.
    pub resolution: Option<Duration>,
}

impl SelectHints {
    /// Which aggregate of downsampled data the samples are to be, as Thanos chooses it.
    pub fn aggregate(&self) -> Aggregate {
        match self.func.as_str() {
            "increase" | "rate" | "irate" | "resets" | "xincrease" | "xrate" => Aggregate::Counter,
            "min" => Aggregate::Min,
            "max" => Aggregate::Max,
            "count" => Aggregate::Count,
            other if other.starts_with("min_") => Aggregate::Min,
            other if other.starts_with("max_") => Aggregate::Max,
            other if other.starts_with("count_") => Aggregate::Count,
            other if other.starts_with("sum_") => Aggregate::Sum,
            _ => Aggregate::Average,
        }
    }
}

/// A query that is parsed, checked and planned.
///
/// ```
/// use model::Timestamp;
/// use promql::{EngineOptions, Query, QueryParams, QueryValue};
///
/// let params = QueryParams::instant(Timestamp::EPOCH);
/// let query = Query::plan("vector(1) + 1", &params, &EngineOptions::default())?;
/// assert!(query.selects().is_empty());
/// let output = query.evaluation().finish()?;
/// assert!(matches!(output.value, QueryValue::Vector(samples) if samples.len() == 1));
/// # Ok::<(), promql::QueryError>(())
/// ```
#[derive(Debug)]
pub struct Query {
    plan: Arc<Plan>,
}

impl Query {
    /// Parses `text` and plans its evaluation.
    ///
    /// # Errors
    /// [`QueryError::Parse`] for a text that is no expression, [`QueryError::BadParameter`] for parameters that do not fit,
    /// [`QueryError::Limit`] for a query whose size is beyond the budget whatever the data.
    pub fn plan(text: &str, params: &QueryParams, engine: &EngineOptions) -> Result<Self, QueryError> {
        Ok(Self { plan: Arc::new(Plan::build(text, params, engine)?) })
    }

    /// The series it needs, as far as they are known before there are any.
    pub fn selects(&self) -> &[Select] {
        self.plan.selects()
    }

    /// All selects in the order in which they are best read: what others wait for comes first, so that these can stream. Any
    /// other order gives the same answer, if selects that are [late](Select::late) come after those that they depend on.
    pub fn reading_order(&self) -> Vec<SelectId> {
        order::reading_order(&self.plan)
    }

    /// The type of its value; the value of a range query is a matrix where this is a scalar or a vector.
    pub fn value_type(&self) -> ValueType {
        self.plan.value_type()
    }

    /// What it may use. Its driver reserves memory there for the series that it reads ahead.
    pub fn budget(&self) -> &Budget {
        &self.plan.budget
    }

    /// How it is going to be evaluated.
    pub fn explain(&self) -> PlanNode {
        PlanNode::of(&self.plan, None)
    }

    /// The machine that evaluates it.
    pub fn evaluation(self) -> Evaluation {
        Evaluation::new(self.plan, None)
    }

    /// A machine that also measures what each operator does ([`QueryOutput::analysis`]), which costs a few percent of the
    /// time. `clock` is asked by several threads.
    ///
    /// [`QueryOutput::analysis`]: crate::QueryOutput::analysis
    pub fn measured_evaluation(self, clock: Clock) -> Evaluation {
        Evaluation::new(self.plan, Some(clock))
    }
}
