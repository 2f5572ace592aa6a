//! Operators that transform each series by itself.

use std::sync::Arc;

use budget::{Budget, Reservation};
use model::CounterResetHint;

use crate::error::QueryError;
use crate::eval::parts::{in_histogram_parts, in_parts};
use crate::functions::arithmetic::{self, OperatorResult};
use crate::functions::math::{FloatFunction, go_max, go_min};
use crate::functions::range::{self, RangeFunction};
use crate::functions::{buckets, date};
use crate::plan::node::Map;
use crate::syntax::ast::{BinaryOp, Span};
use crate::syntax::functions::FunctionId;
use crate::value::column::{ABSENT, Cell, Column, Histogram, Points, Row, is_absent};
use crate::value::note::Note;
use crate::value::notes::Notes;
use crate::value::scalar::Scalar;
use crate::value::steps::Steps;

/// Results and buffers that transformations reuse from one series to the next.
#[derive(Debug)]
pub(crate) struct MapScratch {
    /// The times of the steps of a subquery that have a float.
    times: Vec<i64>,
    /// The steps to which these times belong, if each of them has a float.
    dense: Option<Steps>,
    reserved: Reservation,
}

impl MapScratch {
    pub(crate) fn new(budget: &Budget) -> Self {
        Self { times: Vec::new(), dense: None, reserved: Reservation::new(budget) }
    }
}

/// Bytes that [`apply`] allocates in addition to the series, to be reserved before. If it is not 0, the size of the series
/// changes.
pub(crate) fn needs(map: &Map, steps: &Steps, row: &Row) -> u64 {
    let slots = if row.column.histograms.is_empty() { 1 } else { 2 };
    let column = (steps.count * slots * 8) as u64;
    match map {
        Map::Repeat => column,
        Map::Subquery { .. } => {
            let histograms = row.column.histograms.iter().flatten().count();
            column + (histograms * size_of::<(i64, Histogram)>()) as u64 + row.column.unshared_bytes()
        }
        _ => row.column.unshared_bytes(),
    }
}

/// Applies `map` to one series. Returns whether the series has any value then.
pub(crate) fn apply(
    map: &Map,
    steps: &Steps,
    scalars: &[Scalar],
    row: &mut Row,
    budget: &Budget,
    scratch: &mut MapScratch,
    notes: &mut Notes,
) -> Result<bool, QueryError> {
    match map {
        Map::Identity => return Ok(true),
        Map::Negate => negate(row, budget)?,
        Map::Math(id) => math(*id, scalars, row, budget)?,
        Map::Date(id) => floats_only(row, budget, |_, value| Some(date::part(*id, value)))?,
        Map::StepTime => step_time(steps, row, budget)?,
        Map::Extreme(id) => {
            let scalar = scalars.first().ok_or_else(missing)?;
            let best = if *id == FunctionId::MaxOf { go_max } else { go_min };
            in_parts(row.column.len(), budget, |part| {
                for step in part {
                    row.column.floats[step] = best(row.column.floats[step], scalar.at(step));
                }
            })?;
            return Ok(true);
        }
        Map::Statistic(id) => statistic(*id, row, budget)?,
        Map::Arithmetic { op, swapped, return_bool, span } => {
            let scalar = scalars.first().ok_or_else(missing)?;
            let arithmetic =
                Arithmetic { op: *op, scalar, swapped: *swapped, return_bool: *return_bool, span: *span };
            arithmetic.apply(row, budget, notes)?;
        }
        Map::LabelReplace(replace) => {
            replace.apply(row, budget)?;
            return Ok(true);
        }
        Map::LabelJoin(join) => {
            join.apply(row, budget)?;
            return Ok(true);
        }
        Map::Subquery { call, window, inner } => {
            let function = RangeFunction { call, window, steps, scalars };
            let column = std::mem::take(&mut row.column);
            subquery(&function, inner, column, row, scratch, notes)?;
            row.drop_name |= !call.keeps_name();
        }
        Map::Repeat => {
            row.column = repeat(row.column.get(0), steps.count);
            return Ok(true);
        }
    }
    Ok(!row.column.is_empty())
}

fn missing() -> QueryError {
    QueryError::execution("internal error: an operator was evaluated before its scalar argument")
}

/// Replaces each float by the result of `f`, and drops histograms.
#[inline(always)]
fn floats_only(
    row: &mut Row,
    budget: &Budget,
    f: impl Fn(usize, f64) -> Option<f64>,
) -> Result<(), QueryError> {
    in_parts(row.column.len(), budget, |part| {
        for step in part {
            let value = &mut row.column.floats[step];
            if !is_absent(*value) {
                *value = f(step, *value).unwrap_or(ABSENT);
            }
        }
    })?;
    row.column.drop_histograms();
    row.drop_name = true;
    Ok(())
}

fn negate(row: &mut Row, budget: &Budget) -> Result<(), QueryError> {
    row.drop_name = true;
    let floats = &mut row.column.floats;
    in_parts(floats.len(), budget, |part| {
        floats[part].iter_mut().filter(|value| !is_absent(**value)).for_each(|value| *value = -*value);
    })?;
    let histograms = &mut row.column.histograms;
    in_histogram_parts(histograms.len(), budget, |part| {
        for histogram in histograms[part].iter_mut().flatten() {
            let mut copy = (**histogram).clone();
            copy.mul(-1.0);
            *histogram = Arc::new(copy);
        }
    })
}

/// The time of each step that has a value.
fn step_time(steps: &Steps, row: &mut Row, budget: &Budget) -> Result<(), QueryError> {
    in_parts(row.column.len(), budget, |part| {
        for step in part {
            if row.column.has(step) {
                row.column.floats[step] = steps.time(step) as f64 / 1000.0;
            }
        }
    })?;
    row.column.drop_histograms();
    row.drop_name = true;
    Ok(())
}

/// The same value at each of `steps` steps.
fn repeat(cell: Cell<'_>, steps: usize) -> Column {
    let mut column = Column::absent(steps);
    match cell {
        Cell::Absent => {}
        Cell::Float(value) => column.floats.fill(value),
        Cell::Histogram(histogram) => column.histograms.resize(steps, Some(histogram.clone())),
    }
    column
}

fn math(id: FunctionId, scalars: &[Scalar], row: &mut Row, budget: &Budget) -> Result<(), QueryError> {
    let at = |index: usize, step: usize| scalars.get(index).map(|s| s.at(step));
    let function = |step: usize| FloatFunction::new(id, at(0, step), at(1, step));
    if scalars.iter().all(|s| s.constant().is_some()) {
        let function = function(0).ok_or_else(|| {
            let name = id.signature().name;
            QueryError::execution(format!("internal error: {name} is not a function of one float"))
        })?;
        floats_only(row, budget, |_, value| function.apply(value))
    } else {
        floats_only(row, budget, |step, value| function(step).and_then(|f| f.apply(value)))
    }
}

fn statistic(id: FunctionId, row: &mut Row, budget: &Budget) -> Result<(), QueryError> {
    let histograms = std::mem::take(&mut row.column.histograms);
    row.column.floats.fill(ABSENT);
    in_histogram_parts(histograms.len(), budget, |part| {
        for step in part {
            let Some(histogram) = &histograms[step] else { continue };
            row.column.floats[step] = match id {
                FunctionId::HistogramCount => histogram.count,
                FunctionId::HistogramSum => histogram.sum,
                FunctionId::HistogramAvg => histogram.sum / histogram.count,
                FunctionId::HistogramStddev => buckets::variance(histogram).sqrt(),
                FunctionId::HistogramStdvar => buckets::variance(histogram),
                _ => ABSENT,
            };
        }
    })?;
    row.drop_name = true;
    Ok(())
}

/// An operator between each value and a scalar.
struct Arithmetic<'a> {
    op: BinaryOp,
    scalar: &'a Scalar,
    swapped: bool,
    return_bool: bool,
    span: Span,
}

impl Arithmetic<'_> {
    fn apply(&self, row: &mut Row, budget: &Budget, notes: &mut Notes) -> Result<(), QueryError> {
        in_parts(row.column.len(), budget, |part| {
            let floats = &mut row.column.floats[part.clone()];
            match self.scalar.constant() {
                Some(scalar) => floats.iter_mut().for_each(|value| self.float(value, scalar, notes)),
                None => {
                    for (value, step) in floats.iter_mut().zip(part) {
                        self.float(value, self.scalar.at(step), notes);
                    }
                }
            }
        })?;
        in_histogram_parts(row.column.histograms.len(), budget, |part| {
            part.for_each(|step| self.histogram(&mut row.column, step, notes));
        })?;
        row.drop_name |= self.return_bool || arithmetic::changes_metric(self.op);
        Ok(())
    }

    #[inline(always)]
    fn float(&self, value: &mut f64, other: f64, notes: &mut Notes) {
        if is_absent(*value) {
            return;
        }
        let (left, right) = if self.swapped { (other, *value) } else { (*value, other) };
        if matches!(self.op, BinaryOp::TrimLower | BinaryOp::TrimUpper) {
            let op = self.op.as_str();
            notes.add(Note::IncompatibleTypes { left: "float", op, right: "float" }, self.span);
        }
        let (result, keep) = arithmetic::floats(self.op, left, right);
        if self.return_bool && self.op.is_comparison() {
            *value = f64::from(u8::from(keep));
        } else if !keep {
            *value = ABSENT;
        } else if !(self.swapped && self.op.is_comparison()) {
            // A comparison keeps the value of the vector, whether it is the left or the right operand.
            *value = result;
        }
    }

    fn histogram(&self, column: &mut Column, step: usize, notes: &mut Notes) {
        let Some(histogram) = column.histograms[step].take() else { return };
        let (vector, other) = (Cell::Histogram(&histogram), Cell::Float(self.scalar.at(step)));
        let (left, right) = if self.swapped { (other, vector) } else { (vector, other) };
        match arithmetic::apply(self.op, left, right, notes, self.span) {
            OperatorResult::Unsupported => {}
            OperatorResult::Float(_, keep) | OperatorResult::Histogram(_, keep) if self.return_bool => {
                column.floats[step] = f64::from(u8::from(keep));
            }
            OperatorResult::Float(value, true) => column.floats[step] = value,
            OperatorResult::Histogram(result, true) => column.histograms[step] = Some(result),
            OperatorResult::Float(_, false) | OperatorResult::Histogram(_, false) => {}
        }
    }
}

/// A range function over the steps of a subquery.
fn subquery(
    function: &RangeFunction<'_>,
    inner: &Steps,
    column: Column,
    row: &mut Row,
    scratch: &mut MapScratch,
    notes: &mut Notes,
) -> Result<(), QueryError> {
    let mut values = column.floats;
    if scratch.dense != Some(*inner) || values.iter().any(|value| is_absent(*value)) {
        scratch.reserved.grow_to((values.len() * 8) as u64)?;
        scratch.times.clear();
        if scratch.times.capacity() < values.len() {
            scratch.times = Vec::new();
            scratch.times.reserve_exact(values.len());
        }
        let (mut kept, times, budget) = (0, &mut scratch.times, &function.call.budget);
        in_parts(values.len(), budget, |part| {
            for step in part {
                let value = values[step];
                if !is_absent(value) {
                    times.push(inner.time(step));
                    values[kept] = value;
                    kept += 1;
                }
            }
        })?;
        scratch.dense = (kept == values.len()).then_some(*inner);
        values.truncate(kept);
    }
    let found = column.histograms.into_iter().enumerate();
    let histograms: Vec<(i64, Histogram)> = found
        .filter_map(|(step, histogram)| histogram.map(|h| (inner.time(step), without_hint(h))))
        .collect();
    let points = Points {
        timestamps: &scratch.times,
        values: &values,
        histograms: &histograms,
        // The values of an expression have no start timestamps.
        ..Points::default()
    };
    range::evaluate(function, &row.labels, points, &mut row.column, notes)
}

/// A subquery may skip samples or return one twice, so that a hint about the previous sample would be wrong.
fn without_hint(histogram: Histogram) -> Histogram {
    match histogram.counter_reset_hint {
        CounterResetHint::Reset | CounterResetHint::NotReset => {
            let mut copy = (*histogram).clone();
            copy.counter_reset_hint = CounterResetHint::Unknown;
            Arc::new(copy)
        }
        CounterResetHint::Unknown | CounterResetHint::Gauge => histogram,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::QUERIES;
    use crate::eval::parts::HISTOGRAM_PART;
    use budget::{BudgetLimits, Interrupt, TotalBudget};

    #[test]
    fn long_columns_of_histograms_check_the_interrupt() {
        let steps = Steps { start: 0, interval: 1, count: 3 * HISTOGRAM_PART, end: i64::MAX };
        let span = Span::default();
        let product = Map::Arithmetic { op: BinaryOp::Mul, swapped: false, return_bool: false, span };
        for map in [Map::Negate, Map::Statistic(FunctionId::HistogramStddev), product] {
            let interrupt = Interrupt::counting();
            let total = TotalBudget::unlimited(&QUERIES);
            let budget = Budget::new(&total, BudgetLimits::UNLIMITED, interrupt.clone());
            let histogram = Histogram::default();
            let mut row = Row::new(model::Labels::empty(), repeat(Cell::Histogram(&histogram), steps.count));
            let (mut scratch, mut notes) = (MapScratch::new(&budget), Notes::default());
            let scalars = [Scalar::Constant(2.0)];
            apply(&map, &steps, &scalars, &mut row, &budget, &mut scratch, &mut notes).unwrap();
            assert_eq!(interrupt.checks(), 2, "{map:?}");
        }
    }
}
