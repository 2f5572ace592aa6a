//! A query: from text to plan, and on to an evaluation.

use std::sync::Arc;

use budget::Budget;

use crate::error::QueryError;
use crate::eval::Evaluation;
use crate::eval::meter::Clock;
use crate::eval::order;
use crate::explain::PlanNode;
use crate::options::{EngineOptions, QueryParams};
use crate::plan::Plan;
use crate::select::{Select, SelectId};
use crate::syntax::functions::ValueType;

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
    /// [`QueryError::Parse`] for a text that is not a valid expression, [`QueryError::BadParameter`] for parameters that
    /// contradict each other, [`QueryError::Limit`] for a query that needs more than its budget whatever the data.
    pub fn plan(text: &str, params: &QueryParams, engine: &EngineOptions) -> Result<Self, QueryError> {
        Ok(Self { plan: Arc::new(Plan::build(text, params, engine)?) })
    }

    /// The series it needs, as far as they are known before any series was read.
    pub fn selects(&self) -> &[Select] {
        self.plan.selects()
    }

    /// All selects in the best order to read them: a select on which operators wait comes first, so that the remaining ones
    /// can stream. Any other order gives the same answer, if [late](Select::late) selects come after those that they depend on.
    pub fn reading_order(&self) -> Vec<SelectId> {
        order::reading_order(&self.plan)
    }

    /// The type of its value. If this is a scalar or a vector, the value of a range query is a matrix.
    pub fn value_type(&self) -> ValueType {
        self.plan.value_type()
    }

    /// What it may use. A driver reserves memory here for the series that it reads ahead.
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
    /// time. Several threads call `clock`.
    ///
    /// [`QueryOutput::analysis`]: crate::QueryOutput::analysis
    pub fn measured_evaluation(self, clock: Clock) -> Evaluation {
        Evaluation::new(self.plan, Some(clock))
    }
}
