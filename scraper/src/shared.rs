//! What all scrapes share.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use head::Database;
use runtime::{Shutdown, ShutdownGate};
use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::metrics::ScrapeMetrics;

/// What all scrapes share.
pub(crate) struct Shared {
    pub(crate) database: Arc<Database>,
    pub(crate) clock: Clock,
    pub(crate) metrics: ScrapeMetrics,
    /// Expositions are parsed and appended by at most so many threads at once.
    pub(crate) workers: Arc<Semaphore>,
    /// Spreads the scrapes of replicas.
    pub(crate) seed: AtomicU64,
    /// Ends all loops, without staleness markers: the program will go on where it was.
    pub(crate) shutdown: Shutdown,
    /// Loops that have not ended.
    pub(crate) loops: ShutdownGate,
}
