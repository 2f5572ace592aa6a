//! Remote write: sends the samples of a head to other databases, with the protocol of Prometheus.
//!
//! A [`RemoteWriter`] has a queue for each receiver. The queue is the write-ahead log of the head: samples are read from it, and a small
//! file says how much was sent. So nothing is lost in a restart, and a receiver may be away as long as the log is kept for it.
//!
//! Not here: the log itself (`head`), connections (`httpclient`).

mod config;
mod delivery;
mod histogram;
mod item;
mod message;
mod metrics;
mod position;
mod progress;
mod queue;
mod read;
mod receiver;
mod source;
mod writer;

pub use config::{DEFAULT_AGE_LIMIT, RemoteWriteConfig, RemoteWriteMessage, RemoteWriteQueue};
pub use metrics::RemoteWriteMetrics;
pub use writer::{PreparedRemoteWrite, RemoteWriter};

/// What receivers see as the client.
const USER_AGENT: &str = concat!("isthmus/", env!("CARGO_PKG_VERSION"));

#[cfg(test)]
mod tests;
