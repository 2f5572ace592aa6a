//! The sidecar: runs next to a Prometheus, serves its data as StoreAPI, uploads its blocks, reloads its
//! configuration.
//!
//! * **Serving.** Chunks come from remote read of Prometheus and are passed on unchanged; labels, rules, targets,
//!   exemplars and statistics come from its HTTP API. The sidecar adds only the external labels. It reads the
//!   state of Prometheus again at an interval.
//! * **Uploads** (`libs/shipper`), if a bucket is configured: finished blocks, each completely or not at all.
//!   Blocks that have been in the bucket for long enough are no longer served.
//! * **Reloads** (`reloader`), if files are configured: Prometheus reloads them when they change.
//!
//! Not here: buckets (`bucket`); the block format (`tsdb`).
//!
//! Reading order: `config`, `uploads`, `component`, `upstream`, `preflight`, `data_folder`, `store`, `series_answer`,
//! `equal_series`; then `reloader`.

mod component;
mod config;
mod data_folder;
mod equal_series;
mod http_client;
mod metrics;
mod preflight;
mod reloader;
mod series_answer;
mod store;
mod unneeded;
mod uploads;
mod upstream;

#[cfg(test)]
mod tests;

use std::time::{SystemTime, UNIX_EPOCH};

use model::Timestamp;

pub use component::run;
pub use config::SidecarArgs;

/// The current time.
fn now() -> Timestamp {
    Timestamp::EPOCH + SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
