//! Assembles pipelines: which operators workers run for each series.

use crate::eval::distinct::Shortcut;
use crate::eval::pipeline::{Pipeline, PipelineStage, StageWork};
use crate::eval::slot::OperatorSlot;
use crate::functions::label::is_reserved;
use crate::plan::Plan;
use crate::plan::node::{NodeId, Op};

/// The pipeline that starts at a leaf and ends before the first operator that looks at several series.
pub(crate) fn pipeline(plan: &Plan, slots: &[OperatorSlot], leaf: NodeId) -> Option<Pipeline> {
    let OperatorSlot::Leaf(scalars) = &slots[leaf] else { return None };
    let mut pipeline = Pipeline {
        leaf,
        scalars: scalars.all()?,
        stages: Vec::new(),
        fold: None,
        sieve: None,
        to: plan.nodes[leaf].parent,
    };
    while let Some((id, 0)) = pipeline.to {
        let parent = plan.nodes[id].parent;
        match &slots[id] {
            OperatorSlot::Map(operator) => {
                let Some((map, scalars)) = operator.ready() else { break };
                let work = StageWork::Map(map, scalars);
                pipeline.stages.push(PipelineStage { node: id, work, steps: plan.nodes[id].steps });
                pipeline.to = plan.nodes[id].parent;
            }
            OperatorSlot::Distinct(operator) => {
                let shortcut = Shortcut {
                    untyped: operator.has_one_metric(),
                    names_may_stay: parent.is_some_and(|(parent, _)| ignores_names(plan, slots, parent)),
                };
                let work = StageWork::Distinct(operator.rule(), shortcut);
                pipeline.stages.push(PipelineStage { node: id, work, steps: plan.nodes[id].steps });
                pipeline.to = plan.nodes[id].parent;
            }
            OperatorSlot::Fold(operator) => {
                pipeline.fold = operator.spec();
                break;
            }
            OperatorSlot::Other(operator) => {
                pipeline.sieve = operator.sieve();
                break;
            }
            OperatorSlot::Source | OperatorSlot::Leaf(_) | OperatorSlot::Info(_) => break,
        }
    }
    Some(pipeline)
}

/// Whether an operator is an aggregation that does not depend on metric names.
fn ignores_names(plan: &Plan, slots: &[OperatorSlot], id: NodeId) -> bool {
    match (&plan.nodes[id].op, &slots[id]) {
        (Op::Aggregate(spec), OperatorSlot::Fold(_)) => {
            !spec.grouping.without && !spec.grouping.labels.iter().any(|label| is_reserved(label))
        }
        _ => false,
    }
}
