//! Lengths of time as Prometheus and Go spell them.

use std::time::Duration;

/// Why a text is no length of time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Not of the form number, unit, number, unit.
    #[error(
        "{0:?} is not a duration: write numbers with units (y w d h m s ms us ns), for example 1h30m, 2w or 1.5s"
    )]
    Malformed(String),
    /// More than [`Duration`] of `i64` nanoseconds can hold, about 292 years.
    #[error("duration {0:?} is out of range")]
    OutOfRange(String),
}

/// Nanoseconds of each unit; longer spellings come before those that are their prefix.
const UNITS: [(&str, u64); 11] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
    ("w", 604_800_000_000_000),
    ("y", 31_536_000_000_000_000),
];

/// Reads a length such as `2w`, `1h30m` (Prometheus) or `1.5h`, `2m0.5s` (Go); `0` needs no unit.
///
/// The union of both languages is accepted, since flags of both kinds exist: units `y w d` (of 365, 7 and
/// 1 days) besides Go's, fractions, any order. No sign: a flag that means a direction says so itself.
///
/// # Errors
/// Names the text; see [`DurationError`].
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let malformed = || DurationError::Malformed(text.to_owned());
    let out_of_range = || DurationError::OutOfRange(text.to_owned());
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() {
        return Err(malformed());
    }
    let (mut rest, mut total) = (text, 0u128);
    while !rest.is_empty() {
        let (whole, after) = split_digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => split_digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(malformed());
        }
        let (unit, factor) = UNITS.iter().find(|(unit, _)| after.starts_with(unit)).ok_or_else(malformed)?;
        rest = &after[unit.len()..];
        let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| out_of_range())? };
        total = whole
            .checked_mul(u128::from(*factor))
            .and_then(|nanos| total.checked_add(nanos))
            .ok_or_else(out_of_range)?;
        // Digits beyond the 18th weigh less than a nanosecond of any unit.
        let fraction = &fraction[..fraction.len().min(18)];
        if !fraction.is_empty() {
            let digits: u128 = fraction.parse().map_err(|_| malformed())?;
            total += digits * u128::from(*factor) / 10u128.pow(fraction.len() as u32);
        }
        if total > i64::MAX as u128 {
            return Err(out_of_range());
        }
    }
    Ok(Duration::from_nanos(total as u64))
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

/// Writes a length in Prometheus' form, `1h30m`; whole milliseconds, zero is `0s`.
pub fn format_duration(length: Duration) -> String {
    let mut left = length.as_millis();
    if left == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    // Years and weeks only where nothing is left over, so that 10d does not turn into 1w3d.
    for (unit, millis, exact) in [
        ("y", 31_536_000_000, true),
        ("w", 604_800_000, true),
        ("d", 86_400_000, false),
        ("h", 3_600_000, false),
        ("m", 60_000, false),
        ("s", 1_000, false),
        ("ms", 1, false),
    ] {
        if left >= millis && (!exact || left.is_multiple_of(millis)) {
            out.push_str(&(left / millis).to_string());
            out.push_str(unit);
            left %= millis;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_languages_are_understood() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("1h30m", 5_400_000),
            ("2w", 1_209_600_000),
            ("1y1d", 366 * 86_400_000),
            ("250ms", 250),
            ("1.5h", 5_400_000),
            (".5s", 500),
            ("1h0m0.25s", 3_600_250),
            ("1s1m", 61_000),
            ("1500us", 1),
        ] {
            assert_eq!(parse_duration(text).map(|d| d.as_millis()), Ok(millis), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for text in ["", "5", "h", "1x", "1h-2m", "-1h", "1.h.", "1 h", "."] {
            assert_eq!(parse_duration(text), Err(DurationError::Malformed(text.to_owned())));
        }
        for text in ["300y", "99999999999999999999999999999999999999999h", "106751991167300640d"] {
            assert_eq!(parse_duration(text), Err(DurationError::OutOfRange(text.to_owned())));
        }
    }

    #[test]
    fn printing_is_that_of_prometheus() {
        for (millis, text) in
            [(0, "0s"), (5_400_000, "1h30m"), (1_209_600_000, "2w"), (864_000_000, "10d"), (1_001, "1s1ms")]
        {
            assert_eq!(format_duration(Duration::from_millis(millis)), text);
        }
    }
}
