//! What stores are asked for a select: which aggregates, and how coarse.

use std::time::Duration;

use promql::Select;
use series::Aggregate;
use storeapi::{QueryHints, SeriesRequest};

use crate::query::Question;

/// The request for the series of `select`.
pub(super) fn request(select: &Select, question: &Question) -> SeriesRequest {
    let hints = &select.hints;
    let mut request = SeriesRequest::new(select.range, select.matchers.clone());
    request.aggregates = aggregates(hints.aggregate());
    request.max_resolution = question.max_resolution.min(hints.resolution.unwrap_or(Duration::MAX));
    request.partial_response = question.partial_response;
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

/// Which aggregates a store has to send for one that is read: the mean, which is nearest to raw samples, is made of two.
fn aggregates(read: Aggregate) -> Vec<Aggregate> {
    match read {
        Aggregate::Raw => vec![Aggregate::Count, Aggregate::Sum],
        one => vec![one],
    }
}

/// The lookback for data of this resolution: an hour's means are too far apart for five minutes.
///
/// `configured` is the flag's value, if it was given. Specified by Thanos' `LookbackDeltaFactory`.
pub(crate) fn dynamic_lookback(configured: Option<Duration>, max_resolution: Duration) -> Duration {
    const FIVE_MINUTES: Duration = Duration::from_secs(300);
    const HOUR: Duration = Duration::from_secs(3600);
    let base = configured.unwrap_or(Duration::ZERO);
    if max_resolution > base.max(FIVE_MINUTES) {
        base.max(HOUR)
    } else if max_resolution > base {
        base.max(FIVE_MINUTES)
    } else {
        configured.unwrap_or(FIVE_MINUTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookback_follows_the_resolution() {
        let check = |configured: Option<u64>, resolution, expected| {
            let found =
                dynamic_lookback(configured.map(Duration::from_secs), Duration::from_secs(resolution));
            assert_eq!(found, Duration::from_secs(expected));
        };
        check(None, 0, 300);
        check(None, 300, 300);
        check(None, 3600, 3600);
        check(Some(60), 0, 60);
        check(Some(60), 300, 300);
        check(Some(7200), 3600, 7200);
        check(Some(600), 3600, 3600);
    }

    #[test]
    fn functions_read_their_aggregate() {
        for (function, expected) in [
            ("sum_over_time", vec![Aggregate::Sum]),
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
