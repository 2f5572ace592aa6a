//! The compactor: merges, downsamples and retires the blocks of buckets.

mod account;
mod api;
mod clock;
mod component;
mod config;
mod deletions;
mod downsample;
mod group;
mod history;
mod housekeeping;
mod index;
mod job;
mod merge;
mod metrics;
mod once;
mod output;
mod plan;
mod progress;
mod read_ahead;
mod readers;
mod removal;
mod removed;
mod retention;
mod retention_memory;
mod rewrite;
mod source;
mod unneeded;
mod verify;
mod view;
mod worker;

#[cfg(test)]
mod tests;

use std::time::{SystemTime, UNIX_EPOCH};

use model::Timestamp;

pub use component::run;
pub use config::{CompactArgs, WorkArgs};
pub use once::{OneRun, OneRunProgress, OneRunReport, OneRunRow};

/// The current time. A clock before 1970 counts as 1970, where every block is young: nothing is retired.
fn now() -> Timestamp {
    Timestamp::EPOCH + SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
