//! Why a text is not a valid expression, and where.

use std::fmt;

use crate::syntax::ast::Span;

/// An error in the text of an expression.
///
/// Displayed in the form of Prometheus: `1:5: parse error: unexpected end of input`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    message: String,
    span: Span,
    /// Line and column. `None` for an empty text.
    place: Option<(usize, usize)>,
}

impl ParseError {
    /// An error at `span` of `text`.
    pub(crate) fn new(text: &str, span: Span, message: impl Into<String>) -> Self {
        let place = (!text.is_empty()).then(|| span.line_column(text));
        Self { message: message.into(), span, place }
    }

    /// The message without the position.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The part of the text that is wrong. Its end is approximate.
    pub fn span(&self) -> Span {
        self.span
    }

    /// Line and column of the error. Both count from 1, the column in bytes. `None` for an empty text.
    pub fn line_column(&self) -> Option<(usize, usize)> {
        self.place
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some((line, column)) => write!(f, "{line}:{column}: parse error: {}", self.message),
            None => write!(f, "unknown position: parse error: {}", self.message),
        }
    }
}

impl std::error::Error for ParseError {}
