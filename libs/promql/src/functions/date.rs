//! The calendar in UTC, for `hour()` and its like.

use crate::syntax::functions::FunctionId;

/// An instant as a date of the proleptic Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Date {
    pub(crate) year: i64,
    /// 1 to 12.
    pub(crate) month: u32,
    /// 1 to 31.
    pub(crate) day: u32,
    pub(crate) hour: u32,
    pub(crate) minute: u32,
    pub(crate) second: u32,
    /// 0 is Sunday.
    pub(crate) weekday: u32,
    /// 1 to 366.
    pub(crate) day_of_year: u32,
}

const DAY: i64 = 86_400;

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: u32) -> u32 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

impl Date {
    /// The date `seconds` after the epoch.
    ///
    /// The arithmetic counts years from March, so that the leap day is the last of a year: see Howard Hinnant's
    /// "chrono-compatible low-level date algorithms".
    pub(crate) fn from_seconds(seconds: i64) -> Self {
        let (days, rest) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = (day_of_year - (153 * month_from_march + 2) / 5 + 1) as u32;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 } as u32;
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        Self {
            year,
            month,
            day,
            hour: (rest / 3600) as u32,
            minute: (rest / 60 % 60) as u32,
            second: (rest % 60) as u32,
            weekday: (days + 4).rem_euclid(7) as u32,
            day_of_year: (1..month).map(|m| days_in(year, m)).sum::<u32>() + day,
        }
    }
}

/// A part of the date `seconds` after the epoch, fractions of a second dropped.
pub(crate) fn part(function: FunctionId, seconds: f64) -> f64 {
    // What is no instant, NaN included, is 2^63 for Prometheus. The second before is on the same day and in the same hour
    // and minute.
    const BOUND: f64 = 9_223_372_036_854_775_808.0;
    let whole = if seconds > -BOUND && seconds < BOUND { seconds as i64 } else { i64::MAX };
    let date = Date::from_seconds(whole);
    match function {
        FunctionId::DaysInMonth => f64::from(days_in(date.year, date.month)),
        FunctionId::DayOfMonth => f64::from(date.day),
        FunctionId::DayOfWeek => f64::from(date.weekday),
        FunctionId::DayOfYear => f64::from(date.day_of_year),
        FunctionId::Hour => f64::from(date.hour),
        FunctionId::Minute => f64::from(date.minute),
        FunctionId::Month => f64::from(date.month),
        _ => date.year as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        let check = |seconds, expected: (i64, u32, u32, u32, u32)| {
            let d = Date::from_seconds(seconds);
            assert_eq!((d.year, d.month, d.day, d.weekday, d.day_of_year), expected, "{seconds}");
        };
        check(0, (1970, 1, 1, 4, 1));
        check(-1, (1969, 12, 31, 3, 365));
        check(951_782_400, (2000, 2, 29, 2, 60));
        check(1_136_239_445, (2006, 1, 2, 1, 2));
        check(4_107_542_400, (2100, 3, 1, 1, 60));
    }

    #[test]
    fn no_number_is_too_far() {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, -1e300] {
            assert_eq!(part(FunctionId::Year, value), 292_277_026_596.0);
            assert_eq!(part(FunctionId::Month, value), 12.0);
            assert_eq!(part(FunctionId::Minute, value), 30.0);
        }
        assert_eq!(part(FunctionId::DayOfYear, -1e17), 117.0);
    }

    #[test]
    fn parts_of_a_date() {
        assert_eq!(part(FunctionId::Hour, 1_136_239_445.9), 22.0);
        assert_eq!(part(FunctionId::DaysInMonth, 951_782_400.0), 29.0);
        assert_eq!(part(FunctionId::Year, -1.0), 1969.0);
    }
}
