//! The operators of a plan in an evaluation. Those whose work is shared with workers have a variant of their own.

use std::sync::Arc;

use budget::Reservation;

use crate::error::QueryError;
use crate::eval::aggregate::collect::{CountValuesOperator, QuantileOperator};
use crate::eval::aggregate::fold::{self, FoldOperator};
use crate::eval::aggregate::pick::PickOperator;
use crate::eval::binary::join::JoinOperator;
use crate::eval::binary::set::SetOperator;
use crate::eval::buckets::BucketOperator;
use crate::eval::distinct::DistinctOperator;
use crate::eval::info::InfoOperator;
use crate::eval::merge::MergeOperator;
use crate::eval::meter::Meters;
use crate::eval::operator::{MapOperator, Operator, OperatorContext};
use crate::eval::single::{AbsentOperator, ScalarOperator};
use crate::eval::sort::SortOperator;
use crate::plan::Plan;
use crate::plan::node::{NodeId, Op};
use crate::syntax::ast::AggregateOp;
use crate::value::column::Row;
use crate::value::scalar::{Scalar, Scalars};

/// An operator in an evaluation.
#[derive(Debug)]
pub(crate) enum OperatorSlot {
    /// Sends its output at the start: numbers and times.
    Source,
    /// A leaf; its scalar arguments arrive here.
    Leaf(Scalars),
    /// Transforms each series by itself; part of a pipeline if its arguments are known early.
    Map(MapOperator),
    /// Rejects series with equal labels; merges what workers have seen.
    Distinct(DistinctOperator),
    /// Folds series; merges what workers have folded.
    Fold(Box<FoldOperator>),
    /// Adds labels of info series; decides which of them are needed.
    Info(Box<InfoOperator>),
    /// All other operators.
    Other(Box<dyn Operator>),
}

impl OperatorSlot {
    /// The operator of a node, before it has received any series.
    pub(crate) fn of(plan: &Arc<Plan>, meters: &Meters, id: NodeId) -> Self {
        let node = &plan.nodes[id];
        let reserved = || Reservation::metered(&plan.budget, meters.of(id).memory());
        let scalars = node.inputs.len().saturating_sub(1);
        let other = |operator: Box<dyn Operator>| Self::Other(operator);
        match &node.op {
            Op::Number(_) | Op::Time => Self::Source,
            Op::Leaf(_) => Self::Leaf(Scalars::new(node.inputs.len(), reserved())),
            Op::Map(map) => Self::Map(MapOperator::new(map.clone(), scalars, reserved())),
            Op::Scalar => other(Box::new(ScalarOperator::new(reserved()))),
            Op::Absent(labels) => other(Box::new(AbsentOperator::new(labels.clone(), reserved()))),
            Op::Aggregate(spec) if fold::folds(spec.op) => {
                Self::Fold(Box::new(FoldOperator::new(spec.clone(), node.steps.count, reserved())))
            }
            Op::Aggregate(spec) if spec.op == AggregateOp::Quantile => {
                other(Box::new(QuantileOperator::new(spec.clone(), reserved())))
            }
            Op::Aggregate(spec) => other(Box::new(PickOperator::new(spec.clone(), reserved(), reserved()))),
            Op::CountValues { grouping, label } => {
                other(Box::new(CountValuesOperator::new(grouping.clone(), label.clone(), reserved())))
            }
            Op::Join(join) => other(Box::new(JoinOperator::new(join, reserved(), reserved()))),
            Op::Set { op, matching } => {
                other(Box::new(SetOperator::new(*op, matching, reserved(), reserved())))
            }
            Op::Buckets(call) => other(Box::new(BucketOperator::new(call, reserved()))),
            Op::Sort(order) => other(Box::new(SortOperator::new(order, reserved()))),
            Op::Merge => other(Box::new(MergeOperator::new(reserved()))),
            Op::Distinct(rule) => {
                let one_metric = plan.has_one_metric(node.inputs[0]);
                Self::Distinct(DistinctOperator::new(*rule, one_metric, reserved()))
            }
            Op::Info(call) => {
                Self::Info(Box::new(InfoOperator::new(call, reserved(), reserved(), reserved())))
            }
        }
    }

    /// Takes a scalar without a series for it. Returns `false` if the input takes only series.
    pub(crate) fn know(&mut self, input: usize, scalar: &Scalar) -> Result<bool, QueryError> {
        let (scalars, index) = match self {
            Self::Leaf(scalars) => (Some(scalars), Some(input)),
            Self::Map(operator) => (operator.scalars(), input.checked_sub(1)),
            Self::Other(operator) => (operator.scalars(), input.checked_sub(1)),
            Self::Source | Self::Distinct(_) | Self::Fold(_) | Self::Info(_) => (None, None),
        };
        let (Some(scalars), Some(index)) = (scalars, index) else { return Ok(false) };
        scalars.know(index, scalar.clone())?;
        Ok(true)
    }

    /// As [`Operator::push`].
    pub(crate) fn push(
        &mut self,
        cx: &mut OperatorContext<'_>,
        input: usize,
        rows: Vec<Row>,
        out: &mut Vec<Row>,
    ) -> Result<(), QueryError> {
        match self {
            Self::Source => Ok(()),
            Self::Leaf(scalars) => scalars.take(input, rows),
            Self::Map(operator) => operator.push(cx, input, rows, out),
            Self::Distinct(operator) => operator.push(cx, input, rows, out),
            Self::Fold(operator) => operator.push(cx, input, rows, out),
            Self::Info(operator) => operator.push(cx, input, rows, out),
            Self::Other(operator) => operator.push(cx, input, rows, out),
        }
    }

    /// As [`Operator::end`].
    pub(crate) fn end(
        &mut self,
        cx: &mut OperatorContext<'_>,
        input: usize,
        out: &mut Vec<Row>,
    ) -> Result<(), QueryError> {
        match self {
            Self::Source => Ok(()),
            Self::Leaf(scalars) => {
                scalars.end(input);
                Ok(())
            }
            Self::Map(operator) => operator.end(cx, input, out),
            Self::Distinct(operator) => operator.end(cx, input, out),
            Self::Fold(operator) => operator.end(cx, input, out),
            Self::Info(operator) => operator.end(cx, input, out),
            Self::Other(operator) => operator.end(cx, input, out),
        }
    }
}
