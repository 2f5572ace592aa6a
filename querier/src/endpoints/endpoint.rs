//! One store and its state.

use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};

use model::{Labels, METRIC_NAME, Matcher, TimeRange, Timestamp};
use promapi::{ExemplarSeries, RuleGroup, TargetDiscovery};
use runtime::ContextLayer;
use storeapi::{
    AnswerLimits, LabelLimits, ListingStore, MetadataStore, Store, StoreClient, StoreError, StoreInfo,
    TenantTsdbStatus, WireLimits,
};
use tokio::time::Instant;

use crate::endpoints::message::without_store_name;

/// The state of an endpoint at one moment.
#[derive(Clone, Debug)]
pub(crate) struct EndpointState {
    /// Its last answer to Info; kept while it does not answer.
    pub(crate) info: Option<Arc<StoreInfo>>,
    /// Why it cannot be read; `None` if it is healthy.
    pub(crate) last_error: Option<String>,
    /// Whether it did not answer the last Info request although it is healthy. Connections may end at any time, so
    /// only the second loss in a row makes it unhealthy. Until then requests ask it, and report it if they fail.
    pub(crate) unanswered: bool,
    /// Time of the last Info request.
    pub(crate) last_check: Option<SystemTime>,
    /// Labels and values that each of its series must have.
    pub(crate) bound: Labels,
    /// `quic` or `tcp` for a store that is reached through the mesh; empty for others.
    pub(crate) transport: String,
    /// Round-trip time to the gateway of its cluster.
    pub(crate) round_trip: Option<Duration>,
    /// Time when it was last healthy; before that, time of its creation.
    pub(crate) last_success: Instant,
    /// Time since which DNS no longer returns its address.
    pub(crate) left: Option<Instant>,
}

/// One store: its client and its state.
pub(crate) struct Endpoint {
    name: Arc<str>,
    client: Arc<StoreClient>,
    /// Listed however long it has been unreachable.
    strict: bool,
    state: RwLock<EndpointState>,
}

impl Endpoint {
    /// Creates the endpoint. Its series, label names and values must be within `labels`.
    pub(crate) fn new(name: &str, channel: mesh::Channel, strict: bool, labels: LabelLimits) -> Self {
        let name: Arc<str> = name.into();
        let state = EndpointState {
            info: None,
            last_error: Some(crate::endpoints::NOT_ASKED.to_owned()),
            unanswered: false,
            last_check: None,
            bound: Labels::empty(),
            transport: String::new(),
            round_trip: None,
            last_success: Instant::now(),
            left: None,
        };
        let channel = channel.within(&ContextLayer);
        let limits = WireLimits { labels, ..WireLimits::default() };
        let client = Arc::new(StoreClient::new(Arc::clone(&name), channel).with_limits(limits));
        Self { name, client, strict, state: RwLock::new(state) }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn client(&self) -> &StoreClient {
        &self.client
    }

    pub(crate) fn state(&self) -> EndpointState {
        self.state.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// Changes the state; logs changes of its health.
    pub(crate) fn update(&self, change: impl FnOnce(&mut EndpointState)) {
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
            (None, Some(error)) => tracing::warn!(store = %self.name, error = %error, "store cannot be read"),
            (Some(before), Some(error)) if before != error => {
                tracing::warn!(store = %self.name, error = %error, "store cannot be read");
            }
            (Some(_), Some(_)) => {}
        }
    }

    /// Records the result of an Info request.
    pub(crate) fn checked(&self, answer: Result<StoreInfo, StoreError>) {
        self.update(|state| {
            state.last_check = Some(SystemTime::now());
            match answer {
                Ok(info) => {
                    state.info = Some(Arc::new(info));
                    state.last_error = None;
                    state.unanswered = false;
                }
                Err(error) if error.is_unanswered() && state.last_error.is_none() && !state.unanswered => {
                    tracing::debug!(store = %self.name, %error, "no answer to Info");
                    state.unanswered = true;
                }
                Err(error) => {
                    state.unanswered = false;
                    state.last_error = Some(without_store_name(&self.name, error.message()).to_owned());
                }
            }
        });
    }

    /// Whether lists include it: it is strict, healthy, or has been unreachable for at most `timeout`.
    /// Answers report it as missing in any case.
    pub(crate) fn is_listed(&self, timeout: Duration) -> bool {
        let state = self.state();
        self.strict || state.last_error.is_none() || state.last_success.elapsed() <= timeout
    }

    /// Time since DNS stopped returning its address. The first call starts that time.
    pub(super) fn left_for(&self) -> Duration {
        let mut elapsed = Duration::ZERO;
        self.update(|state| elapsed = state.left.get_or_insert_with(Instant::now).elapsed());
        elapsed
    }

    /// Whether it is healthy and announces each label set of `other`: it is the same store, or a replacement.
    pub(super) fn replaces(&self, other: &Self) -> bool {
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
            lists: Some(Arc::clone(&self.client) as Arc<dyn StoreLists>),
            info: state.info,
            bound: state.bound,
            selected: Vec::new(),
            unavailable: state.last_error,
        }
    }
}

/// A store of every kind of list.
pub trait StoreLists:
    ListingStore<RuleGroup>
    + ListingStore<TargetDiscovery>
    + ListingStore<ExemplarSeries>
    + ListingStore<TenantTsdbStatus>
{
}

impl<S> StoreLists for S where
    S: ListingStore<RuleGroup>
        + ListingStore<TargetDiscovery>
        + ListingStore<ExemplarSeries>
        + ListingStore<TenantTsdbStatus>
{
}

/// A registered store that announces no samples in this time is reported as missing: its announcement would hide it. Stores
/// that read a bucket are a few hours behind.
const OUTDATED: Duration = Duration::from_secs(24 * 3600);

/// The clock of a store may be ahead by this much.
const CLOCK_SKEW: Duration = Duration::from_secs(600);

/// The times for which a store is asked, where it announces `range`. A sidecar always has recent samples, or may get them at any
/// moment, so its end is not believed.
pub(crate) fn believed_range(info: &StoreInfo, range: TimeRange) -> TimeRange {
    match info.component.as_str() {
        "sidecar" => TimeRange::new(range.min.min(now()), Timestamp::MAX),
        _ => range,
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::EPOCH + since
}

/// A store that a request may have to ask, with its state when the request arrived.
#[derive(Clone)]
pub struct Candidate {
    /// Its name in errors and warnings: an address or the name of a target.
    pub name: Arc<str>,
    /// Its StoreAPI.
    pub store: Arc<dyn Store>,
    /// Its metadata API, if it may have one.
    pub metadata: Option<Arc<dyn MetadataStore>>,
    /// Its rules, targets, exemplars and statistics, if it may have them.
    pub lists: Option<Arc<dyn StoreLists>>,
    /// Its last answer to Info. A store without one may have any series.
    pub info: Option<Arc<StoreInfo>>,
    /// Labels and values that each of its series must have.
    pub bound: Labels,
    /// What its series must satisfy to be read, besides the matchers of a request.
    pub selected: Vec<Matcher>,
    /// Why it cannot be asked. An answer that needs it is then partial.
    pub unavailable: Option<String>,
}

impl Candidate {
    /// Whether the store may have matching series in `range`, according to its external labels and time
    /// range.
    ///
    /// Labels that its external label sets lack never exclude it. A store that has not answered Info is never
    /// excluded, except by its bound labels. A registered store is excluded neither by the lack of StoreAPI nor
    /// by times that end long ago: it is reported instead.
    pub fn may_hold(&self, matchers: &[Matcher], range: TimeRange) -> bool {
        self.labels_admit(matchers) && (self.is_in_range(range) || self.hidden(range).is_some())
    }

    /// Whether its external labels admit series that match.
    pub(crate) fn labels_admit(&self, matchers: &[Matcher]) -> bool {
        // Every series has a name of its own, so a store cannot have one for all.
        let admits = |set: &Labels, m: &Matcher| {
            m.name() == METRIC_NAME || set.get(m.name()).is_none_or(|value| m.matches(value))
        };
        let fits = |set: &Labels| matchers.iter().all(|m| admits(set, m));
        let sets = self.label_sets();
        fits(&self.bound) && (sets.is_empty() || sets.iter().any(fits))
    }

    /// The matchers of a request in the form that this store accepts.
    ///
    /// A sidecar of Thanos rejects a request if its external labels satisfy all matchers, or all but those that match the
    /// empty string; so does a querier in front of it. `__name__!=""` is added to such a request. A request for labels may
    /// have no matchers at all, which Thanos accepts.
    pub(crate) fn accepted_matchers(&self, matchers: &[Matcher], for_labels: bool) -> Vec<Matcher> {
        let matchers: Vec<Matcher> = matchers.iter().chain(&self.selected).cloned().collect();
        let external = |m: &&Matcher| self.label_sets().iter().any(|set| set.get(m.name()).is_some());
        let mut rest: Vec<Matcher> = matchers.iter().filter(|m| !external(m)).cloned().collect();
        let own = rest.len();
        if !(for_labels && rest.is_empty()) {
            Matcher::require_name(&mut rest);
        }
        let added = rest.split_off(own);
        matchers.into_iter().chain(added).collect()
    }

    /// Whether it may have samples in `range`, according to the times that it announces.
    pub(crate) fn is_in_range(&self, range: TimeRange) -> bool {
        let Some(info) = &self.info else { return true };
        info.apis.store && believed_range(info, info.range).overlaps(&range)
    }

    /// Why samples in `range` may be missing although the store does not announce that it has some; `None` for a store that is
    /// not registered, or that announces recent samples.
    pub(crate) fn hidden(&self, range: TimeRange) -> Option<String> {
        let info = self.info.as_deref().filter(|_| !self.bound.is_empty())?;
        if !info.apis.store {
            return Some("it is registered but announces no StoreAPI".to_owned());
        }
        let TimeRange { min: begin, max: end } = believed_range(info, info.range);
        if begin <= end && begin > now() + CLOCK_SKEW && range.max >= now() - OUTDATED {
            return Some("it is registered but announces only samples of the future".to_owned());
        }
        let oldest = now() - OUTDATED;
        (end < oldest && range.max > end).then(|| match info.range.min > end {
            true => "it is registered but announces that it has no samples".to_owned(),
            false => format!("it is registered but announces no samples after {} ms", end.as_millis()),
        })
    }

    /// Its metadata API, if it may have one, with limits on what its answers take in memory.
    pub(crate) fn limited_metadata(&self, limits: &AnswerLimits) -> Option<Arc<dyn MetadataStore>> {
        let store = self.metadata.as_ref()?;
        Some(store.limited(limits).unwrap_or_else(|| Arc::clone(store)))
    }

    /// Its StoreAPI, with limits on what its answers take in memory.
    pub(crate) fn limited(&self, limits: &AnswerLimits) -> Arc<dyn Store> {
        self.store.limited(limits).unwrap_or_else(|| Arc::clone(&self.store))
    }

    /// The external label sets that it announces.
    pub fn label_sets(&self) -> &[Labels] {
        self.info.as_ref().map_or(&[], |info| &info.label_sets)
    }
}
