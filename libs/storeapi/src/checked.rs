//! Checks that a store keeps the rules of StoreAPI, so that a broken or hostile store cannot corrupt an answer.
//!
//! The merge relies on order, deduplication relies on labels, and no store may send series of another cluster. Each check
//! costs one comparison per series. A violation ends that store's stream; series before it are kept.

use futures::{StreamExt, stream};
use model::{Labels, Matcher};

use crate::limits::shortened;
use crate::{LabelValuesRequest, SeriesFrame, SeriesRequest, SeriesStream, StoreError};

/// The conditions that one store's answer is checked against.
#[derive(Clone, Debug, Default)]
pub struct AnswerChecks {
    /// Labels that each series must carry with exactly these values.
    pub bound: Labels,
    /// Labels that no series may carry, because the request asked to remove them.
    pub removed: Vec<String>,
    /// Conditions that each series must satisfy.
    pub matchers: Vec<Matcher>,
}

impl AnswerChecks {
    /// The checks of the answer to `request` of a store with these external label sets and bound labels.
    ///
    /// `removes_replicas` says that the store removes replica labels itself. A matcher is not checked when the external
    /// labels of the store may satisfy it although the series does not carry the label, or when the label is removed.
    pub fn of(
        request: &SeriesRequest,
        label_sets: &[Labels],
        bound: &Labels,
        removes_replicas: bool,
    ) -> Self {
        let removed = request.without_replica_labels.clone();
        let is_removed = |name: &str| removed.iter().any(|r| r == name);
        let answered_outside = |m: &&Matcher| {
            bound.get(m.name()).is_none() && label_sets.iter().any(|set| set.get(m.name()).is_some())
        };
        let matchers = request
            .matchers
            .iter()
            .filter(|m| !is_removed(m.name()) && !answered_outside(m))
            .cloned()
            .collect();
        Self {
            bound: bound.without(is_removed),
            matchers,
            removed: if removes_replicas { removed } else { Vec::new() },
        }
    }

    /// Returns what is wrong with a series that follows one with the labels `last`.
    fn violation(&self, labels: &Labels, last: Option<&Labels>) -> Option<String> {
        if let Some(last) = last.filter(|last| labels < *last) {
            return Some(format!(
                "series {labels} came after {last}, out of order; series must be sorted by labels"
            ));
        }
        for label in &self.bound {
            if labels.value(label.name) != label.value {
                return Some(format!(
                    "series {labels} must carry {}={:?}, the value that its certificate is bound to",
                    label.name, label.value
                ));
            }
        }
        if let Some(name) = self.removed.iter().find(|name| labels.get(name).is_some()) {
            return Some(format!(
                "series {labels} still carries the label {name:?}, which the request asked to remove"
            ));
        }
        let unmatched = self.matchers.iter().find(|matcher| !matcher.matches_labels(labels))?;
        Some(format!("series {labels} does not match {unmatched}"))
    }
}

/// Checks the answer to a request for label values: a bound label has one possible value, and values of a label satisfy the
/// matchers on it.
///
/// # Errors
/// The first value that the series of this store cannot have.
pub fn check_values(
    request: &LabelValuesRequest,
    label_sets: &[Labels],
    bound: &Labels,
    values: &[String],
) -> Result<(), StoreError> {
    let label = &request.label;
    if let Some(only) = bound.get(label)
        && let Some(other) = values.iter().find(|value| *value != only)
    {
        let other = shortened(other);
        return Err(StoreError::violation(format!(
            "label {label:?} has the value {other:?}, it must be {only:?}, the value that its certificate is bound to"
        )));
    }
    // As for series: the external labels of a store may satisfy a matcher although its series do not carry the label.
    if bound.get(label).is_none() && label_sets.iter().any(|set| set.get(label).is_some()) {
        return Ok(());
    }
    for matcher in request.matchers.iter().filter(|matcher| matcher.name() == label) {
        if let Some(value) = values.iter().find(|value| !matcher.matches(value)) {
            let value = shortened(value);
            return Err(StoreError::violation(format!(
                "label {label:?} has the value {value:?}, which does not match {matcher}"
            )));
        }
    }
    Ok(())
}

/// Passes on the frames of a store until one violates the rules; then the stream gives one error and ends.
pub fn checked(source: SeriesStream, checks: AnswerChecks) -> SeriesStream {
    let state = (source, checks, None::<Labels>);
    stream::unfold(Some(state), |state| async move {
        let (mut source, checks, mut last) = state?;
        let frame = match source.next().await? {
            Ok(frame) => frame,
            Err(error) => return Some((Err(error), None)),
        };
        if let SeriesFrame::Series(batch) = &frame {
            for series in batch {
                if last.as_ref() == Some(&series.labels) {
                    continue;
                }
                if let Some(text) = checks.violation(&series.labels, last.as_ref()) {
                    return Some((Err(StoreError::violation(text)), None));
                }
                last = Some(series.labels.clone());
            }
        }
        Some((Ok(frame), Some((source, checks, last))))
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use model::TimeRange;
    use series::Series;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::from_pairs(pairs.iter().copied()).unwrap()
    }

    async fn check(request: &SeriesRequest, sets: &[&[(&str, &str)]]) -> Result<usize, String> {
        let frames: Vec<_> = sets
            .iter()
            .map(|set| Ok(SeriesFrame::Series(vec![Series { labels: labels(set), chunks: Vec::new() }])))
            .collect();
        let bound = labels(&[("cluster", "eu-1")]);
        let checks =
            AnswerChecks::of(request, &[labels(&[("cluster", "eu-1"), ("tier", "x")])], &bound, true);
        let answer = crate::collect_series(checked(stream::iter(frames).boxed(), checks)).await;
        answer.map(|(series, _)| series.len()).map_err(|e| e.to_string())
    }

    #[test]
    fn values_of_a_bound_label_are_its_one_value_and_others_match() {
        let bound = labels(&[("cluster", "eu-1")]);
        let external = labels(&[("tier", "x")]);
        let check = |label: &str, matcher: Option<Matcher>, values: &[&str]| {
            let request = LabelValuesRequest::new(label, TimeRange::ALL, Vec::from_iter(matcher));
            let values: Vec<String> = values.iter().map(|value| value.to_string()).collect();
            let checked = check_values(&request, std::slice::from_ref(&external), &bound, &values);
            checked.map_err(|error| error.to_string())
        };
        assert_eq!(check("cluster", None, &["eu-1"]), Ok(()));
        assert_eq!(check("cluster", None, &[]), Ok(()));
        let error = check("cluster", None, &["eu-1", "us-1"]).unwrap_err();
        assert!(error.contains("\"us-1\"") && error.contains("must be \"eu-1\""), "{error}");
        assert_eq!(check("job", Some(Matcher::equal("job", "api")), &["api"]), Ok(()));
        let error = check("job", Some(Matcher::equal("job", "api")), &["api", "db"]).unwrap_err();
        assert!(error.contains("does not match job=\"api\""), "{error}");
        assert_eq!(check("tier", Some(Matcher::equal("tier", "x")), &["y"]), Ok(()));
    }

    #[tokio::test]
    async fn each_broken_promise_ends_the_stream_with_the_series_named() {
        let mut request = SeriesRequest::new(TimeRange::ALL, vec![Matcher::equal("job", "api")]);
        request.matchers.push(Matcher::equal("tier", "x"));
        request.without_replica_labels = vec!["replica".to_owned()];
        let good = [("cluster", "eu-1"), ("job", "api")];
        assert_eq!(check(&request, &[&good, &good, &[good[0], good[1], ("z", "1")]]).await, Ok(2));
        for (sets, part) in [
            (vec![&[good[0], good[1], ("z", "1")][..], &good], "out of order"),
            (vec![&[("cluster", "us-1"), good[1]][..]], "must carry cluster=\"eu-1\""),
            (vec![&[good[1]][..]], "must carry cluster=\"eu-1\""),
            (vec![&[good[0], good[1], ("replica", "a")][..]], "still carries the label \"replica\""),
            (vec![&[good[0], ("job", "db")][..]], "does not match job=\"api\""),
        ] {
            let error = check(&request, &sets).await.unwrap_err();
            assert!(error.contains(part), "{error}");
            assert!(error.contains("cluster") || error.contains("job"), "{error}");
        }
    }
}
