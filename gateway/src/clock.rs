//! Waiting for a time of the wall clock, which can be set and which runs on while a machine is suspended.

use std::time::{Duration, SystemTime};

/// The longest sleep before the wall clock is read again. After a suspension, or after the clock was set, a time that has
/// passed is noticed within this time.
const CLOCK_CHECK: Duration = Duration::from_secs(30);

/// Sleeps until a time of the wall clock; returns at once if it has passed.
pub(crate) async fn sleep_until(time: SystemTime) {
    while let Ok(left) = time.duration_since(SystemTime::now())
        && !left.is_zero()
    {
        tokio::time::sleep(left.min(CLOCK_CHECK)).await;
    }
}
