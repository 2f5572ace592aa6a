//! Liveness and readiness of a role, which HTTP and gRPC both report.

use std::sync::Arc;

use tokio::sync::watch;

/// The state of the probes at one moment, with the reason where it is not good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Why the role cannot serve now; `None` when it can.
    pub not_ready: Option<Arc<str>>,
    /// Why the process should be restarted; `None` when it is healthy.
    pub unhealthy: Option<Arc<str>>,
}

impl Health {
    /// Whether the role can serve.
    pub fn is_ready(&self) -> bool {
        self.not_ready.is_none()
    }
}

/// The state that `/-/ready`, `/-/healthy` and gRPC health report; clones share it.
///
/// It begins as healthy and not ready, with the reason `starting`. After [`Probes::stop`] it stays not ready: a task
/// that finishes late cannot make the role ready again.
///
/// A role may have several parts, each with a handle of its own ([`Probes::part`]). It is ready when all of them are.
#[derive(Clone, Debug)]
pub struct Probes {
    state: Arc<watch::Sender<ProbeState>>,
    /// Which part of the role this handle reports.
    part: usize,
}

#[derive(Debug)]
struct ProbeState {
    health: Health,
    /// Why each part cannot serve; `None` when it can.
    parts: Vec<Option<Arc<str>>>,
    stopping: bool,
}

impl Default for Probes {
    fn default() -> Self {
        Self::new()
    }
}

impl Probes {
    /// Probes that are healthy and not ready, with the reason `starting`.
    pub fn new() -> Self {
        let starting: Option<Arc<str>> = Some("starting".into());
        let health = Health { not_ready: starting.clone(), unhealthy: None };
        let state = ProbeState { health, parts: vec![starting], stopping: false };
        Self { state: Arc::new(watch::Sender::new(state)), part: 0 }
    }

    /// Adds a part to the role, which begins as not ready, and returns its handle: [`Probes::ready`] and
    /// [`Probes::not_ready`] of the handle concern only this part. The first part that is not ready gives the reason.
    pub fn part(&self) -> Self {
        let mut part = 0;
        self.state.send_modify(|state| {
            part = state.parts.len();
            state.parts.push(Some("starting".into()));
            state.join_parts();
        });
        Self { state: self.state.clone(), part }
    }

    /// The state now.
    pub fn health(&self) -> Health {
        self.state.borrow().health.clone()
    }

    /// Reports that the role, or this part of it, can serve.
    pub fn ready(&self) {
        self.update(|state| state.parts[self.part] = None);
    }

    /// Reports that the role cannot serve, and why; clients of `/-/ready` see the reason.
    pub fn not_ready(&self, reason: &str) {
        self.update(|state| state.parts[self.part] = Some(reason.into()));
    }

    /// Reports that the process cannot recover and should be restarted; clients of `/-/healthy` see the reason.
    pub fn unhealthy(&self, reason: &str) {
        self.update(|state| state.health.unhealthy = Some(reason.into()));
    }

    /// Reports that the process is healthy again.
    pub fn healthy(&self) {
        self.update(|state| state.health.unhealthy = None);
    }

    /// Makes the role not ready for the rest of its life, because it is about to stop.
    pub fn stop(&self) {
        self.state.send_modify(|state| {
            state.health.not_ready = Some("shutting down".into());
            state.stopping = true;
        });
    }

    /// Waits until `condition` is true of the state; returns at once when it is already true.
    ///
    /// # Cancel safety
    /// Changes nothing and may be dropped at any time.
    pub async fn wait_until(&self, mut condition: impl FnMut(&Health) -> bool) -> Health {
        let mut receiver = self.state.subscribe();
        match receiver.wait_for(|state| condition(&state.health)).await {
            Ok(state) => state.health.clone(),
            // `self` owns the sender, so the channel cannot close during the wait.
            Err(_) => self.health(),
        }
    }

    fn update(&self, change: impl FnOnce(&mut ProbeState)) {
        self.state.send_if_modified(|state| {
            let before = state.health.clone();
            change(state);
            state.join_parts();
            state.health != before
        });
    }
}

impl ProbeState {
    /// Makes the role as ready as its parts are, unless it is about to stop.
    fn join_parts(&mut self) {
        if !self.stopping {
            self.health.not_ready = self.parts.iter().flatten().next().cloned();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_changes_until_the_role_stops() {
        let probes = Probes::new();
        assert_eq!(probes.health().not_ready.as_deref(), Some("starting"));
        probes.ready();
        assert!(probes.health().is_ready());
        probes.not_ready("Prometheus does not answer");
        assert_eq!(probes.health().not_ready.as_deref(), Some("Prometheus does not answer"));
        probes.stop();
        probes.ready();
        assert_eq!(probes.health().not_ready.as_deref(), Some("shutting down"));
    }

    #[test]
    fn the_role_is_ready_when_all_of_its_parts_are() {
        let role = Probes::new();
        let (link, reason) = (role.part(), |probes: &Probes| probes.health().not_ready);
        role.ready();
        assert_eq!(reason(&role).as_deref(), Some("starting"));
        link.not_ready("not connected");
        assert_eq!(reason(&role).as_deref(), Some("not connected"));
        link.ready();
        assert!(role.health().is_ready() && link.health().is_ready());
        role.not_ready("the log is being read");
        assert_eq!(reason(&link).as_deref(), Some("the log is being read"));
        role.stop();
        link.ready();
        assert_eq!(reason(&role).as_deref(), Some("shutting down"));
    }

    #[tokio::test]
    async fn a_wait_ends_when_its_condition_is_true() {
        let probes = Probes::new();
        let waiting = tokio::spawn({
            let probes = probes.clone();
            async move { probes.wait_until(Health::is_ready).await }
        });
        probes.ready();
        assert!(waiting.await.unwrap().is_ready());
    }
}
