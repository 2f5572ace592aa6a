//! Times and lengths of time as Go prints them.

use std::fmt;

use promql::Date;

/// An instant in UTC, in nanoseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GoTime(pub(super) i64);

/// A length of time in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GoDuration(pub(super) i64);

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// The parts of a layout, longer ones before those that they start with.
const PARTS: [&str; 33] = [
    "January",
    "Jan",
    "Monday",
    "Mon",
    "MST",
    "2006",
    "002",
    "01",
    "02",
    "03",
    "04",
    "05",
    "06",
    "__2",
    "_2",
    "15",
    "PM",
    "pm",
    "-07:00:00",
    "-070000",
    "-07:00",
    "-0700",
    "-07",
    "Z07:00:00",
    "Z070000",
    "Z07:00",
    "Z0700",
    "Z07",
    "1",
    "2",
    "3",
    "4",
    "5",
];

impl GoTime {
    /// The instant `seconds` after the epoch, cut to milliseconds, as Prometheus' times are.
    ///
    /// # Errors
    /// The text of the error in Go, if the instant cannot be represented.
    pub(super) fn from_seconds(seconds: f64) -> Result<Self, String> {
        if !seconds.is_finite() {
            return Err("value is NaN or Inf".to_owned());
        }
        let nanos = seconds * 1e9;
        if nanos > i64::MAX as f64 || nanos < i64::MIN as f64 {
            let shown = promql::go_g(seconds);
            return Err(format!(
                "{shown} cannot be represented as a nanoseconds timestamp since it overflows int64"
            ));
        }
        Ok(Self((nanos as i64) / 1_000_000 * 1_000_000))
    }

    fn date(self) -> Date {
        Date::from_seconds(self.0.div_euclid(1_000_000_000))
    }

    fn nanos(self) -> i64 {
        self.0.rem_euclid(1_000_000_000)
    }

    pub(super) fn month(self) -> (i64, &'static str) {
        let month = self.date().month;
        (i64::from(month), MONTHS[month as usize - 1])
    }

    pub(super) fn weekday(self) -> (i64, &'static str) {
        let day = self.date().weekday;
        (i64::from(day), WEEKDAYS[day as usize])
    }

    /// A part of the date or time by the name of its method in Go.
    pub(super) fn number(self, method: &str) -> Option<i64> {
        let date = self.date();
        Some(match method {
            "Year" => date.year,
            "Day" => date.day.into(),
            "Hour" => date.hour.into(),
            "Minute" => date.minute.into(),
            "Second" => date.second.into(),
            "Nanosecond" => self.nanos(),
            "YearDay" => date.day_of_year.into(),
            "Unix" => self.0.div_euclid(1_000_000_000),
            "UnixMilli" => self.0.div_euclid(1_000_000),
            "UnixMicro" => self.0.div_euclid(1000),
            "UnixNano" => self.0,
            _ => return None,
        })
    }

    /// The time in the layout of Go's reference time.
    pub(super) fn format(self, layout: &str) -> String {
        let mut out = String::new();
        let mut rest = layout;
        while let Some(c) = rest.chars().next() {
            if let Some(length) = self.fraction(rest, &mut out) {
                rest = &rest[length..];
                continue;
            }
            let is_part = |part: &&&str| {
                rest.starts_with(**part)
                    && !(**part == "Jan" && rest[3..].starts_with(char::is_lowercase))
                    && !(**part == "Mon" && rest[3..].starts_with(char::is_lowercase))
            };
            match PARTS.iter().find(is_part) {
                Some(part) => {
                    out += &self.part(part);
                    rest = &rest[part.len()..];
                }
                None => {
                    out.push(c);
                    rest = &rest[c.len_utf8()..];
                }
            }
        }
        out
    }

    /// Writes `.000` or `.999`, if `rest` starts with one, and returns its length.
    fn fraction(self, rest: &str, out: &mut String) -> Option<usize> {
        let digit = *rest.as_bytes().get(1).filter(|_| rest.starts_with(['.', ',']))?;
        let count = rest[1..].bytes().take_while(|b| *b == digit).count();
        let ends = !rest[1 + count..].starts_with(|c: char| c.is_ascii_digit());
        if !matches!(digit, b'0' | b'9') || !ends || count > 9 {
            return None;
        }
        let nanos = format!("{:09}", self.nanos());
        let mut digits = &nanos[..count];
        if digit == b'9' {
            digits = digits.trim_end_matches('0');
        }
        if !digits.is_empty() {
            out.push_str(&rest[..1]);
            out.push_str(digits);
        }
        Some(1 + count)
    }

    fn part(self, part: &str) -> String {
        let date = self.date();
        let hour12 = (date.hour + 11) % 12 + 1;
        match part {
            "January" => self.month().1.to_owned(),
            "Jan" => self.month().1[..3].to_owned(),
            "1" => date.month.to_string(),
            "01" => format!("{:02}", date.month),
            "Monday" => self.weekday().1.to_owned(),
            "Mon" => self.weekday().1[..3].to_owned(),
            "2" => date.day.to_string(),
            "_2" => format!("{:2}", date.day),
            "02" => format!("{:02}", date.day),
            "__2" => format!("{:3}", date.day_of_year),
            "002" => format!("{:03}", date.day_of_year),
            "15" => format!("{:02}", date.hour),
            "3" => hour12.to_string(),
            "03" => format!("{hour12:02}"),
            "4" => date.minute.to_string(),
            "04" => format!("{:02}", date.minute),
            "5" => date.second.to_string(),
            "05" => format!("{:02}", date.second),
            "2006" => format!("{:04}", date.year),
            "06" => format!("{:02}", date.year.rem_euclid(100)),
            "PM" => if date.hour >= 12 { "PM" } else { "AM" }.to_owned(),
            "pm" => if date.hour >= 12 { "pm" } else { "am" }.to_owned(),
            "MST" => "UTC".to_owned(),
            zone if zone.starts_with('Z') => "Z".to_owned(),
            zone => zone.replace('-', "+").replace('7', "0"),
        }
    }
}

impl fmt::Display for GoTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.format("2006-01-02 15:04:05.999999999 -0700 MST"))
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.unsigned_abs();
        let sign = if self.0 < 0 { "-" } else { "" };
        let fraction = |unit: u64| {
            let digits = format!("{:0width$}", nanos % unit, width = unit.ilog10() as usize);
            let digits = digits.trim_end_matches('0');
            if digits.is_empty() { String::new() } else { format!(".{digits}") }
        };
        match nanos {
            0 => f.write_str("0s"),
            1..1000 => write!(f, "{sign}{nanos}ns"),
            1000..1_000_000 => write!(f, "{sign}{}{}µs", nanos / 1000, fraction(1000)),
            1_000_000..1_000_000_000 => write!(f, "{sign}{}{}ms", nanos / 1_000_000, fraction(1_000_000)),
            _ => {
                let seconds = nanos / 1_000_000_000;
                let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
                f.write_str(sign)?;
                if hours > 0 {
                    write!(f, "{hours}h")?;
                }
                if hours > 0 || minutes > 0 {
                    write!(f, "{minutes}m")?;
                }
                write!(f, "{}{}s", seconds % 60, fraction(1_000_000_000))
            }
        }
    }
}
