//! Operators that reduce a vector to one series: `scalar` and `absent`.

use budget::Reservation;
use model::Labels;

use crate::error::QueryError;
use crate::eval::operator::{Operator, OperatorContext};
use crate::value::column::{Column, Row, is_absent};

/// `scalar(v)`: the value of the only float, or NaN.
#[derive(Debug)]
pub(crate) struct ScalarOperator {
    values: Vec<f64>,
    counts: Vec<u8>,
    reserved: Reservation,
}

impl ScalarOperator {
    pub(crate) fn new(reserved: Reservation) -> Self {
        Self { values: Vec::new(), counts: Vec::new(), reserved }
    }

    fn make_room(&mut self, steps: usize) -> Result<(), QueryError> {
        self.reserved.grow_to((steps * 9) as u64)?;
        self.values.resize(steps, f64::NAN);
        self.counts.resize(steps, 0);
        Ok(())
    }
}

impl Operator for ScalarOperator {
    fn push(
        &mut self,
        cx: &mut OperatorContext<'_>,
        _input: usize,
        rows: Vec<Row>,
        _out: &mut Vec<Row>,
    ) -> Result<(), QueryError> {
        self.make_room(cx.steps.count)?;
        for row in rows {
            cx.budget.check()?;
            for (step, &value) in row.column.floats.iter().enumerate().filter(|(_, v)| !is_absent(**v)) {
                self.values[step] = value;
                self.counts[step] = self.counts[step].saturating_add(1);
            }
        }
        Ok(())
    }

    fn end(
        &mut self,
        cx: &mut OperatorContext<'_>,
        _input: usize,
        out: &mut Vec<Row>,
    ) -> Result<(), QueryError> {
        self.make_room(cx.steps.count)?;
        for (value, count) in self.values.iter_mut().zip(&self.counts) {
            if *count != 1 {
                *value = f64::NAN;
            }
        }
        let column = Column { floats: std::mem::take(&mut self.values), histograms: Vec::new() };
        out.push(Row::new(Labels::empty(), column));
        self.counts = Vec::new();
        // The delivery of the series reserves its memory.
        self.reserved.release(u64::MAX);
        Ok(())
    }
}

/// `absent(v)` and `absent_over_time(v)`: 1 at each step where the vector has no value.
#[derive(Debug)]
pub(crate) struct AbsentOperator {
    labels: Labels,
    present: Vec<bool>,
    reserved: Reservation,
}

impl AbsentOperator {
    pub(crate) fn new(labels: Labels, reserved: Reservation) -> Self {
        Self { labels, present: Vec::new(), reserved }
    }

    fn make_room(&mut self, steps: usize) -> Result<(), QueryError> {
        self.reserved.grow_to(steps as u64)?;
        self.present.resize(steps, false);
        Ok(())
    }
}

impl Operator for AbsentOperator {
    fn push(
        &mut self,
        cx: &mut OperatorContext<'_>,
        _input: usize,
        rows: Vec<Row>,
        _out: &mut Vec<Row>,
    ) -> Result<(), QueryError> {
        self.make_room(cx.steps.count)?;
        for row in rows {
            cx.budget.check()?;
            for (step, present) in self.present.iter_mut().enumerate() {
                *present |= row.column.has(step);
            }
        }
        Ok(())
    }

    fn end(
        &mut self,
        cx: &mut OperatorContext<'_>,
        _input: usize,
        out: &mut Vec<Row>,
    ) -> Result<(), QueryError> {
        self.make_room(cx.steps.count)?;
        self.reserved.add((cx.steps.count * 8) as u64)?;
        let mut column = Column::absent(cx.steps.count);
        for (value, present) in column.floats.iter_mut().zip(&self.present) {
            if !present {
                *value = 1.0;
            }
        }
        if !column.is_empty() {
            out.push(Row::new(self.labels.clone(), column));
        }
        self.present = Vec::new();
        // The delivery of the series reserves its memory.
        self.reserved.release(u64::MAX);
        Ok(())
    }
}
