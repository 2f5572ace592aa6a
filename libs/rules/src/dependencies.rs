//! Which rules of a group may be evaluated at the same time.

use model::{METRIC_NAME, Matcher};
use promql::syntax::ast::{Expr, VectorSelector};

use crate::alerts::{ALERTS, ALERTS_FOR_STATE};
use crate::answer::ALERT_NAME;
use crate::rule::Rule;

/// Batches of rules, by their index in the group. The rules of a batch may be evaluated in any order or at the same time, and then
/// read and write the same as if all rules were evaluated one by one.
pub(crate) fn batches(rules: &[Rule]) -> Vec<Vec<usize>> {
    let selectors: Vec<Vec<&VectorSelector>> = rules.iter().map(|rule| selectors(&rule.expr)).collect();
    if selectors.iter().flatten().any(|selector| name_matcher(selector).is_none()) {
        // A selector without a name may read what any rule writes.
        return (0..rules.len()).map(|at| vec![at]).collect();
    }
    let reads = |reader: usize, writer: usize| {
        selectors[reader].iter().any(|selector| selects(selector, &rules[writer]))
    };
    let mut levels: Vec<usize> = Vec::with_capacity(rules.len());
    for (at, rule) in rules.iter().enumerate() {
        let comes_after = |earlier: &usize| {
            let other = &rules[*earlier];
            let writes_the_same = other.name == rule.name && other.labels == rule.labels;
            writes_the_same || reads(at, *earlier) || reads(*earlier, at)
        };
        let level = (0..at).filter(comes_after).map(|earlier| levels[earlier] + 1).max();
        levels.push(level.unwrap_or(0));
    }
    let mut batches = vec![Vec::new(); levels.iter().max().map_or(0, |level| level + 1)];
    for (at, level) in levels.into_iter().enumerate() {
        batches[level].push(at);
    }
    batches
}

fn selectors(expr: &Expr) -> Vec<&VectorSelector> {
    let mut selectors = Vec::new();
    let mut left = vec![expr];
    while let Some(expr) = left.pop() {
        match expr {
            Expr::Vector(selector) => selectors.push(&**selector),
            Expr::Matrix(matrix) => selectors.push(&matrix.selector),
            _ => {}
        }
        expr.for_each_child(|child| left.push(child));
    }
    selectors
}

fn name_matcher(selector: &VectorSelector) -> Option<&Matcher> {
    selector.matchers.iter().find(|matcher| matcher.name() == METRIC_NAME)
}

/// Whether the selector may select what the rule writes.
fn selects(selector: &VectorSelector, rule: &Rule) -> bool {
    let Some(name) = name_matcher(selector) else { return true };
    if rule.alerting().is_none() {
        return name.matches(&rule.name);
    }
    let alert = selector.matchers.iter().find(|matcher| matcher.name() == ALERT_NAME);
    (name.matches(ALERTS) || name.matches(ALERTS_FOR_STATE))
        && alert.is_none_or(|alert| alert.matches(&rule.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::{RuleFile, RuleFileOptions};

    #[test]
    fn rules_are_evaluated_together_unless_one_reads_what_the_other_writes() {
        let check = |rules: &str, expected: &[&[usize]]| {
            let text = format!("groups: [{{name: g, rules: [{rules}]}}]");
            let file = RuleFile::parse(&text, &RuleFileOptions::default()).unwrap();
            assert_eq!(batches(&file.groups[0].rules), expected, "{rules}");
        };
        check("", &[]);
        check("{record: a, expr: x}, {record: b, expr: y}", &[&[0, 1]]);
        check(
            "{record: a, expr: x}, {record: b, expr: 'rate(a[5m])'}, {record: c, expr: y}",
            &[&[0, 2], &[1]],
        );
        check("{record: a, expr: x}, {record: b, expr: a}, {record: c, expr: 'b + a'}", &[&[0], &[1], &[2]]);
        // What a later rule writes is read before it is written again.
        check("{record: a, expr: b}, {record: b, expr: x}", &[&[0], &[1]]);
        check("{record: a, expr: x}, {record: b, expr: '{__name__=~\"a|z\"}'}", &[&[0], &[1]]);
        check(
            "{record: a, expr: x}, {record: b, expr: '{job=\"z\"}'}, {record: c, expr: y}",
            &[&[0], &[1], &[2]],
        );
        check("{alert: A, expr: x}, {record: b, expr: ALERTS}, {record: c, expr: y}", &[&[0, 2], &[1]]);
        check("{alert: A, expr: x}, {record: b, expr: 'ALERTS{alertname=\"B\"}'}", &[&[0, 1]]);
        check(
            "{alert: A, expr: x}, {record: b, expr: 'sum(ALERTS_FOR_STATE{alertname=~\"A.*\"})'}",
            &[&[0], &[1]],
        );
        check("{record: a, expr: x}, {record: a, expr: y}", &[&[0], &[1]]);
        check("{record: a, expr: x, labels: {l: '1'}}, {record: a, expr: y, labels: {l: '2'}}", &[&[0, 1]]);
        check(
            "{record: a, expr: a}, {record: b, expr: 'max_over_time(a[5m:1m] offset 1h) > 0'}",
            &[&[0], &[1]],
        );
    }
}
