//! Properties of the output of an operator that are known before it runs.

use crate::functions::label::is_reserved;
use crate::plan::node::{Distinct, Grouping, Map, Names, Op};
use crate::syntax::ast::AggregateOp;

/// Properties of the series of an operator.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traits {
    /// Some may have equal labels, with values at different steps.
    pub(super) may_repeat_labels: bool,
    /// Some may have a name, type or unit.
    pub(super) may_have_names: bool,
    /// They depend on series that have to be fetched.
    pub(super) needs_series: bool,
}

impl Traits {
    /// The properties of the output of `op`, derived from those of its inputs.
    pub(super) fn of(op: &Op, inputs: &[Self]) -> Self {
        let first = inputs.first().copied().unwrap_or_default();
        let any = |is: fn(&Self) -> bool| inputs.iter().any(is);
        let picks = |op| {
            use AggregateOp::{BottomK, LimitK, LimitRatio, TopK};
            matches!(op, TopK | BottomK | LimitK | LimitRatio)
        };
        let relabels = matches!(op, Op::Map(Map::LabelReplace(_) | Map::LabelJoin(_)));
        let may_repeat_labels = match op {
            Op::Join(_) | Op::Set { .. } | Op::Info(_) => true,
            // The series may have differed only in the names that are dropped.
            Op::Distinct(Distinct { names: Some(_), any_step: false }) => true,
            Op::Map(_) | Op::Sort(_) | Op::Buckets(_) | Op::Distinct(_) => {
                relabels || first.may_repeat_labels
            }
            // These pick from their input and keep its labels.
            Op::Aggregate(spec) => picks(spec.op) && first.may_repeat_labels,
            Op::Number(_)
            | Op::Time
            | Op::Leaf(_)
            | Op::Scalar
            | Op::Absent(_)
            | Op::CountValues { .. }
            | Op::Merge => false,
        };
        let may_have_names = match op {
            Op::Number(_) | Op::Time | Op::Scalar => false,
            Op::Distinct(Distinct { names: Some(Names::Reserved), .. }) => false,
            Op::Map(_) | Op::Sort(_) | Op::Distinct(_) | Op::Merge => relabels || first.may_have_names,
            Op::Set { .. } => any(|input| input.may_have_names),
            Op::Aggregate(spec) if picks(spec.op) => first.may_have_names,
            Op::Aggregate(spec) => keeps_names(&spec.grouping),
            Op::Join(join) => {
                !join.drop_names || join.matching.include.iter().any(|label| is_reserved(label))
            }
            Op::Leaf(_) | Op::Absent(_) | Op::CountValues { .. } | Op::Buckets(_) | Op::Info(_) => true,
        };
        let needs_series = matches!(op, Op::Leaf(_)) || any(|input| input.needs_series);
        Self { may_repeat_labels, may_have_names, needs_series }
    }
}

fn keeps_names(grouping: &Grouping) -> bool {
    grouping.without || grouping.labels.iter().any(|label| is_reserved(label))
}
