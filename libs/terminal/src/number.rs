//! Rounded numbers.

/// A number with at most three significant digits after the point, without an exponent where it can be read without one.
pub fn rounded(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        return value.to_string();
    }
    if size != 0.0 && !(1e-6..1e15).contains(&size) {
        return format!("{value:.2e}");
    }
    // The position of the first digit: 0 for 1 to 9, -1 for 0.1 to 0.9.
    let first = if size == 0.0 { 0.0 } else { size.log10().floor() };
    // The value is between -6 and 15 here.
    let decimals = (2.0 - first).clamp(0.0, 8.0) as usize;
    let text = format!("{value:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::rounded;

    #[test]
    fn numbers_have_three_significant_digits() {
        for (value, expected) in [
            (0.0, "0"),
            (6.0, "6"),
            (-2.5, "-2.5"),
            (8.142_857, "8.14"),
            (0.000_412_9, "0.000413"),
            (0.1 + 0.2, "0.3"),
            (1234.567, "1235"),
            (99.96, "100"),
            (1e-9, "1.00e-9"),
            (1.5e20, "1.50e20"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "inf"),
        ] {
            assert_eq!(rounded(value), expected);
        }
    }
}
