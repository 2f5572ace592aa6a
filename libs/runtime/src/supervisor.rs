//! Runs the tasks of a role until a signal or a failure, then stops them in order.

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{error, info, warn};

use crate::probes::Probes;
use crate::reload::Reload;
use crate::role_error::{EXIT_OK, RoleError};
use crate::service_manager::ServiceManager;
use crate::shutdown::{Shutdown, ShutdownGate};

/// Exit code after the second signal, 128 + SIGINT as in shells.
const EXIT_INTERRUPTED: i32 = 130;

/// Time that tasks have, after the servers' own grace periods, to notice the end of a request and to return.
const MARGIN: Duration = Duration::from_secs(1);

/// Owns the tasks of a role; [`RunningRole::wait`](crate::RunningRole::wait) describes how it ends.
#[derive(Debug)]
pub(crate) struct Supervisor {
    probes: Probes,
    first: FirstToStop,
    shutdown: Shutdown,
    reload: Reload,
    gate: ShutdownGate,
    /// How long the role serves on after a signal to stop.
    drain_delay: Duration,
    grace: Duration,
    tasks: Tasks,
}

/// What a shutdown stops before the servers and all other tasks: its signal, and the gate that is waited for.
#[derive(Clone, Debug, Default)]
pub struct FirstToStop {
    /// The signal to stop.
    pub shutdown: Shutdown,
    /// Work that must be over before the rest is stopped.
    pub gate: ShutdownGate,
}

/// What a task of a role may return: `()` where it cannot fail, or else a `Result`.
pub trait TaskOutcome: Send + 'static {
    /// The outcome as a result.
    ///
    /// # Errors
    /// The error of the task.
    fn into_result(self) -> Result<(), RoleError>;
}

impl TaskOutcome for () {
    fn into_result(self) -> Result<(), RoleError> {
        Ok(())
    }
}

impl<E: Into<RoleError> + Send + 'static> TaskOutcome for Result<(), E> {
    fn into_result(self) -> Result<(), RoleError> {
        self.map_err(Into::into)
    }
}

impl Supervisor {
    /// A supervisor without tasks. `grace` is the longest time from the signal to stop to the end of the role, and from
    /// the signal to what is first to stop to its end.
    pub(crate) fn new(probes: Probes, grace: Duration) -> Self {
        let (shutdown, reload, gate) = (Shutdown::new(), Reload::new(), ShutdownGate::new());
        let first = FirstToStop::default();
        let drain_delay = Duration::ZERO;
        Self { probes, first, shutdown, reload, gate, drain_delay, grace, tasks: Tasks::default() }
    }

    /// Sets how long the role serves on after a signal to stop, reported as not ready.
    pub(crate) fn serve_on_for(&mut self, drain_delay: Duration) {
        self.drain_delay = drain_delay;
    }

    /// The probes that a shutdown makes not ready.
    pub(crate) fn probes(&self) -> &Probes {
        &self.probes
    }

    /// The signal to stop that this supervisor gives; triggering it ends the role with code 0.
    pub(crate) fn shutdown(&self) -> Shutdown {
        self.shutdown.clone()
    }

    /// What is stopped before everything else; its signal ends the role with code 0, as a signal of the system does.
    pub(crate) fn first(&self) -> FirstToStop {
        self.first.clone()
    }

    /// The hooks that SIGHUP runs.
    pub(crate) fn reload(&self) -> Reload {
        self.reload.clone()
    }

    /// The gate that the shutdown waits for.
    pub(crate) fn gate(&self) -> ShutdownGate {
        self.gate.clone()
    }

    /// Starts a task now. It should return soon after [`Supervisor::shutdown`] is triggered.
    pub(crate) fn spawn<T: TaskOutcome>(
        &mut self,
        name: impl Into<String>,
        task: impl Future<Output = T> + Send + 'static,
    ) {
        self.tasks.spawn(name.into(), task.map(TaskOutcome::into_result).boxed());
    }

    /// Runs until the role has ended, and returns the exit code: [`EXIT_OK`], or that of the first task that failed.
    ///
    /// Returns early with [`EXIT_OK`] when the last task has returned without an error.
    pub(crate) async fn run(mut self, mut signals: Signals) -> ExitCode {
        let manager = ServiceManager::of_environment();
        if let Some(manager) = &manager {
            manager.ready();
            tokio::spawn(manager.clone().follow(self.probes.clone()));
        }
        signals.manager = manager.clone();
        let (code, delay) = tokio::select! {
            name = signals.stop(&self.reload) => {
                info!(signal = name, drain_delay = ?self.drain_delay, grace = ?self.grace, "received a signal, stopping");
                (EXIT_OK, self.drain_delay)
            }
            () = self.first.shutdown.triggered() => (EXIT_OK, Duration::ZERO),
            () = self.shutdown.triggered() => (EXIT_OK, Duration::ZERO),
            code = self.tasks.until_failure() => (code, Duration::ZERO),
        };
        if let Some(manager) = &manager {
            manager.stopping();
        }
        let reload = self.reload.clone();
        tokio::select! {
            biased;
            name = signals.stop(&reload) => {
                warn!(signal = name, "received a second signal, ending at once");
                std::process::exit(EXIT_INTERRUPTED)
            }
            rest = self.stop(delay) => ExitCode::from(if code == EXIT_OK { rest } else { code }),
        }
    }

    /// Serves on for `delay`, then stops everything within the grace period. Returns the exit code of the first task that
    /// failed meanwhile.
    async fn stop(&mut self, delay: Duration) -> u8 {
        self.probes.stop();
        // A task that fails ends the delay.
        let failed = match delay.is_zero() {
            true => EXIT_OK,
            false => timeout(delay, self.tasks.until_failure()).await.unwrap_or(EXIT_OK),
        };
        let rest = self.stop_now().await;
        if failed == EXIT_OK { rest } else { failed }
    }

    async fn stop_now(&mut self) -> u8 {
        self.first.shutdown.trigger();
        if timeout(self.grace + MARGIN, self.first.gate.close()).await.is_err() {
            warn!("the grace period is over, stopping although not everything is done that comes first");
        }
        let deadline = Instant::now() + self.grace + MARGIN;
        self.shutdown.trigger();
        let (tasks, gate) = (&mut self.tasks, &self.gate);
        let stopped = async { tokio::join!(tasks.until_empty(), gate.close()).0 };
        let code = match timeout_at(deadline, stopped).await {
            Ok(code) => code,
            Err(_) => {
                let tasks: Vec<&str> = self.tasks.names.values().map(String::as_str).collect();
                let inside_gate = self.gate.inside();
                warn!(?tasks, inside_gate, "the grace period is over, dropping the tasks that still run");
                EXIT_OK
            }
        };
        self.tasks.running.shutdown().await;
        code
    }
}

/// The signals that a role handles, from the moment of [`Signals::install`].
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// Who is told of reloads.
    manager: Option<ServiceManager>,
}

impl Signals {
    pub(crate) fn install() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            manager: None,
        })
    }

    /// Waits for a signal to stop and returns its name. Meanwhile, each signal to reload starts a reload.
    pub(crate) async fn stop(&mut self, reload: &Reload) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hangup.recv() => {
                    let (reload, manager) = (reload.clone(), self.manager.clone());
                    tokio::spawn(async move {
                        manager.iter().for_each(ServiceManager::reloading);
                        // Each hook logs its own outcome.
                        let _ = reload.run().await;
                        manager.iter().for_each(ServiceManager::ready);
                    });
                }
            }
        }
    }
}

/// Running tasks and their names.
#[derive(Debug, Default)]
struct Tasks {
    running: JoinSet<Result<(), RoleError>>,
    names: HashMap<Id, String>,
}

impl Tasks {
    fn spawn(&mut self, name: String, task: BoxFuture<'static, Result<(), RoleError>>) {
        let handle = self.running.spawn(task);
        self.names.insert(handle.id(), name);
    }

    /// Waits for the next task to return, and gives its exit code; `None` when no task is left.
    async fn next(&mut self) -> Option<u8> {
        let (id, outcome) = match self.running.join_next_with_id().await? {
            Ok((id, outcome)) => (id, outcome),
            Err(error) => (error.id(), Err(error.into())),
        };
        let task = self.names.remove(&id).unwrap_or_default();
        let Err(cause) = outcome else { return Some(EXIT_OK) };
        error!(%task, error = %cause, "a task failed, the role stops");
        Some(cause.exit_code())
    }

    /// Waits until a task fails or no task is left.
    async fn until_failure(&mut self) -> u8 {
        loop {
            match self.next().await {
                Some(EXIT_OK) => {}
                Some(code) => return code,
                None => return EXIT_OK,
            }
        }
    }

    /// Waits until no task is left, and returns the exit code of the first one that failed.
    async fn until_empty(&mut self) -> u8 {
        let first_failure = self.until_failure().await;
        while self.next().await.is_some() {}
        first_failure
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::role_error::{EXIT_ERROR, EXIT_USAGE};

    fn supervisor() -> Supervisor {
        Supervisor::new(Probes::new(), Duration::from_secs(60))
    }

    #[tokio::test]
    async fn a_failing_task_stops_the_other_tasks_and_the_role_with_code_1() {
        let mut supervisor = supervisor();
        let (probes, shutdown) = (supervisor.probes.clone(), supervisor.shutdown());
        supervisor.spawn("server", async move { shutdown.triggered().await });
        supervisor.spawn("shipper", async { Err(RoleError::failed("disk is full")) });
        assert_eq!(supervisor.run(Signals::install().unwrap()).await, ExitCode::from(EXIT_ERROR));
        assert_eq!(probes.health().not_ready.as_deref(), Some("shutting down"));
    }

    #[tokio::test]
    async fn the_exit_code_is_that_of_the_first_failure() {
        let mut supervisor = supervisor();
        let shutdown = supervisor.shutdown();
        supervisor.spawn("late", async move {
            shutdown.triggered().await;
            Err(RoleError::failed("closed twice"))
        });
        supervisor.spawn("bucket", async { Err(RoleError::wrong_configuration("the key is wrong")) });
        assert_eq!(supervisor.run(Signals::install().unwrap()).await, ExitCode::from(EXIT_USAGE));
    }

    #[tokio::test]
    async fn a_panic_is_a_failure() {
        let mut supervisor = supervisor();
        supervisor.spawn("fragile", async {
            if true {
                panic!("bug");
            }
        });
        assert_eq!(supervisor.run(Signals::install().unwrap()).await, ExitCode::from(EXIT_ERROR));
    }

    #[tokio::test]
    async fn the_rest_is_stopped_when_what_comes_first_is_done() {
        let mut supervisor = supervisor();
        let (first, shutdown) = (supervisor.first(), supervisor.shutdown());
        let guard = first.gate.enter().unwrap();
        let order = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let (drained, stopped, rest) = (order.clone(), order.clone(), shutdown.clone());
        let link = first.shutdown.clone();
        supervisor.spawn("link", async move {
            link.triggered().await;
            for _ in 0..10 {
                tokio::task::yield_now().await;
                assert!(!rest.is_triggered(), "the rest was stopped while the link drains");
            }
            drained.lock().unwrap().push("link");
            drop(guard);
        });
        supervisor.spawn("server", async move {
            shutdown.triggered().await;
            stopped.lock().unwrap().push("server");
        });
        first.shutdown.trigger();
        assert_eq!(supervisor.run(Signals::install().unwrap()).await, ExitCode::from(EXIT_OK));
        assert_eq!(*order.lock().unwrap(), ["link", "server"]);
    }

    #[tokio::test]
    async fn a_role_serves_on_for_the_drain_delay_and_is_not_ready_meanwhile() {
        let mut supervisor = supervisor();
        supervisor.serve_on_for(Duration::from_secs(3600));
        let (probes, shutdown) = (supervisor.probes.clone(), supervisor.shutdown());
        let serving = shutdown.clone();
        supervisor.spawn("server", async move {
            probes.wait_until(|health| health.not_ready.as_deref() == Some("shutting down")).await;
            tokio::task::yield_now().await;
            assert!(!serving.is_triggered(), "it was stopped at once");
            // Ends the delay.
            Err(RoleError::failed("the disk is full"))
        });
        assert_eq!(supervisor.stop(Duration::from_secs(3600)).await, EXIT_ERROR);
        assert!(shutdown.is_triggered());
    }

    #[tokio::test]
    async fn a_task_that_outlives_the_grace_period_is_dropped() {
        let mut supervisor = Supervisor::new(Probes::new(), Duration::ZERO);
        let _guard = supervisor.gate().enter().unwrap();
        supervisor.spawn("stuck", std::future::pending::<()>());
        supervisor.shutdown().trigger();
        assert_eq!(supervisor.run(Signals::install().unwrap()).await, ExitCode::from(EXIT_OK));
    }
}
