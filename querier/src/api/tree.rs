//! Syntax trees as JSON, as `parse_query` of Prometheus returns them to user interfaces.
//!
//! Behaviour: `web/api/v1/translate_ast.go` of Prometheus 3.14. The tree is written directly as text, because
//! a chain of a thousand operators is a tree of a thousand levels.

use std::fmt::Write;

use model::{Matcher, Timestamp};
use promql::syntax::ast::{
    At, BinaryExpr, Boundary, Cardinality, DurationArg, DurationExpr, DurationNode, Expr, VectorMatching,
    VectorSelector,
};
use promql::syntax::functions::{ValueType, Variadic};
use serde_json::json;

/// The tree of `expr`.
pub(super) fn tree(expr: &Expr) -> String {
    let mut out = String::new();
    write(&mut out, expr);
    out
}

fn write(out: &mut String, expr: &Expr) {
    match expr {
        Expr::Binary(_) => chain(out, expr),
        Expr::Number(number) => put(out, &json!({"type": "numberLiteral", "val": float(number.value)})),
        Expr::String(string) => put(out, &json!({"type": "stringLiteral", "val": string.value})),
        Expr::Vector(vector) => {
            out.push_str("{\"type\":\"vectorSelector\"");
            selector(out, vector);
            out.push('}');
        }
        Expr::Matrix(matrix) => {
            out.push_str("{\"type\":\"matrixSelector\"");
            length(out, "range", Some(&matrix.range));
            selector(out, &matrix.selector);
            out.push('}');
        }
        Expr::Subquery(subquery) => {
            out.push_str("{\"type\":\"subquery\"");
            length(out, "range", Some(&subquery.range));
            length(out, "step", subquery.step.as_ref());
            length(out, "offset", Some(&subquery.offset));
            pinned(out, subquery.at);
            below(out, "expr", &subquery.expr);
            out.push('}');
        }
        Expr::Paren(paren) => {
            out.push_str("{\"type\":\"parenExpr\"");
            below(out, "expr", &paren.expr);
            out.push('}');
        }
        Expr::Unary(unary) => {
            out.push_str("{\"type\":\"unaryExpr\"");
            field(out, "op", &json!(unary.op.as_str()));
            below(out, "expr", &unary.expr);
            out.push('}');
        }
        Expr::Aggregate(aggregate) => {
            out.push_str("{\"type\":\"aggregation\"");
            field(out, "op", &json!(aggregate.op.as_str()));
            field(out, "grouping", &json!(aggregate.grouping));
            field(out, "without", &json!(aggregate.without));
            match &aggregate.param {
                Some(param) => below(out, "param", param),
                None => field(out, "param", &json!(null)),
            }
            below(out, "expr", &aggregate.expr);
            out.push('}');
        }
        Expr::Call(call) => {
            let function = call.function;
            let types: Vec<&str> = function.args.iter().copied().map(ValueType::as_str).collect();
            let variadic = match function.variadic {
                Variadic::Exact => 0,
                Variadic::UpTo(more) => i64::try_from(more).unwrap_or(i64::MAX),
                Variadic::AnyMore => -1,
            };
            out.push_str("{\"type\":\"call\"");
            let signature = json!({
                "name": function.name, "argTypes": types, "variadic": variadic,
                "returnType": function.returns.as_str(),
            });
            field(out, "func", &signature);
            out.push_str(",\"args\":[");
            for (at, arg) in call.args.iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                write(out, arg);
            }
            out.push_str("]}");
        }
    }
}

/// A chain of operators. All are opened on the way down the left side, and closed on the way up.
fn chain(out: &mut String, expr: &Expr) {
    let (first, operators) = expr.chain();
    out.extend(operators.iter().map(|_| "{\"type\":\"binaryExpr\",\"lhs\":"));
    write(out, first);
    for binary in operators {
        close(out, binary);
    }
}

fn close(out: &mut String, binary: &BinaryExpr) {
    field(out, "op", &json!(binary.op.as_str()));
    field(out, "bool", &json!(binary.return_bool));
    field(out, "matching", &binary.matching.as_ref().map_or(json!(null), matching));
    below(out, "rhs", &binary.rhs);
    out.push('}');
}

fn matching(matching: &VectorMatching) -> serde_json::Value {
    let card = match matching.cardinality {
        Cardinality::OneToOne => "one-to-one",
        Cardinality::ManyToOne => "many-to-one",
        Cardinality::OneToMany => "one-to-many",
        Cardinality::ManyToMany => "many-to-many",
    };
    json!({
        "card": card, "labels": matching.labels, "on": matching.on, "include": matching.include,
        "fillValues": {"lhs": matching.fill_left, "rhs": matching.fill_right},
    })
}

fn selector(out: &mut String, selector: &VectorSelector) {
    let matcher = |m: &Matcher| json!({"name": m.name(), "value": m.value(), "type": m.op().as_str()});
    let matchers: Vec<_> = selector.matchers.iter().map(matcher).collect();
    field(out, "name", &json!(selector.name));
    field(out, "matchers", &json!(matchers));
    field(out, "anchored", &json!(selector.boundary == Boundary::Anchored));
    field(out, "smoothed", &json!(selector.boundary == Boundary::Smoothed));
    length(out, "offset", Some(&selector.offset));
    pinned(out, selector.at);
}

/// Writes the fields of the `@` modifier.
fn pinned(out: &mut String, at: Option<At>) {
    let (timestamp, bound) = match at {
        None => (None, None),
        Some(At::Time(time)) => (Some(Timestamp::as_millis(time)), None),
        Some(At::Start) => (None, Some("start")),
        Some(At::End) => (None, Some("end")),
    };
    field(out, "timestamp", &json!(timestamp));
    field(out, "startOrEnd", &json!(bound));
}

/// Writes a duration in milliseconds, and the expression that computes it.
fn length(out: &mut String, name: &str, length: Option<&DurationArg>) {
    let (millis, expr) = match length {
        None => (0, None),
        Some(DurationArg::Millis(millis)) => (*millis, None),
        Some(DurationArg::Expr(expr)) => (0, Some(expr)),
    };
    field(out, name, &json!(millis));
    field(out, &format!("{name}Expr"), &expr.map_or(json!(null), |expr| duration(expr)));
}

fn duration(expr: &DurationExpr) -> serde_json::Value {
    let operator = |op: &str, lhs: Option<&DurationExpr>, rhs: Option<&DurationExpr>| {
        let side = |side: Option<&DurationExpr>| side.map_or(json!(null), duration);
        json!({"type": "durationExpr", "op": op, "lhs": side(lhs), "rhs": side(rhs), "wrapped": expr.wrapped})
    };
    match &expr.node {
        DurationNode::Number { seconds, duration } => {
            let number = json!({"type": "numberLiteral", "val": float(*seconds), "duration": duration});
            match expr.wrapped {
                // Prometheus has no other field for the parentheses.
                true => {
                    json!({"type": "durationExpr", "op": "+", "lhs": null, "rhs": number, "wrapped": true})
                }
                false => number,
            }
        }
        DurationNode::Step => operator("step", None, None),
        DurationNode::Range => operator("range", None, None),
        DurationNode::Negate(inner) => operator("-", None, Some(inner)),
        DurationNode::MinOf(lhs, rhs) => operator("min_of", Some(lhs), Some(rhs)),
        DurationNode::MaxOf(lhs, rhs) => operator("max_of", Some(lhs), Some(rhs)),
        DurationNode::Binary(op, lhs, rhs) => operator(op.as_str(), Some(lhs), Some(rhs)),
    }
}

/// A number in the format of Go without exponent.
fn float(value: f64) -> String {
    if value.is_infinite() { if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned() } else { value.to_string() }
}

fn field(out: &mut String, name: &str, value: &serde_json::Value) {
    // Writing to a string cannot fail.
    let _ = write!(out, ",\"{name}\":{value}");
}

fn below(out: &mut String, name: &str, expr: &Expr) {
    let _ = write!(out, ",\"{name}\":");
    write(out, expr);
}

fn put(out: &mut String, value: &serde_json::Value) {
    let _ = write!(out, "{value}");
}

#[cfg(test)]
mod tests {
    use promql::{ParseOptions, parse};
    use serde_json::Value;

    use super::*;

    fn parsed(text: &str) -> Value {
        serde_json::from_str(&tree(&parse(text, &ParseOptions::ALL).expect("an expression"))).expect("JSON")
    }

    #[test]
    fn trees_have_the_fields_of_prometheus() {
        let selector = |name: &str| {
            json!({
                "type": "vectorSelector", "name": name, "offset": 0, "offsetExpr": null, "timestamp": null,
                "startOrEnd": null, "anchored": false, "smoothed": false,
                "matchers": [{"name": "__name__", "type": "=", "value": name}],
            })
        };
        assert_eq!(
            parsed("a > bool on (x) group_left (y) b"),
            json!({
                "type": "binaryExpr", "op": ">", "bool": true, "lhs": selector("a"), "rhs": selector("b"),
                "matching": {
                    "card": "many-to-one", "on": true, "labels": ["x"], "include": ["y"],
                    "fillValues": {"lhs": null, "rhs": null},
                },
            })
        );
        assert_eq!(
            parsed("topk by (x) (2, a)"),
            json!({
                "type": "aggregation", "op": "topk", "grouping": ["x"], "without": false, "expr": selector("a"),
                "param": {"type": "numberLiteral", "val": "2"},
            })
        );
        let call = parsed(r#"round(-(a), 1e30)"#);
        assert_eq!(call["func"]["argTypes"], json!(["vector", "scalar"]));
        assert_eq!(call["func"]["variadic"], 1);
        assert_eq!(call["args"][0]["expr"], json!({"type": "parenExpr", "expr": selector("a")}));
        assert_eq!(call["args"][1]["val"], "1000000000000000000000000000000");
        let subquery = parsed("a[5m:1m] @ start() offset (step() * 2)");
        assert_eq!((&subquery["range"], &subquery["step"]), (&json!(300_000), &json!(60_000)));
        assert_eq!((&subquery["startOrEnd"], &subquery["timestamp"]), (&json!("start"), &json!(null)));
        assert_eq!(subquery["offsetExpr"]["op"], "*");
        assert_eq!(parsed("a[5m] @ 3")["timestamp"], 3000);
    }

    #[test]
    fn long_operator_chain_needs_no_recursion() {
        let long = vec!["1"; 20_000].join("+");
        let text = tree(&parse(&long, &ParseOptions::ALL).expect("an expression"));
        assert_eq!(text.matches("binaryExpr").count(), 19_999);
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }
}
