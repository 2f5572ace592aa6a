//! One cluster: its sessions, the targets that each of them serves, and the entries that follow.
//!
//! Targets belong to a session, because the gateways of a cluster may serve different ones. Those of a session that has ended
//! stay, as unhealthy, until a session serves them again or the same gateway comes back without them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use identity::Name;
use mesh::{Authority, Transport};
use proto::{
    isthmus::mesh::v1::{DirectoryEntry, Target},
    thanos::{LabelSet, info::InfoResponse},
};

use crate::directory::SessionId;
use crate::directory::labels::{bound_labels, check_labels};
use crate::peer_text::bounded;

/// A target whose gateway does not come back is forgotten after this time, if the cluster is connected.
const KEEP_LOST: Duration = Duration::from_secs(24 * 3600);
/// A round-trip time is published again if it differs by more than this, and by half.
const ROUND_TRIP_STEP: Duration = Duration::from_millis(5);

/// Where a target can be reached.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// On any of these sessions.
    Sessions(Vec<SessionId>),
    /// The gateways that serve it are not connected.
    Lost,
    /// The cluster is connected, and has no such target.
    Unknown,
    /// The cluster is not connected.
    Nowhere,
}

/// What becomes of a target that a session has reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TargetVerdict {
    pub(crate) name: Name,
    /// Why it is not read although it is reported as healthy; empty otherwise.
    pub(crate) refused: String,
}

/// What is known about a registered cluster.
pub(super) struct ClusterState {
    cluster: Name,
    environment: String,
    /// Whether answers without it are partial.
    joined: bool,
    bound: LabelSet,
    sessions: BTreeMap<SessionId, SessionState>,
    /// Targets of sessions that have ended, which no open session has.
    lost: BTreeMap<Name, LostTarget>,
    /// Why the last session ended or could not be opened. Shown while there is no session.
    last_error: String,
}

struct SessionState {
    instance: String,
    transport: Transport,
    round_trip: Duration,
    /// Whether its targets are known.
    has_named: bool,
    targets: BTreeMap<Name, TargetState>,
}

struct LostTarget {
    state: TargetState,
    instance: String,
    since: Instant,
}

#[derive(Clone)]
struct TargetState {
    /// Empty when healthy.
    error: String,
    last_check: Option<prost_types::Timestamp>,
    info: Option<InfoResponse>,
}

impl ClusterState {
    /// A cluster that has not connected yet.
    pub(super) fn new(cluster: Name, environment: String, joined: bool) -> Self {
        let bound = bound_labels(&cluster, &environment);
        let last_error = "has not connected since this gateway started".to_owned();
        let (sessions, lost) = (BTreeMap::new(), BTreeMap::new());
        Self { cluster, environment, joined, bound, sessions, lost, last_error }
    }

    pub(super) fn has_joined(&self) -> bool {
        self.joined
    }

    /// Records whether the cluster has joined. Returns whether that is new.
    pub(super) fn set_joined(&mut self, joined: bool) -> bool {
        std::mem::replace(&mut self.joined, joined) != joined
    }

    /// Whether it has a session; `None` if it has never joined, and is not missed therefore.
    pub(super) fn is_connected(&self) -> Option<bool> {
        let is_connected = !self.sessions.is_empty();
        (self.joined || is_connected).then_some(is_connected)
    }

    /// Whether nothing is missing that it had before this gateway started: a session has reported a check of all its targets.
    pub(super) fn is_known(&self) -> bool {
        let is_checked = |target: &TargetState| target.last_check.is_some();
        let has_reported =
            |session: &SessionState| session.has_named && session.targets.values().all(is_checked);
        !self.joined || self.sessions.values().any(has_reported)
    }

    pub(super) fn environment(&self) -> &str {
        &self.environment
    }

    /// Adds a session, whose targets are not known yet.
    pub(super) fn open(&mut self, session: SessionId, instance: &str, transport: Transport) {
        let state = SessionState {
            instance: bounded(instance),
            transport,
            round_trip: Duration::ZERO,
            has_named: false,
            targets: BTreeMap::new(),
        };
        self.sessions.insert(session, state);
    }

    /// Replaces the targets of a session. Nothing is known about new ones but what another session knew.
    pub(super) fn set_names(&mut self, session: SessionId, names: BTreeSet<Name>) {
        let infos: BTreeMap<Name, Option<InfoResponse>> =
            names.iter().map(|name| (name.clone(), self.last_info(name))).collect();
        let Some(state) = self.sessions.get_mut(&session) else { return };
        let mut before = std::mem::take(&mut state.targets);
        state.has_named = true;
        state.targets = infos
            .into_iter()
            .map(|(name, info)| {
                let error = "not reported yet".to_owned();
                let new = || TargetState { error, last_check: None, info };
                let target = before.remove(&name).unwrap_or_else(new);
                (name, target)
            })
            .collect();
        // What this gateway had before it came back, and has no more, was removed by its owner.
        let instance = state.instance.clone();
        self.lost.retain(|name, lost| {
            lost.instance != instance && !names.contains(name) && lost.since.elapsed() < KEEP_LOST
        });
    }

    /// Records the state of a target; `None` if the session has not named it.
    pub(super) fn set_target(&mut self, session: SessionId, target: Target) -> Option<TargetVerdict> {
        let name: Name = target.name.parse().ok()?;
        let known = self.sessions.get_mut(&session)?.targets.get_mut(&name)?;
        let reported_healthy = target.healthy;
        *known = TargetState::checked(target, known.info.take(), &self.bound);
        let refused = if reported_healthy { known.error.clone() } else { String::new() };
        Some(TargetVerdict { name, refused })
    }

    /// Records a round-trip time, unless it is about that which is known. Whether it is recorded.
    pub(super) fn set_round_trip(&mut self, session: SessionId, round_trip: Duration) -> bool {
        let Some(state) = self.sessions.get_mut(&session) else { return false };
        let apart = state.round_trip.abs_diff(round_trip);
        let is_new = state.round_trip.is_zero() || apart > ROUND_TRIP_STEP && apart > state.round_trip / 2;
        if is_new {
            state.round_trip = round_trip;
        }
        is_new
    }

    /// Removes a session. Its targets stay as lost ones, except those of another session, and those that its gateway has
    /// removed meanwhile. Returns whether no session is left.
    pub(super) fn close(&mut self, session: SessionId, why: &str) -> bool {
        let Some(ended) = self.sessions.remove(&session) else { return false };
        self.last_error = bounded(why);
        let succeeded =
            self.sessions.values().any(|other| other.has_named && other.instance == ended.instance);
        if succeeded {
            return false;
        }
        let since = Instant::now();
        for (name, state) in ended.targets {
            if !self.sessions.values().any(|other| other.targets.contains_key(&name)) {
                self.lost.insert(name, LostTarget { state, instance: ended.instance.clone(), since });
            }
        }
        self.sessions.is_empty()
    }

    /// Whether no other session serves one of the targets that a session serves.
    pub(super) fn needs(&self, session: SessionId) -> bool {
        let serves = |state: &SessionState, name| {
            state.targets.get(name).is_some_and(|target| target.error.is_empty())
        };
        let elsewhere = |name| self.sessions.iter().any(|(id, state)| *id != session && serves(state, name));
        self.sessions
            .get(&session)
            .is_some_and(|state| state.targets.keys().any(|name| serves(state, name) && !elsewhere(name)))
    }

    pub(super) fn connecting_failed(&mut self, why: &str) {
        self.last_error = bounded(why);
    }

    /// Where a target can be reached: on the sessions that report it as healthy; without one, on those that have it.
    pub(super) fn offer(&self, target: &Name) -> Offer {
        if self.sessions.is_empty() {
            return Offer::Nowhere;
        }
        let with = |wanted: fn(Option<&TargetState>, &SessionState) -> bool| -> Vec<SessionId> {
            let sessions = self.sessions.iter();
            sessions
                .filter(|(_, state)| wanted(state.targets.get(target), state))
                .map(|(id, _)| *id)
                .collect()
        };
        let healthy = with(|target, _| target.is_some_and(|target| target.error.is_empty()));
        if !healthy.is_empty() {
            return Offer::Sessions(healthy);
        }
        // A session that has just begun may have it.
        let possible = with(|target, state| target.is_some() || !state.has_named);
        match (possible.is_empty(), self.lost.contains_key(target)) {
            (false, _) => Offer::Sessions(possible),
            (true, true) => Offer::Lost,
            (true, false) => Offer::Unknown,
        }
    }

    /// One entry for each target. A cluster without targets has one entry of its own, so that it is not missing.
    pub(super) fn entries(&self) -> Vec<DirectoryEntry> {
        let offered = self.sessions.values().flat_map(|session| session.targets.keys());
        let names: BTreeSet<&Name> = offered.chain(self.lost.keys()).collect();
        if !names.is_empty() {
            return names.into_iter().filter_map(|name| self.entry(name)).collect();
        }
        if !self.joined && self.sessions.is_empty() {
            return Vec::new();
        }
        let cluster = &self.cluster;
        let last_error = match self.sessions.is_empty() {
            false => format!("cluster {cluster} reports no targets"),
            true => self.not_connected(),
        };
        let route = self.sessions.values().min_by_key(|session| session.transport);
        vec![DirectoryEntry { last_error, ..self.template(cluster.to_string(), route) }]
    }

    /// The entry of a target; `None` without such a target.
    pub(super) fn entry(&self, name: &Name) -> Option<DirectoryEntry> {
        let text = Authority::new(name.clone(), self.cluster.clone()).to_string();
        let with = self.sessions.values().filter_map(|session| Some((session, session.targets.get(name)?)));
        // Healthy before not, QUIC before TCP, as for requests.
        let best = with.min_by_key(|(session, target)| (!target.error.is_empty(), session.transport));
        let (target, route) = match best {
            Some((session, target)) => (target, Some(session)),
            None => (&self.lost.get(name)?.state, None),
        };
        let last_error = match (route, self.sessions.is_empty()) {
            (Some(_), _) => target.error.clone(),
            (None, true) => self.not_connected(),
            (None, false) => {
                let cluster = &self.cluster;
                format!(
                    "the gateway of cluster {cluster} that serves it is not connected: {}",
                    self.last_error
                )
            }
        };
        Some(DirectoryEntry {
            healthy: last_error.is_empty(),
            last_error,
            last_check: target.last_check,
            info: target.info.clone(),
            ..self.template(text, route)
        })
    }

    fn not_connected(&self) -> String {
        format!("cluster {} is not connected: {}", self.cluster, self.last_error)
    }

    fn template(&self, name: String, route: Option<&SessionState>) -> DirectoryEntry {
        DirectoryEntry {
            name,
            cluster: self.cluster.to_string(),
            environment: self.environment.clone(),
            healthy: false,
            last_error: String::new(),
            last_check: None,
            info: None,
            transport: route.map(|route| route.transport.to_string()).unwrap_or_default(),
            round_trip_seconds: route.map_or(0.0, |route| route.round_trip.as_secs_f64()),
            bound_labels: Some(self.bound.clone()),
        }
    }

    /// The last valid Info of a target, from any session.
    fn last_info(&self, name: &Name) -> Option<InfoResponse> {
        let open = self.sessions.values().filter_map(|session| session.targets.get(name));
        let lost = self.lost.get(name).map(|lost| &lost.state);
        open.chain(lost).find_map(|target| target.info.clone())
    }
}

impl TargetState {
    /// The state of a target after the check of its labels. While the target is unhealthy, its last valid Info is kept, so
    /// that a querier knows which queries need it.
    fn checked(target: Target, before: Option<InfoResponse>, bound: &LabelSet) -> Self {
        let last_check = target.last_check;
        let failed = |error: String, before| Self { error: bounded(&error), last_check, info: before };
        if !target.healthy {
            let error =
                if target.last_error.is_empty() { "not healthy".to_owned() } else { target.last_error };
            return failed(error, before);
        }
        match target.info {
            None => failed("is reported as healthy, but without Info".to_owned(), before),
            Some(info) => match check_labels(&info, bound) {
                Ok(()) => Self { error: String::new(), last_check, info: Some(info) },
                Err(error) => failed(error, before),
            },
        }
    }
}
