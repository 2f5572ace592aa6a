//! The operators of a plan as an evaluation keeps them: those that workers share in by their kind.

use std::sync::Arc;

use super::aggregate::collect::{CountValuesOperator, QuantileOperator};
use super::aggregate::fold::{self, FoldOperator};
use super::aggregate::pick::PickOperator;
use super::binary::join::JoinOperator;
use super::binary::set::SetOperator;
use super::buckets::BucketOperator;
use super::budget::Hold;
use super::column::Row;
use super::distinct::DistinctOperator;
use super::info::InfoOperator;
use super::merge::MergeOperator;
use super::meter::Meters;
use super::operator::{Context, MapOperator, Operator};
use super::scalar::{Scalar, Scalars};
use super::single::{AbsentOperator, ScalarOperator};
use super::sort::SortOperator;
use crate::QueryError;
use crate::plan::Plan;
use crate::plan::node::{NodeId, Op};
use crate::syntax::ast::AggregateOp;

/// An operator at work.
#[derive(Debug)]
pub(crate) enum Slot {
    /// Gives its output at the start: numbers and times.
    Source,
    /// A leaf; its scalar arguments arrive here.
    Leaf(Scalars),
    /// Changes each series by itself; part of a pipeline where its arguments are known early.
    Map(MapOperator),
    /// Keeps series apart; takes what workers have seen.
    Distinct(DistinctOperator),
    /// Folds series; takes what workers have folded.
    Fold(Box<FoldOperator>),
    /// Adds labels of info series; says which ones it needs.
    Info(Box<InfoOperator>),
    /// All others.
    Other(Box<dyn Operator>),
}

impl Slot {
    /// The operator of a node, before any series.
    pub(crate) fn of(plan: &Arc<Plan>, meters: &Meters, id: NodeId) -> Slot {
        let node = &plan.nodes[id];
        let hold = || Hold::metered(&plan.budget, meters.of(id));
        let scalars = node.inputs.len().saturating_sub(1);
        let other = |operator: Box<dyn Operator>| Slot::Other(operator);
        match &node.op {
            Op::Number(_) | Op::Time => Slot::Source,
            Op::Leaf(_) => Slot::Leaf(Scalars::new(node.inputs.len(), hold())),
            Op::Map(map) => Slot::Map(MapOperator::new(map.clone(), scalars, hold())),
            Op::Scalar => other(Box::new(ScalarOperator::new(hold()))),
            Op::Absent(labels) => other(Box::new(AbsentOperator::new(labels.clone(), hold()))),
            Op::Aggregate(spec) if fold::folds(spec.op) => {
                Slot::Fold(Box::new(FoldOperator::new(spec.clone(), node.steps.count, hold())))
            }
            Op::Aggregate(spec) if spec.op == AggregateOp::Quantile => {
                other(Box::new(QuantileOperator::new(spec.clone(), hold())))
            }
            Op::Aggregate(spec) => other(Box::new(PickOperator::new(spec.clone(), hold(), hold()))),
            Op::CountValues { grouping, label } => {
                other(Box::new(CountValuesOperator::new(grouping.clone(), label.clone(), hold())))
            }
            Op::Join(join) => other(Box::new(JoinOperator::new(join, hold(), hold()))),
            Op::Set { op, matching } => other(Box::new(SetOperator::new(*op, matching, hold(), hold()))),
            Op::Buckets(call) => other(Box::new(BucketOperator::new(call, hold()))),
            Op::Sort(order) => other(Box::new(SortOperator::new(order, hold()))),
            Op::Merge => other(Box::new(MergeOperator::new(hold()))),
            Op::Distinct(rule) => {
                let one_metric = plan.has_one_metric(node.inputs[0]);
                Slot::Distinct(DistinctOperator::new(*rule, one_metric, hold()))
            }
            Op::Info(call) => Slot::Info(Box::new(InfoOperator::new(call, hold(), hold(), hold()))),
        }
    }

    /// Takes a scalar that no series had to be made for; `false` where the input wants it as a series.
    pub(crate) fn know(&mut self, input: usize, scalar: &Scalar) -> Result<bool, QueryError> {
        let (scalars, index) = match self {
            Slot::Leaf(scalars) => (Some(scalars), Some(input)),
            Slot::Map(operator) => (operator.scalars(), input.checked_sub(1)),
            Slot::Other(operator) => (operator.scalars(), input.checked_sub(1)),
            Slot::Source | Slot::Distinct(_) | Slot::Fold(_) | Slot::Info(_) => (None, None),
        };
        let (Some(scalars), Some(index)) = (scalars, index) else { return Ok(false) };
        scalars.know(index, scalar.clone())?;
        Ok(true)
    }

    /// Takes series of one input and adds what follows from them to `out`.
    pub(crate) fn push(
        &mut self,
        cx: &mut Context<'_>,
        input: usize,
        rows: Vec<Row>,
        out: &mut Vec<Row>,
    ) -> Result<(), QueryError> {
        match self {
            Slot::Source => Ok(()),
            Slot::Leaf(scalars) => scalars.take(input, rows),
            Slot::Map(operator) => operator.push(cx, input, rows, out),
            Slot::Distinct(operator) => operator.push(cx, input, rows, out),
            Slot::Fold(operator) => operator.push(cx, input, rows, out),
            Slot::Info(operator) => operator.push(cx, input, rows, out),
            Slot::Other(operator) => operator.push(cx, input, rows, out),
        }
    }

    /// Called once an input has had its last series; adds what follows from that to `out`.
    pub(crate) fn end(
        &mut self,
        cx: &mut Context<'_>,
        input: usize,
        out: &mut Vec<Row>,
    ) -> Result<(), QueryError> {
        match self {
            Slot::Source => Ok(()),
            Slot::Leaf(scalars) => {
                scalars.end(input);
                Ok(())
            }
            Slot::Map(operator) => operator.end(cx, input, out),
            Slot::Distinct(operator) => operator.end(cx, input, out),
            Slot::Fold(operator) => operator.end(cx, input, out),
            Slot::Info(operator) => operator.end(cx, input, out),
            Slot::Other(operator) => operator.end(cx, input, out),
        }
    }
}
