//! Reads one line of a script from left to right.

/// One line and the position of the next character to read.
pub(super) struct LineScanner<'a> {
    pub(super) text: &'a str,
    /// Byte offset into `text`.
    pub(super) at: usize,
}

impl<'a> LineScanner<'a> {
    /// The text that was not read yet.
    pub(super) fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Skips white space. Returns whether there was any.
    pub(super) fn skip_spaces(&mut self) -> bool {
        let rest = self.rest();
        let spaces = rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
        self.at += spaces;
        spaces > 0
    }

    /// Skips `token` if it is next. Returns whether it was.
    pub(super) fn accept(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    /// Takes the longest run of characters for which `accepted` returns true.
    pub(super) fn take_while(&mut self, accepted: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let length = rest.find(|c| !accepted(c)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    /// An error message: the next character, or the end of the line, is unexpected in `place`.
    pub(super) fn unexpected(&self, place: &str) -> String {
        let found = self.rest().chars().next().map_or_else(|| "end of line".to_owned(), |c| format!("{c:?}"));
        format!("1:{}: parse error: unexpected {found} in {place}", self.at + 1)
    }
}
