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
use tokio::sync::watch;

use crate::directory::cluster::ClusterState;
pub(crate) use crate::directory::cluster::{Offer, TargetVerdict};
use crate::directory::published::{EntryChanges, PublishedEntries};
use crate::metrics::GatewayMetrics;

/// Targets that a session may report; further ones are dropped with a warning.
const MAX_TARGETS: usize = 1000;

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
    metrics: Arc<GatewayMetrics>,
}

#[derive(Default)]
struct DirectoryState {
    clusters: BTreeMap<Name, ClusterState>,
    published: PublishedEntries,
}

impl Directory {
    pub(crate) fn new(metrics: Arc<GatewayMetrics>) -> Self {
        let (version, _) = watch::channel(0);
        Self { state: Mutex::default(), version, metrics }
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
        self.change(cluster, |state| state.set_round_trip(session, round_trip));
    }

    /// Records the end of a session.
    pub(crate) fn session_closed(&self, cluster: &Name, session: SessionId, why: &str) {
        self.change(cluster, |state| state.close(session, why));
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
        let DirectoryState { clusters, published } = &mut *state;
        // Reports of a cluster that is not registered any more are ignored.
        if let Some(known) = clusters.get_mut(cluster) {
            change(known);
            self.metrics.cluster(cluster, known.is_connected());
            published.set_cluster(cluster, known.entries());
            self.announce(&state);
        }
    }

    /// Wakes the watchers if an entry has changed.
    fn announce(&self, state: &DirectoryState) {
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
mod tests {
    use proto::isthmus::mesh::v1::DirectoryEntry;
    use proto::thanos::{Label, LabelSet, info::InfoResponse};

    use super::*;
    use crate::directory::labels::bound_labels;
    use crate::peer_text::MAX_CHARS;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn registration(cluster: &str, environment: &str) -> ClusterRegistration {
        ClusterRegistration { cluster: name(cluster), environment: environment.to_owned(), joined: true }
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
        directory.session_opened(&cluster, SessionId(1), "one", Transport::Quic);
        let targets = Targets { targets: vec![healthy("scraper-0", info(EU_1))] };
        directory.targets_reported(&cluster, SessionId(1), targets);
        directory.round_trip_measured(&cluster, SessionId(1), Duration::from_millis(3));
        (directory, cluster)
    }

    fn all(directory: &Directory) -> Vec<DirectoryEntry> {
        directory.changes(0).entries.iter().map(|entry| DirectoryEntry::clone(entry)).collect()
    }

    fn entries(directory: &Directory) -> Vec<(String, bool, String)> {
        all(directory).into_iter().map(|e| (e.name, e.healthy, e.last_error)).collect()
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
        let first = &all(&directory)[0];
        assert_eq!((first.transport.as_str(), first.round_trip_seconds), ("quic", 0.003));
        assert_eq!(first.bound_labels, Some(bound_labels(&name("eu-1"), "production")));
    }

    #[test]
    fn a_cluster_that_is_only_expected_is_accepted_and_not_missing() {
        let directory = Directory::new(GatewayMetrics::unregistered());
        let cluster = name("eu-1");
        let expected = ClusterRegistration { joined: false, ..registration("eu-1", "production") };
        directory.set_registered(std::slice::from_ref(&expected));
        assert!(directory.registration(&cluster).is_some());
        assert_eq!(entries(&directory), []);
        directory.connecting_failed(&cluster, "no answer");
        assert_eq!(entries(&directory), []);
        directory.set_registered(&[ClusterRegistration { joined: true, ..expected.clone() }]);
        assert_eq!(entries(&directory).len(), 1);
        // Removed and registered again, it is only expected.
        directory.set_registered(&[]);
        directory.set_registered(&[expected]);
        assert_eq!(entries(&directory), []);
        directory.session_opened(&cluster, SessionId(1), "one", Transport::Quic);
        assert_eq!(entries(&directory).len(), 1, "a connected cluster has joined");
    }

    #[test]
    fn metrics_say_which_clusters_are_connected() {
        let mut registry = runtime::Registry::default();
        let directory = Directory::new(GatewayMetrics::new(&mut registry));
        let metrics = || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            let lines = text.lines().filter_map(|l| l.strip_prefix("isthmus_gateway_cluster_connected"));
            let mut lines: Vec<String> = lines.map(str::to_owned).collect();
            lines.sort_unstable();
            lines
        };
        let both = [registration("eu-1", "production"), registration("us-1", "production")];
        directory.set_registered(&both);
        assert_eq!(metrics(), [r#"{peer="eu-1"} 0"#, r#"{peer="us-1"} 0"#]);
        directory.session_opened(&name("eu-1"), SessionId(1), "one", Transport::Quic);
        assert_eq!(metrics(), [r#"{peer="eu-1"} 1"#, r#"{peer="us-1"} 0"#]);
        directory.session_closed(&name("eu-1"), SessionId(1), "timed out");
        directory.set_registered(&both[..1]);
        assert_eq!(metrics(), [r#"{peer="eu-1"} 0"#]);
        // One that has not joined yet is not missed.
        let expected = ClusterRegistration { joined: false, ..registration("new", "production") };
        directory.set_registered(std::slice::from_ref(&expected));
        assert!(metrics().is_empty());
        directory.set_registered(&[ClusterRegistration { joined: true, ..expected }]);
        assert_eq!(metrics(), [r#"{peer="new"} 0"#]);
    }

    #[test]
    fn a_disconnected_cluster_is_listed_with_its_info_while_it_is_registered() {
        let (directory, cluster) = connected();
        directory.session_opened(&cluster, SessionId(2), "one", Transport::Tcp);
        let targets = Targets { targets: vec![healthy("scraper-0", info(EU_1))] };
        directory.targets_reported(&cluster, SessionId(2), targets);
        directory.session_closed(&cluster, SessionId(1), "connection lost");
        assert!(entries(&directory)[0].1, "one of two sessions is enough");
        directory.session_closed(&cluster, SessionId(2), "timed\nout");
        let entry = &all(&directory)[0];
        assert_eq!((entry.healthy, entry.transport.as_str()), (false, ""));
        assert_eq!(entry.last_error, "cluster eu-1 is not connected: timed out");
        assert!(entry.info.is_some());

        directory.set_registered(&[registration("us-1", "production")]);
        assert_eq!(entries(&directory).len(), 1);
        directory.session_opened(&cluster, SessionId(3), "one", Transport::Quic);
        assert_eq!(entries(&directory).len(), 1, "an unregistered cluster was listed");
    }

    #[test]
    fn a_target_with_foreign_labels_is_unhealthy_and_keeps_its_last_good_info() {
        let (directory, cluster) = connected();
        let spoofed = info(&[("cluster", "us-1"), ("environment", "production")]);
        let targets = Targets { targets: vec![healthy("scraper-0", spoofed)] };
        directory.targets_reported(&cluster, SessionId(1), targets);
        let first = &all(&directory)[0];
        assert!(!first.healthy);
        assert_eq!(first.info, Some(info(EU_1)), "the last valid Info is kept, the spoofed one is not shown");
    }

    #[test]
    fn reports_of_a_cluster_are_bounded() {
        let (directory, cluster) = connected();
        let mut targets: Vec<_> =
            (0..MAX_TARGETS + 5).map(|i| healthy(&format!("t{i}"), info(EU_1))).collect();
        targets[0].name = "../etc".into();
        targets[1].healthy = false;
        targets[1].last_error = "x\n".repeat(5000);
        directory.targets_reported(&cluster, SessionId(1), Targets { targets });
        let entries = entries(&directory);
        assert_eq!(entries.len(), MAX_TARGETS - 1 + 1, "those of eu-1, and the entry of us-1");
        assert!(entries.iter().all(|(_, _, error)| error.len() <= MAX_CHARS && !error.contains('\n')));
    }

    fn offer(directory: &Directory, target: &str) -> Offer {
        directory.offer(&target.parse().unwrap())
    }

    /// Two gateways of a cluster, with one target in common.
    #[test]
    fn each_target_is_offered_by_the_sessions_that_have_it() {
        let (directory, cluster) = connected();
        directory.session_opened(&cluster, SessionId(2), "two", Transport::Tcp);
        let (both, one, two) = (&[SessionId(1), SessionId(2)], &[SessionId(1)], &[SessionId(2)]);
        assert_eq!(offer(&directory, "scraper-1.eu-1"), Offer::Sessions(two.to_vec()), "not known yet");
        directory.targets_named(&cluster, SessionId(2), vec!["scraper-0".into(), "scraper-1".into()]);
        assert_eq!(offer(&directory, "scraper-0.eu-1"), Offer::Sessions(one.to_vec()), "it is healthy there");
        assert_eq!(offer(&directory, "scraper-1.eu-1"), Offer::Sessions(two.to_vec()));
        assert_eq!(offer(&directory, "scraper-2.eu-1"), Offer::Unknown);
        assert_eq!(offer(&directory, "scraper-0.us-1"), Offer::Nowhere);
        for target in ["scraper-0", "scraper-1", "scraper-9"] {
            directory.target_reported(&cluster, SessionId(2), healthy(target, info(EU_1)));
        }
        assert_eq!(offer(&directory, "scraper-0.eu-1"), Offer::Sessions(both.to_vec()));
        let names = |directory: &Directory| -> Vec<(String, bool)> {
            entries(directory).into_iter().map(|(name, healthy, _)| (name, healthy)).collect()
        };
        let shown = |second| {
            [
                ("scraper-0.eu-1".to_owned(), true),
                ("scraper-1.eu-1".to_owned(), second),
                ("us-1".to_owned(), false),
            ]
        };
        assert_eq!(names(&directory), shown(true));

        // Its gateway is gone: what only it serves is missing, and says so.
        directory.session_closed(&cluster, SessionId(2), "killed");
        assert_eq!(names(&directory), shown(false));
        let why = entries(&directory)[1].2.clone();
        assert_eq!(why, "the gateway of cluster eu-1 that serves it is not connected: killed");
        assert_eq!(offer(&directory, "scraper-1.eu-1"), Offer::Lost);
        // It comes back without the target: its owner has removed it.
        directory.session_opened(&cluster, SessionId(3), "two", Transport::Quic);
        assert_eq!(names(&directory), shown(false));
        directory.targets_named(&cluster, SessionId(3), vec!["scraper-0".into()]);
        assert_eq!(names(&directory), [("scraper-0.eu-1".to_owned(), true), ("us-1".to_owned(), false)]);
        assert_eq!(offer(&directory, "scraper-1.eu-1"), Offer::Unknown);
    }

    #[test]
    fn what_does_not_change_wakes_no_watcher() {
        let (directory, cluster) = connected();
        let mut versions = directory.watch();
        versions.borrow_and_update();
        directory.target_reported(&cluster, SessionId(1), healthy("scraper-0", info(EU_1)));
        directory.round_trip_measured(&cluster, SessionId(1), Duration::from_millis(7));
        directory.set_registered(&[registration("eu-1", "production"), registration("us-1", "production")]);
        assert!(!versions.has_changed().unwrap());
        directory.round_trip_measured(&cluster, SessionId(1), Duration::from_millis(70));
        assert!(versions.has_changed().unwrap());
    }
}
