//! What can be read through the mesh, and from where: the state behind `isthmus.mesh.v1.Directory/Watch`.
//!
//! Clusters come from the inventory of registrations, targets from the control sessions. A cluster's own words are
//! taken for what they are: which cluster it is comes from its certificate, and a target whose external labels are not
//! those of the registration is published as unhealthy, never as somebody else's. An entry lives as long as its
//! cluster is registered, so that a querier knows what an answer lacks.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use identity::Name;
use mesh::{Authority, Transport};
use proto::{
    isthmus::mesh::v1::{DirectoryEntry, DirectorySnapshot, Target, Targets},
    thanos::{Label, LabelSet, info::InfoResponse},
};
use tokio::sync::watch;

use crate::metrics::GatewayMetrics;

/// Targets that one cluster may offer; more are left out, with a warning.
const MAX_TARGETS: usize = 1000;
/// Longest error text that a cluster's words may take in the directory, in characters.
const MAX_ERROR_CHARS: usize = 500;

/// A cluster as registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Registration {
    pub(crate) cluster: Name,
    /// Such as `production`.
    pub(crate) environment: String,
}

/// Names one control session within this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SessionId(pub(crate) u64);

/// The directory; shared by all sessions and watchers.
pub(crate) struct Directory {
    clusters: Mutex<BTreeMap<Name, ClusterState>>,
    snapshot: watch::Sender<Arc<DirectorySnapshot>>,
    metrics: Arc<GatewayMetrics>,
}

struct ClusterState {
    environment: String,
    sessions: BTreeMap<SessionId, Way>,
    targets: BTreeMap<Name, TargetState>,
    /// Why there is no session; kept while there is one.
    last_error: String,
}

struct Way {
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

    /// Takes the registered clusters, in place of those before.
    pub(crate) fn set_registered(&self, registrations: &[Registration]) {
        let mut clusters = self.lock();
        let names: BTreeSet<_> = registrations.iter().map(|registration| &registration.cluster).collect();
        let mut changed = clusters.keys().any(|name| !names.contains(name));
        clusters.retain(|name, _| names.contains(name));
        for Registration { cluster, environment } in registrations {
            let known = clusters.get(cluster);
            if known.is_none_or(|known| known.environment != *environment) {
                changed = true;
                // With another environment all that was checked before counts for nothing.
                clusters.insert(cluster.clone(), ClusterState::new(environment.clone()));
            }
        }
        if changed {
            self.publish(&clusters);
        }
    }

    /// The registration of a cluster.
    pub(crate) fn registration(&self, cluster: &Name) -> Option<Registration> {
        let clusters = self.lock();
        let state = clusters.get(cluster)?;
        Some(Registration { cluster: cluster.clone(), environment: state.environment.clone() })
    }

    /// Notes a session that has exchanged hellos.
    pub(crate) fn session_opened(&self, cluster: &Name, session: SessionId, transport: Transport) {
        self.change(cluster, |state| {
            state.sessions.insert(session, Way { transport, round_trip: Duration::ZERO });
        });
    }

    /// Takes what a cluster says about its targets, in place of what it said before.
    pub(crate) fn targets_reported(
        &self,
        cluster: &Name,
        session: SessionId,
        targets: Targets,
        round_trip: Duration,
    ) {
        self.change(cluster, |state| {
            if let Some(way) = state.sessions.get_mut(&session) {
                way.round_trip = round_trip;
            }
            if targets.targets.len() > MAX_TARGETS {
                let offered = targets.targets.len();
                tracing::warn!(%cluster, offered, "more than {MAX_TARGETS} targets: the rest is left out");
            }
            let bound = bound_labels(cluster, &state.environment);
            let previous = std::mem::take(&mut state.targets);
            for target in targets.targets.into_iter().take(MAX_TARGETS) {
                match target.name.parse::<Name>() {
                    Ok(name) => {
                        let before = previous.get(&name).and_then(|target| target.info.clone());
                        state.targets.insert(name, TargetState::checked(target, before, &bound));
                    }
                    Err(error) => tracing::warn!(%cluster, %error, "target is left out"),
                }
            }
        });
    }

    /// Notes the end of a session.
    pub(crate) fn session_closed(&self, cluster: &Name, session: SessionId, why: &str) {
        self.change(cluster, |state| {
            state.sessions.remove(&session);
            state.last_error = bounded(why);
        });
    }

    /// Notes why a cluster cannot be connected to.
    pub(crate) fn connecting_failed(&self, cluster: &Name, why: &str) {
        self.change(cluster, |state| state.last_error = bounded(why));
    }

    /// What is published; the receiver sees the present snapshot at once.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<DirectorySnapshot>> {
        self.snapshot.subscribe()
    }

    fn change(&self, cluster: &Name, change: impl FnOnce(&mut ClusterState)) {
        let mut clusters = self.lock();
        // A cluster that is no longer registered has no place here, whatever its sessions still say.
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

    /// One entry a target; one for the cluster itself while it has none, so that its absence shows.
    fn entries(&self, cluster: &Name) -> Vec<DirectoryEntry> {
        // QUIC before TCP when there is both: it is what new requests prefer.
        let way = self.sessions.values().min_by_key(|way| way.transport);
        let template = DirectoryEntry {
            name: cluster.to_string(),
            cluster: cluster.to_string(),
            environment: self.environment.clone(),
            healthy: false,
            last_error: match way {
                Some(_) => format!("cluster {cluster} offers no targets"),
                None => format!("cluster {cluster} is not connected: {}", self.last_error),
            },
            last_check: None,
            info: None,
            transport: way.map(|way| way.transport.to_string()).unwrap_or_default(),
            round_trip_seconds: way.map_or(0.0, |way| way.round_trip.as_secs_f64()),
            bound_labels: Some(bound_labels(cluster, &self.environment)),
        };
        if self.targets.is_empty() {
            return vec![template];
        }
        let entry = |(name, target): (&Name, &TargetState)| DirectoryEntry {
            name: Authority::new(name.clone(), cluster.clone()).to_string(),
            healthy: way.is_some() && target.error.is_empty(),
            last_error: if way.is_some() { target.error.clone() } else { template.last_error.clone() },
            last_check: target.last_check,
            info: target.info.clone(),
            ..template.clone()
        };
        self.targets.iter().map(entry).collect()
    }
}

impl TargetState {
    /// A target's report after the check of its labels. While it is unhealthy its last good Info stays, so that a
    /// querier still knows which questions concern it.
    fn checked(target: Target, before: Option<InfoResponse>, bound: &LabelSet) -> Self {
        let last_check = target.last_check;
        let failed = |error: String| Self { error: bounded(&error), last_check, info: before.clone() };
        if !target.healthy {
            let error =
                if target.last_error.is_empty() { "not healthy".to_owned() } else { target.last_error };
            return failed(error);
        }
        match target.info {
            None => failed("says that it is healthy, but not what it holds".to_owned()),
            Some(info) => match check_labels(&info, bound) {
                Ok(()) => Self { error: String::new(), last_check, info: Some(info) },
                Err(error) => failed(error),
            },
        }
    }
}

/// The labels that every series of a cluster carries, sorted by name.
pub(crate) fn bound_labels(cluster: &Name, environment: &str) -> LabelSet {
    let label = |name: &str, value: &str| Label { name: name.to_owned(), value: value.to_string() };
    LabelSet { labels: vec![label("cluster", cluster.as_str()), label("environment", environment)] }
}

/// Whether everything a store says it holds carries the labels that its cluster is bound to.
///
/// A set that lacks one is refused too: series without the label would pass for anybody's.
pub(crate) fn check_labels(info: &InfoResponse, bound: &LabelSet) -> Result<(), String> {
    let required = || {
        let pairs: Vec<_> =
            bound.labels.iter().map(|label| format!("{}={:?}", label.name, label.value)).collect();
        pairs.join(", ")
    };
    let tsdb_sets =
        info.store.iter().flat_map(|store| &store.tsdb_infos).filter_map(|tsdb| tsdb.labels.as_ref());
    if info.label_sets.is_empty() {
        return Err(format!(
            "has no external labels: set {} in the external_labels of Prometheus",
            required()
        ));
    }
    for set in info.label_sets.iter().chain(tsdb_sets) {
        for label in &bound.labels {
            let mut values =
                set.labels.iter().filter(|other| other.name == label.name).map(|other| &other.value);
            match (values.next(), values.next()) {
                (Some(value), None) if *value == label.value => {}
                (Some(value), None) => {
                    let (name, registered) = (&label.name, &label.value);
                    return Err(format!(
                        "has the external label {name}={:?}, but the cluster is registered with {name}={registered:?}",
                        bounded(value)
                    ));
                }
                (None, _) => {
                    return Err(format!(
                        "lacks the external label {}: set {} in the external_labels of Prometheus",
                        label.name,
                        required()
                    ));
                }
                (Some(_), Some(_)) => return Err(format!("has the external label {} twice", label.name)),
            }
        }
    }
    Ok(())
}

/// Foreign text, cut and without control characters, so that it cannot flood or forge a line.
pub(crate) fn bounded(text: &str) -> String {
    text.chars().take(MAX_ERROR_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn registration(cluster: &str, environment: &str) -> Registration {
        Registration { cluster: name(cluster), environment: environment.to_owned() }
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
    fn a_registered_cluster_is_there_before_it_ever_connected() {
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
    fn a_lost_cluster_stays_with_its_info_until_it_is_no_longer_registered() {
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
        assert_eq!(entries(&directory).len(), 1, "an unregistered cluster came back");
    }

    #[test]
    fn labels_that_leave_the_registration_make_a_target_unhealthy() {
        let bound = bound_labels(&name("eu-1"), "production");
        let check = |labels: &[(&str, &str)], expected: &str| {
            let result = check_labels(&info(labels), &bound);
            assert!(result.as_ref().is_err_and(|error| error.contains(expected)), "{labels:?}: {result:?}");
        };
        assert_eq!(check_labels(&info(EU_1), &bound), Ok(()));
        check(&[("cluster", "us-1"), ("environment", "production")], "registered with cluster=\"eu-1\"");
        check(
            &[("cluster", "eu-1"), ("environment", "staging")],
            "registered with environment=\"production\"",
        );
        check(&[("cluster", "eu-1")], "lacks the external label environment");
        check(&[], "lacks the external label cluster");
        check(&[("cluster", "eu-1"), ("cluster", "us-1"), ("environment", "production")], "cluster twice");
        check(&[("Cluster", "eu-1"), ("environment", "production")], "lacks the external label cluster");

        let mut second = info(EU_1);
        second.label_sets.extend(info(&[("cluster", "us-1"), ("environment", "production")]).label_sets);
        assert!(check_labels(&second, &bound).is_err(), "the second set was not looked at");
        assert!(check_labels(&InfoResponse::default(), &bound).is_err());

        let (directory, cluster) = connected();
        let spoofed = info(&[("cluster", "us-1"), ("environment", "production")]);
        let targets = Targets { targets: vec![healthy("scraper-0", spoofed)] };
        directory.targets_reported(&cluster, SessionId(1), targets, Duration::ZERO);
        let snapshot = directory.watch().borrow().clone();
        assert!(!snapshot.entries[0].healthy);
        assert_eq!(
            snapshot.entries[0].info,
            Some(info(EU_1)),
            "the last good Info stays, the spoofed one is not shown"
        );
    }

    #[test]
    fn what_a_cluster_says_is_bounded() {
        let (directory, cluster) = connected();
        let mut targets: Vec<_> =
            (0..MAX_TARGETS + 5).map(|i| healthy(&format!("t{i}"), info(EU_1))).collect();
        targets[0].name = "../etc".into();
        targets[1].healthy = false;
        targets[1].last_error = "x\n".repeat(5000);
        directory.targets_reported(&cluster, SessionId(1), Targets { targets }, Duration::ZERO);
        let entries = entries(&directory);
        assert_eq!(entries.len(), MAX_TARGETS - 1 + 1, "those of eu-1, and the entry of us-1");
        assert!(entries.iter().all(|(_, _, error)| error.len() <= MAX_ERROR_CHARS && !error.contains('\n')));
    }
}
