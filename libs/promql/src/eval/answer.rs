//! From the series of the last operator to the value of the query.

use model::{Labels, Sample, Timestamp};

use super::column::{Cell, Row};
use super::merge::merge;
use crate::QueryError;
use crate::functions::label::without_reserved;
use crate::output::{MatrixSeries, QueryValue, SampleValue, VectorSample};
use crate::plan::Plan;
use crate::plan::steps::Steps;
use crate::syntax::functions::ValueType;

/// The value of a query.
///
/// Names that were to be dropped are dropped here. Series whose labels become equal by that are joined; the query fails
/// where two of them have a value at the same step.
pub(crate) fn value(plan: &Plan, rows: Vec<Row>, steps: &Steps) -> Result<QueryValue, QueryError> {
    let mut rows = rows;
    for row in rows.iter_mut().filter(|row| plan.delayed_name_removal && row.drop_name) {
        row.labels = without_reserved(&row.labels);
    }
    let rows = merge(rows, &plan.budget)?;
    if !plan.instant || plan.value_type() == ValueType::Matrix {
        return Ok(QueryValue::Matrix(matrix(rows, steps)));
    }
    let timestamp = Timestamp::from_millis(plan.steps.start);
    if plan.value_type() == ValueType::Scalar {
        let value = rows.first().map_or(f64::NAN, |row| row.column.floats[0]);
        return Ok(QueryValue::Scalar(Sample { timestamp, value }));
    }
    let samples = rows.into_iter().filter_map(|row| {
        let value = match row.column.get(0) {
            Cell::Absent => return None,
            Cell::Float(value) => SampleValue::Float(value),
            Cell::Histogram(histogram) => SampleValue::Histogram(histogram.clone()),
        };
        Some(VectorSample { labels: row.labels, timestamp, value })
    });
    Ok(QueryValue::Vector(samples.collect()))
}

fn matrix(rows: Vec<Row>, steps: &Steps) -> Vec<MatrixSeries> {
    let mut series: Vec<MatrixSeries> = rows
        .into_iter()
        .filter(|row| !row.column.is_empty())
        .map(|row| {
            let mut series = MatrixSeries { labels: row.labels, floats: Vec::new(), histograms: Vec::new() };
            for step in 0..row.column.len() {
                let timestamp = Timestamp::from_millis(steps.time(step));
                match row.column.get(step) {
                    Cell::Absent => {}
                    Cell::Float(value) => series.floats.push(Sample { timestamp, value }),
                    Cell::Histogram(histogram) => series.histograms.push((timestamp, histogram.clone())),
                }
            }
            series
        })
        .collect();
    sort(&mut series);
    series
}

/// Sorts series by their labels.
pub(crate) fn sort(series: &mut [MatrixSeries]) {
    let key = |series: &MatrixSeries| -> Labels { series.labels.clone() };
    series.sort_by_cached_key(key);
}
