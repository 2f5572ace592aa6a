//! The sidecar: stands beside a Prometheus, serves its data as StoreAPI, uploads its blocks, reloads its configuration.
//!
//! * **Serving.** Chunks come from Prometheus' remote read and are passed on as they are; labels come from its HTTP API. The
//!   sidecar adds nothing but the external labels. What it knows it asks for again and again.
//! * **Uploads** (`shipper`), where a bucket is given: finished blocks, each whole or not at all. What has been in the bucket
//!   for long enough is not served any more.
//! * **Reloads** (`reloader`), where files are named: Prometheus takes them again when they change.
//!
//! Not here: rules, targets and exemplars; what a bucket is (`bucket`); what a block is (`tsdb`).
//!
//! Reading order: `config`, `component`, `upstream`, `store`, `read`, `order`; then `shipper` and `reloader`, each of which
//! stands alone.

mod admission;
mod component;
mod config;
mod http_client;
mod metrics;
mod order;
mod read;
mod reloader;
mod shipper;
mod store;
mod upstream;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::time::{SystemTime, UNIX_EPOCH};

use model::Timestamp;

pub use component::run;
pub use config::SidecarArgs;

/// The present instant.
fn now() -> Timestamp {
    Timestamp::EPOCH + SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
