//! Points in time as flags write them: absolute, or relative to now.

use std::fmt;
use std::str::FromStr;

use model::Timestamp;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::duration::{format_duration, parse_duration};

/// A point in time, written in RFC 3339 or as a distance from now such as `-2w`.
///
/// A relative time moves with the clock: call [`TimeArg::at`] each time it is needed. The first and the last second that RFC
/// 3339 can express, which are the defaults of many flags, mean no limit: blocks may be outside of them, for example when
/// their producer wrote microseconds in place of milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeArg {
    /// A fixed time.
    Absolute(Timestamp),
    /// Milliseconds from now; negative for the past.
    Relative(i64),
}

/// A text is not a valid time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a time: write RFC 3339, for example 2026-01-31T00:00:00Z, or a distance from now such as -2w or 30m"
)]
pub struct TimeArgError(String);

/// Milliseconds of 0000-01-01T00:00:00Z.
const FIRST: i64 = -62_167_219_200_000;
/// Milliseconds of 9999-12-31T23:59:59Z.
const LAST: i64 = 253_402_300_799_000;

impl TimeArg {
    /// The time when the clock shows `now`; saturates.
    pub fn at(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Absolute(at) => at,
            Self::Relative(millis) => now.offset_millis(millis),
        }
    }
}

impl FromStr for TimeArg {
    type Err = TimeArgError;

    fn from_str(text: &str) -> Result<Self, TimeArgError> {
        if let Ok(at) = OffsetDateTime::parse(text, &Rfc3339) {
            // Years 0 to 9999 are far within the range of i64 milliseconds.
            let millis = at.unix_timestamp_nanos().div_euclid(1_000_000) as i64;
            return Ok(Self::Absolute(match millis {
                ..=FIRST => Timestamp::MIN,
                LAST.. => Timestamp::MAX,
                _ => Timestamp::from_millis(millis),
            }));
        }
        let (sign, length) = match text.strip_prefix('-') {
            Some(length) => (-1, length),
            None => (1, text.strip_prefix('+').unwrap_or(text)),
        };
        let length = parse_duration(length).map_err(|_| TimeArgError(text.to_owned()))?;
        Ok(Self::Relative(sign * length.as_millis() as i64))
    }
}

impl fmt::Display for TimeArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absolute(at) => {
                let nanos = i128::from(at.as_millis().clamp(FIRST, LAST)) * 1_000_000;
                let text = OffsetDateTime::from_unix_timestamp_nanos(nanos)
                    .ok()
                    .and_then(|at| at.format(&Rfc3339).ok())
                    .unwrap_or_else(|| format!("{at}ms"));
                f.write_str(&text)
            }
            Self::Relative(millis) => {
                let sign = if *millis < 0 { "-" } else { "" };
                let length = std::time::Duration::from_millis(millis.unsigned_abs());
                write!(f, "{sign}{}", format_duration(length))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_and_relative_times_are_accepted() {
        let now = Timestamp::from_millis(1_000_000_000_000);
        for (text, millis) in [
            ("1970-01-01T00:00:01.5Z", 1_500),
            ("1970-01-01T01:00:00+01:00", 0),
            ("0000-01-01T00:00:00Z", i64::MIN),
            ("0000-01-01T00:00:01Z", -62_167_219_199_000),
            ("9999-12-31T23:59:58Z", 253_402_300_798_000),
            ("9999-12-31T23:59:59Z", i64::MAX),
            ("-2w", 1_000_000_000_000 - 1_209_600_000),
            ("30m", 1_000_000_000_000 + 1_800_000),
        ] {
            let arg: TimeArg = text.parse().unwrap();
            assert_eq!(arg.at(now), Timestamp::from_millis(millis), "{text}");
        }
        for text in ["-2w", "2026-01-31T00:00:00Z", "0000-01-01T00:00:00Z", "9999-12-31T23:59:59Z"] {
            assert_eq!(text.parse::<TimeArg>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn an_invalid_time_is_rejected_with_its_text() {
        for text in ["", "yesterday", "2026-01-31", "--2w", "5"] {
            let error = text.parse::<TimeArg>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }
}
