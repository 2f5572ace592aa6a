//! The parts of a date: `hour()`, `year()` and similar functions.

use crate::calendar::{Date, days_in};
use crate::syntax::functions::FunctionId;

/// One part of the date `seconds` after the epoch. Fractions of a second are dropped.
pub(crate) fn part(function: FunctionId, seconds: f64) -> f64 {
    // Prometheus converts values that are out of range, and NaN, to 2^63 seconds. The second before that is
    // in the same minute and hour and on the same day.
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
    fn any_float_has_a_date() {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, -1e300] {
            assert_eq!(part(FunctionId::Year, value), 292_277_026_596.0);
            assert_eq!(part(FunctionId::Month, value), 12.0);
            assert_eq!(part(FunctionId::Minute, value), 30.0);
        }
        assert_eq!(part(FunctionId::DayOfYear, -1e17), 117.0);
    }

    #[test]
    fn parts_of_a_date_are_returned() {
        assert_eq!(part(FunctionId::Hour, 1_136_239_445.9), 22.0);
        assert_eq!(part(FunctionId::DaysInMonth, 951_782_400.0), 29.0);
        assert_eq!(part(FunctionId::Year, -1.0), 1969.0);
    }
}
