//! Durations in the notation of PromQL and of request parameters.

use std::time::Duration;

/// The text is not a duration, or the duration is longer than about 292 years.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid duration string: {0:?}")]
pub struct InvalidDuration(String);

/// Nanoseconds of each unit, in the order in which units must appear.
const UNITS: [(&str, u64); 7] = [
    ("y", 31_536_000_000_000_000),
    ("w", 604_800_000_000_000),
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
];

/// Parses durations such as `1h30m`: whole numbers with the units `y w d h m s ms` in descending order, each
/// at most once. `0` needs no unit.
///
/// # Errors
/// The text has another form, or the duration is longer than `i64` nanoseconds.
pub fn parse_prometheus_duration(text: &str) -> Result<Duration, InvalidDuration> {
    let invalid = || InvalidDuration(text.to_owned());
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() {
        return Err(invalid());
    }
    let (mut rest, mut units, mut total) = (text, UNITS.as_slice(), 0u64);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().map_err(|_| invalid())?;
        let after = &rest[digits..];
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let at = units.iter().position(|(unit, _)| *unit == &after[..letters]).ok_or_else(invalid)?;
        total = number
            .checked_mul(units[at].1)
            .and_then(|nanos| total.checked_add(nanos))
            .filter(|nanos| i64::try_from(*nanos).is_ok())
            .ok_or_else(invalid)?;
        units = &units[at + 1..];
        rest = &after[letters..];
    }
    Ok(Duration::from_nanos(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_must_descend_and_occur_at_most_once() {
        for (text, millis) in
            [("0", 0), ("0s", 0), ("1h30m", 5_400_000), ("2w", 1_209_600_000), ("1y1ms", 31_536_000_001)]
        {
            assert_eq!(parse_prometheus_duration(text).map(|d| d.as_millis()), Ok(millis), "{text}");
        }
        for text in
            ["", "1", "m", "30m1h", "1m1m", "1.5h", "-1h", "1us", "1 h", "300y", "99999999999999999999s"]
        {
            assert!(parse_prometheus_duration(text).is_err(), "{text}");
        }
    }
}
