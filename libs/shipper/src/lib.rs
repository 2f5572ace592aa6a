//! Uploads the finished blocks of a data folder to a bucket, each completely or not at all.
//!
//! ```text
//! seen ──► pinned ──► verified
//!          │          the bucket has the block, read back and compared; its owner may compact or remove it
//!          hard links in <data folder>/thanos/upload keep its files, even if the block is removed
//! ```
//!
//! A pass checks the data folder, pins new blocks, and uploads the blocks that are not in the bucket,
//! oldest first. A pass may be interrupted anywhere, by a kill or an error; the next pass continues from the
//! state on disk and in the bucket. A block that cannot be uploaded does not delay others.
//!
//! The data folder is that of a Prometheus, or has the same form. Whoever writes into it is its Prometheus here.
//!
//! Not here: buckets (`bucket`); the block format (`tsdb`); whether the flags of a Prometheus permit uploads (`sidecar`).
//!
//! Reading order: `config`, `shipper` (a pass and its steps), `admission` (can the bucket be used), `local` (the blocks),
//! `journal`, `uploaded` (the list for Prometheus), `pin`, `pin_new` (pass: find and pin), `reconcile` (pass: does the
//! bucket still have its blocks), `neighbours` (the other blocks in the bucket), `upload` (pass: one block
//! after the other), `serve_from` (the time from which the owner must serve), `disk`, `metrics`.

mod admission;
mod config;
mod disk;
mod journal;
mod local;
mod metrics;
mod neighbours;
mod pin;
mod pin_new;
mod reconcile;
mod serve_from;
mod shipper;
mod upload;
mod uploaded;

#[cfg(test)]
mod faults;
#[cfg(any(test, feature = "test-util"))]
pub mod testing;
#[cfg(test)]
mod tests;

pub use config::{BlockSource, ShipperConfig};
pub use local::oldest_block;
pub use shipper::{Producer, Shipped, Shipper};
