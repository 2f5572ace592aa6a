//! The reloader: has Prometheus take its configuration and rules again when their files have changed.
//!
//! Files are compared by content, so that it does not matter how they are replaced (Kubernetes swaps a symlink).
//! A change counts as taken only after Prometheus has said so; until then it is tried again and again, while Prometheus
//! goes on with what it has.
//!
//! Reading order: `config`, `files` (what is there), `output` (the expanded configuration), `trigger` (how Prometheus is
//! told), `watch` (when to look), `metrics`.

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
use watch::Watch;

/// How long files must be left alone after an event before they are read: writers write more than once.
const SETTLE: Duration = Duration::from_millis(100);

/// Why the files were not taken.
#[derive(Debug, thiserror::Error)]
enum ApplyError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Output(#[from] OutputError),
    #[error(transparent)]
    Trigger(#[from] TriggerError),
}

/// Watches the files of one Prometheus.
pub(crate) struct Reloader {
    config: ReloaderConfig,
    trigger: Trigger,
    metrics: ReloaderMetrics,
    /// What Prometheus has taken.
    taken: Option<Digest>,
    /// What it has last refused, and when it is asked again; a change of other files in the folders is no reason.
    refused: Option<(Digest, Instant)>,
    /// The output file was rewritten and Prometheus does not know it yet.
    output_is_new: bool,
    /// The last complaint that was logged.
    complaint: Option<String>,
}

impl Reloader {
    pub(crate) fn new(config: ReloaderConfig, trigger: Trigger, metrics: ReloaderMetrics) -> Self {
        metrics.method(trigger.name());
        Self { config, trigger, metrics, taken: None, refused: None, output_is_new: false, complaint: None }
    }

    /// Runs until shutdown; with a watch interval of 0 the output is written once, and that is all.
    ///
    /// # Cancel safety
    /// The output file is replaced as a whole or not at all.
    pub(crate) async fn run(mut self, shutdown: Shutdown) {
        let Some(interval) = self.config.watch_interval else {
            shutdown.until_triggered(self.write_once()).await;
            return;
        };
        let mut watch = Watch::new(self.metrics.clone());
        let (config, rules) = (self.config.shown_file(), self.config.shown_rules());
        info!(config, rules, method = self.trigger.name(), "reloader watches");
        loop {
            let attempt = async {
                let Scan { directories, digest } = self.scan().await;
                watch.follow(directories);
                if let Some((refused, again)) = self.refused
                    && digest.as_ref().is_ok_and(|digest| *digest == refused)
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

    /// Writes the output without a word to Prometheus; tried until it works.
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

    /// Brings Prometheus up to the files as they are now.
    async fn apply(&mut self, digest: Result<Digest, FileError>) -> Result<(), ApplyError> {
        self.metrics.applying();
        self.write_output().await?;
        let digest = digest?;
        if self.taken == Some(digest) && !self.output_is_new {
            return Ok(());
        }
        self.metrics.reloading();
        if let Err(cause) = self.trigger.reload().await {
            self.refused = Some((digest, Instant::now() + self.config.retry_interval));
            return Err(cause.into());
        }
        self.refused = None;
        self.taken = Some(digest);
        self.output_is_new = false;
        self.metrics.reloaded();
        let (config, rules) = (self.config.shown_file(), self.config.shown_rules());
        info!(config, rules, "Prometheus has taken its configuration and rules");
        Ok(())
    }

    async fn write_output(&mut self) -> Result<(), OutputError> {
        let (Some(from), Some(to)) = (self.config.file.clone(), self.config.output.clone()) else {
            return Ok(());
        };
        let written = blocking(move || output::write(&from, &to, |name| std::env::var(name).ok())).await;
        self.metrics.expanded(!matches!(written, Err(OutputError::Variable { .. })));
        self.output_is_new |= written?;
        Ok(())
    }

    async fn scan(&self) -> Scan {
        let (file, rules): (_, Vec<PathBuf>) = (self.config.file.clone(), self.config.rule_dirs.clone());
        blocking(move || Scan::of(file.as_deref(), &rules)).await
    }

    /// Logs an outcome, the same complaint only once.
    fn report(&mut self, outcome: Result<(), ApplyError>) {
        let Err(cause) = outcome else {
            self.complaint = None;
            return;
        };
        match &cause {
            ApplyError::Trigger(_) => self.metrics.reload_failed(),
            ApplyError::File(_) | ApplyError::Output(_) => self.metrics.apply_failed(),
        }
        let complaint = cause.to_string();
        if self.complaint.as_ref() == Some(&complaint) {
            return;
        }
        let (config, rules) = (self.config.shown_file(), self.config.shown_rules());
        let retry = runtime::format_duration(self.config.retry_interval);
        match cause {
            // A Prometheus that is not there yet is no fault of the files.
            ApplyError::Trigger(TriggerError::Away(_)) => {
                warn!(config, rules, retry, err = complaint, "Prometheus cannot be told to reload");
            }
            _ => error!(
                config,
                rules,
                retry,
                err = complaint,
                "configuration or rules were not taken, Prometheus keeps what it has"
            ),
        }
        self.complaint = Some(complaint);
    }
}

/// Runs file work beside the tasks of the runtime.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(cause) => match cause.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Blocking work is cancelled only with the runtime, and then nobody waits for this.
            Err(_) => std::future::pending().await,
        },
    }
}
