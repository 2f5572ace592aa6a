//! How arithmetic and comparison operators combine two values.

use crate::functions::arithmetic::{self, OperatorResult};
use crate::syntax::ast::{BinaryOp, Span};
use crate::value::column::{Cell, Column};
use crate::value::notes::Notes;

/// The properties of an operator that decide how two values are combined.
#[derive(Clone, Copy, Debug)]
pub(super) struct OperatorRule {
    pub(super) op: BinaryOp,
    pub(super) return_bool: bool,
    /// Whether the "one" side is the left operand.
    pub(super) one_is_left: bool,
    pub(super) span: Span,
}

impl OperatorRule {
    /// Combines two floats; `false` if the operator rejects them.
    #[inline(always)]
    pub(super) fn floats(&self, many: f64, one: f64, result: &mut f64, notes: &mut Notes) -> bool {
        if matches!(self.op, BinaryOp::TrimLower | BinaryOp::TrimUpper) {
            arithmetic::apply(self.op, Cell::Float(many), Cell::Float(one), notes, self.span);
            return false;
        }
        let (left, right) = if self.one_is_left { (one, many) } else { (many, one) };
        let (value, keep) = arithmetic::floats(self.op, left, right);
        if self.return_bool {
            *result = f64::from(u8::from(keep));
        } else if keep {
            *result = value;
        }
        true
    }

    /// Combines two values; `false` if the operator rejects them.
    pub(super) fn cells(
        &self,
        many: Cell<'_>,
        one: Cell<'_>,
        step: usize,
        result: &mut Column,
        notes: &mut Notes,
    ) -> bool {
        if matches!(many, Cell::Absent) || matches!(one, Cell::Absent) {
            return false;
        }
        let (left, right) = if self.one_is_left { (one, many) } else { (many, one) };
        match arithmetic::apply(self.op, left, right, notes, self.span) {
            OperatorResult::Unsupported => return false,
            OperatorResult::Float(_, keep) | OperatorResult::Histogram(_, keep) if self.return_bool => {
                result.floats[step] = f64::from(u8::from(keep));
            }
            OperatorResult::Float(value, true) => result.floats[step] = value,
            OperatorResult::Histogram(histogram, true) => result.set_histogram(step, histogram),
            OperatorResult::Float(_, false) | OperatorResult::Histogram(_, false) => {}
        }
        true
    }
}
