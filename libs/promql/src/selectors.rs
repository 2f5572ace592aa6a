//! The selectors of an expression, and selectors as text.

use model::{METRIC_NAME, MatchOp, Matcher, is_legacy_label_name};

use crate::syntax::ast::Expr;
use crate::text::go_quoted;

/// The matchers of each selector of an expression, in the order of the text.
pub fn selectors(expr: &Expr) -> Vec<Vec<Matcher>> {
    let (mut found, mut left) = (Vec::new(), vec![expr]);
    while let Some(expr) = left.pop() {
        match expr {
            Expr::Vector(selector) => found.push(selector.matchers.clone()),
            Expr::Matrix(matrix) => found.push(matrix.selector.matchers.clone()),
            _ => expr.for_each_child(|child| left.push(child)),
        }
    }
    // The last operand was visited first.
    found.reverse();
    found
}

/// A selector as text that every Prometheus understands, if the names of the labels are legacy names. Prometheus rejects
/// selectors that match every series, so one that would gets a matcher that every series satisfies.
pub fn selector_text<'a>(matchers: impl IntoIterator<Item = &'a Matcher>) -> String {
    let (mut parts, mut matches_all) = (Vec::new(), true);
    for matcher in matchers {
        matches_all &= matcher.matches_empty();
        let name = matcher.name();
        let name = if is_legacy_label_name(name) { name.to_owned() } else { go_quoted(name) };
        parts.push(format!("{name}{}{}", matcher.op().as_str(), go_quoted(matcher.value())));
    }
    if matches_all {
        parts.push(format!("{METRIC_NAME}{}\".+\"", MatchOp::Regex.as_str()));
    }
    format!("{{{}}}", parts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syntax::{ParseOptions, parse};

    #[test]
    fn selectors_of_an_expression_are_text_again() {
        let of = |text: &str| -> Vec<String> {
            selectors(&parse(text, &ParseOptions::ALL).unwrap()).iter().map(selector_text).collect()
        };
        assert_eq!(
            of("sum(rate(a{x=~\"b\"}[5m])) / {\"c.d\", \"e.f\"!=\"\"} offset 1m"),
            ["{x=~\"b\",__name__=\"a\"}", "{__name__=\"c.d\",\"e.f\"!=\"\"}"]
        );
        assert_eq!(selector_text(&[Matcher::equal("x", "")]), "{x=\"\",__name__=~\".+\"}");
    }
}
