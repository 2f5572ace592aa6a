//! Constant expressions: `2 ^ 10`, `-(1 / 3)`, `max_of(pi(), 3)`.
//!
//! They are numbers in the plan. They are computed with the functions that evaluation uses, so that the value is the same to
//! the last bit. Operators between floats do not cause annotations that could be lost. The two that reject floats, `</` and
//! `>/`, are not folded, so that the plan rejects them.

use std::collections::HashMap;

use crate::functions::arithmetic;
use crate::functions::math::{go_max, go_min};
use crate::syntax::ast::{BinaryExpr, BinaryOp, Call, Expr, UnaryOp};
use crate::syntax::functions::FunctionId;

/// The values of the constant expressions of a tree, by address. Literals are not included.
#[derive(Debug, Default)]
pub(super) struct Constants {
    known: HashMap<*const Expr, f64>,
}

impl Constants {
    /// Visits all of `root`; `query` returns the values of `start()`, `end()`, `range()` and `step()`.
    pub(super) fn of(root: &Expr, query: &dyn Fn(FunctionId) -> f64) -> Self {
        let mut constants = Self::default();
        constants.visit(root, query);
        constants
    }

    /// The value of `expr`, which must be part of the tree, if it is constant and not a literal.
    pub(super) fn value(&self, expr: &Expr) -> Option<f64> {
        self.known.get(&std::ptr::from_ref(expr)).copied()
    }

    fn visit(&mut self, root: &Expr, query: &dyn Fn(FunctionId) -> f64) -> Option<f64> {
        // A chain of operators is visited in a loop, from its left end, and not by recursion.
        let mut chain = vec![root];
        while let Some(Expr::Binary(binary)) = chain.last() {
            chain.push(&binary.lhs);
        }
        let mut value = None;
        while let Some(expr) = chain.pop() {
            value = match expr {
                Expr::Binary(binary) => operator(binary, value, self.visit(&binary.rhs, query)),
                _ => self.node(expr, query),
            };
            if let (Some(value), false) = (value, matches!(expr, Expr::Number(_))) {
                self.known.insert(std::ptr::from_ref(expr), value);
            }
        }
        value
    }

    /// As [`visit`](Self::visit), for an expression that is not a binary operator.
    fn node(&mut self, expr: &Expr, query: &dyn Fn(FunctionId) -> f64) -> Option<f64> {
        let mut children = Vec::new();
        expr.for_each_child(|child| children.push(self.visit(child, query)));
        match (expr, children.as_slice()) {
            (Expr::Number(number), _) => Some(number.value),
            (Expr::Paren(_), [value]) => *value,
            (Expr::Unary(unary), [Some(value)]) => Some(match unary.op {
                UnaryOp::Plus => *value,
                UnaryOp::Minus => -*value,
            }),
            (Expr::Call(call), arguments) => function(call, arguments, query),
            _ => None,
        }
    }
}

fn operator(binary: &BinaryExpr, left: Option<f64>, right: Option<f64>) -> Option<f64> {
    if matches!(binary.op, BinaryOp::TrimLower | BinaryOp::TrimUpper) {
        return None;
    }
    let (value, holds) = arithmetic::floats(binary.op, left?, right?);
    // A comparison between scalars always returns 0 or 1.
    Some(if binary.op.is_comparison() { f64::from(u8::from(holds)) } else { value })
}

fn function(call: &Call, arguments: &[Option<f64>], query: &dyn Fn(FunctionId) -> f64) -> Option<f64> {
    use FunctionId::{End, MaxOf, MinOf, Pi, Range, Start, Step};
    match (call.function.id, arguments) {
        (Pi, _) => Some(std::f64::consts::PI),
        (id @ (Start | End | Range | Step), _) => Some(query(id)),
        (MaxOf, [Some(a), Some(b)]) => Some(go_max(*a, *b)),
        (MinOf, [Some(a), Some(b)]) => Some(go_min(*a, *b)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use model::Timestamp;

    use crate::{EngineOptions, ParseOptions, Query, QueryParams, QueryValue};

    fn plan(text: &str) -> Query {
        let engine = EngineOptions { parse: ParseOptions::ALL, ..EngineOptions::default() };
        let (start, end) = (Timestamp::from_millis(90_000), Timestamp::from_millis(150_000));
        let params = QueryParams::range(start, end, Duration::from_secs(15));
        Query::plan(text, &params, &engine).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// The bits of the value at each step.
    fn bits(text: &str) -> Vec<u64> {
        let QueryValue::Matrix(rows) = plan(text).evaluation().finish().unwrap().value else {
            panic!("{text} gives no matrix")
        };
        rows.iter().flat_map(|row| &row.floats).map(|sample| sample.value.to_bits()).collect()
    }

    /// A random expression of numbers, written with `literal`.
    fn write(
        text: &mut String,
        depth: u32,
        next: &mut dyn FnMut(usize) -> usize,
        literal: &dyn Fn(&str) -> String,
    ) {
        const LITERALS: [&str; 14] =
            ["0", "1", "2", "3", "0.1", "1e308", "5e-324", "NaN", "Inf", "1.5", "10", "90", "1e-300", "7"];
        const OPERATORS: [&str; 13] = [
            "+", "-", "*", "/", "%", "^", "atan2", "== bool", "!= bool", "< bool", "<= bool", "> bool",
            ">= bool",
        ];
        match next(if depth == 0 { 1 } else { 7 }) {
            0 => text.push_str(&literal(LITERALS[next(LITERALS.len())])),
            1 => {
                text.push_str(["-(", "+(", "("][next(3)]);
                write(text, depth - 1, next, literal);
                text.push(')');
            }
            2 => {
                text.push_str(["max_of(", "min_of("][next(2)]);
                write(text, depth - 1, next, literal);
                text.push_str(", ");
                write(text, depth - 1, next, literal);
                text.push(')');
            }
            _ => {
                write(text, depth - 1, next, literal);
                text.push_str(&format!(" {} ", OPERATORS[next(OPERATORS.len())]));
                write(text, depth - 1, next, literal);
            }
        }
    }

    #[test]
    fn a_folded_expression_has_the_same_bits_as_an_evaluated_one() {
        for seed in 1..2000u64 {
            // The same expression twice; the result of `scalar` is not folded.
            let write_with = |literal: &dyn Fn(&str) -> String| {
                let mut state = seed;
                let mut next = |bound: usize| {
                    state =
                        state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (state >> 33) as usize % bound
                };
                let mut text = String::new();
                write(&mut text, 4, &mut next, literal);
                text
            };
            let folded = write_with(&str::to_owned);
            let evaluated = write_with(&|number| format!("scalar(vector({number}))"));
            assert_eq!(plan(&folded).explain().children.len(), 0, "{folded} is not folded");
            assert_eq!(bits(&folded), bits(&evaluated), "seed {seed}: {folded}");
        }
    }

    #[test]
    fn a_constant_expression_is_shown_as_a_number() {
        for (text, shown) in [
            ("1 + 2 * 3", "7  steps=5\n"),
            ("-(1 / 4) ^ 2", "-0.0625  steps=5\n"),
            ("end() - start() == bool range()", "1  steps=5\n"),
            ("max_of(step(), 3) % 4", "3  steps=5\n"),
        ] {
            assert_eq!(plan(text).explain().to_string(), shown, "{text}");
        }
        let shown = plan("2 ^ 10 * m + pi() * 0").explain().to_string();
        assert!(shown.starts_with("+ 0  ") && shown.contains("─ 1024 *\n"), "{shown}");
        // The left end of a chain is folded too; an expression with time() is not.
        let shown = plan("1 + 2 + m").explain().to_string();
        assert!(shown.starts_with("3 +  "), "{shown}");
        let shown = plan("1 + time()").explain().to_string();
        assert!(shown.contains("time()"), "{shown}");
    }

    #[test]
    fn operators_that_reject_numbers_are_not_folded() {
        let engine = EngineOptions { parse: ParseOptions::ALL, ..EngineOptions::default() };
        let params = QueryParams::instant(Timestamp::EPOCH);
        for text in ["1 </ 2", "(3 >/ 1) + 1"] {
            let error = Query::plan(text, &params, &engine).unwrap_err().to_string();
            assert!(error.contains("not allowed for Scalar operations"), "{text}: {error}");
        }
    }
}
