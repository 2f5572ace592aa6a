//! One store as the querier knows it.

use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};

use model::{Labels, Matcher, TimeRange};
use storeapi::{MetadataStore, Store, StoreClient, StoreError, StoreInfo};
use tokio::time::Instant;

use crate::fanout::without_name;

/// What is known of an endpoint at one moment.
#[derive(Clone, Debug)]
pub(crate) struct State {
    /// Its last answer to Info; kept when it stops answering.
    pub(crate) info: Option<Arc<StoreInfo>>,
    /// Why it cannot be read now; `None` when it is healthy.
    pub(crate) last_error: Option<String>,
    /// When Info was last asked for.
    pub(crate) last_check: Option<SystemTime>,
    /// Labels that each of its series must carry with these values.
    pub(crate) bound: Labels,
    /// `quic` or `tcp` for a store behind the mesh; empty for others.
    pub(crate) transport: String,
    /// Round-trip time to its cluster's gateway.
    pub(crate) round_trip: Option<Duration>,
    /// When it was last healthy, or first known.
    pub(crate) last_success: Instant,
    /// Since when the name that it was found by does not stand for it any more.
    pub(crate) left: Option<Instant>,
}

/// One reachable store: how to ask it, and what is known of it.
pub(crate) struct Endpoint {
    name: Arc<str>,
    client: Arc<StoreClient>,
    /// Listed however long it is away.
    strict: bool,
    state: RwLock<State>,
}

impl Endpoint {
    pub(crate) fn new(name: &str, channel: mesh::Channel, strict: bool) -> Self {
        let name: Arc<str> = name.into();
        let state = State {
            info: None,
            last_error: Some("not asked yet".to_owned()),
            last_check: None,
            bound: Labels::empty(),
            transport: String::new(),
            round_trip: None,
            last_success: Instant::now(),
            left: None,
        };
        let client = Arc::new(StoreClient::new(Arc::clone(&name), channel));
        Self { name, client, strict, state: RwLock::new(state) }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn client(&self) -> &StoreClient {
        &self.client
    }

    pub(crate) fn state(&self) -> State {
        self.state.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// Changes what is known; logs when the endpoint comes or goes.
    pub(crate) fn update(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        let before = state.last_error.clone();
        change(&mut state);
        match (&before, &state.last_error) {
            (Some(_), None) => {
                state.last_success = Instant::now();
                let kind = state.info.as_ref().map_or("", |info| info.component.as_str());
                tracing::info!(store = %self.name, kind, "store is healthy");
            }
            (None, None) => state.last_success = Instant::now(),
            (None, Some(error)) => tracing::warn!(store = %self.name, error = %error, "store is not healthy"),
            (Some(before), Some(error)) if before != error => {
                tracing::warn!(store = %self.name, error = %error, "store is not healthy");
            }
            (Some(_), Some(_)) => {}
        }
    }

    /// Takes note of an answer to Info, or of none.
    pub(crate) fn checked(&self, answer: Result<StoreInfo, StoreError>) {
        self.update(|state| {
            state.last_check = Some(SystemTime::now());
            match answer {
                Ok(info) => {
                    state.info = Some(Arc::new(info));
                    state.last_error = None;
                }
                Err(error) => {
                    state.last_error = Some(without_name(&self.name, error.message()).to_owned());
                }
            }
        });
    }

    /// Whether it has not been away for so long that lists leave it out. Answers without it say so in any case.
    pub(crate) fn is_listed(&self, timeout: Duration) -> bool {
        let state = self.state();
        self.strict || state.last_error.is_none() || state.last_success.elapsed() <= timeout
    }

    /// How long ago its address left its name; that moment is now where it was not known to have left.
    pub(super) fn left_for(&self) -> Duration {
        let mut elapsed = Duration::ZERO;
        self.update(|state| elapsed = state.left.get_or_insert_with(Instant::now).elapsed());
        elapsed
    }

    /// Whether it is healthy and announces every label set that `other` did: it is the same store, or its twin.
    pub(super) fn stands_in_for(&self, other: &Self) -> bool {
        let (state, other) = (self.state(), other.state());
        let (Some(info), Some(lost)) = (state.info, other.info) else { return false };
        let announced = |set| info.label_sets.contains(set);
        state.last_error.is_none() && !lost.label_sets.is_empty() && lost.label_sets.iter().all(announced)
    }

    pub(crate) fn candidate(&self) -> Candidate {
        let state = self.state();
        Candidate {
            name: Arc::clone(&self.name),
            store: Arc::clone(&self.client) as Arc<dyn Store>,
            metadata: Some(Arc::clone(&self.client) as Arc<dyn MetadataStore>),
            info: state.info,
            bound: state.bound,
            unavailable: state.last_error,
        }
    }
}

/// A store that a request may have to ask, as it was known when the request came.
#[derive(Clone)]
pub struct Candidate {
    /// What errors and warnings call it: an address or a target's name.
    pub name: Arc<str>,
    /// How to ask it.
    pub store: Arc<dyn Store>,
    /// How to ask it for metadata, where it may have some.
    pub metadata: Option<Arc<dyn MetadataStore>>,
    /// What it last said of itself; a store that never did may hold anything.
    pub info: Option<Arc<StoreInfo>>,
    /// Labels that each of its series must carry with these values.
    pub bound: Labels,
    /// Why it cannot be asked now. A request that needs it is then not wholly answered.
    pub unavailable: Option<String>,
}

impl Candidate {
    /// Whether the store can hold series in `range` that match, by its external labels and times.
    ///
    /// Labels that its external label sets lack never exclude it, and neither does a store that said nothing.
    pub fn may_hold(&self, matchers: &[Matcher], range: TimeRange) -> bool {
        let fits =
            |set: &Labels| matchers.iter().all(|m| set.get(m.name()).is_none_or(|value| m.matches(value)));
        if !fits(&self.bound) {
            return false;
        }
        let Some(info) = &self.info else { return true };
        info.apis.store
            && info.range.overlaps(&range)
            && (info.label_sets.is_empty() || info.label_sets.iter().any(fits))
    }

    /// The external label sets it announced.
    pub fn label_sets(&self) -> &[Labels] {
        self.info.as_ref().map_or(&[], |info| &info.label_sets)
    }
}
