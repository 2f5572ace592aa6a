//! Operators that change each series by itself.

use std::sync::Arc;

use model::CounterResetHint;

use super::budget::Budget;
use super::column::{ABSENT, Cell, Column, Histogram, Points, Row, is_absent};
use super::notes::{Note, Notes};
use super::scalar::Scalar;
use crate::QueryError;
use crate::functions::arithmetic::{self, Outcome};
use crate::functions::math::{FloatFunction, go_max, go_min};
use crate::functions::range::{self, RangeFunction};
use crate::functions::{buckets, date};
use crate::plan::node::Map;
use crate::plan::steps::Steps;
use crate::syntax::ast::{BinaryOp, Span};
use crate::syntax::functions::FunctionId;

/// Applies `map` to one series; `false` where nothing is left of it.
pub(crate) fn apply(
    map: &Map,
    steps: &Steps,
    scalars: &[Scalar],
    row: &mut Row,
    budget: &Budget,
    notes: &mut Notes,
) -> Result<bool, QueryError> {
    match map {
        Map::Identity => return Ok(true),
        Map::Negate => {
            row.drop_name = true;
            for value in &mut row.column.floats {
                if !is_absent(*value) {
                    *value = -*value;
                }
            }
            for histogram in row.column.histograms.iter_mut().flatten() {
                let mut copy = (**histogram).clone();
                copy.mul(-1.0);
                *histogram = Arc::new(copy);
            }
        }
        Map::Math(id) => math(*id, scalars, row)?,
        Map::Date(id) => floats_only(row, |_, value| Some(date::part(*id, value))),
        Map::StepTime => {
            for step in 0..steps.count {
                if row.column.has(step) {
                    row.column.floats[step] = steps.time(step) as f64 / 1000.0;
                }
            }
            row.column.drop_histograms();
            row.drop_name = true;
        }
        Map::Extreme(id) => {
            let other = |step: usize| scalars.first().map_or(f64::NAN, |s| s.at(step));
            for (step, value) in row.column.floats.iter_mut().enumerate() {
                *value = if *id == FunctionId::MaxOf {
                    go_max(*value, other(step))
                } else {
                    go_min(*value, other(step))
                };
            }
            return Ok(true);
        }
        Map::Statistic(id) => statistic(*id, row),
        Map::Arithmetic { op, swapped, return_bool, span } => {
            let scalar = scalars.first().ok_or_else(missing)?;
            arithmetic(*op, scalar, *swapped, *return_bool, *span, row, notes);
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
            subquery(&function, inner, column, row, notes)?;
            row.drop_name |= !call.keeps_name();
        }
        Map::Repeat => {
            let cell = row.column.get(0);
            let mut repeated = Column::absent(steps.count);
            for step in 0..steps.count {
                repeated.set(step, cell);
            }
            row.column = repeated;
            return Ok(true);
        }
    }
    Ok(!row.column.is_empty())
}

fn missing() -> QueryError {
    QueryError::execution("an operator was evaluated before its scalar argument")
}

/// Changes each float to what `f` makes of it, and drops histograms.
fn floats_only(row: &mut Row, f: impl Fn(usize, f64) -> Option<f64>) {
    for (step, value) in row.column.floats.iter_mut().enumerate() {
        if !is_absent(*value) {
            *value = f(step, *value).unwrap_or(ABSENT);
        }
    }
    row.column.drop_histograms();
    row.drop_name = true;
}

fn math(id: FunctionId, scalars: &[Scalar], row: &mut Row) -> Result<(), QueryError> {
    let at = |index: usize, step: usize| scalars.get(index).map(|s| s.at(step));
    let function = |step: usize| FloatFunction::new(id, at(0, step), at(1, step));
    if scalars.iter().all(|s| s.constant().is_some()) {
        let function = function(0)
            .ok_or_else(|| QueryError::execution(format!("{} cannot be evaluated", id.signature().name)))?;
        floats_only(row, |_, value| function.apply(value));
    } else {
        floats_only(row, |step, value| function(step).and_then(|f| f.apply(value)));
    }
    Ok(())
}

fn statistic(id: FunctionId, row: &mut Row) {
    let histograms = std::mem::take(&mut row.column.histograms);
    row.column.floats.fill(ABSENT);
    for (step, histogram) in histograms.iter().enumerate() {
        if let Some(histogram) = histogram {
            row.column.floats[step] = match id {
                FunctionId::HistogramCount => histogram.count,
                FunctionId::HistogramSum => histogram.sum,
                FunctionId::HistogramAvg => histogram.sum / histogram.count,
                FunctionId::HistogramStddev => buckets::variance(histogram).sqrt(),
                FunctionId::HistogramStdvar => buckets::variance(histogram),
                _ => ABSENT,
            };
        }
    }
    row.drop_name = true;
}

/// An operator between each value and a scalar.
fn arithmetic(
    op: BinaryOp,
    scalar: &Scalar,
    swapped: bool,
    return_bool: bool,
    span: Span,
    row: &mut Row,
    notes: &mut Notes,
) {
    // A comparison keeps the value of the vector, on whichever side it stands.
    let keeps_vector = swapped && op.is_comparison();
    let trims = matches!(op, BinaryOp::TrimLower | BinaryOp::TrimUpper);
    for step in 0..row.column.floats.len() {
        let value = row.column.floats[step];
        if is_absent(value) {
            continue;
        }
        let other = scalar.at(step);
        let (left, right) = if swapped { (other, value) } else { (value, other) };
        if trims {
            notes.add(Note::IncompatibleTypes { left: "float", op: op.as_str(), right: "float" }, span);
        }
        let (result, keep) = arithmetic::floats(op, left, right);
        row.column.floats[step] = if return_bool && op.is_comparison() {
            f64::from(u8::from(keep))
        } else if !keep {
            ABSENT
        } else if keeps_vector {
            value
        } else {
            result
        };
    }
    if !row.column.histograms.is_empty() {
        for step in 0..row.column.floats.len() {
            let Some(histogram) = row.column.histograms[step].take() else { continue };
            let (vector, other) = (Cell::Histogram(&histogram), Cell::Float(scalar.at(step)));
            let (left, right) = if swapped { (other, vector) } else { (vector, other) };
            match arithmetic::apply(op, left, right, notes, span) {
                Outcome::Refused => {}
                Outcome::Float(_, keep) | Outcome::Histogram(_, keep) if return_bool => {
                    row.column.floats[step] = f64::from(u8::from(keep));
                }
                Outcome::Float(value, true) => row.column.floats[step] = value,
                Outcome::Histogram(result, true) => row.column.histograms[step] = Some(result),
                Outcome::Float(_, false) | Outcome::Histogram(_, false) => {}
            }
        }
    }
    row.drop_name |= return_bool || arithmetic::changes_metric(op);
}

/// A range function over the steps of a subquery.
fn subquery(
    function: &RangeFunction<'_>,
    inner: &Steps,
    column: Column,
    row: &mut Row,
    notes: &mut Notes,
) -> Result<(), QueryError> {
    let mut times = Vec::with_capacity(column.len());
    let mut values = Vec::with_capacity(column.len());
    for (step, value) in column.floats.iter().enumerate() {
        if !is_absent(*value) {
            times.push(inner.time(step));
            values.push(*value);
        }
    }
    let found = column.histograms.into_iter().enumerate();
    let histograms: Vec<(i64, Histogram)> = found
        .filter_map(|(step, histogram)| histogram.map(|h| (inner.time(step), without_hint(h))))
        .collect();
    let points = Points {
        timestamps: &times,
        values: &values,
        histograms: &histograms,
        // What an expression gives has no start.
        ..Points::default()
    };
    range::evaluate(function, &row.labels, points, &mut row.column, notes)
}

/// A subquery may skip samples or return one twice, so that a hint about the sample before would be wrong.
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
