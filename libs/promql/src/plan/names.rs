//! Where metric names are dropped.
//!
//! The value of most functions and operators is no longer that of the metric it was computed from, so the name is dropped:
//! either by the operator, which is the default in Prometheus, or at the end of the query, as with its feature
//! `promql-delayed-name-removal`. If the operator drops it, two series that differ only in their names are an error there.

use crate::error::QueryError;
use crate::functions::label::is_reserved;
use crate::plan::build::Builder;
use crate::plan::node::{Distinct, Names, NodeId, Op};
use crate::syntax::ast::VectorMatching;

impl Builder<'_> {
    /// `id`, followed by an operator that drops names, unless names are dropped at the end of the query.
    ///
    /// With `any_step`, series with equal labels are rejected even if they have no values at the same step.
    pub(super) fn unnamed(&mut self, id: NodeId, names: Names, any_step: bool) -> Result<NodeId, QueryError> {
        if self.delayed_name_removal || !self.traits[id].may_have_names {
            return Ok(id);
        }
        self.distinct(id, Distinct { names: Some(names), any_step })
    }

    /// `id`, followed by an operator that rejects series with equal labels.
    pub(super) fn distinct(&mut self, id: NodeId, rule: Distinct) -> Result<NodeId, QueryError> {
        let steps = self.steps_of(id);
        self.add(Op::Distinct(rule), vec![id], steps)
    }

    /// Whether Prometheus looks for equal labels in the results of an operator. With delayed name removal it does not for a
    /// single instant.
    pub(super) fn looks_for_equal_labels(&self, id: NodeId) -> bool {
        let steps = self.steps_of(id);
        !self.delayed_name_removal || steps.end != steps.start
    }

    /// The join `id`, followed by an operator that rejects equal labels, if the join can produce them.
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
