//! Merges series with equal labels.

use std::collections::HashMap;

use budget::{Budget, Reservation};
use model::Labels;

use crate::error::QueryError;
use crate::eval::operator::{KeptRows, Operator, OperatorContext};
use crate::value::column::Row;

/// The error if two series with equal labels have a value at the same step, in Prometheus' words.
pub(crate) const SAME_LABELS: &str = "vector cannot contain metrics with the same labelset";

/// Merges series with equal labels; the order is that of the first series of each. `reserved` names the budget and the meter for
/// the memory that this takes.
///
/// # Errors
/// If two of them have a value at the same step, or if the query is interrupted or exceeds its budget.
pub(crate) fn merge(rows: Vec<Row>, budget: &Budget, reserved: &Reservation) -> Result<Vec<Row>, QueryError> {
    // The list, and the hash table, which is up to twice as large as its entries.
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

/// Merges series with equal labels before an operator that evaluates a series over time.
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
            // With a single step there is nothing to merge.
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
