//! Times of the wall clock, which can be set and which runs on while a machine is suspended: waiting for one, and its text.

use std::time::{Duration, SystemTime};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// The longest sleep before the wall clock is read again. After a suspension, or after the clock was set, a time that has
/// passed is noticed within this time.
const CLOCK_CHECK: Duration = Duration::from_secs(30);

/// A time in RFC 3339, UTC, for logs.
pub(crate) fn humantime(time: SystemTime) -> String {
    // The text of a timestamp is that of RFC 3339.
    prost_types::Timestamp::from(time).to_string()
}

/// Sleeps until a time of the wall clock; returns at once if it has passed.
pub(crate) async fn sleep_until(time: SystemTime) {
    while let Ok(left) = time.duration_since(SystemTime::now())
        && !left.is_zero()
    {
        tokio::time::sleep(left.min(CLOCK_CHECK)).await;
    }
}

/// A time as RFC 3339, in UTC and whole seconds.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    let time = time.replace_nanosecond(0).unwrap_or(time);
    time.format(&Rfc3339).unwrap_or_else(|_| time.unix_timestamp().to_string())
}
