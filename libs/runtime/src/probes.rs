//! Liveness and readiness, as one switch that HTTP and gRPC both show.

use std::sync::Arc;

use tokio::sync::watch;

/// What the probes say at one moment; the reason stands where the answer is no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Why the role cannot serve now, or `None` when it can.
    pub not_ready: Option<Arc<str>>,
    /// Why the process should be restarted, or `None` when it is well.
    pub unhealthy: Option<Arc<str>>,
}

impl Health {
    /// Whether the role can serve.
    pub fn is_ready(&self) -> bool {
        self.not_ready.is_none()
    }
}

/// The switches behind `/-/ready`, `/-/healthy` and gRPC health; clones share them.
///
/// A new one is healthy and not ready, with the reason `starting`. Once [`Probes::stop`] was called it
/// stays not ready: nothing that finishes late can turn it on again.
#[derive(Clone, Debug)]
pub struct Probes {
    state: Arc<watch::Sender<State>>,
}

#[derive(Debug)]
struct State {
    health: Health,
    stopping: bool,
}

impl Default for Probes {
    fn default() -> Self {
        Self::new()
    }
}

impl Probes {
    /// Switches that say "healthy, not ready: starting".
    pub fn new() -> Self {
        let health = Health { not_ready: Some("starting".into()), unhealthy: None };
        Self { state: Arc::new(watch::Sender::new(State { health, stopping: false })) }
    }

    /// What the probes say now.
    pub fn health(&self) -> Health {
        self.state.borrow().health.clone()
    }

    /// Says that the role can serve.
    pub fn ready(&self) {
        self.update(|health| health.not_ready = None);
    }

    /// Says that the role cannot serve, and why; shown to whoever asks.
    pub fn not_ready(&self, reason: &str) {
        self.update(|health| health.not_ready = Some(reason.into()));
    }

    /// Says that the process is beyond recovery and should be restarted.
    pub fn unhealthy(&self, reason: &str) {
        self.update(|health| health.unhealthy = Some(reason.into()));
    }

    /// Says that the role is well again.
    pub fn healthy(&self) {
        self.update(|health| health.unhealthy = None);
    }

    /// Turns readiness off for good, because the role is about to end.
    pub fn stop(&self) {
        self.state.send_modify(|state| {
            state.health.not_ready = Some("shutting down".into());
            state.stopping = true;
        });
    }

    /// Waits until `condition` holds of what the probes say; at once when it holds already.
    ///
    /// # Cancel safety
    /// Changes nothing and may be dropped at any time.
    pub async fn wait_until(&self, mut condition: impl FnMut(&Health) -> bool) -> Health {
        let mut receiver = self.state.subscribe();
        match receiver.wait_for(|state| condition(&state.health)).await {
            Ok(state) => state.health.clone(),
            // `self` holds the sender, so the channel cannot close while we wait.
            Err(_) => self.health(),
        }
    }

    fn update(&self, change: impl FnOnce(&mut Health)) {
        self.state.send_if_modified(|state| {
            let before = state.health.clone();
            change(&mut state.health);
            if state.stopping {
                state.health.not_ready = before.not_ready.clone();
            }
            state.health != before
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_comes_and_goes_until_the_role_stops() {
        let probes = Probes::new();
        assert_eq!(probes.health().not_ready.as_deref(), Some("starting"));
        probes.ready();
        assert!(probes.health().is_ready());
        probes.not_ready("Prometheus is away");
        assert_eq!(probes.health().not_ready.as_deref(), Some("Prometheus is away"));
        probes.stop();
        probes.ready();
        assert_eq!(probes.health().not_ready.as_deref(), Some("shutting down"));
    }

    #[tokio::test]
    async fn waiting_ends_when_the_condition_holds() {
        let probes = Probes::new();
        let waiting = tokio::spawn({
            let probes = probes.clone();
            async move { probes.wait_until(Health::is_ready).await }
        });
        probes.ready();
        assert!(waiting.await.unwrap().is_ready());
    }
}
