//! Requests a reload from Prometheus and waits for its result.

use std::fs;
use std::time::Duration;

use model::Timestamp;
use promapi::{ClientError, PrometheusClient, RuntimeInfo};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use crate::reloader::config::ReloadMethod;

/// Interval of the requests for the result after a signal.
const POLL: Duration = Duration::from_secs(1);

/// Maximum time until a reload by signal is complete. Large rule files take seconds.
const SIGNAL_TIMEOUT: Duration = Duration::from_secs(60);

/// Linux truncates process names to this many bytes.
const NAME_BYTES: usize = 15;

/// Why Prometheus did not reload.
#[derive(Debug, thiserror::Error)]
pub(super) enum TriggerError {
    #[error("{0}")]
    Away(ClientError),
    #[error("{0}; start Prometheus with --web.enable-lifecycle, or use --reloader.method=signal")]
    Forbidden(ClientError),
    #[error("{0}")]
    HttpRejected(ClientError),
    #[error(
        "no process with name {0:?} (--reloader.process-name); the containers of the sidecar and of Prometheus must share their process ids"
    )]
    NoProcess(String),
    #[error("send SIGHUP to process {pid} ({name}): {cause}")]
    Signal { pid: i32, name: String, cause: rustix::io::Errno },
    #[error("Prometheus rejected the configuration after SIGHUP; see the log of Prometheus")]
    SignalRejected,
    #[error(
        "Prometheus has not confirmed the reload within {SIGNAL_TIMEOUT:?} of SIGHUP; see the log of Prometheus"
    )]
    NotConfirmed,
}

/// Requests reloads from one Prometheus.
pub(crate) enum Trigger {
    /// `POST /-/reload`, which answers when the reload is complete.
    Http(PrometheusClient),
    /// SIGHUP. Prometheus is then polled until it has reloaded.
    Signal {
        /// Reads the result.
        client: PrometheusClient,
        /// Name of the executable.
        name: String,
    },
}

impl Trigger {
    pub(crate) fn new(method: ReloadMethod, name: &str, client: PrometheusClient) -> Self {
        match method {
            ReloadMethod::Http => Self::Http(client),
            ReloadMethod::Signal => Self::Signal { client, name: name.to_owned() },
        }
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Http(_) => "http",
            Self::Signal { .. } => "signal",
        }
    }

    /// Returns when Prometheus has loaded its files.
    pub(super) async fn reload(&self) -> Result<(), TriggerError> {
        match self {
            Self::Http(client) => client.reload().await.map_err(|error| match error.status() {
                None => TriggerError::Away(error),
                // Old versions answer 404 and 405.
                Some(status) if (403..=405).contains(&status.as_u16()) => TriggerError::Forbidden(error),
                Some(_) => TriggerError::HttpRejected(error),
            }),
            Self::Signal { client, name } => {
                let before = client.runtime_info().await.map_err(TriggerError::Away)?;
                let pid = find_process(name).ok_or_else(|| TriggerError::NoProcess(name.clone()))?;
                until_after(before.last_config_time).await;
                kill_process(pid, Signal::HUP).map_err(|cause| TriggerError::Signal {
                    pid: pid.as_raw_nonzero().get(),
                    name: name.clone(),
                    cause,
                })?;
                until_confirmed(client, &before).await
            }
        }
    }
}

/// Waits until the second after `last`. Prometheus reports the time of a reload in whole seconds, so two
/// reloads in one second cannot be distinguished.
async fn until_after(last: Timestamp) {
    let next = (last.as_millis().div_euclid(1000) + 1) * 1000;
    let wait = next.saturating_sub(crate::now().as_millis());
    // Limits the wait, in case the clock was set back.
    sleep(Duration::from_millis(wait.clamp(0, 1000).unsigned_abs())).await;
}

async fn until_confirmed(client: &PrometheusClient, before: &RuntimeInfo) -> Result<(), TriggerError> {
    let deadline = Instant::now() + SIGNAL_TIMEOUT;
    loop {
        match client.runtime_info().await {
            Ok(now) if now.reload_config_success && now.last_config_time > before.last_config_time => {
                return Ok(());
            }
            Ok(now) if before.reload_config_success && !now.reload_config_success => {
                return Err(TriggerError::SignalRejected);
            }
            Err(error) if Instant::now() >= deadline => return Err(TriggerError::Away(error)),
            Ok(_) if Instant::now() >= deadline => return Err(TriggerError::NotConfirmed),
            Ok(_) | Err(_) => sleep(POLL).await,
        }
    }
}

/// The lowest process id with this name.
fn find_process(name: &str) -> Option<Pid> {
    let mut end = name.len().min(NAME_BYTES);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let named = |pid: &i32| {
        let comm = fs::read_to_string(format!("/proc/{pid}/comm"));
        comm.is_ok_and(|comm| comm.trim_end_matches('\n') == &name[..end])
    };
    let processes = fs::read_dir("/proc").ok()?;
    let ids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    ids.filter(named).min().and_then(Pid::from_raw)
}
