//! Lengths of time that depend on the query: duration expressions.

use crate::QueryError;
use crate::syntax::ast::{BinaryOp, DurationExpr, DurationNode, Length};

/// What a duration expression may refer to, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QuerySpan {
    /// `step()`; zero for an instant query.
    pub(crate) step: i64,
    /// `range()`.
    pub(crate) range: i64,
}

impl QuerySpan {
    /// A range or step in milliseconds, which has to be positive.
    pub(crate) fn positive(&self, length: &Length) -> Result<i64, QueryError> {
        self.millis(length, false)
    }

    /// An offset in milliseconds.
    pub(crate) fn offset(&self, length: &Length) -> Result<i64, QueryError> {
        self.millis(length, true)
    }

    fn millis(&self, length: &Length, negative: bool) -> Result<i64, QueryError> {
        let expr = match length {
            Length::Millis(millis) => return Ok(*millis),
            Length::Expr(expr) => expr,
        };
        let seconds = self.seconds(expr)?;
        let refuse = |why: &str| Err(refused(expr, why));
        // The bound is that of a count of nanoseconds in 64 bits, which is how Prometheus keeps lengths.
        const MOST: f64 = 9_223_372_036.854_775;
        if !seconds.is_finite() {
            refuse("duration is NaN or infinite")
        } else if seconds <= 0.0 && !negative {
            refuse("duration must be greater than 0")
        } else if seconds.abs() > MOST {
            refuse("duration is out of range")
        } else {
            Ok((seconds * 1000.0) as i64)
        }
    }

    fn seconds(&self, expr: &DurationExpr) -> Result<f64, QueryError> {
        Ok(match &expr.node {
            DurationNode::Number { seconds, .. } => *seconds,
            DurationNode::Step => self.step as f64 / 1000.0,
            DurationNode::Range => self.range as f64 / 1000.0,
            DurationNode::Negate(inner) => -self.seconds(inner)?,
            DurationNode::MinOf(a, b) => go_min(self.seconds(a)?, self.seconds(b)?),
            DurationNode::MaxOf(a, b) => go_max(self.seconds(a)?, self.seconds(b)?),
            DurationNode::Binary(op, a, b) => {
                let (a, b) = (self.seconds(a)?, self.seconds(b)?);
                match op {
                    BinaryOp::Add => a + b,
                    BinaryOp::Sub => a - b,
                    BinaryOp::Mul => a * b,
                    BinaryOp::Div if b == 0.0 => return Err(refused(expr, "division by zero")),
                    BinaryOp::Div => a / b,
                    BinaryOp::Mod if b == 0.0 => return Err(refused(expr, "modulo by zero")),
                    BinaryOp::Mod => a % b,
                    BinaryOp::Pow => a.powf(b),
                    other => {
                        return Err(refused(expr, &format!("unexpected duration expression operator {:?}", other.as_str())));
                    }
                }
            }
        })
    }
}

fn refused(expr: &DurationExpr, why: &str) -> QueryError {
    QueryError::BadParameter(format!("{}:{}: {why}", expr.span.start, expr.span.end))
}

/// The lesser of two numbers as Go's `math.Min` has it: NaN wins, -0 is less than 0.
pub(crate) fn go_min(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() {
        // Infinity is looked at before NaN.
        return if a == f64::NEG_INFINITY || b == f64::NEG_INFINITY { f64::NEG_INFINITY } else { f64::NAN };
    }
    if a == 0.0 && b == 0.0 {
        return if a.is_sign_negative() { a } else { b };
    }
    if a < b { a } else { b }
}

/// The greater of two numbers as Go's `math.Max` has it: NaN wins, 0 is greater than -0.
pub(crate) fn go_max(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() {
        return if a == f64::INFINITY || b == f64::INFINITY { f64::INFINITY } else { f64::NAN };
    }
    if a == 0.0 && b == 0.0 {
        return if a.is_sign_negative() { b } else { a };
    }
    if a > b { a } else { b }
}
