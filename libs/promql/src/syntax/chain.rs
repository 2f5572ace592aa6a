//! Chains of left-associative operators: `a + b + c` is `(a + b) + c`, and so a tree as deep on its left as the chain is
//! long.
//!
//! People nest a dozen levels; programs write chains of thousands. So whatever walks a tree goes along such a chain in a
//! loop, with the functions of this file, and recurses only where the text nests, which is bounded by
//! [`MAX_HEIGHT`](super::ast::MAX_HEIGHT). What the compiler would derive for [`BinaryExpr`] recurses, and is written out
//! here for that reason; only its `Debug` still does.

use crate::syntax::ast::{BinaryExpr, Expr, NumberLiteral, Span};

/// What stands where an expression was taken out.
fn hole() -> Expr {
    Expr::Number(NumberLiteral { value: 0.0, duration: false, span: Span::default() })
}

impl Expr {
    /// The operators of the chain that ends in this expression, the innermost first, and the operand at its very left:
    /// for `a + b * c - d`, these are `a + ...`, `... - d` and `a`. No operators where it is no chain.
    pub fn chain(&self) -> (&Self, Vec<&BinaryExpr>) {
        let mut operators = Vec::new();
        let mut expr = self;
        while let Self::Binary(binary) = expr {
            operators.push(&**binary);
            expr = &binary.lhs;
        }
        operators.reverse();
        (expr, operators)
    }

    /// Changes what [`chain`](Self::chain) shows: calls `f` for the operand at the very left, then for each operator from
    /// there on, and stops where it fails. Right operands are below what `f` is called for, left ones have been before.
    ///
    /// # Errors
    /// Those of `f`; the expression is then left in pieces.
    pub fn change_chain<E>(&mut self, mut f: impl FnMut(&mut Self) -> Result<(), E>) -> Result<(), E> {
        let mut above = Vec::new();
        let mut current = std::mem::replace(self, hole());
        while let Self::Binary(binary) = &mut current {
            let lhs = std::mem::replace(&mut binary.lhs, hole());
            above.push(std::mem::replace(&mut current, lhs));
        }
        f(&mut current)?;
        while let Some(mut expr) = above.pop() {
            if let Self::Binary(binary) = &mut expr {
                binary.lhs = current;
            }
            f(&mut expr)?;
            current = expr;
        }
        *self = current;
        Ok(())
    }
}

impl Drop for BinaryExpr {
    fn drop(&mut self) {
        let mut lhs = std::mem::replace(&mut self.lhs, hole());
        while let Expr::Binary(binary) = &mut lhs {
            lhs = std::mem::replace(&mut binary.lhs, hole());
        }
    }
}

impl BinaryExpr {
    /// The same operator with another left operand.
    fn with_lhs(&self, lhs: Expr) -> Self {
        Self {
            op: self.op,
            lhs,
            rhs: self.rhs.clone(),
            matching: self.matching.clone(),
            return_bool: self.return_bool,
            value_type: self.value_type,
            span: self.span,
        }
    }

    /// Whether two operators are the same but for their left operands.
    fn is_like(&self, other: &Self) -> bool {
        self.op == other.op
            && self.span == other.span
            && self.return_bool == other.return_bool
            && self.value_type == other.value_type
            && self.matching == other.matching
            && self.rhs == other.rhs
    }
}

impl Clone for BinaryExpr {
    fn clone(&self) -> Self {
        let (first, operators) = self.lhs.chain();
        let lhs = operators
            .into_iter()
            .fold(first.clone(), |lhs, operator| Expr::Binary(Box::new(operator.with_lhs(lhs))));
        self.with_lhs(lhs)
    }
}

impl PartialEq for BinaryExpr {
    fn eq(&self, other: &Self) -> bool {
        let ((first, operators), (other_first, others)) = (self.lhs.chain(), other.lhs.chain());
        self.is_like(other)
            && operators.len() == others.len()
            && operators.iter().zip(others).all(|(a, b)| a.is_like(b))
            && first == other_first
    }
}
