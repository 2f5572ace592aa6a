//! Runs queries with the engine.

use promql::{
    EngineOptions, ParseOptions, Query, QueryError, QueryOutput, QueryParams, QueryValue, SampleValue,
};
use series::SelectedSeries;

use crate::random::Random;

/// Options with the whole language enabled.
pub(crate) fn options(delayed_name_removal: bool, workers: usize) -> EngineOptions {
    EngineOptions { parse: ParseOptions::ALL, delayed_name_removal, workers, ..EngineOptions::default() }
}

/// Which labels the pushed series have.
pub(crate) enum Offer<'a> {
    /// All labels.
    Whole,
    /// Only the labels that the query needs. Counts the series that lost a label.
    Needed(&'a mut usize),
}

/// Evaluates a query over `series`, which must be in label order. All labels are pushed, in batches of random
/// sizes.
///
/// # Errors
/// The errors of the engine.
pub(crate) fn ask(
    text: &str,
    params: &QueryParams,
    series: &[SelectedSeries],
    options: &EngineOptions,
    random: &mut Random,
) -> Result<QueryOutput, QueryError> {
    offer(text, params, series, options, random, Offer::Whole)
}

/// Like [`ask`], with a choice of labels.
///
/// # Errors
/// The errors of the engine.
pub(crate) fn offer(
    text: &str,
    params: &QueryParams,
    series: &[SelectedSeries],
    options: &EngineOptions,
    random: &mut Random,
    mut labels: Offer<'_>,
) -> Result<QueryOutput, QueryError> {
    let query = Query::plan(text, params, options)?;
    let mut evaluation = query.evaluation();
    while let Some(id) = evaluation.next_select() {
        let select = evaluation.select(id);
        let fits =
            |series: &&SelectedSeries| select.matchers.iter().all(|m| m.matches_labels(&series.labels));
        let mut rest: Vec<SelectedSeries> = series.iter().filter(fits).cloned().collect();
        if let Offer::Needed(left_out) = &mut labels {
            let mut trimmer = select.hints.labels.trimmer();
            for series in &mut rest {
                let trimmed = trimmer.trim(series.labels.clone());
                **left_out += usize::from(trimmed != series.labels);
                series.labels = trimmed;
            }
        }
        while !rest.is_empty() {
            let later = rest.split_off((random.below(20) as usize + 1).min(rest.len()));
            evaluation.push(id, std::mem::replace(&mut rest, later))?;
        }
        evaluation.end_select(id)?;
    }
    evaluation.finish()
}

/// Whether two results are equal bit for bit, including annotations.
pub(crate) fn identical(a: &Result<QueryOutput, QueryError>, b: &Result<QueryOutput, QueryError>) -> bool {
    match (a, b) {
        (Ok(a), Ok(b)) => a.annotations == b.annotations && same_bits(&a.value, &b.value),
        (Err(a), Err(b)) => a == b,
        _ => false,
    }
}

fn same_bits(a: &QueryValue, b: &QueryValue) -> bool {
    match (a, b) {
        (QueryValue::Scalar(a), QueryValue::Scalar(b)) => a.value.to_bits() == b.value.to_bits(),
        (a @ QueryValue::String { .. }, b) => a == b,
        (QueryValue::Vector(a), QueryValue::Vector(b)) => {
            a.len() == b.len()
                && a.iter().zip(b).all(|(a, b)| {
                    a.labels == b.labels
                        && match (&a.value, &b.value) {
                            (SampleValue::Float(a), SampleValue::Float(b)) => a.to_bits() == b.to_bits(),
                            (a, b) => a == b,
                        }
                })
        }
        (QueryValue::Matrix(a), QueryValue::Matrix(b)) => {
            a.len() == b.len()
                && a.iter().zip(b).all(|(a, b)| {
                    let bits = |series: &promql::MatrixSeries| -> Vec<_> {
                        series.floats.iter().map(|s| (s.timestamp, s.value.to_bits())).collect()
                    };
                    a.labels == b.labels && bits(a) == bits(b) && a.histograms == b.histograms
                })
        }
        _ => false,
    }
}
