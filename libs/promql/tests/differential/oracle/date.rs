//! The parts of a date, by counting the days since 1970.

use promql::syntax::functions::FunctionId;

/// Whether the function returns a part of a date.
pub(super) fn is_date(function: FunctionId) -> bool {
    use FunctionId as F;
    matches!(
        function,
        F::Minute
            | F::Hour
            | F::DayOfWeek
            | F::DayOfMonth
            | F::DayOfYear
            | F::DaysInMonth
            | F::Month
            | F::Year
    )
}

/// A part of the date `seconds` after the start of 1970; `seconds` must not be negative.
pub(super) fn part(function: FunctionId, seconds: f64) -> f64 {
    use FunctionId as F;
    let seconds = seconds as i64;
    let day = seconds.div_euclid(86_400);
    let (mut year, mut left) = (1970, day);
    while left >= year_length(year) {
        left -= year_length(year);
        year += 1;
    }
    while left < 0 {
        year -= 1;
        left += year_length(year);
    }
    let day_of_year = left + 1;
    let mut month = 1;
    while left >= month_length(year, month) {
        left -= month_length(year, month);
        month += 1;
    }
    let part = match function {
        F::Minute => seconds.div_euclid(60).rem_euclid(60),
        F::Hour => seconds.div_euclid(3600).rem_euclid(24),
        // 1 January 1970 was a Thursday.
        F::DayOfWeek => (day + 4).rem_euclid(7),
        F::DayOfMonth => left + 1,
        F::DayOfYear => day_of_year,
        F::DaysInMonth => month_length(year, month),
        F::Month => month,
        _ => year,
    };
    part as f64
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn year_length(year: i64) -> i64 {
    365 + i64::from(is_leap(year))
}

fn month_length(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}
