//! Binary operators, a whole chain of them at a time.

use crate::error::QueryError;
use crate::functions::arithmetic::changes_metric;
use crate::plan::build::Builder;
use crate::plan::node::{Join, Map, Names, NodeId, Op};
use crate::plan::select::Surroundings;
use crate::syntax::ast::{BinaryExpr, BinaryOp, Cardinality, Expr};
use crate::syntax::functions::ValueType;
use crate::text::go_quoted;
use crate::value::steps::Steps;

/// An operator whose left operand is not built yet.
struct OpenOperator<'e> {
    binary: &'e BinaryExpr,
    /// The right operand, if it is built before the left one.
    right: Option<NodeId>,
    inside: Surroundings,
}

impl Builder<'_> {
    /// The operators of a chain such as `a + b + c`: down its left in a loop, and up again.
    pub(super) fn binary(
        &mut self,
        expr: &Expr,
        steps: Steps,
        around: &Surroundings,
    ) -> Result<NodeId, QueryError> {
        let mut open: Vec<OpenOperator<'_>> = Vec::new();
        let mut inside = around.clone();
        let mut left = expr;
        while let Expr::Binary(binary) = left
            // An expression that is the same at all steps is built separately.
            && (open.is_empty() || !(self.is_constant(left) || self.is_built_once(left, steps)))
        {
            inside = inside.inside("");
            if matches!(binary.op, BinaryOp::TrimLower | BinaryOp::TrimUpper) {
                inside = inside.with_buckets();
            }
            let right = match right_comes_first(binary) {
                true => Some(self.build(&binary.rhs, steps, &inside)?),
                false => None,
            };
            open.push(OpenOperator { binary, right, inside: inside.clone() });
            left = &binary.lhs;
        }
        let mut built = self.build(left, steps, &inside)?;
        while let Some(OpenOperator { binary, right, inside }) = open.pop() {
            let right = match right {
                Some(right) => right,
                None => self.build(&binary.rhs, steps, &inside)?,
            };
            built = self.operator(binary, built, right, steps)?;
        }
        Ok(built)
    }

    /// The operator between two operands.
    fn operator(
        &mut self,
        binary: &BinaryExpr,
        left: NodeId,
        right: NodeId,
        steps: Steps,
    ) -> Result<NodeId, QueryError> {
        let Some(matching) = &binary.matching else {
            let scalars = binary.value_type == ValueType::Scalar;
            if scalars && matches!(binary.op, BinaryOp::TrimLower | BinaryOp::TrimUpper) {
                let operator = go_quoted(binary.op.as_str());
                return Err(QueryError::execution(format!(
                    "operator {operator} not allowed for Scalar operations"
                )));
            }
            let swapped = !scalars && binary.lhs.value_type() == ValueType::Scalar;
            let op = Op::Map(Map::Arithmetic {
                op: binary.op,
                swapped,
                // A comparison between scalars always returns 0 or 1.
                return_bool: binary.return_bool || scalars,
                span: binary.span,
            });
            let inputs = if swapped { vec![right, left] } else { vec![left, right] };
            let id = self.add(op, inputs, steps)?;
            let drop_names = changes_metric(binary.op) || binary.return_bool;
            return if drop_names { self.unnamed(id, Names::Reserved, false) } else { Ok(id) };
        };
        if binary.op.is_set() {
            let op = Op::Set { op: binary.op, matching: matching.clone() };
            return self.add(op, vec![left, right], steps);
        }
        // With delayed name removal, a comparison that returns 0 or 1 keeps them until the end.
        let drop_names = changes_metric(binary.op) || (binary.return_bool && !self.delayed_name_removal);
        let join = Join {
            op: binary.op,
            matching: matching.clone(),
            return_bool: binary.return_bool,
            drop_names,
            span: binary.span,
        };
        let id = self.add(Op::Join(join), vec![left, right], steps)?;
        self.joined(id, matching, drop_names)
    }
}

/// Whether the right operand must be known before the left one is streamed: a scalar, or the side that a join keeps in memory.
fn right_comes_first(binary: &BinaryExpr) -> bool {
    match &binary.matching {
        None => binary.rhs.value_type() == ValueType::Scalar,
        Some(matching) => binary.op != BinaryOp::Or && matching.cardinality != Cardinality::OneToMany,
    }
}
