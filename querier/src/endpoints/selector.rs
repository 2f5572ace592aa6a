//! `--selector.relabel-config`: which stores are read, by their external labels.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{Labels, MatchOp, Matcher, RelabelAction, RelabelConfig, Relabeling};
use storeapi::StoreInfo;

use crate::endpoints::endpoint::Candidate;

/// Selects label sets by rules for relabelling, as Thanos' stores do.
#[derive(Clone, Debug)]
pub(crate) struct StoreSelector(Arc<Relabeling>);

impl StoreSelector {
    /// The selector of a YAML list of rules; `None` if there are no rules.
    ///
    /// # Errors
    /// A rule is not valid, or has another action than `keep`, `drop` and `hashmod`.
    pub(crate) fn parse(yaml: &str) -> Result<Option<Self>, String> {
        if yaml.trim().is_empty() {
            return Ok(None);
        }
        let rules: Vec<RelabelConfig> = runtime::yaml::from_str(yaml)?;
        let allowed = [RelabelAction::Keep, RelabelAction::Drop, RelabelAction::HashMod];
        if let Some(at) = rules.iter().position(|rule| !allowed.contains(&rule.action)) {
            let action = rules[at].action.as_str();
            return Err(format!(
                "relabel rule {}: action {action} is not supported, expected keep, drop or hashmod",
                at + 1
            ));
        }
        let relabeling = Relabeling::new(rules).map_err(|cause| cause.to_string())?;
        Ok((!relabeling.is_empty()).then(|| Self(Arc::new(relabeling))))
    }

    /// The store, limited to its selected label sets; `None` if none is selected. A store without label sets, or whose
    /// label sets are not known, is selected.
    pub(super) fn select(&self, mut candidate: Candidate) -> Option<Candidate> {
        let Some(info) = candidate.info.as_deref().filter(|info| !info.label_sets.is_empty()) else {
            return Some(candidate);
        };
        let is_kept = |labels: &Labels| self.0.apply(labels).is_some();
        let kept: Vec<Labels> = info.label_sets.iter().filter(|set| is_kept(set)).cloned().collect();
        if kept.is_empty() {
            return None;
        }
        if kept.len() < info.label_sets.len() {
            candidate.selected = matchers(&kept);
            let tsdbs = info.tsdbs.iter().filter(|tsdb| is_kept(&tsdb.labels)).cloned().collect();
            candidate.info = Some(Arc::new(StoreInfo { label_sets: kept, tsdbs, ..info.clone() }));
        }
        Some(candidate)
    }
}

/// Matchers that the series of these label sets satisfy, one for each label.
fn matchers(sets: &[Labels]) -> Vec<Matcher> {
    let mut values: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for label in sets.iter().flat_map(Labels::iter) {
        values.entry(label.name).or_default().insert(label.value);
    }
    let matcher = |(name, mut values): (&str, BTreeSet<&str>)| {
        // A series may lack a label that not all sets have.
        if sets.iter().any(|set| set.get(name).is_none()) {
            values.insert("");
        }
        let escaped: Vec<String> = values.into_iter().map(escape).collect();
        Matcher::new(MatchOp::Regex, name, &escaped.join("|")).ok()
    };
    values.into_iter().filter_map(matcher).collect()
}

/// The text as a regular expression that matches it alone.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use model::TimeRange;

    use super::*;
    use crate::tests::{labels, local, memory};

    fn selected(rules: &str, sets: &[&[(&str, &str)]]) -> Option<(usize, Vec<String>)> {
        let sets = sets.iter().map(|set| labels(set)).collect();
        let info = StoreInfo::new("receive", sets, TimeRange::ALL);
        let candidate = Candidate { info: Some(Arc::new(info)), ..local("store", memory(&[], &[])) };
        let candidate = StoreSelector::parse(rules).unwrap().unwrap().select(candidate)?;
        assert_eq!(candidate.info.as_ref().unwrap().tsdbs.len(), candidate.label_sets().len());
        Some((candidate.label_sets().len(), candidate.selected.iter().map(ToString::to_string).collect()))
    }

    #[test]
    fn stores_are_selected_by_their_external_labels() {
        let keep = "- action: keep\n  source_labels: [cluster]\n  regex: eu-.*\n";
        let drop = "- {action: drop, source_labels: [tier], regex: test}";
        assert_eq!(selected(keep, &[&[("cluster", "eu-1")]]), Some((1, vec![])));
        assert_eq!(selected(keep, &[&[("cluster", "us-1")]]), None);
        assert_eq!(selected(keep, &[]), Some((0, vec![])));
        let sets: [&[(&str, &str)]; 3] =
            [&[("cluster", "eu-1"), ("tier", "a.b")], &[("cluster", "eu-2")], &[("cluster", "us-1")]];
        let expected = vec!["cluster=~\"eu-1|eu-2\"".to_owned(), "tier=~\"|a\\\\.b\"".to_owned()];
        assert_eq!(selected(keep, &sets), Some((2, expected)));
        assert_eq!(selected(drop, &sets).unwrap().0, 3);
        let hash = "- {action: hashmod, source_labels: [cluster], target_label: shard, modulus: 1}\n\
                    - {action: keep, source_labels: [shard], regex: \"0\"}";
        assert_eq!(selected(hash, &sets), Some((3, vec![])));
    }

    #[test]
    fn rules_with_other_actions_are_refused() {
        let error = StoreSelector::parse("- {action: replace, target_label: x}").unwrap_err();
        assert_eq!(error, "relabel rule 1: action replace is not supported, expected keep, drop or hashmod");
        assert!(StoreSelector::parse("- {action: keep, regex: \"(\", source_labels: [a]}").is_err());
        assert!(StoreSelector::parse("keep: x").is_err());
        assert!(
            StoreSelector::parse("[]").unwrap().is_none() && StoreSelector::parse(" ").unwrap().is_none()
        );
    }
}
