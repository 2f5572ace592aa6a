//! The labels of one series, as test scripts write them: `up{job="api"}`.

use model::{Labels, LabelsBuilder, METRIC_NAME};

use crate::syntax::ParseOptions;
use crate::syntax::error::ParseError;
use crate::syntax::parser::{Parser, is_metric_name};
use crate::syntax::token::Kind;

const CONTEXT: &str = "label set";

/// Parses the labels at the start of `text`; gives them and where the rest begins.
///
/// Braces belong to the labels only directly behind the name.
pub(crate) fn parse_labels_prefix(text: &str) -> Result<(Labels, usize), ParseError> {
    let options = ParseOptions::default();
    let mut parser = Parser::new(text, &options)?;
    let mut labels = LabelsBuilder::new();
    let first = parser.token;
    let braces = match first.kind {
        Kind::LeftBrace => true,
        kind if is_metric_name(kind) => {
            parser.take();
            labels.set(METRIC_NAME, first.text(text));
            parser.token.kind == Kind::LeftBrace && parser.token.span.start == first.span.end
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
    /// Parses pairs up to the closing brace. A string alone is the metric name.
    fn label_set(&mut self, labels: &mut LabelsBuilder) -> Result<(), ParseError> {
        while !self.accept(Kind::RightBrace) {
            let token = self.token;
            let name = match token.kind {
                Kind::Identifier => token.text(self.text).to_owned(),
                Kind::String => self.unquoted(token)?,
                _ => return Err(self.unexpected(CONTEXT, "identifier or \"}\"")),
            };
            self.take();
            if self.accept(Kind::Assign) {
                let value = self.expect(Kind::String, (CONTEXT, "string"))?;
                labels.set(&name, &self.unquoted(value)?);
            } else if token.kind == Kind::String {
                labels.set(METRIC_NAME, &name);
            } else {
                return Err(self.unexpected(CONTEXT, "\"=\""));
            }
            if !self.accept(Kind::Comma) && self.token.kind != Kind::RightBrace {
                return Err(self.unexpected(CONTEXT, "\",\" or \"}\""));
            }
        }
        Ok(())
    }
}
