//! Joining series with equal labels.

use std::collections::HashMap;

use budget::{Budget, Reservation};
use model::Labels;

use crate::error::QueryError;
use crate::eval::operator::{KeptRows, Operator, OperatorContext};
use crate::value::column::Row;

/// What is said where two series with equal labels have a value at the same step.
pub(crate) const SAME_LABELS: &str = "vector cannot contain metrics with the same labelset";

/// Joins series with equal labels; their order is that of the first of each. `hold` is that of whoever joins them.
///
/// # Errors
/// Where two of them have a value at the same step, and where somebody asked for the end of the query.
pub(crate) fn merge(rows: Vec<Row>, budget: &Budget, reserved: &Reservation) -> Result<Vec<Row>, QueryError> {
    // The list, and the places: a hash table is up to twice as large as what is in it.
    let mut in_progress = reserved.new_empty();
    in_progress.add((rows.len() * (size_of::<Row>() + 2 * size_of::<(Labels, usize)>())) as u64)?;
    let mut places: HashMap<Labels, usize> = HashMap::with_capacity(rows.len());
    let mut merged: Vec<Row> = Vec::with_capacity(rows.len());
    for row in rows {
        budget.check()?;
        match places.get(&row.labels) {
            None => {
                places.insert(row.labels.clone(), merged.len());
                merged.push(row);
            }
            Some(&place) => {
                let column = &mut merged[place].column;
                for step in (0..row.column.len()).filter(|step| row.column.has(*step)) {
                    if column.has(step) {
                        return Err(QueryError::execution(SAME_LABELS));
                    }
                    column.set(step, row.column.get(step));
                }
            }
        }
    }
    Ok(merged)
}

/// Joins series with equal labels in front of an operator that looks at a series over time.
#[derive(Debug)]
pub(crate) struct MergeOperator {
    kept: KeptRows,
}

impl MergeOperator {
    pub(crate) fn new(reserved: Reservation) -> Self {
        Self { kept: KeptRows::new(reserved) }
    }
}

impl Operator for MergeOperator {
    fn push(
        &mut self,
        cx: &mut OperatorContext<'_>,
        _input: usize,
        rows: Vec<Row>,
        out: &mut Vec<Row>,
    ) -> Result<(), QueryError> {
        if cx.steps.count <= 1 {
            // With a single step there is nothing to join.
            out.extend(rows);
            return Ok(());
        }
        self.kept.extend(rows)
    }

    fn end(
        &mut self,
        cx: &mut OperatorContext<'_>,
        _input: usize,
        out: &mut Vec<Row>,
    ) -> Result<(), QueryError> {
        let (rows, reserved) = self.kept.take();
        out.extend(merge(rows, cx.budget, &reserved)?);
        Ok(())
    }
}
