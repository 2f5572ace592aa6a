//! `and`, `or` and `unless`.
//!
//! Of one side, only the steps are kept at which each signature has a value. The series of the other side are streamed. For
//! `or`, the kept side is the left one, whose series are also passed on at once; series of the right side wait until all of
//! the left side are known.

use budget::Reservation;

use crate::error::QueryError;
use crate::eval::binary::{Bits, signature};
use crate::eval::grouping::GroupNumbers;
use crate::eval::operator::{KeptRows, Operator, OperatorContext};
use crate::plan::node::Grouping;
use crate::syntax::ast::{BinaryOp, VectorMatching};
use crate::value::column::Row;

/// A set operator.
#[derive(Debug)]
pub(crate) struct SetOperator {
    op: BinaryOp,
    signature: Grouping,
    groups: GroupNumbers,
    /// For each signature, the steps at which the kept side has a value.
    present: Vec<Bits>,
    /// Series of the other side that came before the kept side had ended.
    waiting: KeptRows,
    reserved: Reservation,
    complete: bool,
}

impl SetOperator {
    pub(crate) fn new(
        op: BinaryOp,
        matching: &VectorMatching,
        waiting: Reservation,
        reserved: Reservation,
    ) -> Self {
        Self {
            op,
            signature: signature(matching),
            groups: GroupNumbers::default(),
            present: Vec::new(),
            waiting: KeptRows::new(waiting),
            reserved,
            complete: false,
        }
    }

    /// The input of which only the steps with values are kept.
    fn kept_side(&self) -> usize {
        usize::from(self.op != BinaryOp::Or)
    }

    fn keep(&mut self, cx: &mut OperatorContext<'_>, row: &Row) -> Result<(), QueryError> {
        let group = self.groups.number(&self.signature, &row.labels);
        if group == self.present.len() {
            self.reserved.add((cx.steps.count / 8 + 2 * row.labels.size_bytes() + 64) as u64)?;
            self.present.push(Bits::default());
        }
        for step in (0..cx.steps.count).filter(|step| row.column.has(*step)) {
            self.present[group].set(step);
        }
        Ok(())
    }

    fn stream(
        &mut self,
        cx: &mut OperatorContext<'_>,
        rows: Vec<Row>,
        out: &mut Vec<Row>,
    ) -> Result<(), QueryError> {
        let nothing = Bits::default();
        for mut row in rows {
            cx.budget.check()?;
            let group = self.groups.number(&self.signature, &row.labels);
            let present = self.present.get(group).unwrap_or(&nothing);
            let wanted = self.op == BinaryOp::And;
            for step in 0..cx.steps.count {
                if present.get(step) != wanted {
                    row.column.clear(step);
                }
            }
            // A signature that the kept side does not have needs an entry of its own, because numbers index `present`.
            if group == self.present.len() {
                self.reserved.add((2 * row.labels.size_bytes() + 64) as u64)?;
                self.present.push(Bits::default());
            }
            if !row.column.is_empty() {
                out.push(row);
            }
        }
        Ok(())
    }
}

impl Operator for SetOperator {
    fn push(
        &mut self,
        cx: &mut OperatorContext<'_>,
        input: usize,
        rows: Vec<Row>,
        out: &mut Vec<Row>,
    ) -> Result<(), QueryError> {
        if input == self.kept_side() {
            for row in &rows {
                cx.budget.check()?;
                self.keep(cx, row)?;
            }
            if self.op == BinaryOp::Or {
                out.extend(rows);
            }
            return Ok(());
        }
        if self.complete { self.stream(cx, rows, out) } else { self.waiting.extend(rows) }
    }

    fn end(
        &mut self,
        cx: &mut OperatorContext<'_>,
        input: usize,
        out: &mut Vec<Row>,
    ) -> Result<(), QueryError> {
        if input == self.kept_side() {
            self.complete = true;
            let (rows, _reserved) = self.waiting.take();
            self.stream(cx, rows, out)?;
        }
        Ok(())
    }
}
