//! Parses tokens into a syntax tree: a hand-written operator-precedence parser.
//!
//! The parser reads the text once, from left to right, with one token of lookahead, and stops at the first
//! error. It handles a chain of operators in a loop and recurses only into nested text. It limits the height
//! of the tree while building it, so that neither a long nor a deeply nested text can exhaust the stack.
//!
//! The messages are those of Prometheus, whose parser is generated from a grammar. That parser names the
//! innermost construct in which it expects something else ("in grouping opts", "in aggregation"). The files
//! here name the same constructs at the same positions.

mod duration;
mod expression;
#[cfg(any(test, feature = "promqltest"))]
mod metric;
mod modifiers;
mod postfix;
mod selector;

#[cfg(any(test, feature = "promqltest"))]
pub(crate) use metric::parse_labels_prefix;
use model::Matcher;

use crate::syntax::ParseOptions;
use crate::syntax::ast::{Expr, MAX_HEIGHT, MAX_OPERANDS, Span};
use crate::syntax::check::check;
use crate::syntax::error::ParseError;
use crate::syntax::lexer::Lexer;
use crate::syntax::token::{Token, TokenKind, Word};

/// The longest text that is accepted, in bytes.
pub const MAX_LENGTH_BYTES: usize = 512 << 10;

/// Most memory for all compiled regular expressions of a text together, in bytes. It also limits the time for
/// compiling them.
pub const MAX_REGEX_BYTES: usize = 64 << 20;

/// The message for expressions that need more.
pub(crate) fn too_large_regexes() -> String {
    format!("regular expressions need more than {} MiB together", MAX_REGEX_BYTES >> 20)
}

/// Parses an expression and checks its types.
///
/// If the text is not an expression that Prometheus accepts, is longer than [`MAX_LENGTH_BYTES`], has more
/// operands than [`MAX_OPERANDS`], is nested deeper than [`MAX_HEIGHT`], or has regular expressions that need
/// more memory than [`MAX_REGEX_BYTES`].
///
/// ```
/// use promql::{ParseOptions, parse};
/// let expr = parse("sum by (job) (rate(up[5m]))", &ParseOptions::default()).unwrap();
/// assert_eq!(expr.to_string(), "sum by (job) (rate(up[5m]))");
/// let error = parse("sum(up", &ParseOptions::default()).unwrap_err();
/// assert_eq!(error.to_string(), "1:7: parse error: unclosed left parenthesis");
/// ```
pub fn parse(text: &str, options: &ParseOptions) -> Result<Expr, ParseError> {
    let mut parser = Parser::new(text, options)?;
    if parser.token.kind == TokenKind::End {
        return Err(parser.error(Span::default(), "no expression found in input"));
    }
    let ParsedExpr { mut expr, .. } = parser.expression(0)?;
    if parser.token.kind != TokenKind::End {
        return Err(parser.unexpected("", ""));
    }
    check(&mut expr, text)?;
    Ok(expr)
}

/// Parses a series selector such as `up{job="api"}`, the form of the `match[]` parameter of the HTTP API.
///
/// # Errors
/// If the text is not a selector. A selector that matches all series is accepted; a caller that cannot allow
/// it has to reject it.
pub fn parse_selector(text: &str) -> Result<Vec<Matcher>, ParseError> {
    let options = ParseOptions::default();
    let mut parser = Parser::new(text, &options)?;
    let selector = match parser.token.kind {
        TokenKind::LeftBrace => parser.selector(None)?,
        kind if is_metric_name(kind) => {
            let name = parser.take();
            parser.selector(Some(name))?
        }
        _ => return Err(parser.unexpected("", "")),
    };
    match parser.token.kind {
        TokenKind::End => Ok(selector.matchers),
        _ => Err(parser.unexpected("", "")),
    }
}

/// An expression and the height of its tree.
struct ParsedExpr {
    expr: Expr,
    height: usize,
}

impl ParsedExpr {
    /// A node without children.
    fn leaf(expr: Expr) -> Self {
        Self { expr, height: 1 }
    }
}

struct Parser<'a> {
    text: &'a str,
    options: &'a ParseOptions,
    lexer: Lexer<'a>,
    /// The current token, which was not consumed yet.
    token: Token,
    /// End of the last token that was consumed.
    end: u32,
    /// Number of operands so far.
    operands: usize,
    /// Memory of the regular expressions so far.
    regex_bytes: usize,
    /// Number of active calls of [`expression`](Self::expression).
    depth: usize,
    /// Number of open aggregations. Errors inside an aggregation name it.
    aggregations: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str, options: &'a ParseOptions) -> Result<Self, ParseError> {
        if text.len() > MAX_LENGTH_BYTES {
            let message = format!(
                "expression of {} bytes is longer than the limit of {MAX_LENGTH_BYTES} bytes",
                text.len()
            );
            return Err(ParseError::new(text, Span::default(), message));
        }
        let mut lexer = Lexer::new(text);
        let token = lexer.next_token();
        Ok(Parser {
            text,
            options,
            lexer,
            token,
            end: 0,
            operands: 0,
            regex_bytes: 0,
            depth: 0,
            aggregations: 0,
        })
    }

    /// Consumes the current token and reads the next one.
    fn take(&mut self) -> Token {
        let taken = self.token;
        // Tokens after a lexer error are not read, because they would hide it.
        if taken.kind != TokenKind::Error {
            self.token = self.lexer.next_token();
            self.end = taken.span.end;
        }
        taken
    }

    /// Consumes the current token if it is a `kind`. Returns whether it was.
    fn accept(&mut self, kind: TokenKind) -> bool {
        let found = self.token.kind == kind;
        if found {
            self.take();
        }
        found
    }

    fn accept_word(&mut self, word: Word) -> bool {
        self.accept(TokenKind::Word(word))
    }

    /// Consumes the current token, which must be a `kind`. The error names the construct `context`.
    fn expect(&mut self, kind: TokenKind, (context, expected): ErrorContext) -> Result<Token, ParseError> {
        if self.token.kind == kind { Ok(self.take()) } else { Err(self.unexpected(context, expected)) }
    }

    fn error(&self, span: Span, message: impl Into<String>) -> ParseError {
        ParseError::new(self.text, span, message)
    }

    /// The error for a token that is not allowed here.
    fn unexpected(&self, context: &str, expected: &str) -> ParseError {
        if let Some(why) = self.lexer.error() {
            return self.error(self.token.span, why);
        }
        let mut message = format!("unexpected {}", self.token.describe(self.text));
        if !context.is_empty() {
            message.push_str(" in ");
            message.push_str(context);
        }
        if !expected.is_empty() {
            message.push_str(", expected ");
            message.push_str(expected);
        }
        self.error(self.token.span, message)
    }

    /// The error for a token that is not allowed in or after an expression.
    fn unexpected_in_expression(&self) -> ParseError {
        self.unexpected(if self.aggregations > 0 { "aggregation" } else { "" }, "")
    }

    /// Fails if the current token is a lexer error. Such an error takes precedence over errors of meaning.
    fn lexed(&self) -> Result<(), ParseError> {
        if self.token.kind == TokenKind::Error { Err(self.unexpected("", "")) } else { Ok(()) }
    }

    /// Counts an operand, which starts with the current token.
    fn count_operand(&mut self) -> Result<(), ParseError> {
        self.operands += 1;
        if self.operands > MAX_OPERANDS {
            let message = format!("expression has more than the limit of {MAX_OPERANDS} operands");
            return Err(self.error(self.token.span, message));
        }
        Ok(())
    }

    /// The height of a node whose highest child has the height `below`.
    fn above(&self, below: usize, span: Span) -> Result<usize, ParseError> {
        if below >= MAX_HEIGHT {
            let message = format!("expression is nested deeper than the limit of {MAX_HEIGHT} levels");
            return Err(self.error(span, message));
        }
        Ok(below + 1)
    }

    /// Counts one level of nesting while `parse` runs.
    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T, ParseError>) -> Result<T, ParseError> {
        self.above(self.depth, self.token.span)?;
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }
}

/// The construct that an error names, and what was expected.
type ErrorContext = (&'static str, &'static str);

/// Whether a token's text can be the name of a metric.
fn is_metric_name(kind: TokenKind) -> bool {
    match kind {
        TokenKind::Identifier | TokenKind::MetricIdentifier | TokenKind::Aggregate(_) => true,
        TokenKind::Op(op) => op.is_set(),
        TokenKind::Word(word) => word.is_metric_name(),
        _ => false,
    }
}
