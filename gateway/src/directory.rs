//! The stores that can be read through the mesh: the state that `isthmus.mesh.v1.Directory/Watch` publishes.
//!
//! Clusters come from the inventory, targets from the control sessions. Reports of a cluster are not trusted: its name
//! comes from its certificate, and a target whose external labels differ from the registration is published as unhealthy,
//! never as a target of another cluster. An entry exists as long as its cluster is registered, so that a querier knows
//! which stores are missing from an answer.

mod labels;
pub(crate) mod service;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use identity::Name;
use mesh::{Authority, Transport};
use proto::{
    isthmus::mesh::v1::{DirectoryEntry, DirectorySnapshot, Target, Targets},
    thanos::{LabelSet, info::InfoResponse},
};
use tokio::sync::watch;

use crate::directory::labels::{bound_labels, check_labels};
use crate::{metrics::GatewayMetrics, peer_text::bounded};

/// Targets that one cluster may report; further ones are dropped with a warning.
const MAX_TARGETS: usize = 1000;

/// A registered cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClusterRegistration {
    pub(crate) cluster: Name,
    /// The registered environment, such as `production`.
    pub(crate) environment: String,
}

/// The id of a control session within this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SessionId(pub(crate) u64);

/// The directory. All sessions and watchers share it.
pub(crate) struct Directory {
    clusters: Mutex<BTreeMap<Name, ClusterState>>,
    snapshot: watch::Sender<Arc<DirectorySnapshot>>,
    metrics: Arc<GatewayMetrics>,
}

struct ClusterState {
    environment: String,
    sessions: BTreeMap<SessionId, SessionRoute>,
    targets: BTreeMap<Name, TargetState>,
    /// Why the last session ended or could not be opened. Shown while there is no session.
    last_error: String,
}

struct SessionRoute {
    transport: Transport,
    round_trip: Duration,
}

struct TargetState {
    /// Empty when healthy.
    error: String,
    last_check: Option<prost_types::Timestamp>,
    info: Option<InfoResponse>,
}

impl Directory {
    pub(crate) fn new(metrics: Arc<GatewayMetrics>) -> Self {
        let (snapshot, _) = watch::channel(Arc::default());
        Self { clusters: Mutex::default(), snapshot, metrics }
    }

    /// Replaces the registered clusters.
    pub(crate) fn set_registered(&self, registrations: &[ClusterRegistration]) {
        let mut clusters = self.lock();
        let names: BTreeSet<_> = registrations.iter().map(|registration| &registration.cluster).collect();
        let mut changed = clusters.keys().any(|name| !names.contains(name));
        clusters.retain(|name, _| names.contains(name));
        for ClusterRegistration { cluster, environment } in registrations {
            let known = clusters.get(cluster);
            if known.is_none_or(|known| known.environment != *environment) {
                changed = true;
                // Labels were checked against the old environment, so the old state is dropped.
                clusters.insert(cluster.clone(), ClusterState::new(environment.clone()));
            }
        }
        if changed {
            self.publish(&clusters);
        }
    }

    /// The registration of a cluster.
    pub(crate) fn registration(&self, cluster: &Name) -> Option<ClusterRegistration> {
        let clusters = self.lock();
        let state = clusters.get(cluster)?;
        Some(ClusterRegistration { cluster: cluster.clone(), environment: state.environment.clone() })
    }

    /// Records a session on which the hellos were exchanged.
    pub(crate) fn session_opened(&self, cluster: &Name, session: SessionId, transport: Transport) {
        self.change(cluster, |state| {
            state.sessions.insert(session, SessionRoute { transport, round_trip: Duration::ZERO });
        });
    }

    /// Replaces the targets that a cluster has reported.
    pub(crate) fn targets_reported(
        &self,
        cluster: &Name,
        session: SessionId,
        targets: Targets,
        round_trip: Duration,
    ) {
        self.change(cluster, |state| {
            if let Some(route) = state.sessions.get_mut(&session) {
                route.round_trip = round_trip;
            }
            if targets.targets.len() > MAX_TARGETS {
                let reported = targets.targets.len();
                tracing::warn!(%cluster, reported, "a cluster reports more than {MAX_TARGETS} targets, the others are dropped");
            }
            let bound = bound_labels(cluster, &state.environment);
            let previous = std::mem::take(&mut state.targets);
            for target in targets.targets.into_iter().take(MAX_TARGETS) {
                match target.name.parse::<Name>() {
                    Ok(name) => {
                        let before = previous.get(&name).and_then(|target| target.info.clone());
                        state.targets.insert(name, TargetState::checked(target, before, &bound));
                    }
                    Err(error) => tracing::warn!(%cluster, %error, "a reported target is dropped, its name is invalid"),
                }
            }
        });
    }

    /// Records the end of a session.
    pub(crate) fn session_closed(&self, cluster: &Name, session: SessionId, why: &str) {
        self.change(cluster, |state| {
            state.sessions.remove(&session);
            state.last_error = bounded(why);
        });
    }

    /// Records why connecting to a cluster failed.
    pub(crate) fn connecting_failed(&self, cluster: &Name, why: &str) {
        self.change(cluster, |state| state.last_error = bounded(why));
    }

    /// The published snapshots. The receiver sees the current one at once.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<DirectorySnapshot>> {
        self.snapshot.subscribe()
    }

    fn change(&self, cluster: &Name, change: impl FnOnce(&mut ClusterState)) {
        let mut clusters = self.lock();
        // Reports of a cluster that is no longer registered are ignored.
        if let Some(state) = clusters.get_mut(cluster) {
            change(state);
            self.publish(&clusters);
        }
    }

    fn publish(&self, clusters: &BTreeMap<Name, ClusterState>) {
        let entries: Vec<_> = clusters.iter().flat_map(|(name, state)| state.entries(name)).collect();
        let healthy = entries.iter().filter(|entry| entry.healthy).count();
        self.metrics.directory_size(healthy, entries.len() - healthy);
        self.snapshot.send_replace(Arc::new(DirectorySnapshot { entries }));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, ClusterState>> {
        self.clusters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClusterState {
    fn new(environment: String) -> Self {
        let last_error = "has not connected since this gateway started".to_owned();
        Self { environment, sessions: BTreeMap::new(), targets: BTreeMap::new(), last_error }
    }

    /// One entry for each target. A cluster without targets has one entry of its own, so that it is not missing.
    fn entries(&self, cluster: &Name) -> Vec<DirectoryEntry> {
        // QUIC before TCP if there are both, as for new requests.
        let route = self.sessions.values().min_by_key(|route| route.transport);
        let template = DirectoryEntry {
            name: cluster.to_string(),
            cluster: cluster.to_string(),
            environment: self.environment.clone(),
            healthy: false,
            last_error: match route {
                Some(_) => format!("cluster {cluster} reports no targets"),
                None => format!("cluster {cluster} is not connected: {}", self.last_error),
            },
            last_check: None,
            info: None,
            transport: route.map(|route| route.transport.to_string()).unwrap_or_default(),
            round_trip_seconds: route.map_or(0.0, |route| route.round_trip.as_secs_f64()),
            bound_labels: Some(bound_labels(cluster, &self.environment)),
        };
        if self.targets.is_empty() {
            return vec![template];
        }
        let entry = |(name, target): (&Name, &TargetState)| DirectoryEntry {
            name: Authority::new(name.clone(), cluster.clone()).to_string(),
            healthy: route.is_some() && target.error.is_empty(),
            last_error: if route.is_some() { target.error.clone() } else { template.last_error.clone() },
            last_check: target.last_check,
            info: target.info.clone(),
            ..template.clone()
        };
        self.targets.iter().map(entry).collect()
    }
}

impl TargetState {
    /// The state of a target after the check of its labels. While the target is unhealthy, its last valid Info is kept, so
    /// that a querier knows which queries need it.
    fn checked(target: Target, before: Option<InfoResponse>, bound: &LabelSet) -> Self {
        let last_check = target.last_check;
        let failed = |error: String| Self { error: bounded(&error), last_check, info: before.clone() };
        if !target.healthy {
            let error =
                if target.last_error.is_empty() { "not healthy".to_owned() } else { target.last_error };
            return failed(error);
        }
        match target.info {
            None => failed("is reported as healthy, but without Info".to_owned()),
            Some(info) => match check_labels(&info, bound) {
                Ok(()) => Self { error: String::new(), last_check, info: Some(info) },
                Err(error) => failed(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::thanos::Label;

    use super::*;
    use crate::peer_text::MAX_CHARS;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn registration(cluster: &str, environment: &str) -> ClusterRegistration {
        ClusterRegistration { cluster: name(cluster), environment: environment.to_owned() }
    }

    fn info(labels: &[(&str, &str)]) -> InfoResponse {
        let labels = labels.iter().map(|(n, v)| Label { name: (*n).into(), value: (*v).into() }).collect();
        InfoResponse { label_sets: vec![LabelSet { labels }], ..InfoResponse::default() }
    }

    fn healthy(target: &str, info: InfoResponse) -> Target {
        Target { name: target.into(), healthy: true, info: Some(info), ..Target::default() }
    }

    const EU_1: &[(&str, &str)] = &[("cluster", "eu-1"), ("environment", "production"), ("replica", "0")];

    fn connected() -> (Directory, Name) {
        let directory = Directory::new(GatewayMetrics::unregistered());
        let cluster = name("eu-1");
        directory.set_registered(&[registration("eu-1", "production"), registration("us-1", "production")]);
        directory.session_opened(&cluster, SessionId(1), Transport::Quic);
        let targets = Targets { targets: vec![healthy("scraper-0", info(EU_1))] };
        directory.targets_reported(&cluster, SessionId(1), targets, Duration::from_millis(3));
        (directory, cluster)
    }

    fn entries(directory: &Directory) -> Vec<(String, bool, String)> {
        let snapshot = directory.watch().borrow().clone();
        snapshot.entries.iter().map(|e| (e.name.clone(), e.healthy, e.last_error.clone())).collect()
    }

    #[test]
    fn a_registered_cluster_is_listed_before_its_first_connection() {
        let (directory, _) = connected();
        assert_eq!(
            entries(&directory),
            [
                ("scraper-0.eu-1".into(), true, String::new()),
                (
                    "us-1".into(),
                    false,
                    "cluster us-1 is not connected: has not connected since this gateway started".into()
                ),
            ]
        );
        let snapshot = directory.watch().borrow().clone();
        assert_eq!(
            (snapshot.entries[0].transport.as_str(), snapshot.entries[0].round_trip_seconds),
            ("quic", 0.003)
        );
        assert_eq!(snapshot.entries[0].bound_labels, Some(bound_labels(&name("eu-1"), "production")));
    }

    #[test]
    fn a_disconnected_cluster_is_listed_with_its_info_while_it_is_registered() {
        let (directory, cluster) = connected();
        directory.session_opened(&cluster, SessionId(2), Transport::Tcp);
        directory.session_closed(&cluster, SessionId(1), "connection lost");
        assert!(entries(&directory)[0].1, "one of two sessions is enough");
        directory.session_closed(&cluster, SessionId(2), "timed\nout");
        let snapshot = directory.watch().borrow().clone();
        let entry = &snapshot.entries[0];
        assert_eq!((entry.healthy, entry.transport.as_str()), (false, ""));
        assert_eq!(entry.last_error, "cluster eu-1 is not connected: timed out");
        assert!(entry.info.is_some());

        directory.set_registered(&[registration("us-1", "production")]);
        assert_eq!(entries(&directory).len(), 1);
        directory.session_opened(&cluster, SessionId(3), Transport::Quic);
        assert_eq!(entries(&directory).len(), 1, "an unregistered cluster was listed");
    }

    #[test]
    fn a_target_with_foreign_labels_is_unhealthy_and_keeps_its_last_good_info() {
        let (directory, cluster) = connected();
        let spoofed = info(&[("cluster", "us-1"), ("environment", "production")]);
        let targets = Targets { targets: vec![healthy("scraper-0", spoofed)] };
        directory.targets_reported(&cluster, SessionId(1), targets, Duration::ZERO);
        let snapshot = directory.watch().borrow().clone();
        assert!(!snapshot.entries[0].healthy);
        assert_eq!(
            snapshot.entries[0].info,
            Some(info(EU_1)),
            "the last valid Info is kept, the spoofed one is not shown"
        );
    }

    #[test]
    fn reports_of_a_cluster_are_bounded() {
        let (directory, cluster) = connected();
        let mut targets: Vec<_> =
            (0..MAX_TARGETS + 5).map(|i| healthy(&format!("t{i}"), info(EU_1))).collect();
        targets[0].name = "../etc".into();
        targets[1].healthy = false;
        targets[1].last_error = "x\n".repeat(5000);
        directory.targets_reported(&cluster, SessionId(1), Targets { targets }, Duration::ZERO);
        let entries = entries(&directory);
        assert_eq!(entries.len(), MAX_TARGETS - 1 + 1, "those of eu-1, and the entry of us-1");
        assert!(entries.iter().all(|(_, _, error)| error.len() <= MAX_CHARS && !error.contains('\n')));
    }
}
