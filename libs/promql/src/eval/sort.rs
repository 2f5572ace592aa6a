//! `sort`, `sort_desc`, `sort_by_label` and `sort_by_label_desc`.
//!
//! They have an effect only at one instant: series of a range query are always ordered by their labels.

use std::cmp::Ordering;

use budget::Reservation;

use crate::error::QueryError;
use crate::eval::operator::{KeptRows, Operator, OperatorContext};
use crate::functions::natural;
use crate::syntax::ast::Span;
use crate::syntax::functions::FunctionId;
use crate::value::column::Row;
use crate::value::note::Note;

/// Orders series.
#[derive(Debug)]
pub(crate) struct SortOperator {
    function: FunctionId,
    labels: Vec<String>,
    span: Span,
    kept: KeptRows,
}

impl SortOperator {
    pub(crate) fn new(order: &crate::plan::node::SortOrder, reserved: Reservation) -> Self {
        Self {
            function: order.function,
            labels: order.labels.clone(),
            span: order.span,
            kept: KeptRows::new(reserved),
        }
    }

    fn by_value(&self) -> bool {
        matches!(self.function, FunctionId::Sort | FunctionId::SortDesc)
    }

    fn descends(&self) -> bool {
        matches!(self.function, FunctionId::SortDesc | FunctionId::SortByLabelDesc)
    }

    fn compare(&self, a: &Row, b: &Row) -> Ordering {
        if self.by_value() {
            let (x, y) = (a.column.floats[0], b.column.floats[0]);
            // NaN comes last in either order.
            return match (x.is_nan(), y.is_nan()) {
                (false, false) if self.descends() => y.partial_cmp(&x).unwrap_or(Ordering::Equal),
                (false, false) => x.partial_cmp(&y).unwrap_or(Ordering::Equal),
                (x, y) => x.cmp(&y),
            };
        }
        let named =
            self.labels.iter().map(|name| natural::compare(a.labels.value(name), b.labels.value(name)));
        let order =
            named.into_iter().find(|o| *o != Ordering::Equal).unwrap_or_else(|| a.labels.cmp(&b.labels));
        if self.descends() { order.reverse() } else { order }
    }
}

impl Operator for SortOperator {
    fn push(
        &mut self,
        cx: &mut OperatorContext<'_>,
        _input: usize,
        mut rows: Vec<Row>,
        out: &mut Vec<Row>,
    ) -> Result<(), QueryError> {
        if self.by_value() {
            rows.iter_mut().for_each(|row| row.column.drop_histograms());
            rows.retain(|row| !row.column.is_empty());
        }
        for _ in &rows {
            cx.budget.check()?;
        }
        if cx.is_instant() {
            return self.kept.extend(rows);
        }
        out.extend(rows);
        Ok(())
    }

    fn end(
        &mut self,
        cx: &mut OperatorContext<'_>,
        _input: usize,
        out: &mut Vec<Row>,
    ) -> Result<(), QueryError> {
        if cx.is_instant() {
            let (mut rows, _reserved) = self.kept.take();
            rows.sort_by(|a, b| self.compare(a, b));
            out.extend(rows);
        }
        if cx.steps.count > 0 && cx.steps.end != cx.steps.start {
            cx.notes.add(Note::SortInRangeQuery, self.span);
        }
        Ok(())
    }
}
