//! Parses what follows an operand: `offset`, `@`, ranges, subqueries, `anchored` and `smoothed`.

use model::Timestamp;

use crate::syntax::ast::{
    At, Boundary, DurationArg, Expr, MatrixSelector, Span, SubqueryExpr, VectorSelector,
};
use crate::syntax::error::ParseError;
use crate::syntax::parser::duration::DurationUse;
use crate::syntax::parser::{ErrorContext, ParsedExpr, Parser};
use crate::syntax::token::{Token, TokenKind, Word};

const ONLY_SELECTORS: &str = "ranges only allowed for vector selectors";

/// The modifiers of a selector or subquery, independent of the node that stores them.
struct Modifiable<'a> {
    offset: &'a mut DurationArg,
    at: &'a mut Option<At>,
    /// End of the expression that has these modifiers.
    end: &'a mut u32,
}

/// The modifiers of `expr`, or `None` if it cannot have any.
fn modifiable(expr: &mut Expr) -> Option<Modifiable<'_>> {
    match expr {
        Expr::Vector(v) => Some(Modifiable { offset: &mut v.offset, at: &mut v.at, end: &mut v.span.end }),
        Expr::Matrix(m) => {
            let v = &mut m.selector;
            Some(Modifiable { offset: &mut v.offset, at: &mut v.at, end: &mut m.span.end })
        }
        Expr::Subquery(s) => Some(Modifiable { offset: &mut s.offset, at: &mut s.at, end: &mut s.span.end }),
        _ => None,
    }
}

impl Parser<'_> {
    /// Parses all modifiers after `operand`.
    pub(super) fn postfix(&mut self, mut operand: ParsedExpr) -> Result<ParsedExpr, ParseError> {
        loop {
            match self.token.kind {
                TokenKind::Word(Word::Offset) => self.offset(&mut operand.expr)?,
                TokenKind::At => self.at(&mut operand.expr)?,
                TokenKind::Word(Word::Anchored) => self.boundary(&mut operand.expr, Boundary::Anchored)?,
                TokenKind::Word(Word::Smoothed) => self.boundary(&mut operand.expr, Boundary::Smoothed)?,
                TokenKind::LeftBracket => operand = self.brackets(operand)?,
                _ => return Ok(operand),
            }
        }
    }

    fn offset(&mut self, expr: &mut Expr) -> Result<(), ParseError> {
        self.take();
        let length = self.offset_length()?;
        let (span, end) = (expr.span(), self.end);
        let Some(modifiable) = modifiable(expr) else {
            let message = "offset modifier must be preceded by an instant vector selector or range vector selector \
                           or a subquery";
            return Err(self.error(span, message));
        };
        if *modifiable.offset != DurationArg::ZERO {
            return Err(self.error(span, "offset may not be set multiple times"));
        }
        *modifiable.offset = length;
        *modifiable.end = end;
        Ok(())
    }

    fn at(&mut self, expr: &mut Expr) -> Result<(), ParseError> {
        const CONTEXT: ErrorContext = ("@", "timestamp");
        self.take();
        let at = match self.token.kind {
            TokenKind::Word(word @ (Word::Start | Word::End)) => {
                self.take();
                self.expect(TokenKind::LeftParen, CONTEXT)?;
                self.expect(TokenKind::RightParen, CONTEXT)?;
                if word == Word::Start { At::Start } else { At::End }
            }
            _ => {
                let seconds = self.signed_number()?.ok_or_else(|| self.unexpected(CONTEXT.0, CONTEXT.1))?;
                if !(seconds > i64::MIN as f64 && seconds < i64::MAX as f64) {
                    let shown = match seconds {
                        s if s == f64::INFINITY => "+Inf".to_owned(),
                        s if s == f64::NEG_INFINITY => "-Inf".to_owned(),
                        s => format!("{s:.6}"),
                    };
                    let message = format!("timestamp out of bounds for @ modifier: {shown}");
                    return Err(self.error(expr.span(), message));
                }
                At::Time(Timestamp::from_secs_f64(seconds))
            }
        };
        let (span, end) = (expr.span(), self.end);
        let Some(modifiable) = modifiable(expr) else {
            let message = "@ modifier must be preceded by an instant vector selector or range vector selector or a \
                           subquery";
            return Err(self.error(span, message));
        };
        if modifiable.at.is_some() {
            return Err(self.error(span, "@ <timestamp> may not be set multiple times"));
        }
        *modifiable.at = Some(at);
        *modifiable.end = end;
        Ok(())
    }

    fn boundary(&mut self, expr: &mut Expr, boundary: Boundary) -> Result<(), ParseError> {
        let word = if boundary == Boundary::Anchored { "anchored" } else { "smoothed" };
        self.take();
        let (span, end) = (expr.span(), self.end);
        let fail = |parser: &Self, message: String| Err(parser.error(span, message));
        if !self.options.extended_range_selectors {
            return fail(self, format!("{word} modifier is experimental and not enabled"));
        }
        let selector: &mut VectorSelector = match expr {
            Expr::Vector(selector) => {
                selector.span.end = end;
                selector
            }
            Expr::Matrix(matrix) => {
                matrix.span.end = end;
                &mut matrix.selector
            }
            Expr::Subquery(_) => {
                return fail(self, format!("{word} modifier is not supported for subqueries"));
            }
            _ => return fail(self, format!("{word} modifier not implemented")),
        };
        if selector.boundary != Boundary::Plain && selector.boundary != boundary {
            return fail(self, "anchored and smoothed modifiers cannot be used together".to_owned());
        }
        selector.boundary = boundary;
        Ok(())
    }

    /// Parses `[range]` or `[range:step]`.
    fn brackets(&mut self, operand: ParsedExpr) -> Result<ParsedExpr, ParseError> {
        let open = self.take();
        let range = self.positive_length(DurationUse::Range)?;
        if self.accept(TokenKind::Colon) {
            return self.subquery(operand, range);
        }
        self.expect(TokenKind::RightBracket, ("subquery or range", "\":\" or \"]\""))?;
        self.matrix(operand.expr, open, range).map(ParsedExpr::leaf)
    }

    fn matrix(&self, expr: Expr, open: Token, range: DurationArg) -> Result<Expr, ParseError> {
        let fail = |message| Err(self.error(open.span, message));
        let Expr::Vector(selector) = expr else {
            return fail(ONLY_SELECTORS);
        };
        if selector.offset != DurationArg::ZERO {
            return fail("no offset modifiers allowed before range");
        }
        if selector.at.is_some() {
            return fail("no @ modifiers allowed before range");
        }
        let span = Span::new(selector.span.start, self.end);
        Ok(Expr::Matrix(Box::new(MatrixSelector { selector: *selector, range, span })))
    }

    fn subquery(&mut self, operand: ParsedExpr, range: DurationArg) -> Result<ParsedExpr, ParseError> {
        let step = match self.token.kind {
            TokenKind::RightBracket => None,
            _ => Some(self.positive_length(DurationUse::Step)?),
        };
        self.expect(TokenKind::RightBracket, ("subquery selector", "\"]\""))?;
        let span = Span::new(operand.expr.span().start, self.end);
        let height = self.above(operand.height, span)?;
        let expr = Expr::Subquery(Box::new(SubqueryExpr {
            expr: operand.expr,
            range,
            step,
            offset: DurationArg::ZERO,
            at: None,
            span,
        }));
        Ok(ParsedExpr { expr, height })
    }
}
