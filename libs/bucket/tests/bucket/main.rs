//! Buckets against real and misbehaving stores.
//!
//! `faults` runs against a store in memory behind one that fails by a seed: `ISTHMUS_SEED=7` takes another seed,
//! `ISTHMUS_FAULT_ROUNDS=1000` makes it run longer. `stores` runs one suite against a local directory, moto (S3), azurite (Azure)
//! and a small mock of GCS; servers that are not installed are skipped with a line that says so (`tests/run`
//! installs them).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

mod faults;
mod gcs;
mod servers;
mod stores;
mod support;
