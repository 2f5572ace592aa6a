//! Label names and label values.

use std::collections::BTreeSet;

use model::{Labels, MatchOp, Matcher, TimeRange};

use crate::acceptance::cases::{at, matcher, whole};
use crate::acceptance::{Dataset, START_MILLIS};
use crate::{Code, LabelNamesRequest, LabelValuesRequest, Store};

async fn names(store: &dyn Store, request: LabelNamesRequest) -> Vec<String> {
    let case = format!("label names {request:?}");
    let answer = store.label_names(request).await.unwrap_or_else(|e| panic!("{case}: {e}"));
    assert!(answer.warnings.is_empty(), "{case}: {:?}", answer.warnings);
    assert!(
        answer.values.is_sorted_by(|a, b| a < b),
        "{case}: not sorted or not unique: {:?}",
        answer.values
    );
    answer.values
}

async fn values(store: &dyn Store, request: LabelValuesRequest) -> Vec<String> {
    let case = format!("label values {request:?}");
    let answer = store.label_values(request).await.unwrap_or_else(|e| panic!("{case}: {e}"));
    assert!(answer.warnings.is_empty(), "{case}: {:?}", answer.warnings);
    assert!(
        answer.values.is_sorted_by(|a, b| a < b),
        "{case}: not sorted or not unique: {:?}",
        answer.values
    );
    answer.values
}

fn matching(dataset: &Dataset, matchers: &[Matcher]) -> Vec<Labels> {
    let all = dataset.series.iter().map(|(labels, _)| labels.extended(&dataset.external));
    all.filter(|labels| matchers.iter().all(|m| m.matches_labels(labels))).collect()
}

/// Matchers that select all, some, one and none of the series.
fn selections() -> Vec<Vec<Matcher>> {
    use MatchOp::{Equal, NotEqual, Regex};
    vec![
        vec![],
        vec![matcher(Equal, "__name__", "requests_total")],
        vec![matcher(Regex, "__name__", "sorts|up"), matcher(Equal, "cluster", "eu-1")],
        vec![matcher(Equal, "__name__", "up"), matcher(Equal, "cluster", "us-1")],
        vec![matcher(Equal, "cluster", "eu-1")],
        vec![matcher(Equal, "__name__", "nothing_has_this_name")],
        // All but the matcher for the external label match the empty string.
        vec![matcher(Equal, "cluster", "eu-1"), matcher(Regex, "instance", ".*")],
        vec![matcher(Equal, "cluster", "eu-1"), matcher(NotEqual, "job", "api")],
        vec![matcher(Equal, "cluster", "eu-1"), matcher(Equal, "instance", "")],
    ]
}

pub(super) async fn all(store: &dyn Store, dataset: &Dataset) {
    names_are_those_of_the_series_that_match(store, dataset).await;
    values_are_those_of_the_series_that_match(store, dataset).await;
    replica_labels_have_no_name_and_no_values(store).await;
    limits_cut(store).await;
    outside_the_range_there_is_nothing(store).await;
    an_empty_label_name_is_refused(store).await;
}

async fn names_are_those_of_the_series_that_match(store: &dyn Store, dataset: &Dataset) {
    for matchers in selections() {
        let series = matching(dataset, &matchers);
        let want: BTreeSet<String> = series
            .iter()
            .flat_map(|l| l.iter().map(|label| label.name.to_owned()).collect::<Vec<_>>())
            .collect();
        let found = names(store, LabelNamesRequest::new(whole(), matchers.clone())).await;
        assert_eq!(found, Vec::from_iter(want), "label names of {matchers:?}");
    }
}

async fn values_are_those_of_the_series_that_match(store: &dyn Store, dataset: &Dataset) {
    for label in ["__name__", "job", "instance", "cluster", "replica", "word", "nobody_has_this"] {
        for matchers in selections() {
            let series = matching(dataset, &matchers);
            let want: BTreeSet<String> =
                series.iter().filter_map(|l| l.get(label).map(str::to_owned)).collect();
            let found = values(store, LabelValuesRequest::new(label, whole(), matchers.clone())).await;
            assert_eq!(found, Vec::from_iter(want), "values of {label} in {matchers:?}");
        }
    }
}

async fn replica_labels_have_no_name_and_no_values(store: &dyn Store) {
    let mut request = LabelNamesRequest::new(whole(), vec![]);
    request.without_replica_labels = vec!["replica".to_owned()];
    let found = names(store, request).await;
    assert!(!found.contains(&"replica".to_owned()) && found.contains(&"cluster".to_owned()), "{found:?}");
    let mut request = LabelValuesRequest::new("replica", whole(), vec![]);
    request.without_replica_labels = vec!["replica".to_owned()];
    assert!(values(store, request).await.is_empty(), "values of a replica label");
}

async fn limits_cut(store: &dyn Store) {
    let mut request = LabelNamesRequest::new(whole(), vec![]);
    request.limit = Some(2);
    assert_eq!(names(store, request).await.len(), 2, "label names with a limit");
    let mut request = LabelValuesRequest::new("__name__", whole(), vec![]);
    request.limit = Some(2);
    assert_eq!(values(store, request).await.len(), 2, "label values with a limit");
}

async fn outside_the_range_there_is_nothing(store: &dyn Store) {
    // Far from all samples, because implementations may extend a range to whole blocks.
    let before = TimeRange::new(at(START_MILLIS - 864_000_000), at(START_MILLIS - 863_000_000));
    let matchers = vec![Matcher::equal("__name__", "up")];
    assert!(names(store, LabelNamesRequest::new(before, matchers.clone())).await.is_empty());
    assert!(values(store, LabelValuesRequest::new("job", before, matchers)).await.is_empty());
}

async fn an_empty_label_name_is_refused(store: &dyn Store) {
    let answer = store.label_values(LabelValuesRequest::new("", whole(), vec![])).await;
    assert_eq!(answer.map_err(|e| e.code()), Err(Code::InvalidArgument), "values of no label");
}
