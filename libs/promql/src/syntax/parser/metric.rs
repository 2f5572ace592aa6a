//! Parses the labels of one series, as written in test scripts: `up{job="api"}`.

use model::{Labels, LabelsBuilder, METRIC_NAME};

use crate::syntax::ParseOptions;
use crate::syntax::error::ParseError;
use crate::syntax::parser::{Parser, is_metric_name};
use crate::syntax::token::TokenKind;

const CONTEXT: &str = "label set";

/// Parses the labels at the start of `text`. Also returns the byte offset of the rest.
///
/// Braces belong to the labels only if they follow the name without a space.
pub(crate) fn parse_labels_prefix(text: &str) -> Result<(Labels, usize), ParseError> {
    let options = ParseOptions::default();
    let mut parser = Parser::new(text, &options)?;
    let mut labels = LabelsBuilder::new();
    let first = parser.token;
    let braces = match first.kind {
        TokenKind::LeftBrace => true,
        kind if is_metric_name(kind) => {
            parser.take();
            labels.set(METRIC_NAME, first.text(text));
            parser.token.kind == TokenKind::LeftBrace && parser.token.span.start == first.span.end
        }
        _ => return Err(parser.unexpected("", "")),
    };
    if braces {
        parser.take();
        parser.label_set(&mut labels)?;
    }
    Ok((labels.build(), parser.end as usize))
}

impl Parser<'_> {
    /// Parses labels up to the closing brace. A string without `=` is the metric name.
    fn label_set(&mut self, labels: &mut LabelsBuilder) -> Result<(), ParseError> {
        while !self.accept(TokenKind::RightBrace) {
            let token = self.token;
            let name = match token.kind {
                TokenKind::Identifier => token.text(self.text).to_owned(),
                TokenKind::String => self.unquoted(token)?,
                _ => return Err(self.unexpected(CONTEXT, "identifier or \"}\"")),
            };
            self.take();
            if self.accept(TokenKind::Assign) {
                let value = self.expect(TokenKind::String, (CONTEXT, "string"))?;
                labels.set(&name, &self.unquoted(value)?);
            } else if token.kind == TokenKind::String {
                labels.set(METRIC_NAME, &name);
            } else {
                return Err(self.unexpected(CONTEXT, "\"=\""));
            }
            if !self.accept(TokenKind::Comma) && self.token.kind != TokenKind::RightBrace {
                return Err(self.unexpected(CONTEXT, "\",\" or \"}\""));
            }
        }
        Ok(())
    }
}
