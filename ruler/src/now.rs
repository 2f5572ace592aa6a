//! The time of day.

use std::time::{SystemTime, UNIX_EPOCH};

use model::Timestamp;

/// The time of day now.
pub(crate) fn now() -> Timestamp {
    Timestamp::EPOCH + SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
