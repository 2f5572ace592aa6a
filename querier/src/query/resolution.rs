//! The request of a select: aggregates and resolution.

use std::time::Duration;

use promql::Select;
use series::Aggregate;
use storeapi::{QueryHints, SeriesRequest};

use crate::query::question::Question;

/// The request for the series of `select`.
pub(super) fn request(select: &Select, question: &Question) -> SeriesRequest {
    let hints = &select.hints;
    let mut request = SeriesRequest::new(select.range, select.matchers.clone());
    request.aggregates = aggregates(hints.aggregate());
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

/// The aggregates that a store must send for one that is evaluated: an average needs two.
fn aggregates(read: Aggregate) -> Vec<Aggregate> {
    match read {
        Aggregate::Raw => vec![Aggregate::Count, Aggregate::Sum],
        one => vec![one],
    }
}

/// The lookback for data of this resolution. For example, samples with a resolution of 1 h are too far apart
/// for a lookback of 5 min.
///
/// `configured` is the value of the flag, if set. Specified by `LookbackDeltaFactory` of Thanos.
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
    fn lookback_grows_with_the_resolution() {
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
    fn functions_request_their_aggregates() {
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
