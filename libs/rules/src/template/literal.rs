//! The value of number and string literals of Go.

use crate::template::node::Number;

/// The number that `text` is.
pub(super) fn number(text: &str) -> Result<Number, String> {
    let bad = || format!("illegal number syntax: {}", promql::go_quoted(text));
    if text.starts_with('\'') {
        let inner = text.get(1..text.len().saturating_sub(1)).unwrap_or_default();
        let malformed = || format!("malformed character constant: {text}");
        let unquoted = unescaped(inner, '\'').ok_or_else(malformed)?;
        let mut chars = unquoted.chars();
        let (Some(c), None) = (chars.next(), chars.next()) else { return Err(malformed()) };
        let code = i64::from(u32::from(c));
        return Ok(Number {
            text: text.to_owned(),
            int: Some(code),
            float: Some(code as f64),
            is_float: false,
        });
    }
    if text.ends_with('i') && !text.starts_with("0x") {
        return Err(format!("complex numbers are not supported: {text}"));
    }
    let is_hex = text.trim_start_matches(['+', '-']).to_ascii_lowercase().starts_with("0x");
    let int = integer(text);
    let has_point = if is_hex { text.contains(['p', 'P', '.']) } else { text.contains(['.', 'e', 'E']) };
    let float = match int {
        Some(int) => Some(int as f64),
        None if is_hex => None,
        None => underscores_are_valid(text).then(|| text.replace('_', "").parse().ok()).flatten(),
    };
    match (int, float) {
        (None, None) => Err(bad()),
        // It is an error where it is used, as in Go.
        (None, Some(_)) if !has_point && unsigned(text).is_some() => {
            Ok(Number { text: text.to_owned(), int, float, is_float: false })
        }
        (None, Some(_)) if !has_point => Err(format!("integer overflow: {}", promql::go_quoted(text))),
        (None, Some(float)) => {
            let int = (float.fract() == 0.0 && float.abs() < 9.2e18).then_some(float as i64);
            Ok(Number { text: text.to_owned(), int, float: Some(float), is_float: true })
        }
        (int, float) => Ok(Number { text: text.to_owned(), int, float, is_float: false }),
    }
}

fn underscores_are_valid(text: &str) -> bool {
    let bytes = text.as_bytes();
    (0..bytes.len()).filter(|at| bytes[*at] == b'_').all(|at| {
        let neighbour =
            |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_alphanumeric);
        neighbour(at.checked_sub(1)) && neighbour(Some(at + 1))
    })
}

/// An integer in the notation of Go: decimal, `0x`, `0o`, `0b`, or octal with a leading zero.
fn integer(text: &str) -> Option<i64> {
    let magnitude = i128::from(unsigned(text.strip_prefix(['+', '-']).unwrap_or(text))?);
    i64::try_from(if text.starts_with('-') { -magnitude } else { magnitude }).ok()
}

fn unsigned(text: &str) -> Option<u64> {
    if !underscores_are_valid(text) {
        return None;
    }
    let clean = text.replace('_', "").to_ascii_lowercase();
    let (digits, radix) = match clean.get(..2) {
        Some("0x") => (&clean[2..], 16),
        Some("0o") => (&clean[2..], 8),
        Some("0b") => (&clean[2..], 2),
        Some(start) if start.starts_with('0') => (&clean[1..], 8),
        _ => (clean.as_str(), 10),
    };
    if digits.starts_with(|c: char| c.is_digit(radix)) {
        u64::from_str_radix(digits, radix).ok()
    } else {
        None
    }
}

/// The text of a string literal, `"..."` or in backquotes.
pub(super) fn string(quoted: &str) -> Result<String, String> {
    let inner = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
    if quoted.starts_with('`') {
        return Ok(inner.replace('\r', ""));
    }
    unescaped(inner, '"').ok_or_else(|| "invalid syntax".to_owned())
}

/// `text` with its escapes resolved. Bytes that are not valid UTF-8 become U+FFFD.
fn unescaped(text: &str, quote: char) -> Option<String> {
    let mut out: Vec<u8> = Vec::with_capacity(text.len());
    let mut chars = text.chars();
    let mut buffer = [0; 4];
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
            continue;
        }
        let escape = chars.next()?;
        let mut digits = |first: Option<char>, count: usize, radix: u32| {
            let mut code = first.map_or(Some(0), |c| c.to_digit(radix))?;
            for _ in 0..count {
                code = code.checked_mul(radix)?.checked_add(chars.next()?.to_digit(radix)?)?;
            }
            Some(code)
        };
        match escape {
            'a' => out.push(7),
            'b' => out.push(8),
            'f' => out.push(12),
            'n' => out.push(b'\n'),
            'r' => out.push(b'\r'),
            't' => out.push(b'\t'),
            'v' => out.push(11),
            '\\' => out.push(b'\\'),
            c if c == quote => out.push(c as u8),
            'x' => out.push(u8::try_from(digits(None, 2, 16)?).ok()?),
            '0'..='7' => out.push(u8::try_from(digits(Some(escape), 2, 8)?).ok()?),
            'u' | 'U' => {
                let code = digits(None, if escape == 'u' { 4 } else { 8 }, 16)?;
                out.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut buffer).as_bytes());
            }
            _ => return None,
        }
    }
    Some(String::from_utf8_lossy(&out).into_owned())
}
