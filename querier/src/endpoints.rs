//! The stores that the querier reads: those given by flags, and those that gateways announce.
//!
//! Endpoints given by flags or listed in files are asked for Info every few seconds, and their names are looked up in
//! DNS less often. The directory of a gateway is watched; each snapshot replaces the previous one. A known store that is unreachable remains a candidate for each request
//! that may need it, so that the answer reports it as missing. Until it is known which stores there are, requests are refused.

mod address;
mod balanced;
mod config_file;
mod directory;
mod endpoint;
mod files;
mod fixed;
mod group;
mod message;
mod options;
mod readiness;
mod repeatable;
mod routes;
mod selector;
mod unknown;

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

pub(crate) use address::{EndpointAddress, EndpointSpec};
pub(crate) use config_file::{ConfiguredEndpoints, watch_endpoints};
pub use endpoint::{Candidate, StoreLists};
pub(crate) use endpoint::{Endpoint, believed_range};
pub(crate) use files::FilePattern;
pub(crate) use message::{with_store_name, without_store_name};

use config_file::ConfiguredEndpoint;
use files::{Listing, files};
use fixed::{EndpointOrigin, FixedSource};
use group::EndpointGroup;
use mesh::ChannelOptions;
pub(crate) use options::{DnsMetrics, EndpointOptions};
use readiness::{Knowledge, Readiness};
use routes::GatewayRoutes;
use runtime::Shutdown;
pub(crate) use selector::StoreSelector;
use tokio::sync::Notify;
use tokio::time::Instant;
use unknown::unknown_stores;

/// State of a source before its first answer.
const NOT_ASKED: &str = "not asked yet";
/// Longest time between two rounds of requests for Info, and between two lookups, before the stores are known.
const START_INTERVAL: Duration = Duration::from_millis(500);
/// Time between two looks at whether the stores are known.
const READINESS_LOOK: Duration = Duration::from_millis(20);

/// A source of stores for the fan-out.
pub trait StoreSource: Send + Sync + 'static {
    /// All stores known at this moment, in a fixed order.
    fn candidates(&self) -> Vec<Candidate>;

    /// Why requests are refused: it is not known yet which stores there are. `None` from the moment when it was known, for ever.
    fn unready(&self) -> Option<String> {
        None
    }
}

/// All endpoints of the querier. Clones share them.
#[derive(Clone)]
pub(crate) struct EndpointSet {
    options: Arc<EndpointOptions>,
    /// Those given by flags, then those of files.
    fixed: Arc<RwLock<Vec<FixedSource>>>,
    /// Files that were never read, and why.
    unread_files: Arc<RwLock<Vec<(String, String)>>>,
    gateways: Arc<Vec<(Arc<str>, EndpointGroup)>>,
    /// Wakes the reading of files.
    files_changed: Arc<Notify>,
    /// Wakes the lookups.
    sources_changed: Arc<Notify>,
    /// Wakes the requests for Info.
    endpoints_changed: Arc<Notify>,
    readiness: Arc<Readiness>,
}

impl EndpointSet {
    /// Creates the set. No endpoint has been asked yet.
    pub(crate) fn new(options: EndpointOptions) -> Self {
        let options = options.without_repetitions();
        let gateways = options.gateways.iter().map(|address| {
            (
                Arc::<str>::from(address.as_str()),
                EndpointGroup::unknown(NOT_ASKED, options.channel.clone(), options.gateway_labels)
                    .counted_by(options.client_metrics.clone()),
            )
        });
        let gateways = Arc::new(gateways.collect());
        let flag = |spec: &EndpointSpec| {
            source(spec.clone(), EndpointOrigin::Flag, options.channel.clone(), &options)
        };
        let fixed = options.endpoints.iter().map(flag).collect();
        let unread = options.files.iter().map(|file| (file.as_str().to_owned(), NOT_ASKED.to_owned()));
        let set = Self {
            readiness: Arc::new(Readiness::new(options.start_patience())),
            unread_files: Arc::new(RwLock::new(unread.collect())),
            options: Arc::new(options),
            fixed: Arc::new(RwLock::new(fixed)),
            gateways,
            files_changed: Arc::default(),
            sources_changed: Arc::default(),
            endpoints_changed: Arc::default(),
        };
        set.apply_configured();
        set
    }

    /// Keeps the set up to date until shutdown. Calls `report` with why requests are refused, whenever that changes, and with
    /// `None` when they are answered.
    pub(crate) async fn run(self, report: impl FnMut(Option<&str>), shutdown: Shutdown) {
        let work = async {
            let (routes, patience) = (GatewayRoutes::default(), self.options.patience());
            let followers = self.gateways.iter();
            let followers = followers.map(|(at, group)| directory::follow(at, group, &routes, patience));
            let follow = futures::future::join_all(followers);
            let mut files = files(&self.options.files);
            self.apply_files(files.scan());
            let apply = |listing| self.apply_files(listing);
            let files = files.follow(self.options.file_interval, Arc::clone(&self.files_changed), apply);
            let get_ready = self.report_until_ready(report);
            tokio::join!(follow, files, get_ready, self.keep_asking(), self.keep_refreshing());
        };
        shutdown.until_triggered(work).await;
    }

    async fn report_until_ready(&self, mut report: impl FnMut(Option<&str>)) {
        let (mut look, mut reported) = (tokio::time::interval(READINESS_LOOK), None);
        while let Some(reason) = self.unready() {
            if reported.as_ref() != Some(&reason) {
                report(Some(&reason));
                reported = Some(reason);
            }
            look.tick().await;
        }
        report(None);
    }

    /// Asks for Info at the interval, more often before the stores are known, and when endpoints have changed.
    async fn keep_asking(&self) {
        loop {
            let began = Instant::now();
            self.ask_fixed().await;
            tokio::select! {
                () = tokio::time::sleep_until(began + self.pause(self.options.info_interval)) => {}
                () = self.endpoints_changed.notified() => {}
            }
        }
    }

    /// Looks names up whenever that is due. It is apart from the requests for Info, because DNS may be slow.
    async fn keep_refreshing(&self) {
        loop {
            let began = Instant::now();
            self.refresh().await;
            let interval = self.options.info_interval.min(self.options.dns_interval);
            tokio::select! {
                () = tokio::time::sleep_until(began + self.pause(interval)) => {}
                () = self.sources_changed.notified() => {}
            }
        }
    }

    /// The time between the beginnings of two rounds.
    fn pause(&self, interval: Duration) -> Duration {
        if self.readiness.is_ready() { interval } else { interval.min(START_INTERVAL) }
    }

    async fn refresh(&self) {
        self.apply_configured();
        let sources = self.fixed();
        let refreshed = sources.iter().map(|source| fixed::refresh(source, &self.options));
        if futures::future::join_all(refreshed).await.contains(&true) {
            self.endpoints_changed.notify_one();
        }
    }

    async fn ask_fixed(&self) {
        let sources = self.fixed();
        let rounds = sources.iter().map(|source| fixed::check_endpoints(source, self.options.info_interval));
        futures::future::join_all(rounds).await;
    }

    /// The endpoints given by address. One that is in `--endpoint.sd-config` and in a flag or file has the settings of
    /// `--endpoint.sd-config`.
    fn fixed(&self) -> Vec<FixedSource> {
        let mut all = self.fixed.read().unwrap_or_else(PoisonError::into_inner).clone();
        let is_configured = |source: &FixedSource| matches!(source.origin, EndpointOrigin::Config(_));
        let configured: Vec<EndpointAddress> = all
            .iter()
            .filter(|source| is_configured(source))
            .map(|source| source.spec.address.clone())
            .collect();
        all.retain(|source| is_configured(source) || !configured.contains(&source.spec.address));
        all
    }

    /// Reads the files with endpoints again now.
    pub(crate) fn reload_files(&self) {
        self.files_changed.notify_one();
    }

    /// Replaces the endpoints of files. Those that are still listed keep their state and connections.
    fn apply_files(&self, listing: Listing) {
        let mut fixed = self.fixed.write().unwrap_or_else(PoisonError::into_inner);
        let known: Vec<FixedSource> =
            fixed.extract_if(.., |source| source.origin == EndpointOrigin::File).collect();
        for address in listing.items {
            if fixed.iter().any(|source| source.spec.address == address) {
                continue;
            }
            let same = known.iter().find(|source| source.spec.address == address).cloned();
            fixed.push(same.unwrap_or_else(|| {
                let spec = EndpointSpec { address, strict: false, replicas: false };
                source(spec, EndpointOrigin::File, self.options.channel.clone(), &self.options)
            }));
        }
        let is_listed = |gone: &FixedSource| fixed.iter().any(|source| source.spec == gone.spec);
        for gone in known.iter().filter(|source| !is_listed(source)) {
            tracing::info!(endpoint = %gone.spec.address, "endpoint was removed, no file lists it any more");
        }
        *self.unread_files.write().unwrap_or_else(PoisonError::into_inner) = listing.unknown;
        self.sources_changed.notify_one();
    }

    /// Replaces the endpoints of `--endpoint.sd-config` if it has changed. Those that are still listed with the same settings
    /// keep their state and connections.
    fn apply_configured(&self) {
        let Some(watched) = &self.options.configured else { return };
        let current = watched.current();
        let mut fixed = self.fixed.write().unwrap_or_else(PoisonError::into_inner);
        let is_configured = |source: &FixedSource| matches!(source.origin, EndpointOrigin::Config(_));
        let same = |source: &FixedSource, endpoint: &ConfiguredEndpoint| {
            source.spec == endpoint.spec
                && matches!(&source.origin, EndpointOrigin::Config(client) if *client == endpoint.client)
        };
        let known: Vec<FixedSource> = fixed.extract_if(.., |source| is_configured(source)).collect();
        for endpoint in current.iter() {
            let kept = known.iter().find(|source| same(source, endpoint)).cloned();
            fixed.push(kept.unwrap_or_else(|| {
                let origin = EndpointOrigin::Config(endpoint.client.clone());
                source(endpoint.spec.clone(), origin, endpoint.channel.clone(), &self.options)
            }));
        }
        for gone in known.iter().filter(|source| !current.iter().any(|endpoint| same(source, endpoint))) {
            tracing::info!(endpoint = %gone.spec.address, "endpoint was removed or changed in --endpoint.sd-config");
        }
    }

    /// The endpoints to display, each with the error of its source, if the source is unavailable.
    pub(crate) fn listed(&self) -> Vec<(Arc<Endpoint>, Option<String>)> {
        let gateways = self.gateways.iter().flat_map(|(address, group)| {
            let group = group.read();
            let away = group.unknown.as_ref().map(|reason| format!("gateway {address}: {reason}"));
            group.endpoints.values().map(|e| (Arc::clone(e), away.clone())).collect::<Vec<_>>()
        });
        let fixed = self.fixed();
        let fixed = fixed.iter().flat_map(|source| {
            source.group.read().endpoints.values().map(|e| (Arc::clone(e), None)).collect::<Vec<_>>()
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
        let fixed = self.fixed();
        let groups = fixed.iter().map(|source| &source.group);
        let groups = groups.chain(self.gateways.iter().map(|(_, group)| group));
        groups.flat_map(|group| group.read().endpoints.values().cloned().collect::<Vec<_>>()).collect()
    }
}

fn source(
    spec: EndpointSpec,
    origin: EndpointOrigin,
    channel: ChannelOptions,
    options: &EndpointOptions,
) -> FixedSource {
    let group = EndpointGroup::unknown(NOT_ASKED, channel, options.endpoint_labels)
        .counted_by(options.client_metrics.clone());
    FixedSource { spec, origin, group }
}

impl StoreSource for EndpointSet {
    fn candidates(&self) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        let fixed = self.fixed();
        let fixed = fixed.iter().map(|source| (source.name(), &source.group));
        let gateways = self.gateways.iter().map(|(at, group)| (gateway_name(at), group));
        for (name, group) in fixed.chain(gateways) {
            let group = group.read();
            // A source that has never answered may know any store. An answer without it cannot be complete.
            if let Some(reason) = group.unknown.as_ref().filter(|_| group.endpoints.is_empty()) {
                candidates.push(unknown_stores(name.into(), reason));
            }
            candidates.extend(group.endpoints.values().map(|endpoint| endpoint.candidate()));
        }
        for (file, reason) in self.unread_files.read().unwrap_or_else(PoisonError::into_inner).iter() {
            candidates.push(unknown_stores(file_name(file).into(), reason));
        }
        candidates
            .sort_by(|a, b| (&a.name, a.unavailable.is_some()).cmp(&(&b.name, b.unavailable.is_some())));
        // The same store may be given and announced. It must be asked only once.
        candidates.dedup_by(|a, b| a.name == b.name);
        match &self.options.selector {
            Some(selector) => candidates.into_iter().filter_map(|store| selector.select(store)).collect(),
            None => candidates,
        }
    }

    fn unready(&self) -> Option<String> {
        self.readiness.unready(|| {
            let fixed = self.fixed();
            let fixed = fixed.iter().map(|source| (source.name(), source.group.knowledge()));
            let gateways = self.gateways.iter();
            let gateways = gateways.map(|(at, group)| (gateway_name(at), group.announced()));
            let unread = self.unread_files.read().unwrap_or_else(PoisonError::into_inner);
            let unread = unread.iter().map(|(file, why)| (file_name(file), Knowledge::Awaited(why.clone())));
            fixed.chain(gateways).chain(unread).collect()
        })
    }
}

/// The name of the directory of a gateway in messages.
fn gateway_name(address: &str) -> String {
    format!("directory of gateway {address}")
}

/// The name of a file with endpoints in messages.
fn file_name(path: &str) -> String {
    format!("file {path}")
}
