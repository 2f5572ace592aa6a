//! The request of a select: aggregates and resolution.

use std::time::Duration;

use promql::Select;
use series::Aggregate;
use storeapi::{QueryHints, SeriesRequest};

use crate::fanout::StoreReport;
use crate::query::question::Question;

/// The request for the series of `select`.
pub(super) fn request(select: &Select, question: &Question) -> SeriesRequest {
    let hints = &select.hints;
    let mut request = SeriesRequest::new(select.range, select.matchers.clone());
    request.aggregates = aggregates(hints.aggregate());
    request.coarser_if_needed = true;
    request.max_resolution = question.max_resolution.min(hints.resolution.unwrap_or(Duration::MAX));
    request.partial_response = question.partial_response;
    request.shard.clone_from(&question.shard);
    request.without_replica_labels.clone_from(&question.replica_labels);
    request.hints = Some(QueryHints {
        step: hints.step,
        function: hints.func.clone(),
        range: hints.range,
        grouping: hints.grouping.clone(),
        by: hints.by,
    });
    request
}

/// The aggregates that a store must send for one that is evaluated: an average needs two. Where blocks overlap, the count shows
/// which of two sums is of more samples.
fn aggregates(read: Aggregate) -> Vec<Aggregate> {
    match read {
        Aggregate::Raw | Aggregate::Sum => vec![Aggregate::Count, Aggregate::Sum],
        one => vec![one],
    }
}

/// The question with the lookback that its data needs, if that is a longer one: stores send coarser data than permitted for
/// times at which they have nothing else, which is known only afterwards. A selector of a range has no lookback.
pub(super) fn with_longer_lookback(
    question: &Question,
    selects: &[Select],
    stores: &[(usize, StoreReport)],
) -> Option<Question> {
    let has_lookback = |index: usize| selects.get(index).is_some_and(|s| s.hints.range.is_zero());
    let found = stores.iter().filter(|(select, _)| has_lookback(*select));
    let coarsest = found.map(|(_, report)| report.resolutions.coarsest()).max()?;
    let lookback = question.dynamic_lookback?.at(coarsest);
    (lookback > question.lookback).then(|| Question { lookback, ..question.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_request_their_aggregates() {
        for (function, expected) in [
            ("sum_over_time", vec![Aggregate::Count, Aggregate::Sum]),
            ("sum", vec![Aggregate::Count, Aggregate::Sum]),
            ("rate", vec![Aggregate::Counter]),
            ("max_over_time", vec![Aggregate::Max]),
            ("", vec![Aggregate::Count, Aggregate::Sum]),
        ] {
            let hints = promql::SelectHints { func: function.to_owned(), ..Default::default() };
            assert_eq!(aggregates(hints.aggregate()), expected, "{function}");
        }
    }
}
