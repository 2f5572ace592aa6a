//! How Prometheus is told to reload, and how it is known that it did.

use std::fs;
use std::time::Duration;

use model::Timestamp;
use promapi::{Client, ClientError, RuntimeInfo};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use crate::reloader::config::Method;

/// How often Prometheus is asked whether it has taken the configuration after a signal.
const POLL: Duration = Duration::from_secs(1);

/// How long it may take after a signal. Large rule files take seconds.
const SIGNAL_PATIENCE: Duration = Duration::from_secs(60);

/// Linux keeps this many bytes of a process' name.
const NAME_BYTES: usize = 15;

/// Why Prometheus did not reload.
#[derive(Debug, thiserror::Error)]
pub(super) enum TriggerError {
    #[error("{0}")]
    Away(ClientError),
    #[error("start Prometheus with --web.enable-lifecycle, or use --reloader.method=signal: {0}")]
    Forbidden(ClientError),
    #[error("{0}")]
    Refused(ClientError),
    #[error(
        "no process is named {0:?} (--reloader.process-name); the sidecar must share its process id namespace"
    )]
    NoProcess(String),
    #[error("send SIGHUP to process {pid} ({name}): {cause}")]
    Signal { pid: i32, name: String, cause: rustix::io::Errno },
    #[error("Prometheus did not take the configuration after SIGHUP; its log says why")]
    NotTaken,
    #[error(
        "Prometheus has not taken the configuration within {SIGNAL_PATIENCE:?} of SIGHUP; its log may say why"
    )]
    NoSign,
}

/// Tells one Prometheus to reload.
pub(crate) enum Trigger {
    /// `POST /-/reload`, which answers when the reload is done.
    Http(Client),
    /// SIGHUP, after which Prometheus is asked until it has reloaded.
    Signal {
        /// Asks how it went.
        client: Client,
        /// Name of the executable.
        name: String,
    },
}

impl Trigger {
    pub(crate) fn new(method: Method, name: &str, client: Client) -> Self {
        match method {
            Method::Http => Self::Http(client),
            Method::Signal => Self::Signal { client, name: name.to_owned() },
        }
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Http(_) => "http",
            Self::Signal { .. } => "signal",
        }
    }

    /// Returns when Prometheus has taken its files.
    pub(super) async fn reload(&self) -> Result<(), TriggerError> {
        match self {
            Self::Http(client) => client.reload().await.map_err(|error| match error.status() {
                None => TriggerError::Away(error),
                // 404 and 405 are those of old versions.
                Some(status) if (403..=405).contains(&status.as_u16()) => TriggerError::Forbidden(error),
                Some(_) => TriggerError::Refused(error),
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
                until_taken(client, &before).await
            }
        }
    }
}

/// Waits for the second after `last`: Prometheus tells the time of a reload in whole seconds, and two in the same
/// second could not be told apart.
async fn until_after(last: Timestamp) {
    let next = (last.as_millis().div_euclid(1000) + 1) * 1000;
    let wait = next.saturating_sub(crate::now().as_millis());
    // A clock that was set back must not hold the reload up.
    sleep(Duration::from_millis(wait.clamp(0, 1000).unsigned_abs())).await;
}

async fn until_taken(client: &Client, before: &RuntimeInfo) -> Result<(), TriggerError> {
    let deadline = Instant::now() + SIGNAL_PATIENCE;
    loop {
        match client.runtime_info().await {
            Ok(now) if now.reload_config_success && now.last_config_time > before.last_config_time => {
                return Ok(());
            }
            Ok(now) if before.reload_config_success && !now.reload_config_success => {
                return Err(TriggerError::NotTaken);
            }
            Err(error) if Instant::now() >= deadline => return Err(TriggerError::Away(error)),
            Ok(_) if Instant::now() >= deadline => return Err(TriggerError::NoSign),
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
