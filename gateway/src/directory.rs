//! The stores that can be read through the mesh: the state that `isthmus.mesh.v1.Directory/Watch` publishes.
//!
//! Clusters come from the inventory, targets from the control sessions. Reports of a cluster are not trusted: its name
//! comes from its certificate, and a target whose external labels differ from the registration is published as unhealthy,
//! never as a target of another cluster. An entry exists as long as its cluster is registered, so that a querier knows
//! which stores are missing from an answer.
//!
//! Reading order: `labels` (the check of external labels), `cluster` (one cluster: its sessions and their targets),
//! `published` (the entries, and which of them have changed), `service`.

mod cluster;
mod labels;
mod published;
pub(crate) mod service;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use identity::Name;
use mesh::{Authority, Transport};
use proto::isthmus::mesh::v1::{Target, Targets};
use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};

use crate::directory::cluster::ClusterState;
pub(crate) use crate::directory::cluster::{Offer, TargetVerdict};
use crate::directory::published::{EntryChanges, PublishedEntries};
use crate::metrics::GatewayMetrics;

/// Targets that a session may report; further ones are dropped with a warning.
const MAX_TARGETS: usize = 1000;

/// How long after its start a gateway may not know the targets of a cluster that was connected before. Clusters connect again
/// within a second, if they can.
const SETTLING: Duration = Duration::from_secs(5);

/// How long a session that its cluster drains is used until another one serves its targets.
const HANDOVER: Duration = Duration::from_secs(1);
/// Time between two looks at the other sessions meanwhile.
const HANDOVER_LOOK: Duration = Duration::from_millis(10);

/// A registered cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClusterRegistration {
    pub(crate) cluster: Name,
    /// The registered environment, such as `production`.
    pub(crate) environment: String,
    /// Whether it has joined. Until then it is accepted, but no answer misses it.
    pub(crate) joined: bool,
}

/// The id of a control session within this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SessionId(pub(crate) u64);

/// The directory. All sessions and watchers share it.
pub(crate) struct Directory {
    state: Mutex<DirectoryState>,
    /// The version of the published entries.
    version: watch::Sender<u64>,
    created: Instant,
    /// Whether each cluster that has joined has reported its targets at least once.
    complete: watch::Sender<bool>,
    metrics: Arc<GatewayMetrics>,
}

#[derive(Default)]
struct DirectoryState {
    clusters: BTreeMap<Name, ClusterState>,
    published: PublishedEntries,
}

impl Directory {
    pub(crate) fn new(metrics: Arc<GatewayMetrics>) -> Self {
        let (version, complete) = (watch::Sender::new(0), watch::Sender::new(false));
        Self { state: Mutex::default(), version, created: Instant::now(), complete, metrics }
    }

    /// Waits until the targets of all clusters that have joined were reported, for [`SETTLING`] after the start at most. What is
    /// published and answered before is not what it was before a restart.
    pub(crate) async fn settled(&self) {
        let mut complete = self.complete.subscribe();
        // Either way the wait is over.
        let _ = timeout_at(self.created + SETTLING, complete.wait_for(|is_complete| *is_complete)).await;
    }

    /// Replaces the registered clusters.
    pub(crate) fn set_registered(&self, registrations: &[ClusterRegistration]) {
        let mut state = self.lock();
        let DirectoryState { clusters, published } = &mut *state;
        let names: BTreeSet<_> = registrations.iter().map(|registration| &registration.cluster).collect();
        clusters.retain(|name, _| {
            let is_registered = names.contains(name);
            if !is_registered {
                self.metrics.cluster_removed(name);
                published.set_cluster(name, Vec::new());
            }
            is_registered
        });
        for ClusterRegistration { cluster, environment, joined } in registrations {
            let known = clusters.get(cluster);
            if known.is_none_or(|known| known.environment() != environment) {
                // Labels were checked against the old environment, so the old state is dropped.
                let new = ClusterState::new(cluster.clone(), environment.clone(), *joined);
                published.set_cluster(cluster, new.entries());
                self.metrics.cluster_registered(cluster);
                self.metrics.cluster(cluster, new.is_connected());
                clusters.insert(cluster.clone(), new);
            } else if let Some(known) = clusters.get_mut(cluster)
                && known.set_joined(*joined)
            {
                self.metrics.cluster(cluster, known.is_connected());
                published.set_cluster(cluster, known.entries());
            }
        }
        self.announce(&state);
    }

    /// The registration of a cluster.
    pub(crate) fn registration(&self, cluster: &Name) -> Option<ClusterRegistration> {
        let state = self.lock();
        let known = state.clusters.get(cluster)?;
        let (cluster, environment) = (cluster.clone(), known.environment().to_owned());
        Some(ClusterRegistration { cluster, environment, joined: known.has_joined() })
    }

    /// Records a session on which the hellos were exchanged. `instance` distinguishes the gateways of a cluster.
    pub(crate) fn session_opened(
        &self,
        cluster: &Name,
        session: SessionId,
        instance: &str,
        transport: Transport,
    ) {
        self.change(cluster, |state| state.open(session, instance, transport));
    }

    /// Replaces the targets of a session, with their states. Returns what is wrong with those that are dropped.
    pub(crate) fn targets_reported(
        &self,
        cluster: &Name,
        session: SessionId,
        targets: Targets,
    ) -> Option<String> {
        let mut targets = targets.targets;
        targets.truncate(MAX_TARGETS + 1);
        let (names, problem) = valid_names(targets.iter().map(|target| target.name.clone()).collect());
        self.change(cluster, |state| {
            state.set_names(session, names);
            for target in targets.into_iter().take(MAX_TARGETS) {
                state.set_target(session, target);
            }
        });
        problem
    }

    /// Replaces the names of the targets of a session. States of targets that it had before are kept. Returns what is wrong with
    /// names that are dropped.
    pub(crate) fn targets_named(
        &self,
        cluster: &Name,
        session: SessionId,
        names: Vec<String>,
    ) -> Option<String> {
        let (names, problem) = valid_names(names);
        self.change(cluster, |state| state.set_names(session, names));
        problem
    }

    /// Records the state of one target, and returns whether it is read. It is ignored if the session has not named the target.
    pub(crate) fn target_reported(
        &self,
        cluster: &Name,
        session: SessionId,
        target: Target,
    ) -> Option<TargetVerdict> {
        let mut state = self.lock();
        let DirectoryState { clusters, published } = &mut *state;
        // Reports of a cluster that is not registered any more are ignored.
        let known = clusters.get_mut(cluster)?;
        let verdict = known.set_target(session, target)?;
        if let Some(entry) = known.entry(&verdict.name) {
            published.set(cluster, entry);
        }
        self.announce(&state);
        Some(verdict)
    }

    /// Records the round-trip time of a session. Small differences are not published.
    pub(crate) fn round_trip_measured(&self, cluster: &Name, session: SessionId, round_trip: Duration) {
        let mut state = self.lock();
        // Measured every second: the entries are made again only if one of them changes.
        if state.clusters.get_mut(cluster).is_some_and(|known| known.set_round_trip(session, round_trip)) {
            self.publish(&mut state, cluster);
        }
    }

    /// Records the end of a session. Returns whether it was the last one, so that queries lack the cluster.
    pub(crate) fn session_closed(&self, cluster: &Name, session: SessionId, why: &str) -> bool {
        let mut was_last = false;
        self.change(cluster, |state| was_last = state.close(session, why));
        was_last
    }

    /// Waits until other sessions serve all targets that a session serves, for [`HANDOVER`] at most. A cluster drains a connection as
    /// soon as it has a new one, and what it reports there may arrive later.
    pub(crate) async fn handed_over(&self, cluster: &Name, session: SessionId) {
        let waiting = async {
            let mut look = tokio::time::interval(HANDOVER_LOOK);
            while self.lock().clusters.get(cluster).is_some_and(|known| known.needs(session)) {
                look.tick().await;
            }
        };
        // A cluster whose gateway stops has no other session.
        let _ = timeout(HANDOVER, waiting).await;
    }

    /// Records why connecting to a cluster failed.
    pub(crate) fn connecting_failed(&self, cluster: &Name, why: &str) {
        self.change(cluster, |state| state.connecting_failed(why));
    }

    /// Which sessions can serve a target.
    pub(crate) fn offer(&self, target: &Authority) -> Offer {
        let state = self.lock();
        state.clusters.get(target.cluster()).map_or(Offer::Nowhere, |known| known.offer(target.target()))
    }

    /// The version of the entries. The receiver sees the current one at once.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// The entries that have changed since a version; since 0, all of them.
    pub(crate) fn changes(&self, since: u64) -> EntryChanges {
        self.lock().published.changes(since)
    }

    fn change(&self, cluster: &Name, change: impl FnOnce(&mut ClusterState)) {
        let mut state = self.lock();
        // Reports of a cluster that is not registered any more are ignored.
        if let Some(known) = state.clusters.get_mut(cluster) {
            change(known);
            self.metrics.cluster(cluster, known.is_connected());
            self.publish(&mut state, cluster);
        }
    }

    /// Publishes the entries of a cluster, if they have changed.
    fn publish(&self, state: &mut DirectoryState, cluster: &Name) {
        let DirectoryState { clusters, published } = &mut *state;
        if let Some(known) = clusters.get(cluster) {
            published.set_cluster(cluster, known.entries());
            self.announce(state);
        }
    }

    /// Wakes the watchers if an entry has changed.
    fn announce(&self, state: &DirectoryState) {
        if !*self.complete.borrow() && state.clusters.values().all(ClusterState::is_known) {
            self.complete.send_replace(true);
        }
        let version = state.published.version();
        let changed =
            self.version.send_if_modified(|announced| std::mem::replace(announced, version) != version);
        if changed {
            let (healthy, unhealthy) = state.published.counts();
            self.metrics.directory_size(healthy, unhealthy);
        }
    }

    fn lock(&self) -> MutexGuard<'_, DirectoryState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The names that are valid, at most [`MAX_TARGETS`], and what is wrong with the others.
fn valid_names(names: Vec<String>) -> (BTreeSet<Name>, Option<String>) {
    let mut problem = (names.len() > MAX_TARGETS).then(|| format!("there are more than {MAX_TARGETS}"));
    let mut dropped = names.len().saturating_sub(MAX_TARGETS);
    let mut valid = BTreeSet::new();
    for name in names.into_iter().take(MAX_TARGETS) {
        match name.parse::<Name>() {
            Ok(name) => drop(valid.insert(name)),
            Err(error) => {
                dropped += 1;
                problem.get_or_insert_with(|| error.to_string());
            }
        }
    }
    (valid, problem.map(|problem| format!("{dropped} targets are dropped: {problem}")))
}

#[cfg(test)]
mod tests;
