//! Durations in the notations of Prometheus and Go.

use std::time::Duration;

/// Why a text is not a valid duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Not of the form number, unit, number, unit.
    #[error(
        "{0:?} is not a duration: write numbers with units (y w d h m s ms us ns), for example 1h30m, 2w or 1.5s"
    )]
    Malformed(String),
    /// Longer than `i64::MAX` nanoseconds, about 292 years.
    #[error("duration {0:?} is out of range: the longest is about 292 years")]
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

/// Parses a duration such as `2w`, `1h30m` (Prometheus) or `1.5h`, `2m0.5s` (Go); `0` needs no unit.
///
/// Both notations are accepted, because flags of both kinds exist: the units `y w d` (365, 7 and 1 days) besides those
/// of Go, fractions, any order. A sign is not accepted.
///
/// # Errors
/// The text is not a duration, or is out of range; the error contains the text.
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
        // Digits after the 18th are less than a nanosecond in any unit.
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

/// Writes a duration as Prometheus does, `1h30m`, in whole milliseconds; zero is `0s`.
pub fn format_duration(length: Duration) -> String {
    let mut left = length.as_millis();
    if left == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    // Use years and weeks only without a remainder, so that 10d does not become 1w3d.
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
    fn notations_of_prometheus_and_go_are_accepted() {
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
    fn an_invalid_duration_is_rejected_with_its_text() {
        for text in ["", "5", "h", "1x", "1h-2m", "-1h", "1.h.", "1 h", "."] {
            assert_eq!(parse_duration(text), Err(DurationError::Malformed(text.to_owned())));
        }
        for text in ["300y", "99999999999999999999999999999999999999999h", "106751991167300640d"] {
            assert_eq!(parse_duration(text), Err(DurationError::OutOfRange(text.to_owned())));
        }
    }

    #[test]
    fn durations_are_written_as_prometheus_does() {
        for (millis, text) in
            [(0, "0s"), (5_400_000, "1h30m"), (1_209_600_000, "2w"), (864_000_000, "10d"), (1_001, "1s1ms")]
        {
            assert_eq!(format_duration(Duration::from_millis(millis)), text);
        }
    }
}
