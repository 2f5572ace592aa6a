//! The labels that all series of a registered cluster must carry, and their check on Info.

use identity::Name;
use proto::thanos::{Label, LabelSet, info::InfoResponse};

use crate::peer_text::bounded;

/// The labels that every series of a cluster must carry, sorted by name.
pub(crate) fn bound_labels(cluster: &Name, environment: &str) -> LabelSet {
    let label = |name: &str, value: &str| Label { name: name.to_owned(), value: value.to_string() };
    LabelSet { labels: vec![label("cluster", cluster.as_str()), label("environment", environment)] }
}

/// Checks that every label set of a store's Info contains each label of `bound` with the bound value.
///
/// A set that lacks a label is rejected too, because its series could belong to any cluster.
///
/// # Errors
/// One line for the owner of the store.
pub(crate) fn check_labels(info: &InfoResponse, bound: &LabelSet) -> Result<(), String> {
    let required = || {
        let pairs: Vec<_> =
            bound.labels.iter().map(|label| format!("{}={:?}", label.name, label.value)).collect();
        pairs.join(", ")
    };
    let tsdb_sets =
        info.store.iter().flat_map(|store| &store.tsdb_infos).filter_map(|tsdb| tsdb.labels.as_ref());
    if info.label_sets.is_empty() {
        return Err(format!(
            "has no external labels: set {} in the external_labels of Prometheus",
            required()
        ));
    }
    for set in info.label_sets.iter().chain(tsdb_sets) {
        for label in &bound.labels {
            let mut values =
                set.labels.iter().filter(|other| other.name == label.name).map(|other| &other.value);
            match (values.next(), values.next()) {
                (Some(value), None) if *value == label.value => {}
                (Some(value), None) => {
                    let (name, registered) = (&label.name, &label.value);
                    return Err(format!(
                        "has the external label {name}={:?}, but the cluster is registered with {name}={registered:?}",
                        bounded(value)
                    ));
                }
                (None, _) => {
                    return Err(format!(
                        "lacks the external label {}: set {} in the external_labels of Prometheus",
                        label.name,
                        required()
                    ));
                }
                (Some(_), Some(_)) => return Err(format!("has the external label {} twice", label.name)),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EU_1: &[(&str, &str)] = &[("cluster", "eu-1"), ("environment", "production"), ("replica", "0")];

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn info(labels: &[(&str, &str)]) -> InfoResponse {
        let labels = labels.iter().map(|(n, v)| Label { name: (*n).into(), value: (*v).into() }).collect();
        InfoResponse { label_sets: vec![LabelSet { labels }], ..InfoResponse::default() }
    }

    #[test]
    fn info_without_exactly_the_registered_labels_is_rejected() {
        let bound = bound_labels(&name("eu-1"), "production");
        let check = |labels: &[(&str, &str)], expected: &str| {
            let result = check_labels(&info(labels), &bound);
            assert!(result.as_ref().is_err_and(|error| error.contains(expected)), "{labels:?}: {result:?}");
        };
        assert_eq!(check_labels(&info(EU_1), &bound), Ok(()));
        check(&[("cluster", "us-1"), ("environment", "production")], "registered with cluster=\"eu-1\"");
        check(
            &[("cluster", "eu-1"), ("environment", "staging")],
            "registered with environment=\"production\"",
        );
        check(&[("cluster", "eu-1")], "lacks the external label environment");
        check(&[], "lacks the external label cluster");
        check(&[("cluster", "eu-1"), ("cluster", "us-1"), ("environment", "production")], "cluster twice");
        check(&[("Cluster", "eu-1"), ("environment", "production")], "lacks the external label cluster");

        let mut second = info(EU_1);
        second.label_sets.extend(info(&[("cluster", "us-1"), ("environment", "production")]).label_sets);
        assert!(check_labels(&second, &bound).is_err(), "the second set was not checked");
        assert!(check_labels(&InfoResponse::default(), &bound).is_err());
    }
}
