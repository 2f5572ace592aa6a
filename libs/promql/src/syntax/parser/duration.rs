//! Lengths of time: literals and expressions in ranges, steps and offsets.

use crate::syntax::ast::{BinaryOp, DurationExpr, DurationNode, Length, NumberLiteral, Span};
use crate::syntax::error::ParseError;
use crate::syntax::parser::{Context, Parser};
use crate::syntax::token::{Kind, Token, Word};

/// Where a length stands; mistakes are blamed on it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Range,
    Step,
    Offset,
}

impl Place {
    const fn context(self) -> Context {
        match self {
            Self::Range => ("subquery or range selector", "number, duration, step(), or range()"),
            Self::Step => ("subquery selector", "number, duration, step(), range(), or \"]\""),
            Self::Offset => ("offset", "number, duration, step(), or range()"),
        }
    }
}

/// How tightly an operator binds; `None` for those that lengths do not have.
const fn power(op: BinaryOp) -> Option<u8> {
    match op {
        BinaryOp::Add | BinaryOp::Sub => Some(1),
        BinaryOp::Mul | BinaryOp::Div | BinaryOp::Mod => Some(2),
        BinaryOp::Pow => Some(POWER_OF_POW),
        _ => None,
    }
}

const POWER_OF_POW: u8 = 3;

/// The number that `expr` is, unless it stands in parentheses.
fn literal(expr: &DurationExpr) -> Option<f64> {
    match expr.node {
        DurationNode::Number { seconds, .. } if !expr.wrapped => Some(seconds),
        _ => None,
    }
}

/// Whether so many seconds are more nanoseconds than 64 bits hold.
fn out_of_range(seconds: f64) -> bool {
    /// 2^63 nanoseconds, in seconds.
    const LIMIT: f64 = 9_223_372_036.854_776;
    !(-LIMIT..=LIMIT).contains(&seconds)
}

impl DurationExpr {
    fn boxed(self) -> Box<Self> {
        Box::new(self)
    }

    /// Marks it as standing in the parentheses at `span`.
    fn wrap(mut self, span: Span) -> Self {
        if matches!(self.node, DurationNode::Number { .. }) {
            self.span = span;
        }
        self.wrapped = true;
        self
    }

    /// A literal is known at once; all else when the query is planned.
    fn into_length(self) -> Length {
        match literal(&self) {
            // Rounded to nanoseconds, then cut to milliseconds.
            Some(seconds) => Length::Millis((seconds * 1e9).round() as i64 / 1_000_000),
            None => Length::Expr(self.boxed()),
        }
    }
}

/// A duration expression and the longest path down from it.
struct Parsed {
    expr: DurationExpr,
    height: usize,
}

impl Parsed {
    fn leaf(node: DurationNode, span: Span) -> Self {
        Self { expr: DurationExpr { node, wrapped: false, span }, height: 1 }
    }
}

impl Parser<'_> {
    /// Parses the length of a range or step; a literal has to be positive.
    pub(super) fn positive_length(&mut self, place: Place) -> Result<Length, ParseError> {
        let Parsed { expr, .. } = self.duration(0, place)?;
        self.lexed()?;
        // Written so that a number that is none is let through, as in Prometheus.
        if literal(&expr).is_some_and(|seconds| seconds <= 0.0) {
            return Err(self.error(expr.span, "duration must be greater than 0"));
        }
        Ok(expr.into_length())
    }

    /// Parses the length of an offset. Unlike in brackets, operators behind a simple length are not part of it: `foo offset
    /// 5m - bar` subtracts. Those behind one in parentheses are.
    pub(super) fn offset_length(&mut self) -> Result<Length, ParseError> {
        let sign = self.token;
        let signed = matches!(sign.kind, Kind::Op(BinaryOp::Add | BinaryOp::Sub));
        if !signed && self.token.kind == Kind::LeftParen {
            return Ok(self.duration(0, Place::Offset)?.expr.into_length());
        }
        if !signed {
            return Ok(self.simple_duration(Place::Offset)?.expr.into_length());
        }
        self.take();
        let operand = match self.token.kind {
            Kind::Op(BinaryOp::Add | BinaryOp::Sub) => {
                let operand = self.duration(POWER_OF_POW, Place::Offset)?;
                let first = self.negated_if(sign, operand)?;
                return Ok(self.duration_operators(first, 0, Place::Offset)?.expr.into_length());
            }
            Kind::LeftParen => self.parenthesized_duration(Place::Offset)?,
            _ => self.simple_duration(Place::Offset)?,
        };
        Ok(self.negated_if(sign, operand)?.expr.into_length())
    }

    fn duration(&mut self, least: u8, place: Place) -> Result<Parsed, ParseError> {
        self.nested(|parser| {
            let first = parser.duration_operand(place)?;
            parser.duration_operators(first, least, place)
        })
    }

    /// Parses operators behind `lhs` that bind at least as tightly as `least`.
    fn duration_operators(&mut self, mut lhs: Parsed, least: u8, place: Place) -> Result<Parsed, ParseError> {
        while let Kind::Op(op) = self.token.kind
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
            lhs = Parsed { expr: DurationExpr { node, wrapped: false, span }, height };
        }
        Ok(lhs)
    }

    /// Parses an operand with the signs before it.
    fn duration_operand(&mut self, place: Place) -> Result<Parsed, ParseError> {
        let mut signs = Vec::new();
        while let Kind::Op(BinaryOp::Add | BinaryOp::Sub) = self.token.kind {
            signs.push(self.take());
        }
        if signs.is_empty() {
            return match self.token.kind {
                Kind::LeftParen => {
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

    fn parenthesized_duration(&mut self, place: Place) -> Result<Parsed, ParseError> {
        let open = self.take();
        let inner = self.duration(0, place)?;
        let (context, expected) = place.context();
        let close = self.expect(Kind::RightParen, (context, expected))?;
        Ok(Parsed { expr: inner.expr.wrap(open.span.to(close.span)), height: inner.height })
    }

    /// Parses a number, a duration or a call.
    fn simple_duration(&mut self, place: Place) -> Result<Parsed, ParseError> {
        let (context, expected) = place.context();
        match self.token.kind {
            Kind::Number | Kind::Duration => {
                let NumberLiteral { value, duration, span } = self.number_literal()?;
                if out_of_range(value) {
                    return Err(self.error(span, "duration out of range"));
                }
                Ok(Parsed::leaf(DurationNode::Number { seconds: value, duration }, span))
            }
            Kind::Word(word @ (Word::Step | Word::Range)) => {
                let name = self.take();
                self.expect(Kind::LeftParen, (context, expected))?;
                let close = self.expect(Kind::RightParen, (context, expected))?;
                let span = name.span.to(close.span);
                self.duration_expressions_enabled(span)?;
                let node = if word == Word::Step { DurationNode::Step } else { DurationNode::Range };
                Ok(Parsed::leaf(node, span))
            }
            Kind::Word(word @ (Word::MinOf | Word::MaxOf)) => {
                let name = self.take();
                self.expect(Kind::LeftParen, (context, expected))?;
                let a = self.duration(0, place)?;
                self.expect(Kind::Comma, (context, expected))?;
                let b = self.duration(0, place)?;
                let close = self.expect(Kind::RightParen, (context, expected))?;
                let span = name.span.to(close.span);
                self.duration_expressions_enabled(span)?;
                let height = self.above(a.height.max(b.height), span)?;
                let node = if word == Word::MinOf { DurationNode::MinOf } else { DurationNode::MaxOf };
                let node = node(a.expr.boxed(), b.expr.boxed());
                Ok(Parsed { expr: DurationExpr { node, wrapped: false, span }, height })
            }
            _ => Err(self.unexpected(context, expected)),
        }
    }

    /// Applies a sign; a plus leaves no trace.
    fn negated_if(&self, sign: Token, operand: Parsed) -> Result<Parsed, ParseError> {
        let Parsed { mut expr, height } = operand;
        let minus = sign.kind == Kind::Op(BinaryOp::Sub);
        if let DurationNode::Number { seconds, .. } = &mut expr.node
            && !expr.wrapped
        {
            if minus {
                *seconds = -*seconds;
            }
            expr.span.start = sign.span.start;
            return Ok(Parsed { expr, height });
        }
        if !minus {
            return Ok(Parsed { expr, height });
        }
        let span = sign.span.to(expr.span);
        let height = self.above(height, span)?;
        Ok(Parsed {
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
