//! When metric names go.
//!
//! The value of most functions and operators is no longer that of the metric it was computed from, so its name goes:
//! either at once, which is the rule in Prometheus, or at the end of the query, which is what its feature
//! `promql-delayed-name-removal` does. At once, two series that only their names told apart are an error where it happens.

use crate::error::QueryError;
use crate::functions::label::is_reserved;
use crate::plan::build::Builder;
use crate::plan::node::{Distinct, Names, NodeId, Op};
use crate::syntax::ast::VectorMatching;

impl Builder<'_> {
    /// `id`, behind which names go if they go at once.
    ///
    /// `any_step` refuses series with equal labels also where they have no value at the same step.
    pub(super) fn unnamed(&mut self, id: NodeId, names: Names, any_step: bool) -> Result<NodeId, QueryError> {
        if self.delayed_name_removal || !self.traits[id].may_have_names {
            return Ok(id);
        }
        self.distinct(id, Distinct { names: Some(names), any_step })
    }

    /// `id`, behind which series with equal labels are refused.
    pub(super) fn distinct(&mut self, id: NodeId, rule: Distinct) -> Result<NodeId, QueryError> {
        let steps = self.steps_of(id);
        self.add(Op::Distinct(rule), vec![id], steps)
    }

    /// Whether Prometheus looks for equal labels in the results of an operator: at a single instant it does not when names
    /// go late.
    pub(super) fn looks_for_equal_labels(&self, id: NodeId) -> bool {
        let steps = self.steps_of(id);
        !self.delayed_name_removal || steps.end != steps.start
    }

    /// A join behind which equal labels are refused, where it could have made them.
    pub(super) fn joined(
        &mut self,
        id: NodeId,
        matching: &VectorMatching,
        drops_names: bool,
    ) -> Result<NodeId, QueryError> {
        let apart = matching.on && !matching.labels.iter().any(|label| is_reserved(label));
        if !self.looks_for_equal_labels(id) || !drops_names || apart {
            return Ok(id);
        }
        self.distinct(id, Distinct { names: None, any_step: false })
    }
}
