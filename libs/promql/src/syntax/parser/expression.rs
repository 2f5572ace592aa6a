//! Parses operators, parentheses, calls and aggregations.

use crate::syntax::ast::{
    AggregateExpr, AggregateOp, BinaryExpr, BinaryOp, Call, Expr, NumberLiteral, ParenExpr, Span,
    StringLiteral, UnaryExpr, UnaryOp,
};
use crate::syntax::error::ParseError;
use crate::syntax::functions::{Function, FunctionGate, ValueType};
use crate::syntax::number::{parse_duration, parse_number};
use crate::syntax::parser::{ParsedExpr, Parser, is_metric_name};
use crate::syntax::quote::{quoted, quoted_bytes, unquote, unquote_bytes};
use crate::syntax::token::{Token, TokenKind, Word};

/// The precedence of an operator.
fn power(op: BinaryOp) -> u8 {
    use BinaryOp::{
        Add, And, Atan2, Div, Eq, Ge, Gt, Le, Lt, Mod, Mul, Ne, Or, Pow, Sub, TrimLower, TrimUpper, Unless,
    };
    match op {
        Or => 1,
        And | Unless => 2,
        Eq | Ne | Lt | Le | Gt | Ge | TrimUpper | TrimLower => 3,
        Add | Sub => 4,
        Mul | Div | Mod | Atan2 => 5,
        Pow => POWER_OF_POW,
    }
}

/// `^` has the highest precedence, higher than that of a sign: `-1 ^ 2` is `-(1 ^ 2)`.
const POWER_OF_POW: u8 = 6;

impl Parser<'_> {
    /// Parses an expression whose operators have at least the precedence `least`.
    pub(super) fn expression(&mut self, least: u8) -> Result<ParsedExpr, ParseError> {
        self.nested(|parser| {
            let mut lhs = parser.operand()?;
            while let TokenKind::Op(op) = parser.token.kind
                && power(op) >= least
            {
                parser.take();
                lhs = parser.binary(lhs, op)?;
            }
            Ok(lhs)
        })
    }

    /// Parses what follows a binary operator.
    fn binary(&mut self, lhs: ParsedExpr, op: BinaryOp) -> Result<ParsedExpr, ParseError> {
        let modifiers = self.binary_modifiers()?;
        // All operators except `^` are left-associative.
        let rhs = self.expression(if op == BinaryOp::Pow { POWER_OF_POW } else { power(op) + 1 })?;
        let span = lhs.expr.span().to(rhs.expr.span());
        if modifiers.matching.fill_left.or(modifiers.matching.fill_right).is_some()
            && !self.options.fill_modifiers
        {
            self.lexed()?;
            return Err(self.error(span, "binop fill modifiers are experimental and not enabled"));
        }
        // The left side of a chain does not add to the height; see `chain`.
        let height = match lhs.expr {
            Expr::Binary(_) => lhs.height.max(self.above(rhs.height, span)?),
            _ => self.above(lhs.height.max(rhs.height), span)?,
        };
        let scalars = [&lhs, &rhs].iter().all(|side| side.expr.value_type() == ValueType::Scalar);
        let expr = Expr::Binary(Box::new(BinaryExpr {
            op,
            lhs: lhs.expr,
            rhs: rhs.expr,
            matching: Some(modifiers.matching),
            return_bool: modifiers.return_bool,
            value_type: if scalars { ValueType::Scalar } else { ValueType::Vector },
            span,
        }));
        Ok(ParsedExpr { expr, height })
    }

    /// Parses an operand and the signs before it.
    fn operand(&mut self) -> Result<ParsedExpr, ParseError> {
        let mut signs = Vec::new();
        while let TokenKind::Op(op @ (BinaryOp::Add | BinaryOp::Sub)) = self.token.kind {
            signs.push((if op == BinaryOp::Add { UnaryOp::Plus } else { UnaryOp::Minus }, self.token.span));
            self.take();
        }
        if signs.is_empty() {
            return self.primary();
        }
        let mut operand = self.expression(POWER_OF_POW)?;
        for (op, sign) in signs.into_iter().rev() {
            if let Expr::Number(number) = &mut operand.expr {
                if op == UnaryOp::Minus {
                    number.value = -number.value;
                }
                number.span.start = sign.start;
                continue;
            }
            let span = sign.to(operand.expr.span());
            let height = self.above(operand.height, span)?;
            let expr = Expr::Unary(Box::new(UnaryExpr { op, expr: operand.expr, span }));
            operand = ParsedExpr { expr, height };
        }
        Ok(operand)
    }

    /// Parses an operand without signs, and the modifiers after it.
    fn primary(&mut self) -> Result<ParsedExpr, ParseError> {
        self.count_operand()?;
        let first = self.token;
        let operand = match first.kind {
            TokenKind::Number | TokenKind::Duration => ParsedExpr::leaf(Expr::Number(self.number_literal()?)),
            TokenKind::String => {
                self.take();
                ParsedExpr::leaf(Expr::String(self.string_literal(first)?))
            }
            TokenKind::LeftParen => self.parentheses()?,
            TokenKind::LeftBrace => ParsedExpr::leaf(Expr::Vector(Box::new(self.selector(None)?))),
            kind if is_metric_name(kind) => {
                self.take();
                self.named(first)?
            }
            _ => return Err(self.unexpected_in_expression()),
        };
        self.postfix(operand)
    }

    /// Parses an expression that starts with a name: a call, an aggregation or a selector.
    fn named(&mut self, name: Token) -> Result<ParsedExpr, ParseError> {
        match (name.kind, self.token.kind) {
            (TokenKind::Aggregate(op), TokenKind::LeftParen | TokenKind::Word(Word::By | Word::Without)) => {
                self.aggregate(op, name)
            }
            (TokenKind::Identifier, TokenKind::LeftParen) => self.call(name),
            (TokenKind::Word(word), TokenKind::LeftParen) if word.is_function() => self.call(name),
            _ => Ok(ParsedExpr::leaf(Expr::Vector(Box::new(self.selector(Some(name))?)))),
        }
    }

    fn parentheses(&mut self) -> Result<ParsedExpr, ParseError> {
        let open = self.take();
        let inner = self.expression(0)?;
        if self.token.kind != TokenKind::RightParen {
            return Err(self.unexpected_in_expression());
        }
        let span = open.span.to(self.take().span);
        let height = self.above(inner.height, span)?;
        Ok(ParsedExpr { expr: Expr::Paren(Box::new(ParenExpr { expr: inner.expr, span })), height })
    }

    fn call(&mut self, name: Token) -> Result<ParsedExpr, ParseError> {
        let (args, height) = self.arguments()?;
        let text = name.text(self.text);
        let function = Function::find(text)
            .filter(|f| f.gate != FunctionGate::Extended || self.options.extended_functions)
            .ok_or_else(|| self.error(name.span, format!("unknown function with name {}", quoted(text))))?;
        if function.gate == FunctionGate::Experimental && !self.options.experimental_functions {
            return Err(self.error(name.span, format!("function {} is not enabled", quoted(text))));
        }
        let span = Span::new(name.span.start, self.end);
        let height = self.above(height, span)?;
        Ok(ParsedExpr { expr: Expr::Call(Box::new(Call { function, args, span })), height })
    }

    /// Parses arguments in parentheses. Also returns the height of the highest argument.
    fn arguments(&mut self) -> Result<(Vec<Expr>, usize), ParseError> {
        self.take();
        let (mut args, mut height) = (Vec::new(), 0);
        if self.accept(TokenKind::RightParen) {
            return Ok((args, height));
        }
        loop {
            let arg = self.expression(0)?;
            height = height.max(arg.height);
            args.push(arg.expr);
            if self.accept(TokenKind::RightParen) {
                return Ok((args, height));
            }
            if self.token.kind != TokenKind::Comma {
                return Err(self.unexpected_in_expression());
            }
            let comma = self.take();
            self.lexed()?;
            if !self.starts_expression() {
                return Err(self.error(comma.span, "trailing commas not allowed in function call args"));
            }
        }
    }

    /// Whether an expression can start with the current token.
    pub(super) fn starts_expression(&self) -> bool {
        match self.token.kind {
            TokenKind::Number
            | TokenKind::Duration
            | TokenKind::String
            | TokenKind::LeftParen
            | TokenKind::LeftBrace => true,
            TokenKind::Op(BinaryOp::Add | BinaryOp::Sub) => true,
            kind => is_metric_name(kind),
        }
    }

    fn aggregate(&mut self, op: AggregateOp, name: Token) -> Result<ParsedExpr, ParseError> {
        self.aggregations += 1;
        let before = self.grouping()?;
        if self.token.kind != TokenKind::LeftParen {
            return Err(self.unexpected_in_expression());
        }
        let (args, height) = self.arguments()?;
        self.aggregations -= 1;
        let grouping = match before {
            Some(grouping) => Some(grouping),
            None => {
                self.lexed()?;
                self.grouping()?
            }
        };
        let (grouping, without) = grouping.unwrap_or_default();
        let span = Span::new(name.span.start, self.end);

        if args.is_empty() {
            return Err(self.error(span, "no arguments for aggregate expression provided"));
        }
        if op.is_experimental() && !self.options.experimental_functions {
            let message = format!(
                "{op}() is experimental and must be enabled with --enable-feature=promql-experimental-functions"
            );
            return Err(self.error(span, message));
        }
        let wanted = if op.parameter().is_some() { 2 } else { 1 };
        if args.len() != wanted {
            let message = format!(
                "wrong number of arguments for aggregate expression provided, expected {wanted}, got {}",
                args.len()
            );
            return Err(self.error(span, message));
        }
        let mut args = args.into_iter();
        let param = if wanted == 2 { args.next() } else { None };
        let Some(expr) = args.next() else {
            return Err(self.error(span, "no arguments for aggregate expression provided"));
        };
        let height = self.above(height, span)?;
        let expr = Expr::Aggregate(Box::new(AggregateExpr { op, expr, param, grouping, without, span }));
        Ok(ParsedExpr { expr, height })
    }

    /// Consumes a number or a duration.
    pub(super) fn number_literal(&mut self) -> Result<NumberLiteral, ParseError> {
        let token = self.take();
        let text = token.text(self.text);
        let duration = token.kind == TokenKind::Duration;
        let value = if duration {
            parse_duration(text).map(|millis| millis as f64 / 1000.0)
        } else {
            parse_number(text).map_err(|why| format!("error parsing number: {why}"))
        };
        let value = value.map_err(|why| self.error(token.span, why))?;
        Ok(NumberLiteral { value, duration, span: token.span })
    }

    /// A string token with its escapes resolved.
    pub(super) fn string_literal(&self, token: Token) -> Result<StringLiteral, ParseError> {
        let value = self.unquoted(token)?;
        // Only escapes can produce bytes that are not valid UTF-8, and only then is there a replacement character.
        let bytes = if value.contains('\u{fffd}') { unquote_bytes(token.text(self.text)) } else { None };
        let not_utf8 = bytes
            .filter(|bytes| std::str::from_utf8(bytes).is_err())
            .map(|bytes| quoted_bytes(&bytes).into());
        Ok(StringLiteral { value, not_utf8, span: token.span })
    }

    /// The text of a string token, without quotes and escapes.
    pub(super) fn unquoted(&self, token: Token) -> Result<String, ParseError> {
        let literal = token.text(self.text);
        unquote(literal).ok_or_else(|| {
            self.error(token.span, format!("error unquoting string {}: invalid syntax", quoted(literal)))
        })
    }
}
