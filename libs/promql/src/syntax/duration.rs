//! Computes the value of duration expressions from the step and range of a query.

use crate::syntax::ast::{BinaryOp, DurationArg, DurationExpr, DurationNode, Span};

/// The values of `step()` and `range()`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DurationContext {
    /// Seconds between two steps; zero for an instant query.
    pub step_seconds: f64,
    /// Seconds from the first step to the last; zero for an instant query.
    pub range_seconds: f64,
}

/// A duration expression has no usable value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}:{}: {message}", span.start, span.end)]
pub struct DurationExprError {
    /// The expression. The error displays its start and end in bytes instead of line and column, as
    /// Prometheus does for this error.
    pub span: Span,
    message: &'static str,
}

impl DurationArg {
    /// The duration in milliseconds. Must be positive unless `may_be_negative` is set, as it is for offsets;
    /// literals already are.
    ///
    /// # Errors
    /// If the value is not finite, is out of range, requires a division by zero, or must be positive and is
    /// not.
    pub fn resolve(&self, context: DurationContext, may_be_negative: bool) -> Result<i64, DurationExprError> {
        /// 2^63 nanoseconds, in seconds.
        const LIMIT: f64 = 9_223_372_036.854_776;
        let expr = match self {
            Self::Millis(millis) => return Ok(*millis),
            Self::Expr(expr) => expr,
        };
        let seconds = expr.seconds(context)?;
        let fail = |message| Err(DurationExprError { span: expr.span, message });
        if !seconds.is_finite() {
            return fail("duration is NaN or infinite");
        }
        if seconds <= 0.0 && !may_be_negative {
            return fail("duration must be greater than 0");
        }
        if seconds.abs() > LIMIT {
            return fail("duration is out of range");
        }
        Ok((seconds * 1000.0) as i64)
    }
}

impl DurationExpr {
    fn seconds(&self, context: DurationContext) -> Result<f64, DurationExprError> {
        let fail = |message| Err(DurationExprError { span: self.span, message });
        Ok(match &self.node {
            DurationNode::Number { seconds, .. } => *seconds,
            DurationNode::Step => context.step_seconds,
            DurationNode::Range => context.range_seconds,
            DurationNode::Negate(expr) => -expr.seconds(context)?,
            DurationNode::MinOf(a, b) => least(a.seconds(context)?, b.seconds(context)?),
            DurationNode::MaxOf(a, b) => -least(-a.seconds(context)?, -b.seconds(context)?),
            DurationNode::Binary(op, lhs, rhs) => {
                let (lhs, rhs) = (lhs.seconds(context)?, rhs.seconds(context)?);
                match op {
                    BinaryOp::Add => lhs + rhs,
                    BinaryOp::Sub => lhs - rhs,
                    BinaryOp::Mul => lhs * rhs,
                    BinaryOp::Div if rhs == 0.0 => return fail("division by zero"),
                    BinaryOp::Div => lhs / rhs,
                    BinaryOp::Mod if rhs == 0.0 => return fail("modulo by zero"),
                    BinaryOp::Mod => lhs % rhs,
                    BinaryOp::Pow => lhs.powf(rhs),
                    _ => return fail("operator is not defined for durations"),
                }
            }
        })
    }
}

/// The lesser of two numbers; NaN if one of them is NaN.
fn least(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.min(b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syntax::ast::Expr;
    use crate::syntax::{ParseOptions, parse};

    #[test]
    fn expressions_resolve_against_step_and_range() {
        let check = |text: &str, expected: Result<i64, &str>| {
            let expr = parse(&format!("foo[{text}]"), &ParseOptions::ALL).unwrap();
            let Expr::Matrix(matrix) = expr else { panic!("{text} is not a range selector") };
            let context = DurationContext { step_seconds: 30.0, range_seconds: 3600.0 };
            let resolved = matrix.range.resolve(context, false).map_err(|e| e.to_string());
            assert_eq!(resolved, expected.map_err(str::to_owned), "{text}");
        };
        check("5m", Ok(300_000));
        check("5m + step()", Ok(330_000));
        check("range() / 2 ^ 2", Ok(900_000));
        check("min_of(1h, max_of(step(), 45s)) % 10", Ok(5_000));
        check("-step() + 1m", Ok(30_000));
        check("step() - 30", Err("4:15: duration must be greater than 0"));
        check("1 / (step() - 30)", Err("4:20: division by zero"));
        check("10 ^ 400", Err("4:12: duration is NaN or infinite"));
        check("10 ^ 10", Err("4:11: duration is out of range"));
        assert_eq!(DurationArg::Millis(-5).resolve(DurationContext::default(), true), Ok(-5));
    }
}
