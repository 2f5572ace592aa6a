//! Keeps the data folder: writes the log to the disk, cuts and removes blocks.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use head::{Database, HeadError, Maintained, Unlogged};
use model::Timestamp;
use prometheus_client::metrics::counter::Counter;
use runtime::{Registry, Shutdown};
use tokio::sync::watch;
use tracing::{error, info, warn};
use tsdb::Ulid;

/// What a crash of the machine can cost. A crash of the process costs nothing.
const SYNC_INTERVAL: Duration = Duration::from_secs(5);
/// Time between two looks whether a block is due. The first one is soon after the start.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(60);

/// Counters of the maintenance, with the names of Prometheus.
#[derive(Clone, Default)]
pub struct MaintenanceMetrics {
    cuts: Counter,
    failures: Counter,
    removed: Counter,
}

impl MaintenanceMetrics {
    /// Registers them. `role` is the part of their names that names the role, such as `scrape`.
    pub fn new(role: &str, registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "prometheus_tsdb_compactions",
            "Blocks that were cut off the head",
            metrics.cuts.clone(),
        );
        registry.register(
            "prometheus_tsdb_compactions_failed",
            "Attempts to cut or remove blocks that failed",
            metrics.failures.clone(),
        );
        registry.register(
            format!("isthmus_{role}_blocks_removed"),
            "Blocks that were removed because of their age or size",
            metrics.removed.clone(),
        );
        metrics
    }
}

/// Keeps a data folder until shutdown.
pub struct Maintenance {
    /// The folder.
    pub database: Arc<Database>,
    /// The blocks that may be removed; `None` if nothing is uploaded.
    pub removable: Option<watch::Receiver<BTreeSet<Ulid>>>,
    /// Its counters.
    pub metrics: MaintenanceMetrics,
}

impl Maintenance {
    /// Runs until shutdown. The log is also written while a block is cut.
    pub async fn run(self, shutdown: Shutdown) {
        tokio::join!(self.keep_syncing(&shutdown), self.keep_maintaining(&shutdown));
    }

    async fn keep_syncing(&self, shutdown: &Shutdown) {
        let mut logged = LoggedProblems::default();
        while shutdown.until_triggered(tokio::time::sleep(SYNC_INTERVAL)).await.is_some() {
            let database = Arc::clone(&self.database);
            let work =
                tokio::task::spawn_blocking(move || (database.head().sync(), database.head().unlogged()));
            if let Ok((synced, unlogged)) = work.await {
                logged.unlogged(unlogged, synced.err());
            }
        }
    }

    async fn keep_maintaining(&self, shutdown: &Shutdown) {
        let mut logged = LoggedProblems::default();
        let mut pause = SYNC_INTERVAL;
        while shutdown.until_triggered(tokio::time::sleep(pause)).await.is_some() {
            pause = MAINTENANCE_INTERVAL;
            let (database, removable) = (Arc::clone(&self.database), self.removable.clone());
            let work = tokio::task::spawn_blocking(move || maintain(&database, removable.as_ref()));
            if let Ok(maintained) = work.await {
                self.count(&maintained);
                logged.maintained(maintained);
            }
        }
    }

    fn count(&self, outcome: &Result<Maintained, HeadError>) {
        match outcome {
            Ok(done) => {
                self.metrics.cuts.inc_by(done.cut.len() as u64);
                self.metrics.removed.inc_by(done.removed.len() as u64);
            }
            Err(_) => drop(self.metrics.failures.inc()),
        }
    }
}

/// Cuts and removes blocks. Blocks are kept, whatever their age and size, until stores have them.
fn maintain(
    database: &Database,
    removable: Option<&watch::Receiver<BTreeSet<Ulid>>>,
) -> Result<Maintained, HeadError> {
    let removable = removable.map(|removable| removable.borrow().clone());
    let is_kept = |id: Ulid| removable.as_ref().is_some_and(|removable| !removable.contains(&id));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    database.maintain_keeping(Timestamp::EPOCH + now, &is_kept)
}

/// What was logged, so that a condition is logged when it begins and when it ends.
#[derive(Default)]
struct LoggedProblems {
    unlogged: bool,
    maintenance: Option<String>,
}

impl LoggedProblems {
    fn unlogged(&mut self, unlogged: Option<Unlogged>, failed: Option<HeadError>) {
        let problem = failed.map(|error| error.to_string());
        let problem = problem.or(unlogged.as_ref().map(|unlogged| unlogged.problem.clone()));
        match problem {
            Some(problem) if !self.unlogged => {
                let waiting = unlogged.map_or(0, |unlogged| unlogged.samples);
                error!(error = %problem, waiting, "the write-ahead log cannot be written, samples are only in memory");
                self.unlogged = true;
            }
            None if self.unlogged => {
                info!("the write-ahead log can be written again");
                self.unlogged = false;
            }
            _ => {}
        }
    }

    fn maintained(&mut self, outcome: Result<Maintained, HeadError>) {
        match outcome {
            Ok(done) => {
                done.cut.iter().for_each(|block| info!(%block, "cut a block off the head"));
                done.removed.iter().for_each(
                    |block| info!(%block, "removed a block, because of its age or the size of the folder"),
                );
                if self.maintenance.take().is_some() {
                    info!("blocks can be cut and removed again");
                }
            }
            Err(cause) => {
                let cause = cause.to_string();
                if self.maintenance.as_ref() != Some(&cause) {
                    warn!(error = %cause, "blocks could not be cut or removed, trying again");
                }
                self.maintenance = Some(cause);
            }
        }
    }
}
