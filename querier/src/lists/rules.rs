//! Merges rules.
//!
//! Behaviour: `pkg/rules` of Thanos, except that repeated `match[]` select rules that match any of them, as in
//! Prometheus, and that groups without rules are left out, as in Prometheus 3.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use model::Matcher;
use promapi::{AlertingRule, Rule, RuleGroup};

/// Which rules are shown. Empty conditions are fulfilled.
#[derive(Clone, Debug, Default)]
pub(crate) struct RuleConditions {
    /// One of these selectors must match the labels. Labels whose value is a template count as absent.
    pub(crate) selectors: Vec<Vec<Matcher>>,
    pub(crate) names: BTreeSet<String>,
    pub(crate) groups: BTreeSet<String>,
    pub(crate) files: BTreeSet<String>,
}

impl RuleConditions {
    fn admit_group(&self, group: &RuleGroup) -> bool {
        let admits = |set: &BTreeSet<String>, name| set.is_empty() || set.contains(name);
        admits(&self.groups, &group.name) && admits(&self.files, &group.file)
    }

    fn admit(&self, rule: &Rule) -> bool {
        let value =
            |name: &str| Some(rule.labels().value(name)).filter(|text| !is_template(text)).unwrap_or("");
        let matches = |selector: &Vec<Matcher>| selector.iter().all(|m| m.matches(value(m.name())));
        (self.names.is_empty() || self.names.contains(rule.name()))
            && (self.selectors.is_empty() || self.selectors.iter().any(matches))
    }
}

fn is_template(value: &str) -> bool {
    value.contains("{{")
}

/// Joins groups of the same file and name, and merges rules that differ only in replica labels. Of equal alerting
/// rules the one in the most urgent state is kept, of other equal rules the one that was evaluated last. Groups are
/// sorted by file and name; rules by kind, name, labels and expression.
pub(crate) fn merged(
    mut groups: Vec<RuleGroup>,
    conditions: &RuleConditions,
    replica_labels: &[String],
) -> Vec<RuleGroup> {
    groups.retain(|group| conditions.admit_group(group));
    groups.sort_by(|a, b| (&a.file, &a.name).cmp(&(&b.file, &b.name)));
    groups.dedup_by(|later, first| {
        let same = (&later.file, &later.name) == (&first.file, &first.name);
        if same {
            first.rules.append(&mut later.rules);
        }
        same
    });
    let is_replica = |name: &str| replica_labels.iter().any(|label| label == name);
    for group in &mut groups {
        group.rules.retain(|rule| conditions.admit(rule));
        for rule in &mut group.rules {
            *rule.labels_mut() = rule.labels().without(is_replica);
            for alert in rule.alerts_mut() {
                alert.labels = alert.labels.without(is_replica);
            }
        }
        group.rules.sort_by(|a, b| identity(a, b).then_with(|| preference(a, b)));
        group.rules.dedup_by(|later, first| identity(later, first).is_eq());
    }
    groups.retain(|group| !group.rules.is_empty());
    groups
}

/// Equal rules are the same rule of different replicas.
fn identity(a: &Rule, b: &Rule) -> Ordering {
    let by_text = || (a.name(), a.labels(), a.query()).cmp(&(b.name(), b.labels(), b.query()));
    match (a, b) {
        (Rule::Alerting(_), Rule::Recording(_)) => Ordering::Less,
        (Rule::Recording(_), Rule::Alerting(_)) => Ordering::Greater,
        (Rule::Alerting(first), Rule::Alerting(second)) => {
            by_text().then(first.duration_seconds.total_cmp(&second.duration_seconds))
        }
        (Rule::Recording(_), Rule::Recording(_)) => by_text(),
    }
}

/// Which of two equal rules is shown: the lesser one.
fn preference(a: &Rule, b: &Rule) -> Ordering {
    let alerts = |a: &AlertingRule, b: &AlertingRule| {
        b.state.cmp(&a.state).then(b.last_evaluation.cmp(&a.last_evaluation))
    };
    match (a, b) {
        (Rule::Alerting(a), Rule::Alerting(b)) => alerts(a, b),
        (Rule::Recording(a), Rule::Recording(b)) => b.last_evaluation.cmp(&a.last_evaluation),
        _ => Ordering::Equal,
    }
}

/// A page of groups: at most `limit` of them, from the one that `token` names, and the token of the next page.
///
/// # Errors
/// No group has this token.
pub(crate) fn page(
    mut groups: Vec<RuleGroup>,
    limit: usize,
    token: Option<&str>,
) -> Result<(Vec<RuleGroup>, Option<String>), String> {
    if let Some(token) = token {
        let at = groups.iter().position(|group| page_token(group) == token);
        let at =
            at.ok_or_else(|| format!("invalid group_next_token '{token}'. were rule groups changed?"))?;
        groups.drain(..at);
    }
    let next = groups.get(limit).map(page_token);
    groups.truncate(limit);
    Ok((groups, next))
}

fn page_token(group: &RuleGroup) -> String {
    let key = format!("{};{}", group.file, group.name);
    key.bytes().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use model::{Labels, MatchOp};
    use promapi::{Alert, AlertState, ApiTime, RecordingRule};

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::from_pairs(pairs.iter().copied()).unwrap()
    }

    fn alerting(name: &str, of: &[(&str, &str)], state: AlertState, at: i64) -> Rule {
        let alert = Alert { labels: labels(of), state, ..Alert::default() };
        Rule::Alerting(AlertingRule {
            name: name.to_owned(),
            labels: labels(of),
            state,
            alerts: vec![alert],
            last_evaluation: ApiTime::from_unix(at, 0),
            ..AlertingRule::default()
        })
    }

    fn recording(name: &str, of: &[(&str, &str)], at: i64) -> Rule {
        Rule::Recording(RecordingRule {
            name: name.to_owned(),
            labels: labels(of),
            last_evaluation: ApiTime::from_unix(at, 0),
            ..RecordingRule::default()
        })
    }

    fn group(file: &str, name: &str, rules: Vec<Rule>) -> RuleGroup {
        RuleGroup { name: name.to_owned(), file: file.to_owned(), rules, ..RuleGroup::default() }
    }

    fn two_replicas() -> Vec<RuleGroup> {
        let eu = |replica| [("cluster", "eu"), ("replica", replica)];
        vec![
            group(
                "b.yml",
                "g",
                vec![recording("r", &eu("0"), 5), alerting("A", &eu("0"), AlertState::Pending, 9)],
            ),
            group("a.yml", "g", vec![recording("r", &eu("0"), 5)]),
            group(
                "b.yml",
                "g",
                vec![alerting("A", &eu("1"), AlertState::Firing, 1), recording("r", &eu("1"), 7)],
            ),
            group("b.yml", "g", vec![recording("r", &[("cluster", "us"), ("replica", "0")], 1)]),
            group("c.yml", "empty", vec![]),
        ]
    }

    #[test]
    fn replicas_are_merged_and_the_most_urgent_alert_is_kept() {
        let replica = ["replica".to_owned()];
        let groups = merged(two_replicas(), &RuleConditions::default(), &replica);
        let names: Vec<_> = groups.iter().map(|g| (g.file.as_str(), g.name.as_str())).collect();
        assert_eq!(names, [("a.yml", "g"), ("b.yml", "g")]);
        let [Rule::Alerting(alert), first, second] = &groups[1].rules[..] else { panic!("{groups:?}") };
        assert_eq!((alert.state, &alert.labels), (AlertState::Firing, &labels(&[("cluster", "eu")])));
        assert_eq!(alert.alerts[0].labels, labels(&[("cluster", "eu")]));
        assert_eq!(first, &recording("r", &[("cluster", "eu")], 7));
        assert_eq!(second, &recording("r", &[("cluster", "us")], 1));
        let all = merged(two_replicas(), &RuleConditions::default(), &[]);
        assert_eq!(all[1].rules.len(), 5);
    }

    #[test]
    fn conditions_select_rules_and_omit_empty_groups() {
        let set = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        let check = |conditions: RuleConditions, expected: &[(&str, usize)]| {
            let groups = merged(two_replicas(), &conditions, &[]);
            let found: Vec<_> = groups.iter().map(|g| (g.file.as_str(), g.rules.len())).collect();
            assert_eq!(found, expected, "{conditions:?}");
        };
        let all = RuleConditions::default;
        check(RuleConditions { names: set(&["A"]), ..all() }, &[("b.yml", 2)]);
        check(RuleConditions { files: set(&["a.yml"]), ..all() }, &[("a.yml", 1)]);
        check(RuleConditions { groups: set(&["h"]), ..all() }, &[]);
        let us = vec![Matcher::equal("cluster", "us")];
        let replica = vec![Matcher::new(MatchOp::Regex, "replica", "1").unwrap()];
        check(RuleConditions { selectors: vec![us.clone()], ..all() }, &[("b.yml", 1)]);
        check(RuleConditions { selectors: vec![us, replica], ..all() }, &[("b.yml", 3)]);
        let templates = vec![group("t", "t", vec![recording("r", &[("a", "{{ $value }}")], 0)])];
        let absent = RuleConditions { selectors: vec![vec![Matcher::equal("a", "")]], ..all() };
        assert_eq!(merged(templates, &absent, &[]).len(), 1);
    }

    #[test]
    fn pages_follow_each_other() {
        let groups: Vec<_> = (0..5).map(|n| group("f", &n.to_string(), vec![])).collect();
        let (mut seen, mut token) = (Vec::new(), None::<String>);
        loop {
            let (page, next) = page(groups.clone(), 2, token.as_deref()).unwrap();
            seen.extend(page);
            match next {
                Some(next) => token = Some(next),
                None => break,
            }
        }
        assert_eq!(seen, groups);
        assert!(page(groups, 2, Some("x")).unwrap_err().contains("invalid group_next_token"));
    }
}
