//! String literals: quotes text like Go's `%q`, for errors and printed expressions, and decodes literals.

use std::fmt::{self, Write};

/// Writes `text` in double quotes.
pub(crate) fn write_quoted(out: &mut impl Write, text: &str) -> fmt::Result {
    out.write_char('"')?;
    for c in text.chars() {
        write_escaped(out, c, '"')?;
    }
    out.write_char('"')
}

/// `text` in double quotes.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    // Writing to a string cannot fail.
    let _ = write_quoted(&mut out, text);
    out
}

/// `c` in single quotes. `None`, the end of the text, is shown as the replacement character.
pub(crate) fn quoted_char(c: Option<char>) -> String {
    let mut out = String::from("'");
    match c {
        None | Some('\u{fffd}') => out.push('\u{fffd}'),
        Some(c) => {
            let _ = write_escaped(&mut out, c, '\'');
        }
    }
    out.push('\'');
    out
}

fn write_escaped(out: &mut impl Write, c: char, quote: char) -> fmt::Result {
    match c {
        '\\' => out.write_str("\\\\"),
        '\x07' => out.write_str("\\a"),
        '\x08' => out.write_str("\\b"),
        '\x0c' => out.write_str("\\f"),
        '\n' => out.write_str("\\n"),
        '\r' => out.write_str("\\r"),
        '\t' => out.write_str("\\t"),
        '\x0b' => out.write_str("\\v"),
        _ if c == quote => write!(out, "\\{c}"),
        ' '..='~' => out.write_char(c),
        '\0'..='\x7f' => write!(out, "\\x{:02x}", u32::from(c)),
        // The lexer rejects an unescaped replacement character as invalid UTF-8, so it is always written as
        // an escape.
        '\u{fffd}' => out.write_str("\\ufffd"),
        _ if is_print(c) => out.write_char(c),
        '\u{80}'..='\u{ffff}' => write!(out, "\\u{:04x}", u32::from(c)),
        _ => write!(out, "\\U{:08x}", u32::from(c)),
    }
}

/// Whether a character outside ASCII is printed as it is.
fn is_print(c: char) -> bool {
    // The debug format would escape a combining mark at the start of a text. The character before it prevents
    // this.
    let mut text = String::from("a");
    text.push(c);
    let escaped = text.escape_debug();
    escaped.count() == 2
}

/// Bytes in double quotes. Bytes that are not valid UTF-8 become `\xff` escapes.
pub(crate) fn quoted_bytes(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    // Writing to a string cannot fail.
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            let _ = write_escaped(&mut out, c, '"');
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out.push('"');
    out
}

/// Decodes a literal in any of the three kinds of quotes. Returns `None` if it is malformed.
///
/// Escapes may denote single bytes (`\xff`, `\377`). Bytes that do not form valid UTF-8 become replacement
/// characters, because label names and values are UTF-8 everywhere else in the system. Go keeps the bytes but
/// writes the same number of replacement characters in its JSON.
pub(crate) fn unquote(literal: &str) -> Option<String> {
    Some(match String::from_utf8(unquote_bytes(literal)?) {
        Ok(text) => text,
        Err(broken) => {
            let mut text = String::new();
            for chunk in broken.as_bytes().utf8_chunks() {
                text.push_str(chunk.valid());
                text.extend(chunk.invalid().iter().map(|_| '\u{fffd}'));
            }
            text
        }
    })
}

/// The bytes of a literal, or `None` if it is malformed.
pub(crate) fn unquote_bytes(literal: &str) -> Option<Vec<u8>> {
    let quote = literal.chars().next()?;
    let inner = literal.strip_prefix(quote)?.strip_suffix(quote)?;
    if quote == '`' {
        return (!inner.contains('`')).then(|| inner.as_bytes().to_vec());
    }
    if inner.contains('\n') {
        return None;
    }
    if !inner.contains(['\\', quote]) {
        return Some(inner.as_bytes().to_vec());
    }
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner.chars();
    while let Some(c) = rest.next() {
        if c == quote {
            return None;
        }
        if c != '\\' {
            bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        match rest.next()? {
            'a' => bytes.push(7),
            'b' => bytes.push(8),
            'f' => bytes.push(12),
            'n' => bytes.push(b'\n'),
            'r' => bytes.push(b'\r'),
            't' => bytes.push(b'\t'),
            'v' => bytes.push(11),
            '\\' => bytes.push(b'\\'),
            c if c == quote => bytes.push(c as u8),
            'x' => bytes.push(u8::try_from(digits(&mut rest, 2, 16, 0)?).ok()?),
            'u' => push_char(&mut bytes, digits(&mut rest, 4, 16, 0)?)?,
            'U' => push_char(&mut bytes, digits(&mut rest, 8, 16, 0)?)?,
            c => bytes.push(u8::try_from(digits(&mut rest, 2, 8, c.to_digit(8)?)?).ok()?),
        }
    }
    Some(bytes)
}

fn digits(rest: &mut std::str::Chars<'_>, count: usize, base: u32, first: u32) -> Option<u32> {
    (0..count).try_fold(first, |value, _| value.checked_mul(base)?.checked_add(rest.next()?.to_digit(base)?))
}

fn push_char(bytes: &mut Vec<u8>, code: u32) -> Option<()> {
    bytes.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut [0; 4]).as_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_resolved_in_each_kind_of_quotes() {
        let check = |literal: &str, expected: Option<&str>| {
            assert_eq!(unquote(literal).as_deref(), expected, "{literal}");
        };
        check(r#""a\tb""#, Some("a\tb"));
        check(r#""\"'""#, Some("\"'"));
        check(r"'\'\x41\101\u263a\U0001F600'", Some("'AA☺😀"));
        check(r"`a\tb`", Some(r"a\tb"));
        check(r#""\xe2\x98\xba""#, Some("☺"));
        check(r#""\xff""#, Some("\u{fffd}"));
        check(r#""a\xe2\x98b""#, Some("a\u{fffd}\u{fffd}b"));
        check(r#""\'""#, None);
        check(r#""\q""#, None);
        check(r#""\400""#, None);
        check(r#""\ud800""#, None);
        check("\"", None);
        check("", None);
    }

    #[test]
    fn strings_are_quoted_as_in_go() {
        assert_eq!(
            quoted("a\"b\\\n\x01\u{7f}é\u{a0}\u{fffd}\u{e0001}"),
            r#""a\"b\\\n\x01\x7fé\u00a0\ufffd\U000e0001""#
        );
        assert_eq!(quoted_char(Some('\'')), r"'\''");
        assert_eq!(quoted_char(None), "'\u{fffd}'");
    }

    #[test]
    fn bytes_that_are_not_utf8_stay_escaped() {
        let bytes = unquote_bytes(r#""a\xc5z\xe2\x98\xba""#).unwrap();
        assert_eq!(quoted_bytes(&bytes), r#""a\xc5z☺""#);
    }

    #[test]
    fn unquoting_reverses_quoting() {
        let text: String = ('\0'..='\u{2fff}').chain(['\u{fffd}', '\u{10ffff}']).collect();
        assert_eq!(unquote(&quoted(&text)), Some(text));
    }
}
