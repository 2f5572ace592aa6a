//! Limits lists to what the context of a request permits: what carries the label of its tenant.

use model::{Labels, Matcher};
use promapi::{ExemplarSeries, Rule, RuleGroup, TargetDiscovery};
use runtime::CallContext;

use crate::endpoints::Candidate;

/// What the context of this request permits.
pub(super) struct Permitted(Option<Matcher>);

impl Permitted {
    pub(super) fn now() -> Self {
        Self(CallContext::current().enforced().cloned())
    }

    fn admits(&self, labels: &Labels) -> bool {
        self.0.as_ref().is_none_or(|matcher| matcher.matches_labels(labels))
    }

    /// Replaces what selectors ask about the label of the tenant.
    pub(super) fn narrow(&self, selectors: &mut [Vec<Matcher>]) {
        let Some(enforced) = &self.0 else { return };
        for matchers in selectors {
            matchers.retain(|matcher| matcher.name() != enforced.name());
            matchers.push(enforced.clone());
        }
    }

    /// Whether all data of the store is permitted, according to its external labels. Statistics cannot be divided.
    pub(super) fn admits_store(&self, store: &Candidate) -> bool {
        self.0.is_none()
            || (!store.label_sets().is_empty() && store.label_sets().iter().all(|set| self.admits(set)))
    }

    /// Keeps rules and alerts that are permitted. A rule with other labels is kept with its permitted alerts, if it has some.
    pub(super) fn keep_rules(&self, groups: &mut Vec<RuleGroup>) {
        if self.0.is_none() {
            return;
        }
        for group in groups.iter_mut() {
            group.rules.retain_mut(|rule| {
                if let Rule::Alerting(rule) = rule {
                    rule.alerts.retain(|alert| self.admits(&alert.labels));
                }
                self.admits(rule.labels()) || !rule.alerts().is_empty()
            });
        }
        groups.retain(|group| !group.rules.is_empty());
    }

    /// Keeps targets that are permitted.
    pub(super) fn keep_targets(&self, lists: &mut [TargetDiscovery]) {
        for list in lists {
            list.active_targets.retain(|target| self.admits(&target.labels));
            list.dropped_targets.retain(|target| self.admits(&target.discovered_labels));
        }
    }

    /// Keeps exemplars of series that are permitted.
    pub(super) fn keep_exemplars(&self, series: &mut Vec<ExemplarSeries>) {
        series.retain(|series| self.admits(&series.series_labels));
    }
}

#[cfg(test)]
mod tests {
    use promapi::{ActiveTarget, Alert, AlertingRule, DroppedTarget};

    use super::*;

    fn labels(tenant: &str) -> Labels {
        Labels::from_pairs([("job", "api"), ("tenant", tenant)]).unwrap()
    }

    fn rule(name: &str, tenant: &str, alerts: &[&str]) -> Rule {
        let alerts = alerts.iter().map(|tenant| Alert { labels: labels(tenant), ..Alert::default() });
        Rule::Alerting(AlertingRule {
            name: name.to_owned(),
            labels: labels(tenant),
            alerts: alerts.collect(),
            ..AlertingRule::default()
        })
    }

    #[test]
    fn lists_keep_what_carries_the_label_of_the_tenant() {
        let permitted = Permitted(Some(Matcher::equal("tenant", "a")));
        let group = |name: &str, rules| RuleGroup { name: name.to_owned(), rules, ..RuleGroup::default() };
        let mut groups = vec![
            group(
                "one",
                vec![rule("own", "a", &["a", "b"]), rule("shared", "", &["b", "a"]), rule("x", "b", &["b"])],
            ),
            group("two", vec![rule("y", "", &[])]),
        ];
        permitted.keep_rules(&mut groups);
        let kept: Vec<(&str, usize)> =
            groups[0].rules.iter().map(|rule| (rule.name(), rule.alerts().len())).collect();
        assert_eq!((groups.len(), kept), (1, vec![("own", 1), ("shared", 1)]));

        let active = |tenant| ActiveTarget { labels: labels(tenant), ..ActiveTarget::default() };
        let dropped =
            |tenant| DroppedTarget { discovered_labels: labels(tenant), ..DroppedTarget::default() };
        let mut targets = [TargetDiscovery {
            active_targets: vec![active("a"), active("b")],
            dropped_targets: vec![dropped("b"), dropped("")],
            alertmanagers: None,
        }];
        permitted.keep_targets(&mut targets);
        assert_eq!((targets[0].active_targets.len(), targets[0].dropped_targets.len()), (1, 0));

        let series = |tenant| ExemplarSeries { series_labels: labels(tenant), ..ExemplarSeries::default() };
        let mut exemplars = vec![series("b"), series("a")];
        permitted.keep_exemplars(&mut exemplars);
        assert_eq!(exemplars, [series("a")]);

        let mut selectors = vec![vec![Matcher::equal("tenant", "b"), Matcher::equal("job", "api")], vec![]];
        permitted.narrow(&mut selectors);
        let own = Matcher::equal("tenant", "a");
        assert_eq!(selectors, [vec![Matcher::equal("job", "api"), own.clone()], vec![own]]);
    }
}
