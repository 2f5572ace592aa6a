//! A manager with a database of its own.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use head::{Database, DatabaseOptions};
use promapi::ActiveTarget;

use crate::tests::{Floats, floats};
use crate::{PrometheusConfig, ScrapeManager, ScrapeOptions};

/// A manager with a database of its own.
pub(super) struct World {
    pub(super) dir: tempfile::TempDir,
    pub(super) database: Arc<Database>,
    pub(super) manager: ScrapeManager,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(ScrapeOptions::default())
    }

    pub(super) fn with(options: ScrapeOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (database, _) = Database::open(&dir.path().join("data"), DatabaseOptions::default()).unwrap();
        let database = Arc::new(database);
        Self { dir, manager: ScrapeManager::new(Arc::clone(&database), options), database }
    }

    /// Applies a configuration, which paths are relative to the folder of the world.
    pub(super) fn apply(&self, text: &str) {
        self.try_apply(text).unwrap_or_else(|mistakes| panic!("{mistakes}\n{text}"));
    }

    pub(super) fn try_apply(&self, text: &str) -> Result<(), String> {
        let config = PrometheusConfig::parse(text.to_owned(), &self.dir.path().join("p.yml"));
        self.manager
            .apply(&config.map_err(|mistakes| mistakes.to_string())?)
            .map_err(|mistakes| mistakes.to_string())
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn floats(&self) -> Floats {
        floats(self.database.head())
    }

    /// The samples of a series by their time; none if there is no such series.
    pub(super) fn samples(&self, series: &str) -> BTreeMap<i64, String> {
        self.floats().remove(series).unwrap_or_default()
    }

    pub(super) fn values(&self, series: &str) -> Vec<String> {
        self.samples(series).into_values().collect()
    }

    /// Waits until a series has at least so many samples, and returns its values.
    pub(super) async fn until_samples(&self, series: &str, least: usize) -> Vec<String> {
        self.until(&format!("{least} samples of {series}"), || self.values(series).len() >= least).await;
        self.values(series)
    }

    pub(super) async fn until(&self, what: &str, mut is_done: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !is_done() {
            assert!(
                Instant::now() < deadline,
                "no {what}: {:#?}\n{:#?}",
                self.manager.targets(),
                self.floats()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(super) fn targets(&self) -> Vec<ActiveTarget> {
        self.manager.targets().active_targets
    }

    /// Why the last scrape of the only target failed, once there was one.
    pub(super) async fn last_error(&self) -> String {
        let is_there =
            || self.targets().first().is_some_and(|target| target.last_scrape != promapi::ApiTime::NEVER);
        self.until("scrape", is_there).await;
        self.targets()[0].last_error.clone()
    }
}

/// A configuration with one job, which has these targets and further lines.
pub(super) fn job(targets: &[String], lines: &str) -> String {
    let targets: Vec<String> = targets.iter().map(|target| format!("'{target}'")).collect();
    let interval = if lines.contains("scrape_interval") { "" } else { "  scrape_interval: 400ms\n" };
    let lines: String = lines.lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "scrape_configs:\n- job_name: t\n{interval}  static_configs: [{{targets: [{}]}}]\n{lines}",
        targets.join(", ")
    )
}

/// A series of the job with the only target.
pub(super) fn of(name: &str, target: impl std::fmt::Display) -> String {
    format!("{name}{{instance=\"{target}\", job=\"t\"}}")
}
