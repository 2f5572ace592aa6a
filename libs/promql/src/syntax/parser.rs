//! Tokens to a syntax tree: a hand-written operator-precedence parser.
//!
//! It reads the text once, from left to right, with one token of lookahead, and stops at the first mistake. A chain of
//! operators is a loop; recursion happens only where the text nests, and the height of the tree is counted
//! while it grows, so that neither a long nor a deep text can exhaust the stack.
//!
//! The messages are those of Prometheus, whose parser is generated from a grammar. There, a mistake is reported by
//! the innermost construct that expects one ("in grouping opts", "in aggregation"); the files here name the same
//! constructs at the same places.

mod duration;
mod expression;
mod metric;
mod modifiers;
mod postfix;
mod selector;

pub(crate) use metric::parse_labels_prefix;
use model::Matcher;

use crate::syntax::ParseOptions;
use crate::syntax::ast::{Expr, MAX_HEIGHT, MAX_OPERANDS, Span};
use crate::syntax::check::check;
use crate::syntax::error::ParseError;
use crate::syntax::lexer::Lexer;
use crate::syntax::token::{Kind, Token, Word};

/// The longest text that is parsed, in bytes.
pub const MAX_LENGTH_BYTES: usize = 512 << 10;

/// Most memory of all regular expressions of a text when they are compiled, in bytes. It also bounds the time that takes.
pub const MAX_REGEX_BYTES: usize = 64 << 20;

/// What is said where they need more.
pub(crate) fn too_large_regexes() -> String {
    format!("regular expressions need more than {} MiB together", MAX_REGEX_BYTES >> 20)
}

/// Parses an expression and checks its types.
///
/// # Errors
/// Where the text is no expression that Prometheus would take, is longer than [`MAX_LENGTH_BYTES`], has more operands than
/// [`MAX_OPERANDS`], is nested deeper than [`MAX_HEIGHT`], or has regular expressions that need more than
/// [`MAX_REGEX_BYTES`].
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
    if parser.token.kind == Kind::End {
        return Err(parser.error(Span::default(), "no expression found in input"));
    }
    let Parsed { mut expr, .. } = parser.expression(0)?;
    if parser.token.kind != Kind::End {
        return Err(parser.unexpected("", ""));
    }
    check(&mut expr, text)?;
    Ok(expr)
}

/// Parses a series selector such as `up{job="api"}`, as the `match[]` parameter of the HTTP API holds it.
///
/// # Errors
/// Where the text is no selector. A selector that matches everything is none: it has to be refused by who
/// cannot bear it.
pub fn parse_selector(text: &str) -> Result<Vec<Matcher>, ParseError> {
    let options = ParseOptions::default();
    let mut parser = Parser::new(text, &options)?;
    let selector = match parser.token.kind {
        Kind::LeftBrace => parser.selector(None)?,
        kind if is_metric_name(kind) => {
            let name = parser.take();
            parser.selector(Some(name))?
        }
        _ => return Err(parser.unexpected("", "")),
    };
    match parser.token.kind {
        Kind::End => Ok(selector.matchers),
        _ => Err(parser.unexpected("", "")),
    }
}

/// An expression and the longest path down from it.
struct Parsed {
    expr: Expr,
    height: usize,
}

impl Parsed {
    /// A node without nodes below it.
    fn leaf(expr: Expr) -> Self {
        Self { expr, height: 1 }
    }
}

struct Parser<'a> {
    text: &'a str,
    options: &'a ParseOptions,
    lexer: Lexer<'a>,
    /// The token to be looked at.
    token: Token,
    /// End of the last token that was taken.
    end: u32,
    /// How many operands there were.
    operands: usize,
    /// Memory of the regular expressions so far.
    regex_bytes: usize,
    /// How many calls of [`expression`](Self::expression) are under way.
    depth: usize,
    /// How many aggregations are open, which is what a mistake inside them is blamed on.
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

    /// Takes the token and looks at the next one.
    fn take(&mut self) -> Token {
        let taken = self.token;
        // What follows a mistake of the lexer must not hide it.
        if taken.kind != Kind::Error {
            self.token = self.lexer.next_token();
            self.end = taken.span.end;
        }
        taken
    }

    /// Takes the token if it is a `kind`.
    fn accept(&mut self, kind: Kind) -> bool {
        let found = self.token.kind == kind;
        if found {
            self.take();
        }
        found
    }

    fn accept_word(&mut self, word: Word) -> bool {
        self.accept(Kind::Word(word))
    }

    /// Takes the token, which has to be a `kind`; else blames the construct `context`.
    fn expect(&mut self, kind: Kind, (context, expected): Context) -> Result<Token, ParseError> {
        if self.token.kind == kind { Ok(self.take()) } else { Err(self.unexpected(context, expected)) }
    }

    fn error(&self, span: Span, message: impl Into<String>) -> ParseError {
        ParseError::new(self.text, span, message)
    }

    /// The token stands where nothing of the kind can.
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

    /// The token stands where an expression could have, or behind one.
    fn unexpected_in_expression(&self) -> ParseError {
        self.unexpected(if self.aggregations > 0 { "aggregation" } else { "" }, "")
    }

    /// Fails where the token that was looked at is a mistake of the lexer, which comes before any mistake of meaning.
    fn lexed(&self) -> Result<(), ParseError> {
        if self.token.kind == Kind::Error { Err(self.unexpected("", "")) } else { Ok(()) }
    }

    /// Counts an operand, which begins with the token.
    fn count_operand(&mut self) -> Result<(), ParseError> {
        self.operands += 1;
        if self.operands > MAX_OPERANDS {
            let message = format!("expression has more than the limit of {MAX_OPERANDS} operands");
            return Err(self.error(self.token.span, message));
        }
        Ok(())
    }

    /// The height of a node above nodes of height `below`.
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

/// What a mistake is blamed on, and what would have been right.
type Context = (&'static str, &'static str);

/// Whether a metric may have the token's text as its name.
fn is_metric_name(kind: Kind) -> bool {
    match kind {
        Kind::Identifier | Kind::MetricIdentifier | Kind::Aggregate(_) => true,
        Kind::Op(op) => op.is_set(),
        Kind::Word(word) => word.is_metric_name(),
        _ => false,
    }
}
