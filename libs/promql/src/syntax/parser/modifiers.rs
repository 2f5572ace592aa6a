//! Parses the modifiers between a binary operator and its right operand, and the label lists of groupings.

use crate::syntax::ast::{BinaryOp, Cardinality, VectorMatching};
use crate::syntax::error::ParseError;
use crate::syntax::parser::Parser;
use crate::syntax::quote::quoted;
use crate::syntax::token::{TokenKind, Word};

/// The modifiers of a binary operator.
pub(super) struct BinaryModifiers {
    pub(super) return_bool: bool,
    pub(super) matching: VectorMatching,
}

impl Parser<'_> {
    /// Parses `bool`, then `on` or `ignoring`, then `group_left` or `group_right`, then `fill`. All are
    /// optional.
    pub(super) fn binary_modifiers(&mut self) -> Result<BinaryModifiers, ParseError> {
        let return_bool = self.accept_word(Word::Bool);
        let mut matching = VectorMatching::default();
        if let TokenKind::Word(word @ (Word::On | Word::Ignoring)) = self.token.kind {
            self.take();
            matching.on = word == Word::On;
            matching.labels = self.grouping_labels()?;
            if let TokenKind::Word(word @ (Word::GroupLeft | Word::GroupRight)) = self.token.kind {
                self.take();
                matching.cardinality =
                    if word == Word::GroupLeft { Cardinality::ManyToOne } else { Cardinality::OneToMany };
                // The list is optional if an operand or `fill` follows.
                if self.token.kind == TokenKind::LeftParen || !self.starts_expression() {
                    matching.include = self.grouping_labels()?;
                }
            }
        }
        self.fill(&mut matching)?;
        Ok(BinaryModifiers { return_bool, matching })
    }

    fn fill(&mut self, matching: &mut VectorMatching) -> Result<(), ParseError> {
        let TokenKind::Word(first @ (Word::Fill | Word::FillLeft | Word::FillRight)) = self.token.kind else {
            return Ok(());
        };
        self.take();
        let value = Some(self.fill_value()?);
        match first {
            Word::FillLeft => {
                matching.fill_left = value;
                if self.accept_word(Word::FillRight) {
                    matching.fill_right = Some(self.fill_value()?);
                }
            }
            Word::FillRight => {
                matching.fill_right = value;
                if self.accept_word(Word::FillLeft) {
                    matching.fill_left = Some(self.fill_value()?);
                }
            }
            _ => (matching.fill_left, matching.fill_right) = (value, value),
        }
        Ok(())
    }

    /// Parses a number in parentheses, with an optional sign.
    fn fill_value(&mut self) -> Result<f64, ParseError> {
        let unexpected = |parser: &Self| parser.unexpected_in_expression();
        if !self.accept(TokenKind::LeftParen) {
            return Err(unexpected(self));
        }
        let value = self.signed_number()?.ok_or_else(|| unexpected(self))?;
        if !self.accept(TokenKind::RightParen) {
            return Err(unexpected(self));
        }
        Ok(value)
    }

    /// Parses a number with an optional sign. Returns `None` if there is none.
    pub(super) fn signed_number(&mut self) -> Result<Option<f64>, ParseError> {
        let negative = match self.token.kind {
            TokenKind::Op(op @ (BinaryOp::Add | BinaryOp::Sub)) => {
                self.take();
                op == BinaryOp::Sub
            }
            _ => false,
        };
        if !matches!(self.token.kind, TokenKind::Number | TokenKind::Duration) {
            return Ok(None);
        }
        let value = self.number_literal()?.value;
        Ok(Some(if negative { -value } else { value }))
    }

    /// Parses `by (...)` or `without (...)`. Returns the labels and whether it was `without`.
    pub(super) fn grouping(&mut self) -> Result<Option<(Vec<String>, bool)>, ParseError> {
        let TokenKind::Word(word @ (Word::By | Word::Without)) = self.token.kind else {
            return Ok(None);
        };
        self.take();
        Ok(Some((self.grouping_labels()?, word == Word::Without)))
    }

    /// Parses label names in parentheses. Any word except `without` can be a name; other texts need quotes.
    fn grouping_labels(&mut self) -> Result<Vec<String>, ParseError> {
        const CONTEXT: &str = "grouping opts";
        self.expect(TokenKind::LeftParen, (CONTEXT, "\"(\""))?;
        let mut labels = Vec::new();
        while !self.accept(TokenKind::RightParen) {
            if !is_label(self.token.kind) {
                return Err(self.unexpected(CONTEXT, "label"));
            }
            let token = self.take();
            let label = match token.kind {
                TokenKind::String => self.unquoted(token)?,
                _ => token.text(self.text).to_owned(),
            };
            if label.is_empty() {
                let message = format!("invalid label name for grouping: {}", quoted(&label));
                return Err(self.error(token.span, message));
            }
            labels.push(label);
            if !self.accept(TokenKind::Comma) && self.token.kind != TokenKind::RightParen {
                return Err(self.unexpected(CONTEXT, "\",\" or \")\""));
            }
        }
        Ok(labels)
    }
}

/// Whether the token can be a label name in a grouping.
fn is_label(kind: TokenKind) -> bool {
    match kind {
        TokenKind::Identifier | TokenKind::MetricIdentifier | TokenKind::String | TokenKind::Aggregate(_) => {
            true
        }
        TokenKind::Op(op) => op.is_set() || op == BinaryOp::Atan2,
        TokenKind::Word(word) => word != Word::Without,
        _ => false,
    }
}
