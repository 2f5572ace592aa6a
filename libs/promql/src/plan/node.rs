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

/// Identifies an operator of a plan.
pub(crate) type NodeId = usize;

/// Where the value of a query comes from.
#[derive(Debug)]
pub(crate) enum PlanRoot {
    /// A string literal.
    String(String),
    /// The series of this operator.
    Series(NodeId),
}

/// An operator with its inputs and the operator that it feeds.
#[derive(Debug)]
pub(crate) struct OperatorNode {
    /// What it computes.
    pub(crate) op: Op,
    /// Its inputs, in the order that `op` documents.
    pub(crate) inputs: Vec<NodeId>,
    /// The operator that it feeds, and which input of that operator it is; `None` for the root.
    pub(crate) parent: Option<(NodeId, usize)>,
    /// The instants of its output.
    pub(crate) steps: Steps,
}

/// What an operator computes. A scalar is a single series without labels that has a float at each step.
#[derive(Debug)]
pub(crate) enum Op {
    /// A number. No inputs.
    Number(f64),
    /// The time of each step in seconds. No inputs.
    Time,
    /// Series from a select. Inputs: the scalar arguments of its function.
    Leaf(Leaf),
    /// A transformation of each series by itself. Inputs: the series, then the scalar arguments.
    Map(Map),
    /// `scalar(v)`. Input: the vector.
    Scalar,
    /// `absent(v)`: these labels at each step where the input has no value. Input: the vector.
    Absent(Labels),
    /// An aggregation. Inputs: the vector, then the parameter if it is a scalar.
    Aggregate(Arc<Aggregation>),
    /// `count_values`. Input: the vector.
    CountValues {
        /// How series are grouped.
        grouping: Arc<Grouping>,
        /// The label for the value.
        label: String,
    },
    /// An arithmetic or comparison operator between vectors. Inputs: left, right.
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
    /// `sort`, `sort_desc`, `sort_by_label` or `sort_by_label_desc`. Input: the vector.
    Sort(SortOrder),
    /// Merges series with equal labels, which never have values at the same step. Input: the vector.
    Merge,
    /// Drops names if the rule says so, and fails if two series have equal labels then. Input: the vector.
    Distinct(Distinct),
    /// `info(v, selector)`. Inputs: the vector, the info series.
    Info(InfoCall),
}

/// Series from a select.
#[derive(Debug)]
pub(crate) struct Leaf {
    /// Which select.
    pub(crate) select: SelectId,
    /// What it computes from the samples.
    pub(crate) kind: LeafKind,
    /// Which samples a step sees.
    pub(crate) window: Window,
    /// How they are decoded.
    pub(crate) decode: DecodeOptions,
    /// Whether only count and sum of histograms matter, so that buckets can be dropped.
    pub(crate) statistics: bool,
    /// The position of the selector.
    pub(crate) span: Span,
}

/// What a leaf computes from samples.
#[derive(Debug)]
pub(crate) enum LeafKind {
    /// The last sample of the window.
    Instant,
    /// The time of the last sample of the window.
    Timestamp,
    /// The start timestamp of the last sample of the window; 0 if it is not known.
    StartTimestamp,
    /// The time of the last sample of the window, which must be a float.
    InfoTimestamp,
    /// A function over the window.
    Range(RangeCall),
    /// The samples themselves; only at the root of an instant query.
    Raw,
}

/// A transformation of each series by itself.
#[derive(Clone, Debug)]
pub(crate) enum Map {
    /// `vector(s)`: changes nothing.
    Identity,
    /// `-v`
    Negate,
    /// A function of one float, `round` and `clamp` included.
    Math(FunctionId),
    /// A part of the date of each float, which is a time in seconds.
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
        /// Whether a comparison returns 0 or 1.
        return_bool: bool,
        /// The position of the expression.
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
    /// The value of the only step of the input, at each step.
    Repeat,
}

/// How series form groups.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Grouping {
    /// The labels, sorted, each once.
    pub(crate) labels: Vec<String>,
    /// Whether series are grouped by all other labels (`without`).
    pub(crate) without: bool,
}

/// An aggregation other than `count_values`.
#[derive(Debug)]
pub(crate) struct Aggregation {
    /// Which aggregation.
    pub(crate) op: AggregateOp,
    /// How series form groups.
    pub(crate) grouping: Grouping,
    /// The position of the aggregated expression.
    pub(crate) operand: Span,
    /// The position of the parameter, or of the aggregated expression if there is no parameter.
    pub(crate) param: Span,
    /// The position of the whole aggregation.
    pub(crate) span: Span,
}

/// An arithmetic or comparison operator between vectors.
#[derive(Debug)]
pub(crate) struct Join {
    /// Which operator.
    pub(crate) op: BinaryOp,
    /// How series match.
    pub(crate) matching: VectorMatching,
    /// Whether a comparison returns 0 or 1.
    pub(crate) return_bool: bool,
    /// Whether the operator drops metric names itself.
    pub(crate) drop_names: bool,
    /// The position of the expression.
    pub(crate) span: Span,
}

/// How series with equal labels are rejected after an operator that changed labels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Distinct {
    /// The labels that are dropped first.
    pub(crate) names: Option<Names>,
    /// Whether series with equal labels are rejected even if they never have values at the same step.
    pub(crate) any_step: bool,
}

/// The labels that are dropped where a value is no longer that of the metric.
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
    /// The position of the vector.
    pub(crate) operand: Span,
    /// The positions of the scalars.
    pub(crate) params: Vec<Span>,
    /// The label for the quantile of `histogram_quantiles`.
    pub(crate) label: String,
    /// Whether annotations contain the names of metrics.
    pub(crate) named: bool,
}

/// How `sort`, `sort_desc`, `sort_by_label` and `sort_by_label_desc` order series.
#[derive(Debug)]
pub(crate) struct SortOrder {
    /// Which function.
    pub(crate) function: FunctionId,
    /// The labels to order by, for the functions that order by labels.
    pub(crate) labels: Vec<String>,
    /// The position of the call.
    pub(crate) span: Span,
}

/// `info(v, selector)`.
#[derive(Debug)]
pub(crate) struct InfoCall {
    /// The conditions on the names of info series.
    pub(crate) names: Vec<model::Matcher>,
    /// The conditions of the selector on data labels. A label is added only if it matches one of them.
    pub(crate) matchers: Vec<model::Matcher>,
}
