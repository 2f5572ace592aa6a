//! Cuts the text of a template into tokens.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// The text cannot be cut further; the token's text is the message. Nothing follows.
    Error,
    Eof,
    Text,
    LeftDelim,
    RightDelim,
    Space,
    /// `=`
    Assign,
    /// `:=`
    Declare,
    Pipe,
    LeftParen,
    RightParen,
    /// Another printable character, such as a comma.
    Char,
    Bool,
    /// A number or `'c'`.
    Number,
    /// `1+2i`
    Complex,
    /// `"..."`
    Quoted,
    /// A string in backquotes.
    Raw,
    /// `.name`
    Field,
    /// `$name`
    Variable,
    Identifier,
    /// `.`
    Dot,
    /// `nil`
    Nil,
    Keyword(Keyword),
}

/// The words that structure a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keyword {
    Block,
    Break,
    Continue,
    Define,
    Else,
    End,
    If,
    Range,
    Template,
    With,
}

/// A piece of the text.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    /// Offset of the first byte.
    pub(super) at: usize,
    pub(super) text: String,
    /// Line of the first byte, from 1.
    pub(super) line: usize,
}

impl Token {
    /// The token as messages name it.
    pub(super) fn shown(&self) -> String {
        match self.kind {
            TokenKind::Eof => "EOF".to_owned(),
            TokenKind::Error => self.text.clone(),
            TokenKind::Keyword(_) | TokenKind::Dot | TokenKind::Nil => format!("<{}>", self.text),
            _ if self.text.len() > 10 => {
                let start: String = self.text.chars().take(10).collect();
                format!("{}...", promql::go_quoted(&start))
            }
            _ => promql::go_quoted(&self.text),
        }
    }
}

const SPACES: [char; 4] = [' ', '\t', '\r', '\n'];
const LEFT: &str = "{{";
const RIGHT: &str = "}}";

/// Cuts `text`. The last token is [`Eof`](TokenKind::Eof) or [`Error`](TokenKind::Error).
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let mut lexer = Lexer { text, at: 0, start: 0, tokens: Vec::new(), line: 1, counted: 0 };
    match lexer.text() {
        Ok(()) => lexer.push(TokenKind::Eof),
        Err(message) => {
            let line = lexer.line_of(lexer.start);
            lexer.tokens.push(Token { kind: TokenKind::Error, at: lexer.start, text: message, line });
        }
    }
    lexer.tokens
}

struct Lexer<'t> {
    text: &'t str,
    at: usize,
    /// Where the current token starts.
    start: usize,
    tokens: Vec<Token>,
    /// The line at offset `counted`.
    line: usize,
    counted: usize,
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphabetic() || c.is_numeric()
}

/// Go's `%#U`.
fn code_point(c: Option<char>) -> String {
    match c {
        Some(c) if c.is_control() || (c.is_whitespace() && c != ' ') => format!("U+{:04X}", c as u32),
        Some(c) => format!("U+{:04X} '{c}'", c as u32),
        None => "U+FFFFFFFFFFFFFFFF".to_owned(),
    }
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn accept(&mut self, valid: &str) -> bool {
        let accepted = self.peek().is_some_and(|c| valid.contains(c));
        if accepted {
            self.at += 1;
        }
        accepted
    }

    fn accept_run(&mut self, valid: &str) {
        while self.accept(valid) {}
    }

    fn line_of(&mut self, at: usize) -> usize {
        self.line += self.text[self.counted..at].matches('\n').count();
        self.counted = at;
        self.line
    }

    fn push(&mut self, kind: TokenKind) {
        let line = self.line_of(self.start);
        let text = self.text[self.start..self.at].to_owned();
        self.tokens.push(Token { kind, at: self.start, text, line });
        self.start = self.at;
    }

    fn trims_left(rest: &str) -> bool {
        rest.starts_with('-') && rest[1..].starts_with(SPACES)
    }

    /// Whether the action ends here, and whether with a trim marker.
    fn at_right(&self) -> Option<bool> {
        let mut rest = self.rest().chars();
        if rest.next().is_some_and(|c| SPACES.contains(&c)) && rest.as_str().starts_with("-}}") {
            return Some(true);
        }
        self.rest().starts_with(RIGHT).then_some(false)
    }

    fn text(&mut self) -> Result<(), String> {
        loop {
            let Some(length) = self.rest().find(LEFT) else {
                self.at = self.text.len();
                if self.at > self.start {
                    self.push(TokenKind::Text);
                }
                return Ok(());
            };
            let open = self.at + length;
            let inside = open + LEFT.len();
            let trims = Self::trims_left(&self.text[inside..]);
            let whole = &self.text[self.start..open];
            self.at = self.start + if trims { whole.trim_end_matches(SPACES).len() } else { whole.len() };
            if self.at > self.start {
                self.push(TokenKind::Text);
            }
            (self.start, self.at) = (open, inside);
            let after_marker = inside + if trims { 2 } else { 0 };
            if self.text[after_marker..].starts_with("/*") {
                self.start = after_marker;
                self.at = after_marker;
                self.comment()?;
                continue;
            }
            self.push(TokenKind::LeftDelim);
            (self.start, self.at) = (after_marker, after_marker);
            self.action()?;
        }
    }

    /// Skips a comment and the delimiter after it.
    fn comment(&mut self) -> Result<(), String> {
        let Some(end) = self.rest()[2..].find("*/") else { return Err("unclosed comment".to_owned()) };
        self.at += 2 + end + 2;
        let Some(trims) = self.at_right() else {
            return Err("comment ends before closing delimiter".to_owned());
        };
        self.skip_right(trims);
        Ok(())
    }

    fn skip_right(&mut self, trims: bool) {
        self.at += RIGHT.len() + if trims { 2 } else { 0 };
        if trims {
            self.at = self.text.len() - self.rest().trim_start_matches(SPACES).len();
        }
        self.start = self.at;
    }

    /// The tokens of an action, up to and with its right delimiter.
    fn action(&mut self) -> Result<(), String> {
        let mut parens = 0usize;
        loop {
            if let Some(trims) = self.at_right() {
                if parens > 0 {
                    return Err("unclosed left paren".to_owned());
                }
                if trims {
                    self.start += 2;
                }
                let line = self.line_of(self.start);
                self.tokens.push(Token {
                    kind: TokenKind::RightDelim,
                    at: self.start,
                    text: RIGHT.to_owned(),
                    line,
                });
                self.skip_right(trims);
                return Ok(());
            }
            let Some(c) = self.next() else { return Err("unclosed action".to_owned()) };
            let kind = match c {
                ' ' | '\t' | '\r' | '\n' => {
                    self.spaces();
                    TokenKind::Space
                }
                '=' => TokenKind::Assign,
                ':' if self.accept("=") => TokenKind::Declare,
                ':' => return Err("expected :=".to_owned()),
                '|' => TokenKind::Pipe,
                '"' => self.quoted('"', "unterminated quoted string").map(|()| TokenKind::Quoted)?,
                '\'' => self.quoted('\'', "unterminated character constant").map(|()| TokenKind::Number)?,
                '`' => {
                    let Some(end) = self.rest().find('`') else {
                        return Err("unterminated raw quoted string".to_owned());
                    };
                    self.at += end + 1;
                    TokenKind::Raw
                }
                '$' => self.name(TokenKind::Variable)?,
                '.' if self.peek().is_some_and(|c| !c.is_ascii_digit()) => self.name(TokenKind::Field)?,
                '.' | '+' | '-' | '0'..='9' => {
                    self.at -= 1;
                    self.number()?
                }
                c if is_word(c) => self.word()?,
                '(' => {
                    parens += 1;
                    TokenKind::LeftParen
                }
                ')' if parens == 0 => return Err("unexpected right paren".to_owned()),
                ')' => {
                    parens -= 1;
                    TokenKind::RightParen
                }
                '!'..='~' => TokenKind::Char,
                c => return Err(format!("unrecognized character in action: {}", code_point(Some(c)))),
            };
            self.push(kind);
        }
    }

    /// Skips spaces, but not the one before a trim marker.
    fn spaces(&mut self) {
        while self.at_right().is_none() && self.peek().is_some_and(|c| SPACES.contains(&c)) {
            self.at += 1;
        }
    }

    fn quoted(&mut self, end: char, unterminated: &str) -> Result<(), String> {
        loop {
            match self.next() {
                Some('\\') if self.peek().is_some_and(|c| c != '\n') => {
                    self.next();
                }
                Some(c) if c == end => return Ok(()),
                Some('\\' | '\n') | None => return Err(unterminated.to_owned()),
                Some(_) => {}
            }
        }
    }

    fn at_terminator(&self) -> bool {
        let end = |c: char| SPACES.contains(&c) || ".,|:)(".contains(c);
        self.peek().is_none_or(end) || self.rest().starts_with(RIGHT)
    }

    /// A field or a variable; its first character was read.
    fn name(&mut self, kind: TokenKind) -> Result<TokenKind, String> {
        if self.at_terminator() {
            return Ok(if kind == TokenKind::Field { TokenKind::Dot } else { kind });
        }
        while self.peek().is_some_and(is_word) {
            self.next();
        }
        if self.at_terminator() {
            Ok(kind)
        } else {
            Err(format!("bad character {}", code_point(self.peek())))
        }
    }

    fn word(&mut self) -> Result<TokenKind, String> {
        while self.peek().is_some_and(is_word) {
            self.next();
        }
        if !self.at_terminator() {
            return Err(format!("bad character {}", code_point(self.peek())));
        }
        Ok(match &self.text[self.start..self.at] {
            "block" => TokenKind::Keyword(Keyword::Block),
            "break" => TokenKind::Keyword(Keyword::Break),
            "continue" => TokenKind::Keyword(Keyword::Continue),
            "define" => TokenKind::Keyword(Keyword::Define),
            "else" => TokenKind::Keyword(Keyword::Else),
            "end" => TokenKind::Keyword(Keyword::End),
            "if" => TokenKind::Keyword(Keyword::If),
            "range" => TokenKind::Keyword(Keyword::Range),
            "template" => TokenKind::Keyword(Keyword::Template),
            "with" => TokenKind::Keyword(Keyword::With),
            "nil" => TokenKind::Nil,
            "true" | "false" => TokenKind::Bool,
            _ => TokenKind::Identifier,
        })
    }

    fn number(&mut self) -> Result<TokenKind, String> {
        let bad = |lexer: &Self| {
            let text = &lexer.text[lexer.start..lexer.at];
            Err(format!("bad number syntax: {}", promql::go_quoted(text)))
        };
        if !self.scan_number() {
            return bad(self);
        }
        if !matches!(self.peek(), Some('+' | '-')) {
            return Ok(TokenKind::Number);
        }
        if !self.scan_number() || !self.text[..self.at].ends_with('i') {
            return bad(self);
        }
        Ok(TokenKind::Complex)
    }

    fn scan_number(&mut self) -> bool {
        self.accept("+-");
        let mut digits = "0123456789_";
        if self.accept("0") {
            digits = match () {
                () if self.accept("xX") => "0123456789abcdefABCDEF_",
                () if self.accept("oO") => "01234567_",
                () if self.accept("bB") => "01_",
                () => digits,
            };
        }
        self.accept_run(digits);
        if self.accept(".") {
            self.accept_run(digits);
        }
        let exponent = match digits.len() {
            11 => "eE",
            23 => "pP",
            _ => "",
        };
        if self.accept(exponent) {
            self.accept("+-");
            self.accept_run("0123456789_");
        }
        self.accept("i");
        if self.peek().is_some_and(is_word) {
            self.next();
            return false;
        }
        true
    }
}
