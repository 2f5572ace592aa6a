//! Reads the text of an expression from left to right.

use crate::re2::error::RegexError;

/// An expression and the position of the next character to read.
pub(super) struct RegexScanner<'a> {
    /// The whole expression.
    pub(super) source: &'a str,
    /// Byte offset of the next character to read.
    pub(super) at: usize,
}

impl<'a> RegexScanner<'a> {
    /// The text that was not read yet.
    pub(super) fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    /// The next character, which is not read.
    pub(super) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Reads the next character.
    pub(super) fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    /// Skips `text` if it is next. Returns whether it was.
    pub(super) fn accept(&mut self, text: &str) -> bool {
        let found = self.rest().starts_with(text);
        if found {
            self.at += text.len();
        }
        found
    }

    /// An error about the text from `start` to the current position.
    pub(super) fn fail<T>(&self, why: &'static str, start: usize) -> Result<T, RegexError> {
        Err(RegexError::new(why, &self.source[start..self.at]))
    }
}
