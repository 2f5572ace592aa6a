//! All scrape configurations at work.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use head::{Database, Metadata};
use model::Labels;
use promapi::TargetDiscovery;
use runtime::{ConfigMistakes, Registry, Shutdown, ShutdownGate};
use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::config::PrometheusConfig;
use crate::job::Job;
use crate::metrics::ScrapeMetrics;
use crate::setup::JobSetup;
use crate::shared::Shared;
use crate::target::fnv;

/// How a [`ScrapeManager`] works.
#[derive(Clone, Debug)]
pub struct ScrapeOptions {
    /// The clock that gives scrapes their time.
    pub clock: Clock,
    /// The name or address of this machine for others, in URLs of targets on `localhost`; `None` leaves these as they are.
    pub external_host: Option<String>,
    /// Distinguishes this program from its replicas, which scrape the same targets at other times: usually the name of the machine.
    pub seed: String,
    /// Whether it is stored when counters began; see [`ScrapeRules`](crate::ScrapeRules).
    pub start_timestamps: bool,
    /// Threads that parse and append expositions at once; at least 1.
    pub workers: usize,
}

impl Default for ScrapeOptions {
    fn default() -> Self {
        let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            clock: Clock::system(),
            external_host: None,
            seed: host_name(),
            start_timestamps: false,
            workers,
        }
    }
}

/// Discovers targets, scrapes them, and appends what they expose to a database. Clones are the same manager.
///
/// ```
/// # async fn example(database: std::sync::Arc<head::Database>, shutdown: runtime::Shutdown) -> Result<(), runtime::ConfigMistakes> {
/// use scraper::{PrometheusConfig, ScrapeManager, ScrapeOptions};
/// let manager = ScrapeManager::new(database, ScrapeOptions::default());
/// manager.apply(&PrometheusConfig::load("prometheus.yml".as_ref())?)?;
/// manager.run(shutdown).await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ScrapeManager {
    shared: Arc<Shared>,
    options: Arc<ScrapeOptions>,
    /// By their names.
    jobs: Arc<Mutex<BTreeMap<String, Arc<Job>>>>,
}

impl ScrapeManager {
    /// A manager that scrapes nothing yet.
    pub fn new(database: Arc<Database>, options: ScrapeOptions) -> Self {
        Self::with_metrics(database, options, ScrapeMetrics::default())
    }

    /// As [`ScrapeManager::new`], with counters that are registered already.
    pub(crate) fn with_metrics(
        database: Arc<Database>,
        options: ScrapeOptions,
        metrics: ScrapeMetrics,
    ) -> Self {
        let shared = Shared {
            database,
            clock: options.clock.clone(),
            metrics,
            workers: Arc::new(Semaphore::new(options.workers.max(1))),
            seed: AtomicU64::new(0),
            shutdown: Shutdown::new(),
            loops: ShutdownGate::new(),
        };
        Self { shared: Arc::new(shared), options: Arc::new(options), jobs: Arc::default() }
    }

    /// Registers the counters, which have the names of Prometheus.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.shared.metrics.register(registry);
    }

    /// Scrapes what a configuration says. Scrape configurations that are unchanged go on without a break; so do targets and
    /// discoveries of those that changed, where these are the same. It must be called in a tokio runtime.
    ///
    /// # Errors
    /// A file that the configuration names for TLS, or a proxy of the environment, cannot be used. Everything then stays as it was.
    pub fn apply(&self, config: &PrometheusConfig) -> Result<(), ConfigMistakes> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut mistakes = ConfigMistakes::default();
        let mut setups = Vec::new();
        for config in &config.scrape_configs {
            if jobs.get(&config.job_name).is_some_and(|job| job.setup().config == *config) {
                continue;
            }
            let setup = JobSetup::new(Arc::clone(config), self.options.start_timestamps);
            setups.extend(
                mistakes.note(setup.map_err(|why| format!("scrape_configs: {}: {why}", config.job_name))),
            );
        }
        mistakes.or_ok(())?;
        let labels = &config.global.external_labels;
        self.shared.seed.store(fnv(format!("{}{labels}", self.options.seed).as_bytes()), Ordering::Relaxed);
        jobs.retain(|name, job| {
            let is_kept = config.scrape_configs.iter().any(|config| config.job_name == *name);
            if !is_kept {
                job.remove();
            }
            is_kept
        });
        for setup in setups.into_iter().map(Arc::new) {
            match jobs.get(&setup.config.job_name) {
                Some(job) => job.reload(setup),
                None => {
                    let name = setup.config.job_name.clone();
                    jobs.insert(name, Job::start(Arc::clone(&self.shared), setup));
                }
            }
        }
        Ok(())
    }

    /// The targets now, sorted by their scrape configuration and URL.
    pub fn targets(&self) -> TargetDiscovery {
        let mut listed = TargetDiscovery::default();
        for job in self.jobs.lock().unwrap_or_else(PoisonError::into_inner).values() {
            job.list(&mut listed, &|url| self.global_url(url));
        }
        listed
    }

    /// What each target says about its metrics, by the labels of the target: names, and type, help and unit.
    pub fn metadata(&self) -> Vec<(Labels, Vec<(String, Metadata)>)> {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.values().flat_map(|job| job.metadata()).collect()
    }

    /// Waits for `shutdown` and then until all scrapes have ended. Series do not become stale, because the program may go on after
    /// a restart.
    pub async fn run(&self, shutdown: Shutdown) {
        shutdown.triggered().await;
        self.shared.shutdown.trigger();
        self.shared.loops.close().await;
    }

    /// The URL of a target for other machines.
    fn global_url(&self, url: &str) -> String {
        let Some(own) = &self.options.external_host else { return url.to_owned() };
        let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
        for local in ["localhost", "127.0.0.1", "[::1]"] {
            if let Some(after) = rest.strip_prefix(local)
                && (after.is_empty() || after.starts_with([':', '/']))
            {
                return format!("{scheme}://{own}{after}");
            }
        }
        url.to_owned()
    }
}

impl std::fmt::Debug for ScrapeManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScrapeManager").field("options", &self.options).finish_non_exhaustive()
    }
}

/// The name of this machine.
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
