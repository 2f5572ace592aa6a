//! The configuration in use, and how it is replaced.

use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use head::Database;
use model::Labels;
use prometheus_client::metrics::gauge::Gauge;
use remotewrite::{PreparedRemoteWrite, RemoteWriter};
use runtime::{BoxError, ConfigMistakes, Registry};
use tokio::sync::watch;
use tracing::warn;

use crate::config::PrometheusConfig;
use crate::fixed_labels::{FixedLabel, fix_labels};
use crate::flags::{RetentionFlags, RoleConfig, supported};
use crate::manager::ScrapeManager;

/// The configuration in use. Clones share it.
#[derive(Clone)]
pub(crate) struct Current(Arc<State>);

struct State {
    file: PathBuf,
    fixed: Vec<FixedLabel>,
    uploads: bool,
    retention: RetentionFlags,
    config: Mutex<Applied>,
    running: OnceLock<Running>,
    external: watch::Sender<Labels>,
    is_successful: Gauge,
    success_time: Gauge<f64, AtomicU64>,
}

struct Applied {
    config: PrometheusConfig,
    at: SystemTime,
    is_successful: bool,
}

/// What applies the configuration once the data folder is open.
struct Running {
    manager: ScrapeManager,
    database: Arc<Database>,
    writer: Arc<RemoteWriter>,
}

/// Checks where samples are sent.
fn prepare(config: &PrometheusConfig) -> Result<PreparedRemoteWrite, ConfigMistakes> {
    let mut mistakes = ConfigMistakes::default();
    let prepared = mistakes.note(RemoteWriter::prepare(&config.remote_write, &config.global.external_labels));
    mistakes.or_ok(prepared.unwrap_or_default())
}

impl Current {
    /// What the role begins with.
    pub(crate) fn new(role: &RoleConfig, registry: &mut Registry) -> Self {
        let (file, config) = (role.file.clone(), role.prometheus.clone());
        let external = watch::Sender::new(config.global.external_labels.clone());
        let (is_successful, success_time) = (Gauge::default(), Gauge::default());
        registry.register(
            "prometheus_config_last_reload_successful",
            "1 if the last time that the configuration was read succeeded",
            is_successful.clone(),
        );
        registry.register(
            "prometheus_config_last_reload_success_timestamp_seconds",
            "Time at which the configuration in use was read, in seconds since the epoch",
            success_time.clone(),
        );
        config.warnings.iter().for_each(|warning| warn!(file = %file.display(), "{warning}"));
        let config = Mutex::new(Applied { config, at: SystemTime::now(), is_successful: true });
        let current = Self(Arc::new(State {
            file,
            fixed: role.fixed.clone(),
            uploads: role.bucket.is_some(),
            retention: role.retention,
            config,
            running: OnceLock::new(),
            external,
            is_successful,
            success_time,
        }));
        current.report(true);
        current
    }

    /// The external labels now.
    pub(crate) fn external(&self) -> watch::Receiver<Labels> {
        self.0.external.subscribe()
    }

    /// Applies the configuration in use to what runs from now on.
    ///
    /// # Errors
    /// A file that it names cannot be used.
    pub(crate) fn begin(
        &self,
        manager: ScrapeManager,
        database: Arc<Database>,
        writer: Arc<RemoteWriter>,
    ) -> Result<(), ConfigMistakes> {
        let applied = self.0.config.lock().unwrap_or_else(PoisonError::into_inner);
        let prepared = prepare(&applied.config)?;
        manager.apply(&applied.config)?;
        writer.apply(prepared);
        // The role begins once.
        let _ = self.0.running.set(Running { manager, database, writer });
        Ok(())
    }

    /// The scrapes; `None` before they begin.
    pub(crate) fn manager(&self) -> Option<&ScrapeManager> {
        self.0.running.get().map(|running| &running.manager)
    }

    /// Reads the file again. It must be called in a tokio runtime.
    ///
    /// # Errors
    /// The file has mistakes; everything stays as it was.
    pub(crate) async fn reload(&self) -> Result<(), BoxError> {
        let file = self.0.file.clone();
        let read = tokio::task::spawn_blocking(move || PrometheusConfig::load(&file)).await?;
        let outcome = read.and_then(|mut config| {
            fix_labels(&self.0.fixed, &mut config, &self.0.file)?;
            self.replace(config)
        });
        self.report(outcome.is_ok());
        Ok(outcome?)
    }

    fn replace(&self, config: PrometheusConfig) -> Result<(), ConfigMistakes> {
        supported(&config, self.0.uploads, &self.0.file)?;
        let mut applied = self.0.config.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = self.0.running.get() {
            let prepared = prepare(&config)?;
            running.manager.apply(&config)?;
            running.writer.apply(prepared);
            running.database.head().set_out_of_order_window(config.storage.out_of_order_time_window);
            let (time, bytes) = self.0.retention.with(&config);
            running.database.set_retention(time, bytes);
        }
        config.warnings.iter().for_each(|warning| warn!(file = %self.0.file.display(), "{warning}"));
        self.0.external.send_if_modified(|old| {
            let fresh = &config.global.external_labels;
            let is_new = old != fresh;
            if is_new {
                old.clone_from(fresh);
            }
            is_new
        });
        applied.config = config;
        applied.at = SystemTime::now();
        Ok(())
    }

    fn report(&self, is_successful: bool) {
        let mut applied = self.0.config.lock().unwrap_or_else(PoisonError::into_inner);
        applied.is_successful = is_successful;
        self.0.is_successful.set(i64::from(is_successful));
        self.0.success_time.set(applied.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
    }

    /// The text of the file in use, without secrets.
    pub(crate) fn shown(&self) -> String {
        self.0.config.lock().unwrap_or_else(PoisonError::into_inner).config.shown.clone()
    }

    /// Whether the last reload succeeded, and when the configuration in use was read.
    pub(crate) fn last_reload(&self) -> (bool, SystemTime) {
        let applied = self.0.config.lock().unwrap_or_else(PoisonError::into_inner);
        (applied.is_successful, applied.at)
    }

    /// How samples are kept now.
    pub(crate) fn storage(&self) -> crate::config::StorageConfig {
        self.0.config.lock().unwrap_or_else(PoisonError::into_inner).config.storage
    }

    /// How long and how many bytes are kept now.
    pub(crate) fn retention(&self) -> (Option<std::time::Duration>, Option<u64>) {
        self.0.retention.with(&self.0.config.lock().unwrap_or_else(PoisonError::into_inner).config)
    }
}
