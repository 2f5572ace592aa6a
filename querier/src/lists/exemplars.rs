//! Merges exemplars, and narrows their queries to one store.
//!
//! Behaviour: `pkg/exemplars` of Thanos.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use model::{ExternalMatch, Labels, Matcher};
use promapi::{Exemplar, ExemplarSeries};
use promql::selector_text;

use crate::endpoints::Candidate;

/// Joins the exemplars of series that differ only in replica labels. Series are sorted by labels, exemplars by
/// time, and equal exemplars are merged.
pub(crate) fn merged(parts: Vec<ExemplarSeries>, replica_labels: &[String]) -> Vec<ExemplarSeries> {
    let is_replica = |name: &str| replica_labels.iter().any(|label| label == name);
    let mut series: BTreeMap<Labels, Vec<Exemplar>> = BTreeMap::new();
    for part in parts.into_iter().filter(|part| !part.exemplars.is_empty()) {
        series.entry(part.series_labels.without(is_replica)).or_default().extend(part.exemplars);
    }
    let order = |a: &Exemplar, b: &Exemplar| -> Ordering {
        (a.timestamp, &a.labels).cmp(&(b.timestamp, &b.labels)).then(a.value.total_cmp(&b.value))
    };
    let sorted = |(series_labels, mut exemplars): (Labels, Vec<Exemplar>)| {
        exemplars.sort_by(order);
        exemplars.dedup_by(|later, first| order(later, first).is_eq());
        ExemplarSeries { series_labels, exemplars }
    };
    series.into_iter().map(sorted).collect()
}

/// The selectors without their matchers for `selector_labels`, which this querier adds; without those selectors
/// that they exclude.
pub(crate) fn within(selectors: &[Vec<Matcher>], selector_labels: &Labels) -> Vec<Vec<Matcher>> {
    let rest = |matchers: &Vec<Matcher>| match ExternalMatch::split(matchers, selector_labels) {
        ExternalMatch::Nothing => None,
        ExternalMatch::Rest(rest) => Some(rest),
    };
    selectors.iter().filter_map(rest).collect()
}

/// The query for one store: the selectors that may match its series, joined by `+`. `None` if there is none.
///
/// Prometheus does not know its external labels in such queries. Matchers for them are removed, except for a
/// querier, which chooses its own stores by them.
pub(crate) fn narrowed(selectors: &[Vec<Matcher>], store: &Candidate) -> Option<String> {
    let sets = store.label_sets();
    let is_querier = store.info.as_ref().is_some_and(|info| info.component == "query");
    let is_external =
        |name: &str| store.bound.get(name).is_some() || sets.iter().any(|set| set.get(name).is_some());
    let text = |matchers: &Vec<Matcher>| {
        store.labels_admit(matchers).then(|| {
            let kept = matchers.iter().filter(|m| is_querier || !is_external(m.name()));
            selector_text(kept)
        })
    };
    let parts: Vec<String> = selectors.iter().filter_map(text).collect();
    (!parts.is_empty()).then(|| parts.join(" + "))
}

#[cfg(test)]
mod tests {
    use model::{TimeRange, Timestamp};
    use promql::{ParseOptions, selectors};
    use storeapi::StoreInfo;

    use super::*;
    use crate::tests::{labels, local, memory};

    #[test]
    fn exemplars_of_replicas_are_joined_in_order_of_time() {
        let exemplar = |at, trace: &str| Exemplar {
            labels: labels(&[("traceID", trace)]),
            value: 1.0,
            timestamp: Timestamp::from_millis(at),
        };
        let series = |replica: &str, exemplars| ExemplarSeries {
            series_labels: labels(&[("__name__", "m"), ("replica", replica)]),
            exemplars,
        };
        let parts = || {
            vec![
                series("1", vec![exemplar(5, "b"), exemplar(1, "a")]),
                series("0", vec![exemplar(1, "a"), exemplar(3, "c")]),
                series("2", vec![]),
            ]
        };
        let all = merged(parts(), &["replica".to_owned()]);
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].series_labels, labels(&[("__name__", "m")]));
        assert_eq!(all[0].exemplars, [exemplar(1, "a"), exemplar(3, "c"), exemplar(5, "b")]);
        assert_eq!(merged(parts(), &[]).len(), 2);
    }

    #[test]
    fn queries_are_narrowed_to_what_a_store_may_have() {
        let of = |text: &str| selectors(&promql::parse(text, &ParseOptions::ALL).unwrap());
        let store = |component: &str, sets: &[&[(&str, &str)]]| {
            let sets = sets.iter().map(|set| labels(set)).collect();
            let info = StoreInfo::new(component, sets, TimeRange::ALL);
            Candidate { info: Some(info.into()), ..local("s", memory(&[], &[])) }
        };
        let eu = store("sidecar", &[&[("cluster", "eu")]]);
        let check = |query: &str, store: &Candidate, expected: Option<&str>| {
            assert_eq!(narrowed(&of(query), store).as_deref(), expected, "{query}");
        };
        check("rate(m{job=\"a\\\"b\"}[5m]) / n", &eu, Some(r#"{job="a\"b",__name__="m"} + {__name__="n"}"#));
        check("m{cluster=\"eu\"} + n{cluster=\"us\"}", &eu, Some(r#"{__name__="m"}"#));
        check("m{cluster=\"us\"}", &eu, None);
        check("{cluster=~\"e.\"}", &eu, Some(r#"{__name__=~".+"}"#));
        let querier = store("query", &[&[("cluster", "eu")], &[("cluster", "us")]]);
        check("m{cluster=\"us\"}", &querier, Some(r#"{cluster="us",__name__="m"}"#));
        let bound = Candidate { bound: labels(&[("cluster", "eu")]), ..local("s", memory(&[], &[])) };
        check("m{cluster=\"us\"}", &bound, None);
        check("{\"utf.8\", cluster=\"eu\"}", &bound, Some(r#"{__name__="utf.8"}"#));
        check("1 + 2", &eu, None);
    }

    #[test]
    fn selector_labels_of_the_querier_are_answered_here() {
        let of = |text: &str| selectors(&promql::parse(text, &ParseOptions::ALL).unwrap());
        let own = labels(&[("tier", "edge")]);
        assert_eq!(within(&of("m{tier=\"edge\"} + n{tier=\"core\"}"), &own), of("m"));
    }
}
