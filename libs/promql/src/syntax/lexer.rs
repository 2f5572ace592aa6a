//! Splits text into tokens.
//!
//! The meaning of a character depends on the brackets around it: inside braces there are no keywords; inside
//! brackets a colon separates range and step. The states are those of Prometheus' lexer, so that errors are
//! found at the same positions. As in Prometheus, words such as `offset` are ordinary names where no keyword
//! is allowed; the parser decides this.

use crate::syntax::ast::{BinaryOp, Span};
use crate::syntax::quote::{quoted, quoted_char};
use crate::syntax::token::{Token, TokenKind, Word, duration_word, reserved};

const fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

const fn is_alpha(c: char) -> bool {
    c == '_' || c.is_ascii_alphabetic()
}

const fn is_alphanumeric(c: char) -> bool {
    is_alpha(c) || c.is_ascii_digit()
}

/// Whether a duration word (`step`, `range`, `min_of`, `max_of`) can start with this letter.
const fn starts_duration_word(c: char) -> bool {
    matches!(c.to_ascii_lowercase(), 's' | 'r' | 'm')
}

/// Reads tokens from a text, one at a time.
pub(crate) struct Lexer<'a> {
    source: &'a str,
    /// Offset of the next character.
    at: usize,
    /// Offset of the token being read.
    start: usize,
    /// Number of open parentheses.
    parens: u32,
    in_braces: bool,
    in_brackets: bool,
    /// Inside brackets, before the first number.
    in_duration: bool,
    /// A colon was seen since the bracket opened.
    got_colon: bool,
    /// Whether a number was seen in any brackets. It is never reset, as in Prometheus.
    got_duration: bool,
    error: Option<String>,
}

impl<'a> Lexer<'a> {
    /// A lexer for `source`, whose length must fit in 32 bits.
    pub(crate) fn new(source: &'a str) -> Self {
        Lexer {
            source,
            at: 0,
            start: 0,
            parens: 0,
            in_braces: false,
            in_brackets: false,
            in_duration: false,
            got_colon: false,
            got_duration: false,
            error: None,
        }
    }

    /// The message that belongs to the last token if that is a [`TokenKind::Error`].
    pub(crate) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Reads the next token. Returns [`TokenKind::End`] after the end and after an error.
    pub(crate) fn next_token(&mut self) -> Token {
        if self.error.is_some() {
            self.start = self.source.len();
            self.at = self.start;
            return self.emit(TokenKind::End);
        }
        let kind = loop {
            self.start = self.at;
            let token = if self.in_braces {
                self.inside_braces()
            } else if self.in_duration {
                self.duration_expression()
            } else {
                self.statement()
            };
            if let Some(kind) = token {
                break kind;
            }
        };
        self.emit(kind)
    }

    fn emit(&mut self, kind: TokenKind) -> Token {
        Token { kind, span: Span::new(self.start as u32, self.at as u32) }
    }

    fn fail(&mut self, why: impl Into<String>) -> Option<TokenKind> {
        self.error = Some(why.into());
        Some(TokenKind::Error)
    }

    /// Fails at the position after the token, where Prometheus reports this error.
    fn fail_after(&mut self, why: impl Into<String>) -> Option<TokenKind> {
        self.start = self.at;
        self.fail(why)
    }

    fn peek(&self) -> Option<char> {
        self.source[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn accept(&mut self, wanted: impl Fn(char) -> bool) -> bool {
        let found = self.peek().is_some_and(wanted);
        if found {
            self.next();
        }
        found
    }

    fn skip_while(&mut self, wanted: impl Fn(char) -> bool) {
        while self.accept(&wanted) {}
    }

    fn skip_comment(&mut self) {
        self.skip_while(|c| c != '\n' && c != '\r');
    }

    /// Reads a token outside of braces. Returns `None` if there was only space or a comment.
    fn statement(&mut self) -> Option<TokenKind> {
        let Some(c) = self.next() else {
            return if self.parens != 0 {
                self.fail("unclosed left parenthesis")
            } else if self.in_brackets {
                self.fail("unclosed left bracket")
            } else {
                Some(TokenKind::End)
            };
        };
        Some(match c {
            '#' => {
                self.skip_comment();
                return None;
            }
            ',' => TokenKind::Comma,
            _ if is_space(c) => {
                self.skip_while(is_space);
                return None;
            }
            '*' => TokenKind::Op(BinaryOp::Mul),
            '/' => TokenKind::Op(BinaryOp::Div),
            '%' => TokenKind::Op(BinaryOp::Mod),
            '+' => TokenKind::Op(BinaryOp::Add),
            '-' => TokenKind::Op(BinaryOp::Sub),
            '^' => TokenKind::Op(BinaryOp::Pow),
            '=' => match self.peek() {
                Some('=') => {
                    self.next();
                    TokenKind::Op(BinaryOp::Eq)
                }
                Some('~') => return self.fail("unexpected character after '=': '~'"),
                _ => TokenKind::Assign,
            },
            '!' => match self.next() {
                Some('=') => TokenKind::Op(BinaryOp::Ne),
                other => return self.fail(format!("unexpected character after '!': {}", quoted_char(other))),
            },
            '<' if self.accept(|c| c == '=') => TokenKind::Op(BinaryOp::Le),
            '<' if self.accept(|c| c == '/') => TokenKind::Op(BinaryOp::TrimUpper),
            '<' => TokenKind::Op(BinaryOp::Lt),
            '>' if self.accept(|c| c == '=') => TokenKind::Op(BinaryOp::Ge),
            '>' if self.accept(|c| c == '/') => TokenKind::Op(BinaryOp::TrimLower),
            '>' => TokenKind::Op(BinaryOp::Gt),
            '.' if !self.peek().is_some_and(|c| c.is_ascii_digit()) => return self.unexpected(c),
            '.' | '0'..='9' => {
                self.at = self.start;
                return self.number_or_duration();
            }
            '"' | '\'' => return self.string(c),
            '`' => return self.raw_string(),
            ':' if self.in_brackets => {
                if self.got_colon {
                    return self.fail("unexpected colon ':'");
                }
                self.got_colon = true;
                TokenKind::Colon
            }
            _ if (is_alpha(c) || c == ':') && !self.in_brackets => return self.word(),
            _ if is_alpha(c) => {
                if starts_duration_word(c)
                    && let Some(word) = self.scan_duration_word()
                {
                    return Some(TokenKind::Word(word));
                }
                return self.fail(format!("unexpected character: {}, expected ':'", quoted_char(Some(c))));
            }
            '(' => {
                self.parens += 1;
                TokenKind::LeftParen
            }
            ')' => return self.right_paren(),
            '{' => {
                self.in_braces = true;
                TokenKind::LeftBrace
            }
            '[' if self.in_brackets => return self.fail("unexpected left bracket '['"),
            '[' => {
                self.in_brackets = true;
                self.in_duration = true;
                self.got_colon = false;
                TokenKind::LeftBracket
            }
            ']' if !self.in_brackets => return self.fail("unexpected right bracket ']'"),
            ']' => {
                self.in_brackets = false;
                TokenKind::RightBracket
            }
            '@' => TokenKind::At,
            _ => return self.unexpected(c),
        })
    }

    fn unexpected(&mut self, c: char) -> Option<TokenKind> {
        self.fail(format!("unexpected character: {}", quoted_char(Some(c))))
    }

    fn right_paren(&mut self) -> Option<TokenKind> {
        match self.parens.checked_sub(1) {
            None => self.fail_after("unexpected right parenthesis ')'"),
            Some(left) => {
                self.parens = left;
                Some(TokenKind::RightParen)
            }
        }
    }

    /// Reads a token inside brackets, up to the first number. From then on [`statement`](Self::statement)
    /// reads the tokens.
    fn duration_expression(&mut self) -> Option<TokenKind> {
        let Some(c) = self.next() else {
            return self.fail("unexpected end of input in duration expression");
        };
        Some(match c {
            ']' => {
                self.in_brackets = false;
                self.in_duration = false;
                self.got_colon = false;
                TokenKind::RightBracket
            }
            ':' if !self.got_duration => {
                return self.fail_after("unexpected colon before duration in duration expression");
            }
            ':' if self.got_colon => {
                return self.fail_after("unexpected repeated colon in duration expression");
            }
            ':' => {
                self.got_colon = true;
                TokenKind::Colon
            }
            '(' => {
                self.parens += 1;
                TokenKind::LeftParen
            }
            ')' => return self.right_paren(),
            _ if is_space(c) => {
                self.skip_while(is_space);
                return None;
            }
            '+' => TokenKind::Op(BinaryOp::Add),
            '-' => TokenKind::Op(BinaryOp::Sub),
            '*' => TokenKind::Op(BinaryOp::Mul),
            '/' => TokenKind::Op(BinaryOp::Div),
            '%' => TokenKind::Op(BinaryOp::Mod),
            '^' => TokenKind::Op(BinaryOp::Pow),
            ',' => TokenKind::Comma,
            _ if starts_duration_word(c)
                && let Some(word) = self.scan_duration_word() =>
            {
                TokenKind::Word(word)
            }
            '0'..='9' | '.' if c != '.' || self.peek().is_some_and(|c| c.is_ascii_digit()) => {
                self.at = self.start;
                self.got_duration = true;
                self.in_duration = false;
                return self.number_or_duration();
            }
            _ => {
                return self
                    .fail(format!("unexpected character in duration expression: {}", quoted_char(Some(c))));
            }
        })
    }

    /// Reads the rest of a word inside brackets. Its first letter was already read.
    fn scan_duration_word(&mut self) -> Option<Word> {
        self.skip_while(is_alpha);
        duration_word(self.source[self.start..self.at].to_ascii_lowercase().as_bytes())
    }

    fn inside_braces(&mut self) -> Option<TokenKind> {
        let Some(c) = self.next() else {
            return self.fail("unexpected end of input inside braces");
        };
        Some(match c {
            '#' => {
                self.skip_comment();
                return None;
            }
            _ if is_space(c) => {
                self.skip_while(is_space);
                return None;
            }
            _ if is_alpha(c) => {
                self.skip_while(is_alphanumeric);
                TokenKind::Identifier
            }
            ',' => TokenKind::Comma,
            '"' | '\'' => return self.string(c),
            '`' => return self.raw_string(),
            '=' if self.accept(|c| c == '~') => TokenKind::MatchRegex,
            '=' => TokenKind::Assign,
            '!' => match self.next() {
                Some('~') => TokenKind::MatchNotRegex,
                Some('=') => TokenKind::Op(BinaryOp::Ne),
                other => {
                    return self.fail(format!(
                        "unexpected character after '!' inside braces: {}",
                        quoted_char(other)
                    ));
                }
            },
            '{' => return self.fail("unexpected left brace '{'"),
            '}' => {
                self.in_braces = false;
                TokenKind::RightBrace
            }
            _ => {
                return self.fail(format!("unexpected character inside braces: {}", quoted_char(Some(c))));
            }
        })
    }

    /// Reads a name. Its first character was already read.
    fn word(&mut self) -> Option<TokenKind> {
        self.skip_while(|c| is_alphanumeric(c) || c == ':');
        let text = &self.source[self.start..self.at];
        Some(match reserved(text) {
            // These keywords are newer than many metrics of the same name, so they are keywords only before a
            // parenthesis.
            Some(TokenKind::Word(Word::Fill | Word::FillLeft | Word::FillRight))
                if !self.source[self.at..].trim_start_matches(is_space).starts_with('(') =>
            {
                TokenKind::Identifier
            }
            Some(kind) => kind,
            None if text.contains(':') => TokenKind::MetricIdentifier,
            None => TokenKind::Identifier,
        })
    }

    /// Reads a string. The opening `quote` was already read. Escapes are checked here and decoded later.
    fn string(&mut self, quote: char) -> Option<TokenKind> {
        loop {
            match self.next() {
                None | Some('\n') => return self.fail("unterminated quoted string"),
                Some('\u{fffd}') => return self.fail("invalid UTF-8 rune"),
                Some('\\') => {
                    if let Err(why) = self.escape(quote) {
                        return self.fail(why);
                    }
                }
                Some(c) if c == quote => return Some(TokenKind::String),
                Some(_) => {}
            }
        }
    }

    fn escape(&mut self, quote: char) -> Result<(), String> {
        const ENDED: &str = "escape sequence not terminated";
        let c = self.next().ok_or(ENDED)?;
        let (first, digits, base, largest) = match c {
            'a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\' => return Ok(()),
            _ if c == quote => return Ok(()),
            '0'..='7' => (Some(c), 3, 8, 255),
            'x' => (None, 2, 16, 255),
            'u' => (None, 4, 16, u32::from(char::MAX)),
            'U' => (None, 8, 16, u32::from(char::MAX)),
            _ => return Err(format!("unknown escape sequence {}", unicode_name(c))),
        };
        let mut code: u32 = 0;
        let mut pending = first;
        for _ in 0..digits {
            let c = pending.take().or_else(|| self.next()).ok_or(ENDED)?;
            let digit = c
                .to_digit(base)
                .ok_or_else(|| format!("illegal character {} in escape sequence", unicode_name(c)))?;
            code = code.wrapping_mul(base).wrapping_add(digit);
        }
        if code > largest || (0xd800..0xe000).contains(&code) {
            return Err("escape sequence is an invalid Unicode code point".to_owned());
        }
        Ok(())
    }

    fn raw_string(&mut self) -> Option<TokenKind> {
        loop {
            match self.next() {
                None => return self.fail("unterminated raw string"),
                Some('\u{fffd}') => return self.fail("invalid UTF-8 rune"),
                Some('`') => return Some(TokenKind::String),
                Some(_) => {}
            }
        }
    }

    fn number_or_duration(&mut self) -> Option<TokenKind> {
        if self.scan_number() {
            return Some(TokenKind::Number);
        }
        if self.scan_duration_units() {
            return Some(TokenKind::Duration);
        }
        let text = quoted(&self.source[self.start..self.at]);
        self.fail(format!("bad number or duration syntax: {text}"))
    }

    /// Reads a number without checking its value. On failure, the position is that of the first character
    /// that does not fit.
    fn scan_number(&mut self) -> bool {
        let mut hex = false;
        if self.accept(|c| c == '0') && self.accept(|c| c == 'x' || c == 'X') {
            self.accept(|c| c == '_');
            hex = true;
        }
        let digit = |c: char| if hex { c.is_ascii_hexdigit() } else { c.is_ascii_digit() };
        let exponent = |c: char| c == 'e' || c == 'E';
        let dead_end = |c: char| matches!(c, '.' | '_' | 'e' | 'E');
        self.accept(|c| c == '.');
        self.accept(digit);
        let (mut got_dot, mut got_exponent) = (false, false);
        while let Some(c) = self.peek().filter(|c| digit(*c) || exponent(*c) || matches!(c, '.' | '_')) {
            if (c == '.' && got_dot) || (exponent(c) && got_exponent) {
                self.next();
                return false;
            }
            if c == '.' {
                self.next();
                got_dot = true;
                if self.accept(|c| c == '_' || c == '.') || hex {
                    return false;
                }
            } else if exponent(c) {
                self.next();
                got_exponent = true;
                self.accept(|c| c == '+' || c == '-');
                if self.accept(dead_end) || self.peek().is_none() {
                    return false;
                }
            } else if c == '_' {
                self.next();
                if self.accept(dead_end) || self.peek().is_none() {
                    return false;
                }
            } else {
                self.skip_while(digit);
            }
        }
        self.at > self.start && !self.peek().is_some_and(is_alphanumeric)
    }

    /// Reads the units of a duration. The first number was already read.
    fn scan_duration_units(&mut self) -> bool {
        if !self.accept(|c| "smhdwy".contains(c)) {
            return false;
        }
        self.accept(|c| c == 's');
        while self.accept(|c| c.is_ascii_digit()) {
            self.skip_while(|c| c.is_ascii_digit());
            if !self.accept(|c| "smhdw".contains(c)) {
                return false;
            }
            self.accept(|c| c == 's');
        }
        match self.peek() {
            Some(c) if is_alphanumeric(c) => {
                self.next();
                false
            }
            _ => true,
        }
    }
}

/// A character in the form of Go's `%#U`: `U+0063 'c'`, or only the number if it is not printable.
fn unicode_name(c: char) -> String {
    let number = u32::from(c);
    if c.is_control() { format!("U+{number:04X}") } else { format!("U+{number:04X} '{c}'") }
}
