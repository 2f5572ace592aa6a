//! Runs the tasks of a role until a signal or a failure, then ends them in order.

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, timeout_at};
use tracing::{error, info, warn};

use crate::{BoxError, Gate, Probes, Reload, Shutdown};

/// Exit code of a role that ended as it was told to.
pub const EXIT_OK: u8 = 0;
/// Exit code of a role that failed while it ran.
pub const EXIT_ERROR: u8 = 1;
/// Exit code for arguments or a configuration that make no sense; the role never started.
pub const EXIT_USAGE: u8 = 2;
/// Exit code after the second signal, 128 + SIGINT as shells have it.
const EXIT_INTERRUPTED: i32 = 130;

/// Time that tasks have beyond the servers' own grace periods to notice and return.
const MARGIN: Duration = Duration::from_secs(1);

/// Owns the tasks of a role.
///
/// The end comes with SIGINT or SIGTERM (exit code 0), when [`Shutdown`] is triggered from inside (0), or
/// when a task returns an error or panics (1, with one log line that names the task). A task that returns
/// `Ok` has simply done its work. Then: the probes say "not ready", [`Shutdown`] is triggered, the gate is
/// closed, and everything has the grace period to finish; what is left after that is dropped. A second
/// signal ends the process at once with code 130. SIGHUP runs the [`Reload`] hooks.
#[derive(Debug)]
pub struct Supervisor {
    probes: Probes,
    shutdown: Shutdown,
    reload: Reload,
    gate: Gate,
    grace: Duration,
    tasks: Tasks,
}

impl Supervisor {
    /// A supervisor without tasks; `grace` bounds the end from the first signal on.
    pub fn new(probes: Probes, grace: Duration) -> Self {
        let (shutdown, reload, gate) = (Shutdown::new(), Reload::new(), Gate::new());
        Self { probes, shutdown, reload, gate, grace, tasks: Tasks::default() }
    }

    /// The word to stop that this supervisor gives; triggering it ends the role with code 0.
    pub fn shutdown(&self) -> Shutdown {
        self.shutdown.clone()
    }

    /// The hooks that SIGHUP runs.
    pub fn reload(&self) -> Reload {
        self.reload.clone()
    }

    /// The gate at which the end waits.
    pub fn gate(&self) -> Gate {
        self.gate.clone()
    }

    /// Starts a task now. It should return soon after [`Supervisor::shutdown`] is triggered.
    pub fn spawn<E: Into<BoxError>>(
        &mut self,
        name: impl Into<String>,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        self.tasks.spawn(name.into(), async move { task.await.map_err(Into::into) });
    }

    /// Runs until the end and says how it went, one of [`EXIT_OK`] and [`EXIT_ERROR`].
    ///
    /// Returns early with success when the last task has returned without an error.
    pub async fn run(mut self) -> ExitCode {
        let mut signals = match Signals::install() {
            Ok(signals) => signals,
            Err(cause) => {
                error!(error = %cause, "install signal handlers");
                return ExitCode::from(EXIT_ERROR);
            }
        };
        let code = tokio::select! {
            name = signals.stop(&self.reload) => {
                info!(signal = name, grace = ?self.grace, "stopping");
                EXIT_OK
            }
            () = self.shutdown.triggered() => EXIT_OK,
            code = self.tasks.until_failure() => code,
        };
        let reload = self.reload.clone();
        tokio::select! {
            biased;
            name = signals.stop(&reload) => {
                warn!(signal = name, "second signal, ending at once");
                std::process::exit(EXIT_INTERRUPTED)
            }
            rest = self.end() => ExitCode::from(code.max(rest)),
        }
    }

    /// Stops everything within the grace period.
    async fn end(&mut self) -> u8 {
        let deadline = Instant::now() + self.grace + MARGIN;
        self.probes.stop();
        self.shutdown.trigger();
        let (tasks, gate) = (&mut self.tasks, &self.gate);
        let code =
            match timeout_at(deadline, async { tokio::join!(tasks.until_empty(), gate.close()).0 }).await {
                Ok(code) => code,
                Err(_) => {
                    let tasks: Vec<&str> = self.tasks.names.values().map(String::as_str).collect();
                    warn!(
                        ?tasks,
                        inside_gate = self.gate.inside(),
                        "grace period is over, dropping what still runs"
                    );
                    EXIT_OK
                }
            };
        self.tasks.running.shutdown().await;
        code
    }
}

/// The signals that a role listens to.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn install() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal to stop and gives its name; a signal to reload starts a reload meanwhile.
    async fn stop(&mut self, reload: &Reload) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hangup.recv() => {
                    let reload = reload.clone();
                    // Each hook logs its own outcome.
                    tokio::spawn(async move { reload.run().await.is_ok() });
                }
            }
        }
    }
}

/// Running tasks and their names.
#[derive(Debug, Default)]
struct Tasks {
    running: JoinSet<Result<(), BoxError>>,
    names: HashMap<Id, String>,
}

impl Tasks {
    fn spawn(&mut self, name: String, task: impl Future<Output = Result<(), BoxError>> + Send + 'static) {
        let handle = self.running.spawn(task);
        self.names.insert(handle.id(), name);
    }

    /// Waits for the next task to end and says whether it did well; `None` when none is left.
    async fn next(&mut self) -> Option<bool> {
        let (id, outcome) = match self.running.join_next_with_id().await? {
            Ok((id, outcome)) => (id, outcome),
            Err(error) => (error.id(), Err(error.into())),
        };
        let task = self.names.remove(&id).unwrap_or_default();
        if let Err(cause) = &outcome {
            error!(%task, error = %cause, "task failed");
        }
        Some(outcome.is_ok())
    }

    /// Waits until a task fails or none is left.
    async fn until_failure(&mut self) -> u8 {
        loop {
            match self.next().await {
                Some(true) => {}
                Some(false) => return EXIT_ERROR,
                None => return EXIT_OK,
            }
        }
    }

    /// Waits until none is left.
    async fn until_empty(&mut self) -> u8 {
        let mut code = EXIT_OK;
        while let Some(well) = self.next().await {
            if !well {
                code = EXIT_ERROR;
            }
        }
        code
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supervisor() -> Supervisor {
        Supervisor::new(Probes::new(), Duration::from_secs(60))
    }

    #[tokio::test]
    async fn a_failing_task_ends_the_others_and_the_role_with_code_1() {
        let mut supervisor = supervisor();
        let (probes, shutdown) = (supervisor.probes.clone(), supervisor.shutdown());
        supervisor.spawn("server", async move {
            shutdown.triggered().await;
            Ok::<_, BoxError>(())
        });
        supervisor.spawn("shipper", async { Err::<(), BoxError>("disk is full".into()) });
        assert_eq!(supervisor.run().await, ExitCode::from(EXIT_ERROR));
        assert_eq!(probes.health().not_ready.as_deref(), Some("shutting down"));
    }

    #[tokio::test]
    async fn a_panic_is_a_failure() {
        let mut supervisor = supervisor();
        supervisor.spawn("fragile", async {
            if true {
                panic!("bug");
            }
            Ok::<_, BoxError>(())
        });
        assert_eq!(supervisor.run().await, ExitCode::from(EXIT_ERROR));
    }

    #[tokio::test]
    async fn what_outlives_the_grace_period_is_dropped() {
        let mut supervisor = Supervisor::new(Probes::new(), Duration::ZERO);
        let _guard = supervisor.gate().enter().unwrap();
        supervisor.spawn("deaf", std::future::pending::<Result<(), BoxError>>());
        supervisor.shutdown().trigger();
        assert_eq!(supervisor.run().await, ExitCode::from(EXIT_OK));
    }
}
