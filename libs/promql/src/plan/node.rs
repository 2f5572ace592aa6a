//! The operators of a plan.

use std::sync::Arc;

use model::Labels;
use series::DecodeOptions;

use crate::functions::label::{LabelJoin, LabelReplace};
use crate::functions::range::RangeCall;
use crate::select::SelectId;
use crate::syntax::ast::{AggregateOp, BinaryOp, Span, VectorMatching};
use crate::syntax::functions::FunctionId;
use crate::value::steps::{Steps, Window};

/// Names an operator of a plan.
pub(crate) type NodeId = usize;

/// What the value of a query is made of.
#[derive(Debug)]
pub(crate) enum PlanRoot {
    /// A string literal.
    String(String),
    /// The series of this operator.
    Series(NodeId),
}

/// An operator, what feeds it and whom it feeds.
#[derive(Debug)]
pub(crate) struct OperatorNode {
    /// What it computes.
    pub(crate) op: Op,
    /// What feeds it, in the order that the operator names them.
    pub(crate) inputs: Vec<NodeId>,
    /// Whom it feeds and which input of that it is; `None` for the root.
    pub(crate) parent: Option<(NodeId, usize)>,
    /// The instants of its output.
    pub(crate) steps: Steps,
}

/// What an operator computes. Scalars travel as a single series without labels that has a float at each step.
#[derive(Debug)]
pub(crate) enum Op {
    /// A number. No inputs.
    Number(f64),
    /// The time of each step in seconds. No inputs.
    Time,
    /// Series from a select. Inputs: the scalar arguments of its function.
    Leaf(Leaf),
    /// A change to each series by itself. Inputs: the series, then the scalar arguments.
    Map(Map),
    /// `scalar(v)`. Input: the vector.
    Scalar,
    /// `absent(v)`: these labels at each step where the input has nothing. Input: the vector.
    Absent(Labels),
    /// An aggregation. Inputs: the vector, then the parameter where it is a scalar.
    Aggregate(Arc<Aggregation>),
    /// `count_values`. Input: the vector.
    CountValues {
        /// How series are grouped.
        grouping: Arc<Grouping>,
        /// The label that takes the value.
        label: String,
    },
    /// An arithmetic or comparing operator between vectors. Inputs: left, right.
    Join(Join),
    /// `and`, `or` or `unless`. Inputs: left, right.
    Set {
        /// Which of them.
        op: BinaryOp,
        /// How series match.
        matching: VectorMatching,
    },
    /// `histogram_quantile`, `histogram_quantiles` or `histogram_fraction`. Inputs: the vector, then the scalars.
    Buckets(BucketCall),
    /// `sort` and its like. Input: the vector.
    Sort(SortOrder),
    /// Joins series with equal labels, which never have values at the same step. Input: the vector.
    Merge,
    /// Fails where two series have equal labels, after names were taken off them perhaps. Input: the vector.
    Distinct(Distinct),
    /// `info(v, selector)`. Inputs: the vector, the info series.
    Info(InfoCall),
}

/// Series from a select.
#[derive(Debug)]
pub(crate) struct Leaf {
    /// Which select.
    pub(crate) select: SelectId,
    /// What becomes of its samples.
    pub(crate) kind: LeafKind,
    /// Which samples a step sees.
    pub(crate) window: Window,
    /// How they are decoded.
    pub(crate) decode: DecodeOptions,
    /// Whether only count and sum of histograms matter, so that buckets need not be carried along.
    pub(crate) statistics: bool,
    /// Where the selector stands.
    pub(crate) span: Span,
}

/// What a leaf makes of samples.
#[derive(Debug)]
pub(crate) enum LeafKind {
    /// The last sample of the window.
    Instant,
    /// The time of the last sample of the window.
    Timestamp,
    /// The start timestamp of the last sample of the window; 0 where it is not known.
    StartTimestamp,
    /// The time of the last sample of the window, which has to be a float.
    InfoTimestamp,
    /// A function of the window.
    Range(RangeCall),
    /// The samples themselves; only as the root of an instant query.
    Raw,
}

/// A change to each series by itself.
#[derive(Clone, Debug)]
pub(crate) enum Map {
    /// `vector(s)`: nothing changes.
    Identity,
    /// `-v`
    Negate,
    /// A function of one float, `round` and `clamp` included.
    Math(FunctionId),
    /// A part of the date that each float is.
    Date(FunctionId),
    /// `timestamp(v)` of an expression: the time of the step.
    StepTime,
    /// `max_of(a, b)` or `min_of(a, b)`.
    Extreme(FunctionId),
    /// A number that describes each histogram.
    Statistic(FunctionId),
    /// An operator between each value and a scalar.
    Arithmetic {
        /// Which operator.
        op: BinaryOp,
        /// Whether the scalar is the left operand.
        swapped: bool,
        /// Whether a comparison gives 0 or 1.
        return_bool: bool,
        /// Where the expression stands.
        span: Span,
    },
    /// `label_replace`
    LabelReplace(Arc<LabelReplace>),
    /// `label_join`
    LabelJoin(Arc<LabelJoin>),
    /// A function over the steps of a subquery.
    Subquery {
        /// The function.
        call: RangeCall,
        /// Which steps of the subquery each step sees.
        window: Window,
        /// The steps of the subquery.
        inner: Steps,
    },
    /// The only step of the input at each step.
    Repeat,
}

/// How series form groups.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Grouping {
    /// The labels, sorted, each once.
    pub(crate) labels: Vec<String>,
    /// Whether they are the ones to leave out.
    pub(crate) without: bool,
}

/// An aggregation other than `count_values`.
#[derive(Debug)]
pub(crate) struct Aggregation {
    /// Which one.
    pub(crate) op: AggregateOp,
    /// How series form groups.
    pub(crate) grouping: Grouping,
    /// Where the aggregated expression stands.
    pub(crate) operand: Span,
    /// Where the parameter stands; the aggregated expression where there is none.
    pub(crate) param: Span,
    /// Where all of it stands.
    pub(crate) span: Span,
}

/// An arithmetic or comparing operator between vectors.
#[derive(Debug)]
pub(crate) struct Join {
    /// Which operator.
    pub(crate) op: BinaryOp,
    /// How series match.
    pub(crate) matching: VectorMatching,
    /// Whether a comparison gives 0 or 1.
    pub(crate) return_bool: bool,
    /// Whether names go at once.
    pub(crate) drop_names: bool,
    /// Where the expression stands.
    pub(crate) span: Span,
}

/// What keeps series apart whose labels were changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Distinct {
    /// What is taken off the labels before.
    pub(crate) names: Option<Names>,
    /// Whether equal labels are refused also where they never have a value at the same step.
    pub(crate) any_step: bool,
}

/// The labels that go where a value is no longer that of the metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Names {
    /// The name.
    Metric,
    /// Name, type and unit.
    Reserved,
}

/// A function over the buckets of histograms, native or classic.
#[derive(Debug)]
pub(crate) struct BucketCall {
    /// Which function.
    pub(crate) function: FunctionId,
    /// Where the vector stands.
    pub(crate) operand: Span,
    /// Where the scalars stand.
    pub(crate) params: Vec<Span>,
    /// The label that takes the quantile of `histogram_quantiles`.
    pub(crate) label: String,
    /// Whether annotations may tell names of metrics.
    pub(crate) named: bool,
}

/// How `sort` and its like order series.
#[derive(Debug)]
pub(crate) struct SortOrder {
    /// Which function.
    pub(crate) function: FunctionId,
    /// The labels to order by, where it is by labels.
    pub(crate) labels: Vec<String>,
    /// Where the call stands.
    pub(crate) span: Span,
}

/// `info(v, selector)`.
#[derive(Debug)]
pub(crate) struct InfoCall {
    /// The conditions on the names of info series.
    pub(crate) names: Vec<model::Matcher>,
    /// The conditions of the selector on data labels; one of them has to hold for each label that is added.
    pub(crate) matchers: Vec<model::Matcher>,
}
