//! From syntax tree to a plan: a tree of operators whose leaves are selects.
//!
//! The plan contains everything that is known before any data is read: which series and which range of time each leaf
//! needs, at which instants each operator is evaluated, which parts do not depend on the instant (because of `@`) and are
//! evaluated once, and which are constants. It does not know how it is evaluated. Reading order: [`node`], `build`,
//! `select`, `selector`, `call`.

mod binary;
mod build;
mod call;
mod fold;
mod invariant;
mod names;
pub(crate) mod node;
mod project;
mod propagate;
mod select;
mod selector;
mod traits;

use budget::{Budget, BudgetLimits, Reservation};

use crate::error::QueryError;
use crate::options::{EngineOptions, QueryParams};
use crate::plan::node::{NodeId, OperatorNode, PlanRoot};
use crate::select::Select;
use crate::syntax::functions::ValueType;
use crate::value::steps::Steps;

/// A query, ready for evaluation.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The text of the query.
    pub(crate) text: String,
    /// All operators; the inputs of an operator come before it.
    pub(crate) nodes: Vec<OperatorNode>,
    /// Where the value comes from.
    pub(crate) answer: PlanRoot,
    /// The instants of the query.
    pub(crate) steps: Steps,
    /// Whether metric names are dropped at the end of the query instead of by operators.
    pub(crate) delayed_name_removal: bool,
    /// Whether the query is for one instant.
    pub(crate) instant: bool,
    /// What it may use.
    pub(crate) budget: Budget,
    /// Threads that decode and evaluate.
    pub(crate) workers: usize,
    /// The leaves of each select.
    pub(crate) leaves: Vec<Vec<NodeId>>,
    selects: Vec<Select>,
    value_type: ValueType,
    /// The memory of the regular expressions, reserved as long as the plan exists.
    _regexes: Reservation,
}

impl Plan {
    /// Parses and plans a query.
    pub(crate) fn build(
        text: &str,
        params: &QueryParams,
        engine: &EngineOptions,
    ) -> Result<Self, QueryError> {
        let mut expr = crate::syntax::parse(text, &engine.parse)?;
        if engine.propagate_matchers {
            propagate::propagate(&mut expr, &params.replica_labels);
        }
        let (start, end) = (params.start.as_millis(), params.end.as_millis());
        let steps = match params.step {
            None if start != end => {
                return Err(QueryError::BadParameter(
                    "a query without a step must have equal start and end timestamps".to_owned(),
                ));
            }
            None => Steps::single(start),
            Some(step) => {
                let interval = i64::try_from(step.as_millis()).unwrap_or(i64::MAX);
                if interval == 0 {
                    return Err(QueryError::BadParameter(
                        "zero query resolution step; give a step of at least one millisecond".to_owned(),
                    ));
                }
                if end < start {
                    return Err(QueryError::BadParameter(
                        "end timestamp must not be before start time".to_owned(),
                    ));
                }
                Steps::new(start, end, interval)
            }
        };
        let value_type = expr.value_type();
        if params.step.is_some() && !matches!(value_type, ValueType::Scalar | ValueType::Vector) {
            return Err(QueryError::BadParameter(format!(
                "invalid expression type {:?} for range query, must be Scalar or instant Vector",
                value_type.documented()
            )));
        }
        let limits = BudgetLimits { samples: engine.max_samples, bytes: engine.max_bytes };
        let budget = Budget::new(&engine.total, limits, params.interrupt.clone());
        build::check_steps(&budget, &steps, || format!("range of {} steps", steps.count))?;
        let builder = build::Builder::new(text, params, engine, &budget, steps);
        let mut built = builder.finish(&expr)?;
        project::project(&built.nodes, &mut built.selects);
        Ok(Self {
            text: text.to_owned(),
            nodes: built.nodes,
            answer: built.answer,
            steps,
            delayed_name_removal: engine.delayed_name_removal,
            instant: params.step.is_none(),
            budget,
            workers: engine.workers.max(1),
            leaves: built.leaves,
            selects: built.selects,
            value_type,
            _regexes: built.regexes,
        })
    }

    /// The selects of all leaves.
    pub(crate) fn selects(&self) -> &[Select] {
        &self.selects
    }

    /// Whether the series of an operator are some of those of one selector for one metric, with unchanged labels.
    pub(crate) fn has_one_metric(&self, id: NodeId) -> bool {
        project::has_one_metric(&self.nodes, &self.selects, id)
    }

    /// The type of the expression.
    pub(crate) fn value_type(&self) -> ValueType {
        self.value_type
    }
}
