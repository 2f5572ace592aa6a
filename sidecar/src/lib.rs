//! The sidecar: stands beside a Prometheus and serves its data as StoreAPI.
//!
//! Chunks come from Prometheus' remote read and are passed on as they are; labels come from its HTTP API. The sidecar
//! adds nothing but the external labels. It has no state of its own: what it knows it asks for again and again.
//!
//! Not here: uploads of blocks, rules, targets and exemplars.
//!
//! Reading order: `config`, `component`, `upstream`, `store`, `read`, `order`.

mod component;
mod config;
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
