//! Prints numbers, strings and dates as Go does, because results and messages must be identical to
//! Prometheus'.

use std::fmt::Write as _;

use model::{BoundedBucket, FloatHistogram};

use crate::calendar::Date;

/// A float like Go's `%g`: the fewest digits that parse to the same number.
pub fn go_g(value: f64) -> String {
    if !value.is_finite() {
        return go_f(value);
    }
    let scientific = format!("{value:e}");
    with_exponent(&scientific, 6)
}

/// A float like Go's `%.2g`.
pub(crate) fn go_g2(value: f64) -> String {
    if !value.is_finite() {
        return go_f(value);
    }
    let scientific = format!("{value:.1e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let digits =
        if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits };
    with_exponent(&format!("{digits}e{exponent}"), 2)
}

/// A float like Go's `FormatFloat(v, 'f', -1, 64)`: without an exponent.
pub(crate) fn go_f(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf".to_owned() } else { "-Inf".to_owned() }
    } else {
        format!("{value}")
    }
}

/// A float like Go's `%f`: six digits after the point.
pub(crate) fn go_f6(value: f64) -> String {
    if value.is_finite() { format!("{value:.6}") } else { go_f(value) }
}

/// A float as a label value in OpenMetrics form: always with a fraction or an exponent.
pub(crate) fn open_metrics_float(value: f64) -> String {
    let text = go_g(value);
    if !value.is_finite() || text.contains(['.', 'e']) { text } else { format!("{text}.0") }
}

/// Converts `scientific` (`1.5e-7`) to the form of `%g`: an exponent is used only below 1e-4 and from
/// `10^limit` on.
fn with_exponent(scientific: &str, limit: i32) -> String {
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if exponent < -4 || exponent >= limit {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let digits: String = mantissa.chars().filter(|c| *c != '.').collect();
    let point = 1 + exponent;
    let body = if point <= 0 {
        format!("0.{}{digits}", "0".repeat(point.unsigned_abs() as usize))
    } else {
        let point = point as usize;
        if digits.len() <= point {
            format!("{digits}{}", "0".repeat(point - digits.len()))
        } else {
            format!("{}.{}", &digits[..point], &digits[point..])
        }
    };
    format!("{sign}{body}")
}

/// A string like Go's `%q`.
pub fn go_quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{b}' => quoted.push_str("\\v"),
            '\u{c}' => quoted.push_str("\\f"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                // Writing into a string cannot fail.
                let _ = write!(quoted, "\\x{:02x}", c as u32);
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// A histogram as Prometheus prints it. `count_values` uses this text as a label value.
pub fn histogram_text(histogram: &FloatHistogram) -> String {
    let mut text = format!("{{count:{}, sum:{}", go_g(histogram.count), go_g(histogram.sum));
    let negative: Vec<BoundedBucket> = histogram.negative().collect();
    let zero = (histogram.zero_count != 0.0).then(|| histogram.zero_bucket());
    let all = negative.into_iter().rev().chain(zero).chain(histogram.positive());
    for bucket in all.filter(|b| b.count != 0.0) {
        let open = if bucket.lower_inclusive { '[' } else { '(' };
        let close = if bucket.upper_inclusive { ']' } else { ')' };
        // Writing into a string cannot fail.
        let _ = write!(
            text,
            ", {open}{},{}{close}:{}",
            go_g(bucket.lower),
            go_g(bucket.upper),
            go_g(bucket.count)
        );
    }
    text.push('}');
    text
}

/// An instant in milliseconds, in RFC 3339 form with whole seconds.
pub(crate) fn go_date(millis: i64) -> String {
    let date = Date::from_seconds(millis / 1000);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        date.year, date.month, date.day, date.hour, date.minute, date.second
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_printed_as_in_go() {
        for (value, text) in [
            (1.0, "1"),
            (-0.5, "-0.5"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (123_456_789.0, "1.23456789e+08"),
            (1e21, "1e+21"),
            (f64::INFINITY, "+Inf"),
            (f64::NAN, "NaN"),
            (100.0, "100"),
        ] {
            assert_eq!(go_g(value), text);
        }
        assert_eq!(go_f6(1.5), "1.500000");
        assert_eq!(go_f6(f64::NEG_INFINITY), "-Inf");
        assert_eq!(go_g2(1234.0), "1.2e+03");
        assert_eq!(go_g2(0.25), "0.25");
        assert_eq!(go_g2(5.0), "5");
        assert_eq!(open_metrics_float(1.0), "1.0");
        assert_eq!(open_metrics_float(0.5), "0.5");
    }

    #[test]
    fn strings_are_quoted_as_in_go() {
        assert_eq!(go_quoted("a\"b\\\n\u{1}é"), "\"a\\\"b\\\\\\n\\x01é\"");
    }

    #[test]
    fn dates_are_printed_in_rfc_3339_form() {
        assert_eq!(go_date(1_700_000_000_999), "2023-11-14T22:13:20Z");
    }
}
