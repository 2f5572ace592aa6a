//! Numbers as Go's `strconv` reads them.

/// The NaN that Prometheus stores for every NaN of an exposition.
pub(crate) const NORMAL_NAN: f64 = f64::from_bits(0x7ff8_0000_0000_0001);

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
        return text.eq_ignore_ascii_case("nan").then_some(NORMAL_NAN);
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

/// A float as OpenMetrics writes it in a label: the shortest text, with a point or an exponent.
pub(crate) fn open_metrics_float(value: f64) -> String {
    if !value.is_finite() {
        return match (value.is_nan(), value > 0.0) {
            (true, _) => "NaN",
            (_, true) => "+Inf",
            (_, false) => "-Inf",
        }
        .to_owned();
    }
    // As in C, the shortest text has an exponent from a million on, and below a ten thousandth.
    let scientific = format!("{value:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(-4..6).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    let plain = format!("{value}");
    if plain.contains('.') { plain } else { plain + ".0" }
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
            assert_eq!(parse_float(text.as_bytes()).map(f64::to_bits), Some(NORMAL_NAN.to_bits()), "{text}");
        }
        for text in [
            "", "-", ".", "e5", "1e", "0x10", "0x1p-2", "1_000", "1e400", "-1e400", "+NaN", "-nan", "1 ", "١",
        ] {
            assert_eq!(parse_float(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn labels_of_buckets_are_written_as_by_prometheus() {
        for (value, text) in [
            (0.0, "0.0"),
            (-1.0, "-1.0"),
            (0.5, "0.5"),
            (100_000.0, "100000.0"),
            (999_999.0, "999999.0"),
            (1e6, "1e+06"),
            (1_234_567.5, "1.2345675e+06"),
            (1e21, "1e+21"),
            (0.0001, "0.0001"),
            (1e-5, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (1e300, "1e+300"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(open_metrics_float(value), text);
        }
    }

    #[test]
    fn seconds_become_milliseconds() {
        assert_eq!(parse_seconds(b"1.7268398142239082e+09"), Some(1_726_839_814_223));
        assert_eq!(parse_seconds(b"-0.0019"), Some(-1));
        assert_eq!((parse_seconds(b"NaN"), parse_seconds(b"+Inf")), (None, None));
    }
}
