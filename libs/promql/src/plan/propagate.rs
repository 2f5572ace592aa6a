//! Propagates matchers from one side of a binary operator to the other side.
//!
//! In `a{job="x"} / on (job, instance) b`, series of `b` with another job have no partner and need not be fetched. A matcher
//! is propagated if the operator matches by its label and the label comes from the selector unchanged. In addition, the
//! series that are left out must not be able to affect the value or cause an error: that holds for set operators, and if the
//! "one" side cannot have two series for one partner. Warnings and infos about series that are not fetched are lost, and so
//! is the error that two of them became equal below a function that drops their type and unit.
//!
//! This assumes that series carry the labels that they are selected by, see
//! [`EngineOptions::propagate_matchers`](crate::EngineOptions::propagate_matchers).

use std::collections::HashSet;
use std::convert::Infallible;

use model::{METRIC_NAME, Matcher};

use crate::plan::select::has_one_metric;
use crate::syntax::ast::{
    AggregateExpr, AggregateOp, BinaryExpr, BinaryOp, Boundary, Call, Cardinality, Expr, VectorMatching,
};
use crate::syntax::functions::{FunctionId, ValueType};

/// Propagates matchers in all of `expr`. Matchers of replica labels are not propagated, because series do not have these
/// labels any more when they are matched.
pub(super) fn propagate(expr: &mut Expr, replica_labels: &[String]) {
    let Ok(()) = expr.change_chain::<Infallible>(|expr| {
        match expr {
            Expr::Binary(binary) => {
                propagate(&mut binary.rhs, replica_labels);
                between_sides(binary, replica_labels);
            }
            _ => expr.for_each_child_mut(|child| propagate(child, replica_labels)),
        }
        Ok(())
    });
}

/// Propagates matchers between the sides of an operator.
fn between_sides(binary: &mut BinaryExpr, replica_labels: &[String]) {
    let Some(matching) = binary.matching.clone() else { return };
    let (to_left, to_right) = directions(binary, &matching);
    let counts = |matcher: &Matcher| {
        let name = matcher.name();
        let listed = matching.labels.iter().any(|label| label == name);
        listed == matching.on && name != METRIC_NAME && !replica_labels.iter().any(|label| label == name)
    };
    let of = |side: &Expr| -> Vec<Matcher> { conditions(side).into_iter().filter(counts).collect() };
    let (left, right) = (of(&binary.lhs), of(&binary.rhs));
    if to_left {
        narrow(&mut binary.lhs, right);
    }
    if to_right {
        narrow(&mut binary.rhs, left);
    }
}

/// Whether the left side may be narrowed, and whether the right side may.
fn directions(binary: &BinaryExpr, matching: &VectorMatching) -> (bool, bool) {
    match binary.op {
        BinaryOp::And => (true, true),
        BinaryOp::Unless => (false, true),
        BinaryOp::Or => (false, false),
        _ if matching.fill_left.is_some() || matching.fill_right.is_some() => (false, false),
        _ => {
            let one = match matching.cardinality {
                Cardinality::OneToMany => &binary.lhs,
                _ => &binary.rhs,
            };
            let safe = is_unique(one, matching);
            (safe, safe)
        }
    }
}

/// Whether no two series of `expr` agree in all labels that the operator matches by.
fn is_unique(expr: &Expr, matching: &VectorMatching) -> bool {
    let all_labels = !matching.on && matching.labels.is_empty();
    match vector_of(expr) {
        Expr::Paren(paren) => is_unique(&paren.expr, matching),
        // Series of one name differ in their other labels.
        Expr::Vector(selector) => all_labels && has_one_metric(&selector.matchers),
        Expr::Call(call) => all_labels && range_matchers(call).is_some_and(|m| has_one_metric(m)),
        Expr::Aggregate(aggregate) if !folds(aggregate) => false,
        Expr::Aggregate(aggregate) if aggregate.without => all_labels,
        Expr::Aggregate(aggregate) => {
            let listed = |label: &String| matching.labels.contains(label);
            aggregate.grouping.iter().all(|label| listed(label) == matching.on)
        }
        _ => false,
    }
}

/// The vector that is combined with scalars, in a chain such as `a * 60 / 2`.
fn vector_of(expr: &Expr) -> &Expr {
    let mut expr = expr;
    while let Expr::Binary(binary) = expr
        && binary.matching.is_none()
    {
        expr = if binary.lhs.value_type() == ValueType::Vector { &binary.lhs } else { &binary.rhs };
    }
    expr
}

/// Whether an aggregation returns one series for each group.
fn folds(aggregate: &AggregateExpr) -> bool {
    use AggregateOp::{Avg, Count, Group, Max, Min, Quantile, Stddev, Stdvar, Sum};
    matches!(aggregate.op, Avg | Count | Group | Max | Min | Quantile | Stddev | Stdvar | Sum)
}

/// Whether a label of an aggregation's result has the value that it has in all series of the group.
fn keeps(aggregate: &AggregateExpr, label: &str) -> bool {
    folds(aggregate) && aggregate.grouping.iter().any(|l| l == label) != aggregate.without
}

/// The matchers of the range selector in a function that keeps labels as they are.
fn range_matchers(call: &Call) -> Option<&Vec<Matcher>> {
    let ranges = call.function.args.contains(&ValueType::Matrix);
    if !ranges || call.function.id == FunctionId::AbsentOverTime {
        return None;
    }
    call.args.iter().find_map(|arg| match arg.without_parens() {
        Expr::Matrix(matrix) => Some(&matrix.selector.matchers),
        _ => None,
    })
}

/// Matchers that all series of `expr` satisfy, as far as the expression shows.
fn conditions(expr: &Expr) -> Vec<Matcher> {
    match vector_of(expr) {
        Expr::Paren(paren) => conditions(&paren.expr),
        Expr::Vector(selector) => selector.matchers.clone(),
        Expr::Call(call) => range_matchers(call).cloned().unwrap_or_default(),
        Expr::Aggregate(aggregate) => {
            let mut inner = conditions(&aggregate.expr);
            inner.retain(|matcher| keeps(aggregate, matcher.name()));
            inner
        }
        _ => Vec::new(),
    }
}

/// Adds matchers to the selector of `expr`, if its labels reach the operator unchanged.
fn narrow(expr: &mut Expr, matchers: Vec<Matcher>) {
    narrow_below(expr, matchers, false);
}

/// As [`narrow`]. `nameless` means that an operator above drops the names of metrics, so that series of two metrics may become
/// equal, which is an error.
fn narrow_below(expr: &mut Expr, mut matchers: Vec<Matcher>, mut nameless: bool) {
    let mut expr = expr;
    while let Expr::Binary(binary) = expr {
        if binary.matching.is_some() {
            return;
        }
        nameless = true;
        expr = if binary.lhs.value_type() == ValueType::Vector { &mut binary.lhs } else { &mut binary.rhs };
    }
    match expr {
        Expr::Paren(paren) => narrow_below(&mut paren.expr, matchers, nameless),
        Expr::Vector(selector) if !nameless || has_one_metric(&selector.matchers) => {
            add(&mut selector.matchers, matchers);
        }
        Expr::Call(call) if range_matchers(call).is_some_and(|matchers| has_one_metric(matchers)) => {
            for arg in &mut call.args {
                // A histogram in an anchored range is an error, also in a series without a partner.
                if let Expr::Matrix(matrix) = arg
                    && matrix.selector.boundary == Boundary::Plain
                {
                    add(&mut matrix.selector.matchers, std::mem::take(&mut matchers));
                }
            }
        }
        Expr::Aggregate(aggregate) => {
            matchers.retain(|matcher| keeps(aggregate, matcher.name()));
            narrow_below(&mut aggregate.expr, matchers, nameless);
        }
        _ => {}
    }
}

/// Adds those of `matchers` that are not in the list yet.
fn add(to: &mut Vec<Matcher>, matchers: Vec<Matcher>) {
    let key = |m: &Matcher| (m.name().to_owned(), m.op(), m.value().to_owned());
    let mut known: HashSet<_> = to.iter().map(key).collect();
    to.extend(matchers.into_iter().filter(|matcher| known.insert(key(matcher))));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ParseOptions;

    fn check(text: &str, expected: &str) {
        let mut expr = crate::parse(text, &ParseOptions::ALL).unwrap();
        propagate(&mut expr, &["replica".to_owned()]);
        assert_eq!(expr.to_string(), expected, "{text}");
    }

    #[test]
    fn matchers_are_propagated_where_both_sides_must_satisfy_them() {
        check(r#"a{j="x"} / b"#, r#"a{j="x"} / b{j="x"}"#);
        check(r#"a{j="x"} / b{i=~"y.*"}"#, r#"a{i=~"y.*",j="x"} / b{i=~"y.*",j="x"}"#);
        check(r#"a{j="x"} and on (j) b"#, r#"a{j="x"} and on (j) b{j="x"}"#);
        check(r#"a and on (j) b{j!="x"}"#, r#"a{j!="x"} and on (j) b{j!="x"}"#);
        check(r#"a{j="x"} unless b"#, r#"a{j="x"} unless b{j="x"}"#);
        check(
            r#"rate(a{j="x"}[5m]) * on (j) group_left () sum by (j) (b)"#,
            r#"rate(a{j="x"}[5m]) * on (j) group_left () sum by (j) (b{j="x"})"#,
        );
        check(r#"a{j="x"} and on (j) {__name__=~"b|c"}"#, r#"a{j="x"} and on (j) {__name__=~"b|c",j="x"}"#);
        check(r#"(a{j="x"} * 2) > rate(b[1m])"#, r#"(a{j="x"} * 2) > rate(b{j="x"}[1m])"#);
    }

    #[test]
    fn matchers_are_not_propagated_where_that_could_change_the_answer() {
        for text in [
            // The operator does not match by the label, or series do not have it any more.
            r#"a{j="x"} and on (i) b"#,
            r#"a{j="x"} and ignoring (j) b"#,
            r#"a{replica="x"} / b"#,
            r#"sum by (i) (a{j="x"}) and b"#,
            // Series without a partner count.
            r#"a{j="x"} or b"#,
            r#"a unless b{j="x"}"#,
            r#"a{j="x"} / fill (0) b"#,
            // Two series of the right side for one of the left are an error.
            r#"a{j="x"} / on (j) b"#,
            r#"a{j="x"} / {n="b"}"#,
            r#"a{j="x"} / ignoring (i) b"#,
            // The choice depends on all series; or the label does not come from the series.
            r#"a{j="x"} and on (j) topk(1, b)"#,
            r#"a{j="x"} and on (j) label_replace(b, "j", "x", "", "")"#,
            r#"a{j="x"} and on (j) absent(b)"#,
            // Series of two metrics that become equal are an error, also without a partner.
            r#"a{j="x"} and on (j) rate({__name__=~"b|c"}[5m])"#,
            r#"a{j="x"} and on (j) sum by (j) (rate({__name__=~"b|c"}[5m]))"#,
            r#"a{j="x"} and on (j) ({__name__=~"b|c"} * 2)"#,
            // So are histograms in an anchored range.
            r#"a{j="x"} and on (j) increase(b[5m] anchored)"#,
        ] {
            check(text, &crate::parse(text, &ParseOptions::ALL).unwrap().to_string());
        }
    }
}
