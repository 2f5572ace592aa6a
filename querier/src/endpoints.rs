//! The stores that the querier reads: those it was given, and those that gateways announce.
//!
//! Given endpoints are asked for Info every few seconds. A gateway's directory is watched; each snapshot replaces the
//! one before. Whoever is known and away is still a candidate for every request that may need it, so that an answer
//! without it says so.

mod directory;
mod endpoint;
mod fixed;

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

pub use endpoint::Candidate;
pub(crate) use endpoint::Endpoint;
pub(crate) use fixed::Address;

use runtime::Shutdown;
use storeapi::{LabelNamesRequest, LabelValuesRequest, LabelsAnswer, SeriesRequest, SeriesStream, Store};
use storeapi::{StoreError, StoreInfo};

/// Where the fan-out finds stores.
pub trait StoreSource: Send + Sync + 'static {
    /// All stores that are known now, in a fixed order.
    fn candidates(&self) -> Vec<Candidate>;
}

/// Settings of an [`EndpointSet`].
#[derive(Clone, Debug)]
pub(crate) struct EndpointOptions {
    /// Endpoints to ask, and whether each is strict.
    pub(crate) endpoints: Vec<(Address, bool)>,
    /// Local gRPC addresses of the gateways whose directories to follow.
    pub(crate) gateways: Vec<String>,
    /// Time between two rounds of Info, and how long each may take.
    pub(crate) info_interval: Duration,
    /// How long an endpoint that is not strict may be away before lists leave it out, and how long one whose address
    /// left its name is still missed.
    pub(crate) unhealthy_timeout: Duration,
}

/// Endpoints by name, as one source (the flags, or a gateway's directory) has them.
#[derive(Default)]
struct Group {
    endpoints: BTreeMap<Arc<str>, Arc<Endpoint>>,
    /// Why this source cannot say which endpoints there are; without any, answers may lack some.
    unknown: Option<String>,
}

type SharedGroup = Arc<RwLock<Group>>;

/// All endpoints of the querier. Clones share them.
#[derive(Clone)]
pub(crate) struct EndpointSet {
    options: Arc<EndpointOptions>,
    fixed: Arc<Vec<(Arc<str>, SharedGroup)>>,
    gateways: Arc<Vec<(Arc<str>, SharedGroup)>>,
}

impl EndpointSet {
    /// The endpoints of these options, none of them asked yet.
    pub(crate) fn new(options: EndpointOptions) -> Self {
        let group = |name: String| {
            let group = Group { unknown: Some("not asked yet".to_owned()), ..Group::default() };
            (Arc::<str>::from(name), Arc::new(RwLock::new(group)))
        };
        let fixed = options.endpoints.iter().map(|(address, _)| group(address.to_string())).collect();
        let gateways = options.gateways.iter().map(|address| group(address.clone())).collect();
        Self { options: Arc::new(options), fixed: Arc::new(fixed), gateways: Arc::new(gateways) }
    }

    /// Keeps the set current until the word to stop. `first_round` is told when every source was tried once.
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
            fixed::round(address, *strict, group, timeout, self.options.unhealthy_timeout)
        });
        futures::future::join_all(rounds).await;
    }

    async fn until_gateways_known(&self) {
        let mut look = tokio::time::interval(Duration::from_millis(20));
        while self.gateways.iter().any(|(_, group)| read(group).unknown.as_deref() == Some("not asked yet")) {
            look.tick().await;
        }
    }

    /// The endpoints to display, each with why its source is away where it is.
    pub(crate) fn listed(&self) -> Vec<(Arc<Endpoint>, Option<String>)> {
        let gateways = self.gateways.iter().flat_map(|(address, group)| {
            let group = read(group);
            let away = group.unknown.as_ref().map(|reason| format!("gateway {address}: {reason}"));
            group.endpoints.values().map(|e| (Arc::clone(e), away.clone())).collect::<Vec<_>>()
        });
        let fixed = self.fixed.iter().flat_map(|(_, group)| {
            read(group).endpoints.values().map(|e| (Arc::clone(e), None)).collect::<Vec<_>>()
        });
        let timeout = self.options.unhealthy_timeout;
        fixed.chain(gateways).filter(|(endpoint, _)| endpoint.is_listed(timeout)).collect()
    }

    /// All endpoints.
    pub(crate) fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        let groups = self.fixed.iter().chain(self.gateways.iter());
        groups.flat_map(|(_, group)| read(group).endpoints.values().cloned().collect::<Vec<_>>()).collect()
    }
}

fn read(group: &SharedGroup) -> std::sync::RwLockReadGuard<'_, Group> {
    group.read().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn write(group: &SharedGroup) -> std::sync::RwLockWriteGuard<'_, Group> {
    group.write().unwrap_or_else(|poisoned| poisoned.into_inner())
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
            let group = read(group);
            // Who never said which stores there are may know of any; an answer cannot be whole without it.
            if let Some(reason) = group.unknown.as_ref().filter(|_| group.endpoints.is_empty()) {
                let what = if fixed { "endpoint" } else { "directory of gateway" };
                candidates.push(nobody(format!("{what} {name}").into(), reason));
            }
            candidates.extend(group.endpoints.values().map(|endpoint| endpoint.candidate()));
        }
        candidates.sort_by(|a, b| a.name.cmp(&b.name));
        // The same store may be both given and announced; asking it twice would double its load.
        candidates.dedup_by(|a, b| a.name == b.name);
        candidates
    }
}

/// A candidate that stands for stores nobody could tell us of.
fn nobody(name: Arc<str>, reason: &str) -> Candidate {
    Candidate {
        name,
        store: Arc::new(Nobody),
        metadata: None,
        info: None,
        bound: model::Labels::empty(),
        unavailable: Some(reason.to_owned()),
    }
}

struct Nobody;

impl Nobody {
    fn error() -> StoreError {
        StoreError::unavailable("its stores are not known")
    }
}

#[tonic::async_trait]
impl Store for Nobody {
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
