//! Making sure that series stay apart after their labels have been changed.

use std::collections::HashMap;

use model::Labels;
use xxhash_rust::xxh64::xxh64;

use super::budget::Hold;
use super::column::Row;
use super::merge::SAME_LABELS;
use super::operator::{Context, Operator};
use crate::QueryError;

/// Passes series on, and fails where two with equal labels have a value at the same step.
///
/// Behaviour: `label_replace` and `label_join` in Prometheus 3.14's `promql/functions.go` end in
/// `mergeSeriesWithSameLabelset`. Only a hash of the labels and a bit for each step is kept of a series, so that an
/// aggregation above still holds little of its input.
#[derive(Debug)]
pub(crate) struct DistinctOperator {
    seen: HashMap<u128, Box<[u64]>>,
    hold: Hold,
}

impl DistinctOperator {
    pub(crate) fn new(hold: Hold) -> Self {
        DistinctOperator { seen: HashMap::new(), hold }
    }

    fn look_at(&mut self, row: &Row) -> Result<(), QueryError> {
        let words = row.column.len().div_ceil(64);
        let steps = match self.seen.entry(key(&row.labels)) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                self.hold.add((size_of::<(u128, Box<[u64]>)>() + words * 8) as u64)?;
                entry.insert(vec![0; words].into_boxed_slice())
            }
        };
        for step in (0..row.column.len()).filter(|step| row.column.has(*step)) {
            let (word, bit) = (&mut steps[step / 64], 1 << (step % 64));
            if *word & bit != 0 {
                return Err(QueryError::execution(SAME_LABELS));
            }
            *word |= bit;
        }
        Ok(())
    }
}

/// A hash of labels that is long enough to stand for them.
fn key(labels: &Labels) -> u128 {
    let mut text = Vec::with_capacity(labels.size_bytes());
    for label in labels {
        // No part of a label has this byte, which is not UTF-8.
        for part in [label.name, label.value] {
            text.extend_from_slice(part.as_bytes());
            text.push(0xff);
        }
    }
    u128::from(xxh64(&text, 0)) << 64 | u128::from(xxh64(&text, 1))
}

impl Operator for DistinctOperator {
    fn push(
        &mut self,
        cx: &mut Context<'_>,
        _input: usize,
        rows: Vec<Row>,
        out: &mut Vec<Row>,
    ) -> Result<(), QueryError> {
        for row in &rows {
            cx.budget.check()?;
            self.look_at(row)?;
        }
        out.extend(rows);
        Ok(())
    }

    fn end(&mut self, _cx: &mut Context<'_>, _input: usize, _out: &mut Vec<Row>) -> Result<(), QueryError> {
        Ok(())
    }
}
