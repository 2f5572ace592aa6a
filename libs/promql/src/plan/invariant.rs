//! Which expressions have the same value at all steps, because every selector in them has an `@`.

use std::collections::HashMap;

use crate::syntax::ast::Expr;
use crate::syntax::functions::FunctionId;

/// For each expression of a tree, by address, whether its value is the same at all steps.
#[derive(Debug, Default)]
pub(crate) struct Invariants {
    known: HashMap<*const Expr, bool>,
}

impl Invariants {
    /// Visits all of `root`.
    pub(crate) fn of(root: &Expr) -> Self {
        let mut invariants = Self::default();
        invariants.visit(root);
        invariants
    }

    /// Whether `expr`, which must be part of the tree, has the same value at all steps.
    pub(crate) fn holds(&self, expr: &Expr) -> bool {
        self.known.get(&std::ptr::from_ref(expr)).copied().unwrap_or(false)
    }

    fn visit(&mut self, root: &Expr) -> bool {
        // A chain of operators is visited in a loop, from its left end, and not by recursion.
        let mut chain = vec![root];
        while let Some(Expr::Binary(binary)) = chain.last() {
            chain.push(&binary.lhs);
        }
        let mut holds = true;
        while let Some(expr) = chain.pop() {
            holds = match expr {
                Expr::Binary(binary) => self.visit(&binary.rhs) && holds,
                _ => self.node(expr),
            };
            self.known.insert(std::ptr::from_ref(expr), holds);
        }
        holds
    }

    /// As [`visit`](Self::visit), for an expression that is not a binary operator.
    fn node(&mut self, expr: &Expr) -> bool {
        let mut children = true;
        expr.for_each_child(|child| children &= self.visit(child));
        match expr {
            Expr::Number(_) | Expr::String(_) => true,
            Expr::Vector(selector) => selector.at.is_some(),
            Expr::Matrix(matrix) => matrix.selector.at.is_some(),
            Expr::Subquery(subquery) => subquery.at.is_some(),
            Expr::Paren(_) | Expr::Unary(_) | Expr::Binary(_) => children,
            // As in Prometheus, the parameter does not matter: its value at the first step is used.
            Expr::Aggregate(aggregate) => self.holds(&aggregate.expr),
            Expr::Call(call) => match call.function.id {
                // The time of a sample that `@` selects is the same at all steps; that of a computed value is not.
                FunctionId::Timestamp => {
                    children && call.args.iter().all(|arg| matches!(arg.without_parens(), Expr::Vector(_)))
                }
                id => children && !depends_on_time(id),
            },
        }
    }
}

/// Functions whose value depends on the step even if their arguments do not.
fn depends_on_time(id: FunctionId) -> bool {
    use FunctionId::{
        DayOfMonth, DayOfWeek, DayOfYear, DaysInMonth, Hour, Minute, Month, PredictLinear, Time, Year,
    };
    matches!(
        id,
        DayOfMonth
            | DayOfWeek
            | DayOfYear
            | DaysInMonth
            | Hour
            | Minute
            | Month
            | PredictLinear
            | Time
            | Year
    )
}
