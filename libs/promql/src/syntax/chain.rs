//! Chains of left-associative operators. `a + b + c` is `(a + b) + c`, so the tree is as deep on its left
//! side as the chain is long.
//!
//! Users write a dozen levels of nesting, but programs generate chains of thousands of operators. Therefore
//! all code that walks a tree follows a chain in a loop, with the functions in this file, and recurses only
//! into nested text, whose depth is at most [`MAX_HEIGHT`](super::ast::MAX_HEIGHT). Derived traits would
//! recurse along the chain, so they are implemented here by hand for [`BinaryExpr`]; only its `Debug` is
//! derived and recurses.

use crate::syntax::ast::{BinaryExpr, Expr, NumberLiteral, Span};

/// Replaces an expression that was moved out of the tree.
fn hole() -> Expr {
    Expr::Number(NumberLiteral { value: 0.0, duration: false, span: Span::default() })
}

impl Expr {
    /// The leftmost operand of the chain that ends in this expression, and the operators of the chain from
    /// left to right. For `a + b * c - d` these are `a`, and `a + ...` and `... - d`. There are no operators
    /// if the expression is not a chain.
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

    /// Changes the parts of a [`chain`](Self::chain): calls `f` for the leftmost operand, then for each
    /// operator from left to right. Stops at the first error. When `f` is called for an operator, its left
    /// operand was already changed; `f` has to change the right operand itself.
    ///
    /// # Errors
    /// The errors of `f`. The expression is then incomplete and must not be used.
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
    /// The same operator with a different left operand.
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

    /// Whether two operators are equal except for their left operands.
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
