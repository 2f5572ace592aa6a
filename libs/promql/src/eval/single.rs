//! Operators that make one series of a vector: `scalar` and `absent`.

use model::Labels;

use super::column::{Column, Row, is_absent};
use super::operator::{Context, Operator};
use crate::QueryError;

/// `scalar(v)`: the value of the only float, or NaN.
#[derive(Debug, Default)]
pub(crate) struct ScalarOperator {
    values: Vec<f64>,
    counts: Vec<u8>,
}

impl Operator for ScalarOperator {
    fn push(
        &mut self,
        cx: &mut Context<'_>,
        _input: usize,
        rows: Vec<Row>,
        _out: &mut Vec<Row>,
    ) -> Result<(), QueryError> {
        self.values.resize(cx.steps.count, f64::NAN);
        self.counts.resize(cx.steps.count, 0);
        for row in rows {
            cx.budget.check()?;
            for (step, &value) in row.column.floats.iter().enumerate().filter(|(_, v)| !is_absent(**v)) {
                self.values[step] = value;
                self.counts[step] = self.counts[step].saturating_add(1);
            }
        }
        Ok(())
    }

    fn end(&mut self, cx: &mut Context<'_>, _input: usize, out: &mut Vec<Row>) -> Result<(), QueryError> {
        self.values.resize(cx.steps.count, f64::NAN);
        for (value, count) in self.values.iter_mut().zip(&self.counts) {
            if *count != 1 {
                *value = f64::NAN;
            }
        }
        let column = Column { floats: std::mem::take(&mut self.values), histograms: Vec::new() };
        out.push(Row::new(Labels::empty(), column));
        Ok(())
    }
}

/// `absent(v)` and `absent_over_time(v)`: 1 where the vector has nothing.
#[derive(Debug)]
pub(crate) struct AbsentOperator {
    labels: Labels,
    present: Vec<bool>,
}

impl AbsentOperator {
    pub(crate) fn new(labels: Labels) -> Self {
        AbsentOperator { labels, present: Vec::new() }
    }
}

impl Operator for AbsentOperator {
    fn push(
        &mut self,
        cx: &mut Context<'_>,
        _input: usize,
        rows: Vec<Row>,
        _out: &mut Vec<Row>,
    ) -> Result<(), QueryError> {
        self.present.resize(cx.steps.count, false);
        for row in rows {
            cx.budget.check()?;
            for (step, present) in self.present.iter_mut().enumerate() {
                *present |= row.column.has(step);
            }
        }
        Ok(())
    }

    fn end(&mut self, cx: &mut Context<'_>, _input: usize, out: &mut Vec<Row>) -> Result<(), QueryError> {
        self.present.resize(cx.steps.count, false);
        let mut column = Column::absent(cx.steps.count);
        for (value, present) in column.floats.iter_mut().zip(&self.present) {
            if !present {
                *value = 1.0;
            }
        }
        if !column.is_empty() {
            out.push(Row::new(self.labels.clone(), column));
        }
        Ok(())
    }
}
