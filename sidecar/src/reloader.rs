//! The reloader: makes Prometheus reload its configuration and rules when their files have changed.
//!
//! Files are compared by content, so it does not matter how they are replaced (Kubernetes swaps a symlink). A
//! change counts as applied only after Prometheus has confirmed it. Until then it is retried, while
//! Prometheus keeps its previous configuration.
//!
//! Reading order: `config`, `files` (reads the files), `output` (writes the expanded configuration),
//! `trigger` (requests the reload), `watch` (detects changes), `metrics`.

mod config;
mod files;
mod metrics;
mod output;
mod trigger;
mod watch;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use runtime::Shutdown;
use tokio::time::Instant;
use tracing::{error, info, warn};

pub(crate) use config::{ReloaderArgs, ReloaderConfig};
use files::{Digest, FileError, Scan};
pub(crate) use metrics::ReloaderMetrics;
use output::OutputError;
pub(crate) use trigger::Trigger;
use trigger::TriggerError;
use watch::FolderWatch;

/// Files are read after they have not changed for this long, because programs write more than once.
const SETTLE: Duration = Duration::from_millis(100);

/// Why the files were not applied.
#[derive(Debug, thiserror::Error)]
enum ApplyError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Output(#[from] OutputError),
    #[error(transparent)]
    Trigger(#[from] TriggerError),
}

/// Watches and reloads the files of one Prometheus.
pub(crate) struct Reloader {
    config: ReloaderConfig,
    trigger: Trigger,
    metrics: ReloaderMetrics,
    /// Digest of the files that Prometheus has loaded.
    loaded: Option<Digest>,
    /// Digest of the files that Prometheus rejected last, and the time of the next attempt. Changes of other
    /// files in the directories do not cause an earlier one.
    rejected: Option<(Digest, Instant)>,
    /// Whether the output file was rewritten and Prometheus has not loaded it yet.
    output_is_new: bool,
    /// The last error that was logged.
    last_error: Option<String>,
}

impl Reloader {
    pub(crate) fn new(config: ReloaderConfig, trigger: Trigger, metrics: ReloaderMetrics) -> Self {
        metrics.method(trigger.name());
        Self {
            config,
            trigger,
            metrics,
            loaded: None,
            rejected: None,
            output_is_new: false,
            last_error: None,
        }
    }

    /// Runs until shutdown. With a watch interval of 0 it writes the output once and returns.
    ///
    /// # Cancel safety
    /// The output file is replaced as a whole or not at all.
    pub(crate) async fn run(mut self, shutdown: Shutdown) {
        let Some(interval) = self.config.watch_interval else {
            shutdown.until_triggered(self.write_once()).await;
            return;
        };
        let mut watch = FolderWatch::new(self.metrics.clone());
        let (config, rules) = (self.config.shown_file(), self.config.shown_rules());
        info!(config, rules, method = self.trigger.name(), "watching configuration and rules");
        loop {
            let attempt = async {
                let Scan { directories, digest } = self.scan().await;
                watch.follow(directories);
                if let Some((rejected, again)) = self.rejected
                    && digest.as_ref().is_ok_and(|digest| *digest == rejected)
                    && Instant::now() < again
                {
                    return again - Instant::now();
                }
                let outcome = self.apply(digest).await;
                let wait = if outcome.is_ok() { interval } else { self.config.retry_interval.min(interval) };
                self.report(outcome);
                wait
            };
            let Some(wait) = shutdown.until_triggered(attempt).await else { return };
            let pause = async {
                if tokio::time::timeout(wait, watch.changed()).await.is_ok() {
                    watch.until_quiet(SETTLE).await;
                }
            };
            if shutdown.until_triggered(pause).await.is_none() {
                return;
            }
        }
    }

    /// Writes the output without a reload; retries until it succeeds.
    async fn write_once(&mut self) {
        loop {
            let written = self.write_output().await;
            let failed = written.is_err();
            self.report(written.map_err(ApplyError::from));
            if !failed {
                return;
            }
            tokio::time::sleep(self.config.retry_interval).await;
        }
    }

    /// Makes Prometheus load the current files.
    async fn apply(&mut self, digest: Result<Digest, FileError>) -> Result<(), ApplyError> {
        self.metrics.applying();
        self.write_output().await?;
        let digest = digest?;
        if self.loaded == Some(digest) && !self.output_is_new {
            return Ok(());
        }
        self.metrics.reloading();
        if let Err(cause) = self.trigger.reload().await {
            self.rejected = Some((digest, Instant::now() + self.config.retry_interval));
            return Err(cause.into());
        }
        self.rejected = None;
        self.loaded = Some(digest);
        self.output_is_new = false;
        self.metrics.reloaded();
        let (config, rules) = (self.config.shown_file(), self.config.shown_rules());
        info!(config, rules, "Prometheus has reloaded its configuration and rules");
        Ok(())
    }

    async fn write_output(&mut self) -> Result<(), OutputError> {
        let (Some(from), Some(to)) = (self.config.file.clone(), self.config.output.clone()) else {
            return Ok(());
        };
        let written =
            blocking(move || output::write_expanded(&from, &to, |name| std::env::var(name).ok())).await;
        self.metrics.expanded(!matches!(written, Err(OutputError::Variable { .. })));
        self.output_is_new |= written?;
        Ok(())
    }

    async fn scan(&self) -> Scan {
        let (file, rules): (_, Vec<PathBuf>) = (self.config.file.clone(), self.config.rule_dirs.clone());
        blocking(move || Scan::of(file.as_deref(), &rules)).await
    }

    /// Logs a result; an error that repeats is logged once.
    fn report(&mut self, outcome: Result<(), ApplyError>) {
        let Err(cause) = outcome else {
            self.last_error = None;
            return;
        };
        match &cause {
            ApplyError::Trigger(_) => self.metrics.reload_failed(),
            ApplyError::File(_) | ApplyError::Output(_) => self.metrics.apply_failed(),
        }
        let last_error = cause.to_string();
        if self.last_error.as_ref() == Some(&last_error) {
            return;
        }
        let (config, rules) = (self.config.shown_file(), self.config.shown_rules());
        let retry = runtime::format_duration(self.config.retry_interval);
        match cause {
            // An unreachable Prometheus is not a mistake in the files.
            ApplyError::Trigger(TriggerError::Away(_)) => {
                warn!(config, rules, retry, error = %last_error, "Prometheus cannot be reached for a reload, retrying");
            }
            _ => error!(
                config,
                rules,
                retry,
                error = %last_error,
                "configuration or rules were not loaded, Prometheus keeps its previous ones"
            ),
        }
        self.last_error = Some(last_error);
    }
}

/// Runs file operations outside the threads of the runtime.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(cause) => match cause.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Blocking work is cancelled only at runtime shutdown; then no task waits for it.
            Err(_) => std::future::pending().await,
        },
    }
}
