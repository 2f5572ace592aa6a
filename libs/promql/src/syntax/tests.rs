//! The parser against the corpus of all expressions of Prometheus' own tests, and against broken text.

use std::path::PathBuf;

use super::ast::{DurationExpr, DurationNode, Expr, Length, Span};
use super::{ParseOptions, parse};

/// The folder of conformance data, or `None` with a visible line where it is absent.
fn conformance(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("ISTHMUS_CONFORMANCE").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/conformance")),
        PathBuf::from,
    );
    let path = root.join(path);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {} is absent", path.display());
    None
}

#[derive(serde::Deserialize)]
struct Case {
    expr: String,
    /// Whether Prometheus takes it; `None` where unknown.
    ok: Option<bool>,
    src: String,
}

fn corpus() -> Vec<Case> {
    let Some(path) = conformance("promql-syntax/corpus.json") else {
        return Vec::new();
    };
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The tree without places, in a form in which NaN equals itself.
fn shape(expr: &Expr) -> String {
    let mut expr = expr.clone();
    clear_spans(&mut expr);
    format!("{expr:?}")
}

fn clear_spans(expr: &mut Expr) {
    let none = Span::default();
    match expr {
        Expr::Number(e) => e.span = none,
        Expr::String(e) => e.span = none,
        Expr::Vector(e) => {
            e.span = none;
            clear_length(&mut e.offset);
            e.matchers.sort_by_key(ToString::to_string);
        }
        Expr::Matrix(e) => {
            (e.span, e.selector.span) = (none, none);
            clear_length(&mut e.range);
            clear_length(&mut e.selector.offset);
            e.selector.matchers.sort_by_key(ToString::to_string);
        }
        Expr::Subquery(e) => {
            e.span = none;
            clear_length(&mut e.range);
            clear_length(&mut e.offset);
            e.step.iter_mut().for_each(clear_length);
        }
        Expr::Paren(e) => e.span = none,
        Expr::Unary(e) => e.span = none,
        Expr::Binary(e) => e.span = none,
        Expr::Aggregate(e) => e.span = none,
        Expr::Call(e) => e.span = none,
    }
    expr.for_each_child_mut(clear_spans);
}

fn clear_length(length: &mut Length) {
    fn clear(expr: &mut DurationExpr) {
        expr.span = Span::default();
        match &mut expr.node {
            DurationNode::Number { .. } | DurationNode::Step | DurationNode::Range => {}
            DurationNode::Negate(a) => clear(a),
            DurationNode::MinOf(a, b) | DurationNode::MaxOf(a, b) | DurationNode::Binary(_, a, b) => {
                clear(a);
                clear(b);
            }
        }
    }
    if let Length::Expr(expr) = length {
        clear(expr);
    }
}

#[test]
fn the_corpus_is_accepted_and_refused_as_by_prometheus() {
    let (mut accepted, mut refused, mut wrong) = (0, 0, Vec::new());
    for case in corpus() {
        let parsed = parse(&case.expr, &ParseOptions::ALL);
        match (parsed, case.ok) {
            (Ok(_), Some(true)) => accepted += 1,
            (Err(_), Some(false)) => refused += 1,
            (_, None) => {}
            (Ok(expr), Some(false)) => {
                wrong.push(format!("{}: accepted {:?} as {expr}", case.src, case.expr))
            }
            (Err(error), Some(true)) => wrong.push(format!("{}: refused {:?}: {error}", case.src, case.expr)),
        }
    }
    println!("corpus: {accepted} accepted, {refused} refused");
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn printing_and_parsing_again_gives_the_same_tree() {
    for case in corpus() {
        let Ok(expr) = parse(&case.expr, &ParseOptions::ALL) else { continue };
        let printed = expr.to_string();
        let again = parse(&printed, &ParseOptions::ALL)
            .unwrap_or_else(|error| panic!("{:?} was printed as {printed:?}: {error}", case.expr));
        assert_eq!(shape(&expr), shape(&again), "{:?} was printed as {printed:?}", case.expr);
        assert_eq!(printed, again.to_string());
    }
}
