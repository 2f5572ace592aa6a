//! Parses durations in ranges, steps and offsets: literals and expressions.

use crate::syntax::ast::{BinaryOp, DurationArg, DurationExpr, DurationNode, NumberLiteral, Span};
use crate::syntax::error::ParseError;
use crate::syntax::parser::{ErrorContext, Parser};
use crate::syntax::token::{Token, TokenKind, Word};

/// What a duration is used for. Errors name it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum DurationUse {
    Range,
    Step,
    Offset,
}

impl DurationUse {
    const fn context(self) -> ErrorContext {
        match self {
            Self::Range => ("subquery or range selector", "number, duration, step(), or range()"),
            Self::Step => ("subquery selector", "number, duration, step(), range(), or \"]\""),
            Self::Offset => ("offset", "number, duration, step(), or range()"),
        }
    }
}

/// The precedence of an operator, or `None` if durations do not support it.
const fn power(op: BinaryOp) -> Option<u8> {
    match op {
        BinaryOp::Add | BinaryOp::Sub => Some(1),
        BinaryOp::Mul | BinaryOp::Div | BinaryOp::Mod => Some(2),
        BinaryOp::Pow => Some(POWER_OF_POW),
        _ => None,
    }
}

const POWER_OF_POW: u8 = 3;

/// The value of `expr` if it is a number without parentheses.
fn literal(expr: &DurationExpr) -> Option<f64> {
    match expr.node {
        DurationNode::Number { seconds, .. } if !expr.wrapped => Some(seconds),
        _ => None,
    }
}

/// Whether this number of seconds, in nanoseconds, exceeds 64 bits.
fn out_of_range(seconds: f64) -> bool {
    /// 2^63 nanoseconds, in seconds.
    const LIMIT: f64 = 9_223_372_036.854_776;
    !(-LIMIT..=LIMIT).contains(&seconds)
}

impl DurationExpr {
    fn boxed(self) -> Box<Self> {
        Box::new(self)
    }

    /// Marks the expression as enclosed in the parentheses at `span`.
    fn wrap(mut self, span: Span) -> Self {
        if matches!(self.node, DurationNode::Number { .. }) {
            self.span = span;
        }
        self.wrapped = true;
        self
    }

    /// The value of a literal, or the expression, which is evaluated when the query is planned.
    fn into_length(self) -> DurationArg {
        match literal(&self) {
            // Rounded to nanoseconds, then truncated to milliseconds.
            Some(seconds) => DurationArg::Millis((seconds * 1e9).round() as i64 / 1_000_000),
            None => DurationArg::Expr(self.boxed()),
        }
    }
}

/// A duration expression and the height of its tree.
struct ParsedDuration {
    expr: DurationExpr,
    height: usize,
}

impl ParsedDuration {
    fn leaf(node: DurationNode, span: Span) -> Self {
        Self { expr: DurationExpr { node, wrapped: false, span }, height: 1 }
    }
}

impl Parser<'_> {
    /// Parses the duration of a range or step. A literal must be positive.
    pub(super) fn positive_length(&mut self, place: DurationUse) -> Result<DurationArg, ParseError> {
        let ParsedDuration { expr, .. } = self.duration(0, place)?;
        self.lexed()?;
        // Written so that NaN is accepted, as in Prometheus.
        if literal(&expr).is_some_and(|seconds| seconds <= 0.0) {
            return Err(self.error(expr.span, "duration must be greater than 0"));
        }
        Ok(expr.into_length())
    }

    /// Parses the duration of an offset. Unlike in brackets, operators after a literal are not part of it:
    /// `foo offset 5m - bar` subtracts. Operators after parentheses are part of it.
    pub(super) fn offset_length(&mut self) -> Result<DurationArg, ParseError> {
        let sign = self.token;
        let signed = matches!(sign.kind, TokenKind::Op(BinaryOp::Add | BinaryOp::Sub));
        if !signed && self.token.kind == TokenKind::LeftParen {
            return Ok(self.duration(0, DurationUse::Offset)?.expr.into_length());
        }
        if !signed {
            return Ok(self.simple_duration(DurationUse::Offset)?.expr.into_length());
        }
        self.take();
        let operand = match self.token.kind {
            TokenKind::Op(BinaryOp::Add | BinaryOp::Sub) => {
                let operand = self.duration(POWER_OF_POW, DurationUse::Offset)?;
                let first = self.negated_if(sign, operand)?;
                return Ok(self.duration_operators(first, 0, DurationUse::Offset)?.expr.into_length());
            }
            TokenKind::LeftParen => self.parenthesized_duration(DurationUse::Offset)?,
            _ => self.simple_duration(DurationUse::Offset)?,
        };
        Ok(self.negated_if(sign, operand)?.expr.into_length())
    }

    fn duration(&mut self, least: u8, place: DurationUse) -> Result<ParsedDuration, ParseError> {
        self.nested(|parser| {
            let first = parser.duration_operand(place)?;
            parser.duration_operators(first, least, place)
        })
    }

    /// Parses operators after `lhs` whose precedence is at least `least`.
    fn duration_operators(
        &mut self,
        mut lhs: ParsedDuration,
        least: u8,
        place: DurationUse,
    ) -> Result<ParsedDuration, ParseError> {
        while let TokenKind::Op(op) = self.token.kind
            && let Some(power) = power(op)
            && power >= least
        {
            let operator = self.take();
            let rhs = self.duration(if op == BinaryOp::Pow { power } else { power + 1 }, place)?;
            self.duration_expressions_enabled(lhs.expr.span)?;
            if literal(&rhs.expr) == Some(0.0) {
                match op {
                    BinaryOp::Div => return Err(self.error(operator.span, "division by zero")),
                    BinaryOp::Mod => return Err(self.error(operator.span, "modulo by zero")),
                    _ => {}
                }
            }
            let span = lhs.expr.span.to(rhs.expr.span);
            let height = self.above(lhs.height.max(rhs.height), span)?;
            let node = DurationNode::Binary(op, lhs.expr.boxed(), rhs.expr.boxed());
            lhs = ParsedDuration { expr: DurationExpr { node, wrapped: false, span }, height };
        }
        Ok(lhs)
    }

    /// Parses an operand and the signs before it.
    fn duration_operand(&mut self, place: DurationUse) -> Result<ParsedDuration, ParseError> {
        let mut signs = Vec::new();
        while let TokenKind::Op(BinaryOp::Add | BinaryOp::Sub) = self.token.kind {
            signs.push(self.take());
        }
        if signs.is_empty() {
            return match self.token.kind {
                TokenKind::LeftParen => {
                    let inner = self.parenthesized_duration(place)?;
                    self.duration_expressions_enabled(inner.expr.span)?;
                    Ok(inner)
                }
                _ => self.simple_duration(place),
            };
        }
        let mut operand = self.duration(POWER_OF_POW, place)?;
        for sign in signs.into_iter().rev() {
            operand = self.negated_if(sign, operand)?;
        }
        Ok(operand)
    }

    fn parenthesized_duration(&mut self, place: DurationUse) -> Result<ParsedDuration, ParseError> {
        let open = self.take();
        let inner = self.duration(0, place)?;
        let (context, expected) = place.context();
        let close = self.expect(TokenKind::RightParen, (context, expected))?;
        Ok(ParsedDuration { expr: inner.expr.wrap(open.span.to(close.span)), height: inner.height })
    }

    /// Parses a number, a duration or a call.
    fn simple_duration(&mut self, place: DurationUse) -> Result<ParsedDuration, ParseError> {
        let (context, expected) = place.context();
        match self.token.kind {
            TokenKind::Number | TokenKind::Duration => {
                let NumberLiteral { value, duration, span } = self.number_literal()?;
                if out_of_range(value) {
                    return Err(self.error(span, "duration out of range"));
                }
                Ok(ParsedDuration::leaf(DurationNode::Number { seconds: value, duration }, span))
            }
            TokenKind::Word(word @ (Word::Step | Word::Range)) => {
                let name = self.take();
                self.expect(TokenKind::LeftParen, (context, expected))?;
                let close = self.expect(TokenKind::RightParen, (context, expected))?;
                let span = name.span.to(close.span);
                self.duration_expressions_enabled(span)?;
                let node = if word == Word::Step { DurationNode::Step } else { DurationNode::Range };
                Ok(ParsedDuration::leaf(node, span))
            }
            TokenKind::Word(word @ (Word::MinOf | Word::MaxOf)) => {
                let name = self.take();
                self.expect(TokenKind::LeftParen, (context, expected))?;
                let a = self.duration(0, place)?;
                self.expect(TokenKind::Comma, (context, expected))?;
                let b = self.duration(0, place)?;
                let close = self.expect(TokenKind::RightParen, (context, expected))?;
                let span = name.span.to(close.span);
                self.duration_expressions_enabled(span)?;
                let height = self.above(a.height.max(b.height), span)?;
                let node = if word == Word::MinOf { DurationNode::MinOf } else { DurationNode::MaxOf };
                let node = node(a.expr.boxed(), b.expr.boxed());
                Ok(ParsedDuration { expr: DurationExpr { node, wrapped: false, span }, height })
            }
            _ => Err(self.unexpected(context, expected)),
        }
    }

    /// Applies a sign. A plus is dropped.
    fn negated_if(&self, sign: Token, operand: ParsedDuration) -> Result<ParsedDuration, ParseError> {
        let ParsedDuration { mut expr, height } = operand;
        let minus = sign.kind == TokenKind::Op(BinaryOp::Sub);
        if let DurationNode::Number { seconds, .. } = &mut expr.node
            && !expr.wrapped
        {
            if minus {
                *seconds = -*seconds;
            }
            expr.span.start = sign.span.start;
            return Ok(ParsedDuration { expr, height });
        }
        if !minus {
            return Ok(ParsedDuration { expr, height });
        }
        let span = sign.span.to(expr.span);
        let height = self.above(height, span)?;
        Ok(ParsedDuration {
            expr: DurationExpr { node: DurationNode::Negate(expr.boxed()), wrapped: false, span },
            height,
        })
    }

    fn duration_expressions_enabled(&self, span: Span) -> Result<(), ParseError> {
        if self.options.duration_expressions {
            Ok(())
        } else {
            Err(self.error(span, "experimental duration expression is not enabled"))
        }
    }
}
