//! Floats and timestamps as Go prints them in Prometheus' JSON.

use std::io::Write;

use model::Timestamp;

/// Writes `value` as Prometheus prints sample values, without quotes.
///
/// The output has the fewest digits that parse back to the same float. It is in plain notation if the
/// magnitude is in [1e-6, 1e21), otherwise with an exponent of at least two digits. `NaN`, `+Inf`, `-Inf` and
/// `-0` are written as in Go.
///
/// ```
/// assert_eq!(promapi::format_float(0.0000005), "5e-07");
/// assert_eq!(promapi::format_float(1e20), "100000000000000000000");
/// ```
pub fn write_float(out: &mut Vec<u8>, value: f64) {
    let magnitude = value.abs();
    if value.is_nan() {
        out.extend_from_slice(b"NaN");
    } else if magnitude.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"+Inf" } else { b"-Inf" });
    } else if magnitude < 1e15 && value.fract() == 0.0 && magnitude != 0.0 {
        // Most sample values are whole numbers, and integers are printed several times faster.
        write_integer(out, value as i64);
    } else if magnitude != 0.0 && !(1e-6..1e21).contains(&magnitude) {
        let start = out.len();
        // Writing to a `Vec` cannot fail.
        let _ = write!(out, "{value:e}");
        go_exponent(out, start);
    } else {
        // The plain notation of Rust is that of Go with format 'f' and precision -1, including the signed
        // zero.
        let _ = write!(out, "{value}");
    }
}

/// Writes `value` as Prometheus prints scalars, without quotes: like [`write_float`], but never with an exponent.
pub(crate) fn write_plain_float(out: &mut Vec<u8>, value: f64) {
    if value.is_finite() {
        // Writing to a `Vec` cannot fail.
        let _ = write!(out, "{value}");
    } else {
        write_float(out, value);
    }
}

/// Changes the exponents of Rust to those of Go: `5e-7` to `5e-07`, `1e21` to `1e+21`.
fn go_exponent(out: &mut Vec<u8>, start: usize) {
    let Some(e) = out[start..].iter().position(|b| *b == b'e').map(|at| start + at) else { return };
    let digits = match out.get(e + 1) {
        Some(b'-') => e + 2,
        _ => {
            out.insert(e + 1, b'+');
            e + 2
        }
    };
    if out.len() - digits < 2 {
        out.insert(digits, b'0');
    }
}

/// Formats `value` with [`write_float`].
pub fn format_float(value: f64) -> String {
    let mut out = Vec::with_capacity(24);
    write_float(&mut out, value);
    out.iter().map(|byte| char::from(*byte)).collect()
}

/// Writes the timestamp of a sample as Prometheus does: seconds, with three decimals unless they are zero.
pub fn write_timestamp(out: &mut Vec<u8>, at: Timestamp) {
    let millis = at.as_millis();
    if millis < 0 {
        out.push(b'-');
    }
    let millis = millis.unsigned_abs();
    write_unsigned(out, millis / 1000);
    let rest = millis % 1000;
    if rest != 0 {
        let digit = |n: u64| b'0' + (n % 10) as u8;
        out.extend_from_slice(&[b'.', digit(rest / 100), digit(rest / 10), digit(rest)]);
    }
}

fn write_integer(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    write_unsigned(out, value.unsigned_abs());
}

fn write_unsigned(out: &mut Vec<u8>, mut value: u64) {
    // A u64 has at most 20 digits.
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn floats_are_formatted_as_in_go() {
        for (value, expected) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (-1.5, "-1.5"),
            (0.1, "0.1"),
            (1e-6, "0.000001"),
            (9.999e-7, "9.999e-07"),
            (5e-7, "5e-07"),
            (-5e-10, "-5e-10"),
            (1e-100, "1e-100"),
            (1e15, "1000000000000000"),
            (123_456_789_012_345.0, "123456789012345"),
            (1e20, "100000000000000000000"),
            (999_999_999_999_999_900_000.0, "999999999999999900000"),
            (1e21, "1e+21"),
            (-1.25e22, "-1.25e+22"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
            (5e-324, "5e-324"),
            (f64::NAN, "NaN"),
            (model::stale_nan(), "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (1_435_781_451.781, "1435781451.781"),
        ] {
            assert_eq!(format_float(value), expected);
        }
    }

    #[test]
    fn formatted_floats_parse_back_to_the_same_float() {
        let mut random = rand::rngs::StdRng::seed_from_u64(11);
        for _ in 0..200_000 {
            let value = match random.random_range(0..3) {
                0 => f64::from_bits(random.random()),
                1 => random.random_range(-1e18..1e18f64).trunc(),
                _ => random.random_range(-1e6..1e6f64),
            };
            let text = format_float(value);
            let read: f64 = text.parse().unwrap();
            assert!(
                read.to_bits() == value.to_bits() || (read.is_nan() && value.is_nan()),
                "{value:e}: {text}"
            );
        }
    }

    #[test]
    fn timestamps_have_three_decimals_or_none() {
        for (millis, expected) in [
            (0, "0"),
            (1500, "1.500"),
            (1050, "1.050"),
            (1007, "1.007"),
            (999, "0.999"),
            (-1, "-0.001"),
            (-1500, "-1.500"),
            (1_435_781_451_781, "1435781451.781"),
            (i64::MIN, "-9223372036854775.808"),
            (i64::MAX, "9223372036854775.807"),
        ] {
            let mut out = Vec::new();
            write_timestamp(&mut out, Timestamp::from_millis(millis));
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
