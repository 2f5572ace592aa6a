//! Buckets in real stores, and in stores with faults.
//!
//! `faults` and `open` run against a store in memory that injects faults by a seed: `ISTHMUS_SEED=7` sets another seed,
//! `ISTHMUS_FAULT_ROUNDS=1000` makes `faults` run longer. `stores` runs one suite against a local directory, moto (S3), azurite (Azure)
//! and a small mock of GCS; servers that are not installed are skipped with a line that says so (`tests/run`
//! installs them).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

mod access;
mod faults;
mod federation;
mod gcs;
mod open;
mod policies;
mod quirks;
mod servers;
mod stores;
mod support;
