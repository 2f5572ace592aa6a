//! The compactor: merges, downsamples and retires the blocks of buckets.

mod account;
mod group;
mod job;
mod merge;
mod output;
mod plan;
mod read_ahead;
mod source;
mod verify;

#[cfg(test)]
mod tests;

use std::time::{SystemTime, UNIX_EPOCH};

use model::Timestamp;

/// The current time.
fn now() -> Timestamp {
    Timestamp::EPOCH + SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
