//! Parses and writes numbers and durations.

use std::fmt::{self, Write};

use crate::syntax::quote::quoted;

/// The message of Go's `strconv` for a number that cannot be parsed.
fn parse_float_error(text: &str, why: &str) -> String {
    format!("strconv.ParseFloat: parsing {}: {why}", quoted(text))
}

/// Parses a number as Prometheus does in Go: first as an integer in any base (`0755` is octal, `0x1F`,
/// `1_000`), then as a decimal fraction. `Inf` and `NaN` may be in any case.
///
/// # Errors
/// If the text is not a number or exceeds the largest float. The message is Go's.
pub(crate) fn parse_number(text: &str) -> Result<f64, String> {
    if !underscores_separate_digits(text) {
        return Err(parse_float_error(text, "invalid syntax"));
    }
    let plain = text.replace('_', "");
    if let Some(integer) = parse_integer(&plain) {
        return Ok(integer as f64);
    }
    let value: f64 = plain.parse().map_err(|_| parse_float_error(text, "invalid syntax"))?;
    let spelled = plain.bytes().any(|b| b.is_ascii_digit());
    if value.is_infinite() && spelled {
        return Err(parse_float_error(text, "value out of range"));
    }
    Ok(value)
}

/// Parses a number like Go's `strconv.ParseFloat`: decimal, or hexadecimal with a binary exponent
/// (`0x1.8p3`), with an optional sign. `Inf`, `Infinity` and `NaN` may be in any case. Underscores may
/// separate digits. Returns `None` if the text is none of these or exceeds the largest float.
pub fn parse_float(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let signed = unsigned.len() < text.len();
    let word = |word: &str| unsigned.eq_ignore_ascii_case(word);
    let value = if word("inf") || word("infinity") {
        f64::INFINITY
    } else if word("nan") {
        return (!signed).then_some(f64::NAN);
    } else if !underscores_separate_digits(unsigned) {
        return None;
    } else {
        let plain = unsigned.replace('_', "");
        let value = match plain.strip_prefix("0x").or_else(|| plain.strip_prefix("0X")) {
            Some(hex) => parse_hex_float(hex)?,
            // The words that Rust accepts were handled above, and the sign was removed.
            None if plain.starts_with(|c: char| c.is_ascii_digit() || c == '.') => plain.parse().ok()?,
            None => return None,
        };
        Some(value).filter(|value| value.is_finite())?
    };
    Some(if text.starts_with('-') { -value } else { value })
}

/// Parses a hexadecimal number without `0x`. Rounds to the nearest float, ties to even.
fn parse_hex_float(text: &str) -> Option<f64> {
    let (digits, exponent) = text.split_once(['p', 'P'])?;
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if (whole.is_empty() && fraction.is_empty()) || !exponent.ends_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let negative = exponent.starts_with('-');
    let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    if !exponent.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // An exponent that is out of range for an integer is out of range for a float, too.
    let size = exponent.parse().unwrap_or(i64::MAX / 2).min(i64::MAX / 2);
    let mut exponent: i64 = if negative { -size } else { size };
    let mut mantissa: u64 = 0;
    for (place, digit) in whole.chars().chain(fraction.chars()).enumerate() {
        let digit = u64::from(digit.to_digit(16)?);
        let is_fraction = place >= whole.len();
        if mantissa >> 59 == 0 {
            mantissa = mantissa << 4 | digit;
            exponent -= if is_fraction { 4 } else { 0 };
        } else {
            // These digits only matter for rounding, so only whether any is nonzero is kept.
            mantissa |= u64::from(digit != 0);
            exponent += if is_fraction { 0 } else { 4 };
        }
    }
    if mantissa == 0 {
        return Some(0.0);
    }
    let bits = 64 - i64::from(mantissa.leading_zeros());
    let leading = exponent.saturating_add(bits - 1);
    if leading > 1023 {
        return Some(f64::INFINITY);
    }
    // Denormal numbers have fewer bits.
    let kept = 53.min(leading + 1075);
    if kept < 0 {
        return Some(0.0);
    }
    let dropped = (bits - kept).max(0);
    let (wide, unit) = (u128::from(mantissa), 1u128 << dropped);
    let (mut kept, rest) = (wide >> dropped, wide & (unit - 1));
    if 2 * rest > unit || (2 * rest == unit && kept & 1 == 1) {
        kept += 1;
    }
    // Both factors and both products are exact floats, so no rounding happens from here on.
    let power = exponent + dropped;
    let half = power / 2;
    let power_of_two = |n: i64| f64::from_bits(((n + 1023) as u64) << 52);
    Some(kept as f64 * power_of_two(half) * power_of_two(power - half))
}

fn parse_integer(text: &str) -> Option<i64> {
    let (digits, base) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&text[2..], 16),
        [b'0', b'o' | b'O', ..] => (&text[2..], 8),
        [b'0', b'b' | b'B', ..] => (&text[2..], 2),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    // `from_str_radix` would accept a sign.
    digits.as_bytes().first()?.is_ascii_alphanumeric().then_some(())?;
    i64::from_str_radix(digits, base).ok()
}

/// Whether each underscore is between two digits, or between a base prefix and a digit.
fn underscores_separate_digits(text: &str) -> bool {
    let bytes = text.as_bytes();
    if !bytes.contains(&b'_') {
        return true;
    }
    let prefixed = bytes.len() > 2 && bytes[0] == b'0' && matches!(bytes[1] | 0x20, b'x' | b'o' | b'b');
    let hex = prefixed && bytes[1] | 0x20 == b'x';
    let mut digit_before = prefixed;
    let mut underscore_before = false;
    for b in &bytes[if prefixed { 2 } else { 0 }..] {
        let digit = b.is_ascii_digit() || (hex && b.is_ascii_hexdigit());
        if (*b == b'_' && !digit_before) || (underscore_before && !digit) {
            return false;
        }
        digit_before = digit;
        underscore_before = *b == b'_';
    }
    !underscore_before
}

const UNITS: [(&str, i64); 7] = [
    ("y", 365 * 24 * 3_600_000),
    ("w", 7 * 24 * 3_600_000),
    ("d", 24 * 3_600_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// Parses a duration such as `1h30m` into milliseconds. Each unit occurs at most once, from the longest to
/// the shortest. A bare `0` is also a duration.
///
/// # Errors
/// If the text is not a duration or exceeds 292 years. The message is Prometheus'.
pub(crate) fn parse_duration(text: &str) -> Result<i64, String> {
    let malformed = || format!("not a valid duration string: {}", quoted(text));
    match text {
        "" => return Err("empty duration string".to_owned()),
        "0" => return Ok(0),
        _ => {}
    }
    let mut rest = text;
    let mut next_unit = 0;
    let mut millis: i64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let count: u64 = rest[..digits].parse().map_err(|_| malformed())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = &rest[..letters];
        rest = &rest[letters..];
        if unit.is_empty() {
            return Err(malformed());
        }
        let Some(at) = UNITS.iter().position(|(name, _)| *name == unit) else {
            return Err(format!("unknown unit {} in duration {}", quoted(unit), quoted(text)));
        };
        if at < next_unit {
            return Err(malformed());
        }
        next_unit = at + 1;
        millis = i64::try_from(count)
            .ok()
            .and_then(|count| count.checked_mul(UNITS[at].1))
            .and_then(|part| millis.checked_add(part))
            .filter(|millis| millis.checked_mul(1_000_000).is_some())
            .ok_or_else(|| "duration out of range".to_owned())?;
    }
    Ok(millis)
}

/// Writes milliseconds as a duration. Years and weeks are used only if they divide it without remainder.
pub(crate) fn write_duration(out: &mut impl Write, millis: i64) -> fmt::Result {
    if millis == 0 {
        return out.write_str("0s");
    }
    if millis < 0 {
        out.write_char('-')?;
    }
    let mut rest = millis.unsigned_abs();
    for (unit, length) in UNITS {
        let length = length.unsigned_abs();
        let whole_only = matches!(unit, "y" | "w");
        if rest >= length && (!whole_only || rest.is_multiple_of(length)) {
            write!(out, "{}{unit}", rest / length)?;
            rest %= length;
        }
    }
    Ok(())
}

/// Writes a float without an exponent, as Go's `FormatFloat(v, 'f', -1, 64)` does. Infinity is `+Inf`.
pub(crate) fn write_float(out: &mut impl Write, value: f64) -> fmt::Result {
    if value.is_infinite() {
        out.write_str(if value > 0.0 { "+Inf" } else { "-Inf" })
    } else {
        write!(out, "{value}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_parsed_as_by_strconv_of_go() {
        for (text, expected) in [
            ("0x1p3", Some(8.0)),
            ("-0X1.8P+1", Some(-3.0)),
            ("0x.1p0", Some(0.0625)),
            ("0x1_0.8p1_0", Some(16_896.0)),
            ("0x1p-1074", Some(5e-324)),
            ("0x1.8p-1074", Some(1e-323)),
            ("0x1p-1075", Some(0.0)),
            ("0x1.000001p-1075", Some(5e-324)),
            ("0x1.fffffffffffffp1023", Some(f64::MAX)),
            ("0x1.fffffffffffff8p1023", None),
            ("0x1p1024", None),
            ("0x1p99999999999999999999", None),
            ("0x0p99999999999999999999", Some(0.0)),
            ("0x1.00000000000008p0", Some(1.0)),
            ("0x1.00000000000018p0", Some(1.0 + 2.0 * f64::EPSILON)),
            ("0x1.000000000000080000000000001p0", Some(1.0 + f64::EPSILON)),
            ("0x123456789abcdef0123p-8", Some(0x0123_4567_89ab_cdef_0123u128 as f64 / 256.0)),
            ("0x1", None),
            ("0xp1", None),
            ("0x1p", None),
            ("0x1p+", None),
            ("0x1p1.0", None),
            ("0x1g.p0", None),
            ("1_23.50_0_0e+1_2", Some(1.235e14)),
            ("1__2", None),
            ("_1", None),
            ("1_", None),
            ("1._5", None),
            ("1e400", None),
            ("-1e-400", Some(-0.0)),
            ("+5", Some(5.0)),
            ("+-5", None),
            ("5.", Some(5.0)),
            (".5e1", Some(5.0)),
            (".", None),
            ("", None),
            ("-", None),
            (" 1", None),
            ("+Inf", Some(f64::INFINITY)),
            ("-infinity", Some(f64::NEG_INFINITY)),
            ("infin", None),
            ("nAn", Some(f64::NAN)),
            ("+NaN", None),
        ] {
            let same = |a: f64, b: f64| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
            let found = parse_float(text);
            let fits = match (found, expected) {
                (Some(found), Some(expected)) => same(found, expected),
                (found, expected) => found.is_none() && expected.is_none(),
            };
            assert!(fits, "{text}: got {found:?}, expected {expected:?}");
        }
    }

    #[test]
    fn numbers_are_parsed_as_in_go() {
        let check = |text: &str, expected: Result<f64, &str>| {
            assert_eq!(parse_number(text), expected.map_err(str::to_owned), "{text}");
        };
        check("0755", Ok(493.0));
        check("08", Ok(8.0));
        check("0x_1F", Ok(31.0));
        check("1_000", Ok(1000.0));
        check("1e0_3", Ok(1000.0));
        check("5.", Ok(5.0));
        check(".5", Ok(0.5));
        check("inF", Ok(f64::INFINITY));
        check("9223372036854775808", Ok(9_223_372_036_854_775_808.0));
        check("1__0", Err(r#"strconv.ParseFloat: parsing "1__0": invalid syntax"#));
        check("1e999", Err(r#"strconv.ParseFloat: parsing "1e999": value out of range"#));
        check("0x", Err(r#"strconv.ParseFloat: parsing "0x": invalid syntax"#));
        assert!(parse_number("nan").is_ok_and(f64::is_nan));
    }

    #[test]
    fn durations_are_parsed_and_written_as_in_prometheus() {
        let check = |text: &str, millis: i64, written: &str| {
            assert_eq!(parse_duration(text), Ok(millis), "{text}");
            let mut out = String::new();
            write_duration(&mut out, millis).unwrap();
            assert_eq!(out, written);
        };
        check("0", 0, "0s");
        check("90d", 90 * 86_400_000, "90d");
        check("14d", 14 * 86_400_000, "2w");
        check("1h30m", 5_400_000, "1h30m");
        check("1m30ms", 60_030, "1m30ms");
        check("365d", 365 * 86_400_000, "1y");
        check("1y2w3d4h5m6s7ms", 33_019_506_007, "382d4h5m6s7ms");
        for malformed in ["1", "s", "1s1m", "1s1s", "-1s", "é", "99999999999999999999s"] {
            assert_eq!(parse_duration(malformed), Err(format!("not a valid duration string: {malformed:?}")));
        }
        for unit in ["x", "ss", "m ", "é"] {
            let expected = format!("unknown unit {unit:?} in duration \"1{unit}\"");
            assert_eq!(parse_duration(&format!("1{unit}")), Err(expected));
        }
        for beyond in ["300y", "9999999999999s"] {
            assert_eq!(parse_duration(beyond), Err("duration out of range".to_owned()), "{beyond}");
        }
        assert_eq!(parse_duration("").unwrap_err(), "empty duration string");
    }
}
