//! The query string of a request: percent-encoding, and matchers as a PromQL selector.

use bytes::Bytes;
use model::{MatchOp, Matcher};

/// The query string of a URL under construction.
pub(super) struct QueryString {
    text: String,
}

impl QueryString {
    pub(super) fn new() -> Self {
        Self { text: String::new() }
    }

    /// The text with its `?`; empty without parameters.
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// Length of the text with its `?`, in bytes.
    pub(super) fn len(&self) -> usize {
        self.text.len()
    }

    /// The text as the body of a form.
    pub(super) fn into_form(mut self) -> Bytes {
        self.text.drain(..self.text.len().min(1));
        self.text.into()
    }

    pub(super) fn add(&mut self, name: &str, value: &str) {
        self.text.push(if self.text.is_empty() { '?' } else { '&' });
        self.text.push_str(&escape(name));
        self.text.push('=');
        self.text.push_str(&escape(value));
    }
}

/// Percent-encodes all bytes except those that are safe in every part of a URL.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            byte => {
                let digit = |nibble: u8| char::from(b"0123456789ABCDEF"[usize::from(nibble & 0xf)]);
                out.extend(['%', digit(byte >> 4), digit(byte)]);
            }
        }
    }
    out
}

/// Prints matchers as a PromQL selector. Names that older versions cannot write without quotes are quoted.
pub(super) fn selector(matchers: &[Matcher]) -> String {
    let mut out = String::from("{");
    for (i, matcher) in matchers.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        let name = matcher.name();
        let bare = !name.starts_with(|c: char| c.is_ascii_digit())
            && !name.is_empty()
            && name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric());
        if bare {
            out.push_str(name);
        } else {
            quote(&mut out, name);
        }
        out.push_str(match matcher.op() {
            MatchOp::Equal => "=",
            MatchOp::NotEqual => "!=",
            MatchOp::Regex => "=~",
            MatchOp::NotRegex => "!~",
        });
        quote(&mut out, matcher.value());
    }
    out.push('}');
    out
}

/// Writes a PromQL string literal. Its escapes are those of Go.
fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matchers_are_printed_as_a_promql_selector() {
        let matchers = [
            Matcher::equal("__name__", "up"),
            Matcher::new(MatchOp::NotRegex, "job", "a\\.b|\"c\"\n\u{1}é").unwrap(),
            Matcher::equal("with.dot", ""),
        ];
        let expected = "{__name__=\"up\",job!~\"a\\\\.b|\\\"c\\\"\\n\\x01é\",\"with.dot\"=\"\"}";
        assert_eq!(selector(&matchers), expected);
    }

    #[test]
    fn parameters_are_escaped() {
        let mut query = QueryString::new();
        query.add("match[]", "{a=\"b c\"}");
        query.add("é", "&");
        assert_eq!(query.text, "?match%5B%5D=%7Ba%3D%22b%20c%22%7D&%C3%A9=%26");
        assert_eq!(query.into_form(), "match%5B%5D=%7Ba%3D%22b%20c%22%7D&%C3%A9=%26");
        assert_eq!(QueryString::new().into_form(), "");
    }
}
