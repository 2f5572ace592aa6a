//! Converts the series of the last operator to the value of the query.

use std::sync::Arc;

use budget::Reservation;
use model::{FloatHistogram, Sample, Timestamp};

use crate::error::QueryError;
use crate::eval::merge::merge;
use crate::functions::label::without_reserved;
use crate::output::{MatrixSeries, QueryValue, SampleValue, VectorSample};
use crate::plan::Plan;
use crate::plan::node::{LeafKind, Op, PlanRoot};
use crate::syntax::functions::ValueType;
use crate::value::column::{Cell, Row, is_absent};
use crate::value::steps::Steps;

/// The value of a query, from the series of its last operator, or from raw samples if it is a range selector.
pub(crate) fn value(
    plan: &Plan,
    rows: Vec<Row>,
    mut raw: Vec<MatrixSeries>,
    reserved: &mut Reservation,
) -> Result<QueryValue, QueryError> {
    let root = match &plan.answer {
        PlanRoot::String(text) => {
            let timestamp = Timestamp::from_millis(plan.steps.start);
            return Ok(QueryValue::String { timestamp, value: text.clone() });
        }
        PlanRoot::Series(root) => &plan.nodes[*root],
    };
    match &root.op {
        Op::Leaf(leaf) if matches!(leaf.kind, LeafKind::Raw) => {
            sort(&mut raw);
            Ok(QueryValue::Matrix(raw))
        }
        _ => value_of_rows(plan, rows, &root.steps, reserved),
    }
}

/// The value of the series of the last operator.
///
/// With delayed name removal, names are dropped here. Series whose labels become equal by that are merged; the query fails if
/// two of them have a value at the same step. `reserved` covers the rows, and afterwards the value.
fn value_of_rows(
    plan: &Plan,
    rows: Vec<Row>,
    steps: &Steps,
    reserved: &mut Reservation,
) -> Result<QueryValue, QueryError> {
    let mut rows = rows;
    for row in rows.iter_mut().filter(|row| plan.delayed_name_removal && row.drop_name) {
        row.labels = without_reserved(&row.labels);
    }
    let rows = merge(rows, &plan.budget, reserved)?;
    if !plan.instant || plan.value_type() == ValueType::Matrix {
        return Ok(QueryValue::Matrix(matrix(plan, rows, steps, reserved)?));
    }
    let timestamp = Timestamp::from_millis(plan.steps.start);
    if plan.value_type() == ValueType::Scalar {
        let value = rows.first().map_or(f64::NAN, |row| row.column.floats[0]);
        return Ok(QueryValue::Scalar(Sample { timestamp, value }));
    }
    let (rows_bytes, bytes) = (rows.len() * size_of::<Row>(), rows.len() * size_of::<VectorSample>());
    reserved.add(bytes as u64)?;
    let mut samples = Vec::with_capacity(rows.len());
    samples.extend(rows.into_iter().filter_map(|row| {
        let value = match row.column.get(0) {
            Cell::Absent => return None,
            Cell::Float(value) => SampleValue::Float(value),
            Cell::Histogram(histogram) => SampleValue::Histogram(histogram.clone()),
        };
        Some(VectorSample { labels: row.labels, timestamp, value })
    }));
    reserved.release(rows_bytes as u64);
    Ok(QueryValue::Vector(samples))
}

fn matrix(
    plan: &Plan,
    rows: Vec<Row>,
    steps: &Steps,
    reserved: &mut Reservation,
) -> Result<Vec<MatrixSeries>, QueryError> {
    reserved.add((rows.len() * size_of::<MatrixSeries>()) as u64)?;
    let mut list = Vec::with_capacity(rows.len());
    for row in rows {
        plan.budget.check()?;
        // Samples have times, columns do not: the series is larger than the row that it replaces.
        let bytes = row.size_bytes();
        let histograms = row.column.histograms.iter().flatten().count();
        let floats = row.column.floats.iter().filter(|value| !is_absent(**value)).count();
        let samples =
            floats * size_of::<Sample>() + histograms * size_of::<(Timestamp, Arc<FloatHistogram>)>();
        reserved.add(samples as u64)?;
        let mut series = MatrixSeries {
            labels: row.labels,
            floats: Vec::with_capacity(floats),
            histograms: Vec::with_capacity(histograms),
        };
        for step in 0..row.column.len() {
            let timestamp = Timestamp::from_millis(steps.time(step));
            match row.column.get(step) {
                Cell::Absent => {}
                Cell::Float(value) => series.floats.push(Sample { timestamp, value }),
                Cell::Histogram(histogram) => series.histograms.push((timestamp, histogram.clone())),
            }
        }
        let held = samples + size_of::<MatrixSeries>();
        reserved.add(series.size_bytes().saturating_sub(held as u64))?;
        reserved.release(bytes);
        if floats + histograms > 0 {
            list.push(series);
        }
    }
    sort(&mut list);
    Ok(list)
}

/// Sorts series by their labels.
fn sort(series: &mut [MatrixSeries]) {
    series.sort_by(|a, b| a.labels.cmp(&b.labels));
}
