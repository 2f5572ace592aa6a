//! Numbers as Go's `strconv` reads them.

/// Bits of the NaN that Prometheus stores for every NaN of an exposition.
const NORMAL_NAN: u64 = 0x7ff8_0000_0000_0001;

/// A float as in Go, without hexadecimal ones and underscores. None if it cannot be read, or is too large.
pub(crate) fn parse_float(text: &[u8]) -> Option<f64> {
    if let Some(small) = parse_digits(text) {
        return Some(small);
    }
    let text = std::str::from_utf8(text).ok()?;
    let value: f64 = text.parse().ok()?;
    let is_digit = |c: char| c.is_ascii_digit();
    if value.is_nan() {
        // Go has no signed NaN.
        return text.eq_ignore_ascii_case("nan").then(|| f64::from_bits(NORMAL_NAN));
    }
    (value.is_finite() || !text.contains(is_digit)).then_some(value)
}

/// A number of at most 15 digits, which a float holds exactly: the usual case of counters.
#[inline]
fn parse_digits(text: &[u8]) -> Option<f64> {
    if text.is_empty() || text.len() > 15 {
        return None;
    }
    let mut value = 0u64;
    for &byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + u64::from(digit);
    }
    Some(value as f64)
}

/// Seconds as milliseconds, rounded towards zero as in Prometheus. None if they are not finite.
pub(crate) fn parse_seconds(text: &[u8]) -> Option<i64> {
    let seconds = parse_float(text).filter(|seconds| seconds.is_finite())?;
    Some((seconds * 1_000.0) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_those_of_go() {
        for (text, value) in [
            ("0", 0.0),
            ("-0", -0.0),
            ("+1", 1.0),
            ("1.", 1.0),
            (".5", 0.5),
            ("1e3", 1_000.0),
            ("1E-3", 0.001),
            ("123456789012345", 123_456_789_012_345.0),
            ("1234567890123456789", 1_234_567_890_123_456_789.0),
            ("4.9e-324", 5e-324),
            ("1e-400", 0.0),
            ("Inf", f64::INFINITY),
            ("+inf", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
        ] {
            assert_eq!(parse_float(text.as_bytes()).map(f64::to_bits), Some(value.to_bits()), "{text}");
        }
        for text in ["NaN", "nan", "NAN"] {
            assert_eq!(parse_float(text.as_bytes()).map(f64::to_bits), Some(NORMAL_NAN), "{text}");
        }
        for text in [
            "", "-", ".", "e5", "1e", "0x10", "0x1p-2", "1_000", "1e400", "-1e400", "+NaN", "-nan", "1 ", "١",
        ] {
            assert_eq!(parse_float(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn seconds_become_milliseconds() {
        assert_eq!(parse_seconds(b"1.7268398142239082e+09"), Some(1_726_839_814_223));
        assert_eq!(parse_seconds(b"-0.0019"), Some(-1));
        assert_eq!((parse_seconds(b"NaN"), parse_seconds(b"+Inf")), (None, None));
    }
}
