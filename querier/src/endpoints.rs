//! The stores that the querier reads: those given by flags, and those that gateways announce.
//!
//! Endpoints given by flags are asked for Info every few seconds. The directory of a gateway is watched; each
//! snapshot replaces the previous one. A known store that is unreachable remains a candidate for each request
//! that may need it, so that the answer reports it as missing.

mod directory;
mod endpoint;
mod fixed;
mod group;
mod message;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

pub use endpoint::{Candidate, StoreLists};
pub(crate) use endpoint::{Endpoint, believed_range};
pub(crate) use fixed::EndpointAddress;
pub(crate) use message::{with_store_name, without_store_name};

use group::EndpointGroup;
use mesh::ChannelOptions;
use runtime::Shutdown;
use storeapi::{
    LabelLimits, LabelNamesRequest, LabelValuesRequest, LabelsAnswer, SeriesRequest, SeriesStream, Store,
    StoreError, StoreInfo,
};

/// State of a source before its first answer.
const NOT_ASKED: &str = "not asked yet";

/// A source of stores for the fan-out.
pub trait StoreSource: Send + Sync + 'static {
    /// All stores known at this moment, in a fixed order.
    fn candidates(&self) -> Vec<Candidate>;
}

/// Settings of an [`EndpointSet`].
#[derive(Clone, Debug)]
pub(crate) struct EndpointOptions {
    /// Endpoints given by flags, and whether each is strict.
    pub(crate) endpoints: Vec<(EndpointAddress, bool)>,
    /// Local gRPC addresses of the gateways whose directories are watched.
    pub(crate) gateways: Vec<String>,
    /// How endpoints and gateways are reached.
    pub(crate) channel: ChannelOptions,
    /// Limits on the labels that endpoints given by flags send.
    pub(crate) endpoint_labels: LabelLimits,
    /// Limits on the labels that stores of gateways send.
    pub(crate) gateway_labels: LabelLimits,
    /// Interval between Info requests, and the timeout of each.
    pub(crate) info_interval: Duration,
    /// Lists omit an endpoint that is not strict after it has been unreachable for this long. An address that
    /// DNS no longer returns is reported as missing for this long.
    pub(crate) unhealthy_timeout: Duration,
}

impl EndpointOptions {
    /// The options with each address once. It is strict if it was given as strict once.
    fn without_repetitions(mut self) -> Self {
        let mut once: Vec<(EndpointAddress, bool)> = Vec::with_capacity(self.endpoints.len());
        for (address, strict) in self.endpoints {
            match once.iter_mut().find(|(known, _)| *known == address) {
                Some((_, known_strict)) => *known_strict |= strict,
                None => once.push((address, strict)),
            }
        }
        self.endpoints = once;
        self.gateways.sort();
        self.gateways.dedup();
        self
    }
}

/// All endpoints of the querier. Clones share them.
#[derive(Clone)]
pub(crate) struct EndpointSet {
    options: Arc<EndpointOptions>,
    fixed: Arc<Vec<(Arc<str>, EndpointGroup)>>,
    gateways: Arc<Vec<(Arc<str>, EndpointGroup)>>,
}

impl EndpointSet {
    /// Creates the set. No endpoint has been asked yet.
    pub(crate) fn new(options: EndpointOptions) -> Self {
        let options = options.without_repetitions();
        let group = |name: String, labels: LabelLimits| {
            let group = EndpointGroup::unknown(NOT_ASKED, options.channel.clone(), labels);
            (Arc::<str>::from(name), group)
        };
        let fixed = options.endpoints.iter();
        let fixed = fixed.map(|(address, _)| group(address.to_string(), options.endpoint_labels)).collect();
        let gateways = options.gateways.iter();
        let gateways = gateways.map(|address| group(address.clone(), options.gateway_labels)).collect();
        Self { options: Arc::new(options), fixed: Arc::new(fixed), gateways: Arc::new(gateways) }
    }

    /// Keeps the set up to date until shutdown. Calls `first_round` when each source was tried once.
    pub(crate) async fn run(self, first_round: impl FnOnce(), shutdown: Shutdown) {
        let work = async {
            let followers = self.gateways.iter().map(|(address, group)| directory::follow(address, group));
            let follow = futures::future::join_all(followers);
            let ask = async {
                let settled = tokio::time::timeout(self.options.info_interval, self.until_gateways_known());
                let (_, _) = tokio::join!(self.ask_fixed(), settled);
                first_round();
                let mut ticks = tokio::time::interval(self.options.info_interval);
                ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                ticks.tick().await;
                loop {
                    ticks.tick().await;
                    self.ask_fixed().await;
                }
            };
            tokio::join!(follow, ask)
        };
        shutdown.until_triggered(work).await;
    }

    async fn ask_fixed(&self) {
        let rounds = self.options.endpoints.iter().zip(self.fixed.iter());
        let rounds = rounds.map(|((address, strict), (_, group))| {
            let timeout = self.options.info_interval;
            fixed::check_endpoints(address, *strict, group, timeout, self.options.unhealthy_timeout)
        });
        futures::future::join_all(rounds).await;
    }

    async fn until_gateways_known(&self) {
        let mut look = tokio::time::interval(Duration::from_millis(20));
        while self.gateways.iter().any(|(_, group)| group.read().unknown.as_deref() == Some(NOT_ASKED)) {
            look.tick().await;
        }
    }

    /// The endpoints to display, each with the error of its source, if the source is unavailable.
    pub(crate) fn listed(&self) -> Vec<(Arc<Endpoint>, Option<String>)> {
        let gateways = self.gateways.iter().flat_map(|(address, group)| {
            let group = group.read();
            let away = group.unknown.as_ref().map(|reason| format!("gateway {address}: {reason}"));
            group.endpoints.values().map(|e| (Arc::clone(e), away.clone())).collect::<Vec<_>>()
        });
        let fixed = self.fixed.iter().flat_map(|(_, group)| {
            group.read().endpoints.values().map(|e| (Arc::clone(e), None)).collect::<Vec<_>>()
        });
        let timeout = self.options.unhealthy_timeout;
        let mut listed: Vec<_> =
            fixed.chain(gateways).filter(|(endpoint, _)| endpoint.is_listed(timeout)).collect();
        // A name may resolve to an address that is also given.
        let mut names = BTreeSet::new();
        listed.retain(|(endpoint, _)| names.insert(endpoint.name().to_owned()));
        listed
    }

    /// All endpoints.
    pub(crate) fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        let groups = self.fixed.iter().chain(self.gateways.iter());
        groups.flat_map(|(_, group)| group.read().endpoints.values().cloned().collect::<Vec<_>>()).collect()
    }
}

impl StoreSource for EndpointSet {
    fn candidates(&self) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        for (fixed, (name, group)) in self
            .fixed
            .iter()
            .map(|group| (true, group))
            .chain(self.gateways.iter().map(|group| (false, group)))
        {
            let group = group.read();
            // A source that has never answered may know any store. An answer without it cannot be complete.
            if let Some(reason) = group.unknown.as_ref().filter(|_| group.endpoints.is_empty()) {
                let what = if fixed { "endpoint" } else { "directory of gateway" };
                candidates.push(unknown_stores(format!("{what} {name}").into(), reason));
            }
            candidates.extend(group.endpoints.values().map(|endpoint| endpoint.candidate()));
        }
        candidates
            .sort_by(|a, b| (&a.name, a.unavailable.is_some()).cmp(&(&b.name, b.unavailable.is_some())));
        // The same store may be given and announced. It must be asked only once.
        candidates.dedup_by(|a, b| a.name == b.name);
        candidates
    }
}

/// A candidate that represents the unknown stores of a source.
fn unknown_stores(name: Arc<str>, reason: &str) -> Candidate {
    Candidate {
        name,
        store: Arc::new(UnknownStores),
        metadata: None,
        lists: None,
        info: None,
        bound: model::Labels::empty(),
        unavailable: Some(reason.to_owned()),
    }
}

struct UnknownStores;

impl UnknownStores {
    fn error() -> StoreError {
        StoreError::unavailable("its stores are unknown")
    }
}

#[tonic::async_trait]
impl Store for UnknownStores {
    async fn info(&self) -> Result<StoreInfo, StoreError> {
        Err(Self::error())
    }
    async fn series(&self, _: SeriesRequest) -> Result<SeriesStream, StoreError> {
        Err(Self::error())
    }
    async fn label_names(&self, _: LabelNamesRequest) -> Result<LabelsAnswer, StoreError> {
        Err(Self::error())
    }
    async fn label_values(&self, _: LabelValuesRequest) -> Result<LabelsAnswer, StoreError> {
        Err(Self::error())
    }
}
