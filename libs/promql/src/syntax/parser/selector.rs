//! Parses series selectors.

use model::{METRIC_NAME, MatchOp, Matcher};

use crate::syntax::ast::{BinaryOp, Boundary, DurationArg, VectorSelector};
use crate::syntax::error::ParseError;
use crate::syntax::parser::{MAX_REGEX_BYTES, Parser, too_large_regexes};
use crate::syntax::token::{Token, TokenKind};

const CONTEXT: &str = "label matching";

impl Parser<'_> {
    /// Parses a selector after its `name`. Braces are optional after a name and required without one.
    pub(super) fn selector(&mut self, name: Option<Token>) -> Result<VectorSelector, ParseError> {
        let mut span = name.map_or(self.token.span, |name| name.span);
        let mut matchers = Vec::new();
        if self.token.kind == TokenKind::LeftBrace {
            self.take();
            matchers = self.label_matchers()?;
            span.end = self.end;
        }
        let name = name.map_or_else(String::new, |name| name.text(self.text).to_owned());
        if !name.is_empty() {
            matchers.push(Matcher::equal(METRIC_NAME, &name));
        }
        Ok(VectorSelector {
            name,
            matchers,
            offset: DurationArg::ZERO,
            at: None,
            boundary: Boundary::Plain,
            span,
        })
    }

    /// Parses matchers up to the closing brace.
    fn label_matchers(&mut self) -> Result<Vec<Matcher>, ParseError> {
        let mut matchers = Vec::new();
        if self.accept(TokenKind::RightBrace) {
            return Ok(matchers);
        }
        loop {
            matchers.push(self.label_matcher()?);
            if self.accept(TokenKind::RightBrace) {
                return Ok(matchers);
            }
            self.expect(TokenKind::Comma, (CONTEXT, "\",\" or \"}\""))?;
            if self.accept(TokenKind::RightBrace) {
                return Ok(matchers);
            }
        }
    }

    /// Parses `name op "value"`, or a quoted metric name without operator.
    fn label_matcher(&mut self) -> Result<Matcher, ParseError> {
        let token = self.token;
        let name = match token.kind {
            TokenKind::Identifier => {
                self.take();
                token.text(self.text).to_owned()
            }
            TokenKind::String => {
                self.take();
                self.unquoted(token)?
            }
            _ => return Err(self.unexpected(CONTEXT, "identifier or \"}\"")),
        };
        let op = match self.token.kind {
            TokenKind::Assign => MatchOp::Equal,
            TokenKind::Op(BinaryOp::Ne) => MatchOp::NotEqual,
            TokenKind::MatchRegex => MatchOp::Regex,
            TokenKind::MatchNotRegex => MatchOp::NotRegex,
            _ if token.kind == TokenKind::String => return Ok(Matcher::equal(METRIC_NAME, &name)),
            _ => return Err(self.unexpected(CONTEXT, "label matching operator")),
        };
        self.take();
        let value = self.expect(TokenKind::String, (CONTEXT, "string"))?;
        let (place, literal) = (token.span.to(value.span), self.string_literal(value)?);
        if matches!(op, MatchOp::Regex | MatchOp::NotRegex) && literal.not_utf8.is_some() {
            let from = literal.value.find('\u{fffd}').unwrap_or(0);
            let why = format!("error parsing regexp: invalid UTF-8: `{}`", &literal.value[from..]);
            return Err(self.error(place, why));
        }
        let matcher = Matcher::new(op, &name, &literal.value)
            .map_err(|error| self.error(place, error.cause().to_string()))?;
        self.regex_bytes += matcher.regex_bytes();
        if self.regex_bytes > MAX_REGEX_BYTES {
            return Err(self.error(place, too_large_regexes()));
        }
        Ok(matcher)
    }
}
