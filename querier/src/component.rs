//! The querier as a role: built from its flags, run until it is asked to stop.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use budget::{BudgetLimits, TotalBudget};
use promapi::{ExemplarSeries, RuleGroup, TargetDiscovery};
use promql::{EngineOptions, ParseOptions, QUERIES};
use proto::thanos;
use runtime::{GrpcMetrics, HttpMetrics, Registry, RoleError, RoleInfo, RunningRole, Startup};
use series::Dedup;
use storeapi::{
    AnswerMemory, ListingServer, ListingStore, MetadataServer, StoreServer, TenantTsdbStatus, WireListing,
};

use crate::api::{self, Api, ApiDefaults, ApiFacts, StartPage};
use crate::config::{Config, DedupFunction, Feature, Propagate, QueryArgs, parse_options};
use crate::endpoints::{
    DnsMetrics, EndpointAddress, EndpointOptions, EndpointSet, EndpointSpec, StoreSource as _,
};
use crate::fanout::{FanoutMetrics, ProxyOptions, ProxyStore};
use crate::lists::Lists;
use crate::memory;
use crate::metrics::{QueryMemory, StoreNodes};
use crate::query::{ActiveQueries, Driver, QueryGate, QueryMetrics, SHARED_BYTES};
use crate::query_server::{QueryDefaults, QueryServer};

pub(crate) const ROLE: RoleInfo = RoleInfo {
    name: "querier",
    descriptors: &[proto::DESCRIPTORS],
    services: &[
        thanos::info::info_server::SERVICE_NAME,
        thanos::store_server::SERVICE_NAME,
        thanos::metadata_server::SERVICE_NAME,
        thanos::rules_server::SERVICE_NAME,
        thanos::targets_server::SERVICE_NAME,
        thanos::exemplars_server::SERVICE_NAME,
        thanos::status_server::SERVICE_NAME,
        thanos::query_server::SERVICE_NAME,
    ],
    http_shows: "metrics, and queries over all stores",
    grpc_shows: "queries, and the samples of all stores",
    ..RoleInfo::DEFAULT
};

const PAGE: StartPage =
    StartPage { title: "Isthmus querier", what: "all stores", list: "<a href=\"api/v1/stores\">Stores</a>" };

/// The querier has flags instead of a configuration file.
struct QuerierFacts {
    flags: BTreeMap<String, String>,
    endpoints: EndpointSet,
}

impl ApiFacts for QuerierFacts {
    fn flags(&self) -> BTreeMap<String, String> {
        self.flags.clone()
    }

    fn unready(&self) -> Option<String> {
        self.endpoints.unready()
    }
}

/// Runs the querier until a signal stops it: the command `isthmus query`.
pub fn run(args: QueryArgs) -> ExitCode {
    let common = args.common.clone();
    runtime::start(ROLE, &common, args.check(), build)
}

/// Builds the querier: endpoints, stores over them, an engine over the stores, and the HTTP API over all.
pub(crate) async fn build(config: Config, mut startup: Startup) -> Result<RunningRole, RoleError> {
    config.args.grpc_client.warn();
    config.args.unneeded.warn();
    let registry = startup.registry();
    let http_metrics = HttpMetrics::new(registry);
    let endpoints = EndpointSet::new(endpoint_options(&config, registry));
    registry.register_collector(Box::new(StoreNodes::new(endpoints.clone())));
    let total = TotalBudget::new(
        &QUERIES,
        BudgetLimits { samples: config.max_total_samples, bytes: config.max_total_memory },
    );
    let options = proxy_options(&config, &total);
    let stores = ProxyStore::new(Arc::new(endpoints.clone()), options, FanoutMetrics::new(registry));
    let driver = driver(&config, &stores, total, registry).listing(active_queries(&config)?);
    let lists = Lists::new(stores.clone(), driver.clone());
    QueryServer::register(driver.clone(), query_defaults(&config), startup.services());
    let api = Api {
        driver,
        stores: stores.clone(),
        lists: lists.clone(),
        endpoints: Some(endpoints.clone()),
        defaults: api_defaults(&config),
        facts: Arc::new(QuerierFacts { flags: config.flags(), endpoints: endpoints.clone() }),
        started: SystemTime::now(),
        paths: config.web.clone(),
        tenancy: Some(config.tenancy.clone()),
    };
    startup.add_routes(api::routes(api, axum::Router::new(), &http_metrics, PAGE));
    StoreServer::new(Arc::new(stores.clone()), config.limits()).register(startup.services());
    MetadataServer::register(Arc::new(stores), startup.services());
    serve_list::<RuleGroup>(&lists, &mut startup);
    serve_list::<TargetDiscovery>(&lists, &mut startup);
    serve_list::<ExemplarSeries>(&lists, &mut startup);
    serve_list::<TenantTsdbStatus>(&lists, &mut startup);
    let files = endpoints.clone();
    if let Some(configured) = config.configured.clone() {
        startup.reload().register("--endpoint.sd-config", move || {
            std::future::ready(configured.reload().map_err(runtime::BoxError::from))
        });
    }
    startup.reload().register("files with endpoints", move || {
        files.reload_files();
        std::future::ready(Ok(()))
    });
    let (probes, shutdown) = (startup.probes(), startup.shutdown());
    let report = move |unready: Option<&str>| match unready {
        Some(reason) => probes.not_ready(reason),
        None => probes.ready(),
    };
    startup.spawn("endpoints", async move { endpoints.run(report, shutdown).await });
    Ok(startup.serve())
}

/// Serves a list of all stores over gRPC. Info announces the same lists.
fn serve_list<L: WireListing>(lists: &Lists, startup: &mut Startup)
where
    Lists: ListingStore<L>,
{
    let (store, budgets) = (Arc::new(lists.clone()), lists.clone());
    ListingServer::<L>::new(store, move || AnswerMemory::new(&budgets.budget())).register(startup.services());
}

fn proxy_options(config: &Config, total: &TotalBudget) -> ProxyOptions {
    let args = &config.args;
    ProxyOptions {
        selector_labels: config.selector_labels.clone(),
        response_timeout: Some(args.response_timeout).filter(|length| !length.is_zero()),
        sort_bytes: usize::try_from(config.max_memory).unwrap_or(usize::MAX),
        store_series: args.max_series_per_store,
        verify_chunks: false,
        store_bytes: usize::try_from(config.max_store_memory).unwrap_or(usize::MAX),
        window_bytes: memory::for_stores_ahead(config.max_memory),
        request_bytes: config.max_memory,
        total: total.clone(),
    }
}

fn driver(config: &Config, stores: &ProxyStore, total: TotalBudget, registry: &mut Registry) -> Driver {
    let args = &config.args;
    let gate = QueryGate::new(args.max_concurrent, registry);
    let metrics = Arc::new(QueryMetrics::new(registry));
    let engine = engine_options(config, total);
    registry.register_collector(Box::new(QueryMemory(engine.total.clone())));
    let propagate = args.propagate_matchers == Propagate::Auto;
    let driver = Driver::new(stores.clone(), engine, propagate, gate, args.max_concurrent_select, metrics);
    driver.sharing_selects(SHARED_BYTES)
}

fn active_queries(config: &Config) -> Result<ActiveQueries, RoleError> {
    let path = &config.args.active_query_path;
    if path.is_empty() {
        return Ok(ActiveQueries::default());
    }
    let active = ActiveQueries::open(Path::new(path), config.args.max_concurrent);
    active
        .map_err(|error| RoleError::wrong_configuration(format!("--query.active-query-path={path}: {error}")))
}

fn endpoint_options(config: &Config, registry: &mut Registry) -> EndpointOptions {
    let args = &config.args;
    let spec = |address: &EndpointAddress, strict| EndpointSpec {
        address: address.clone(),
        strict,
        replicas: false,
    };
    let given = args.endpoint.iter().map(|address| spec(address, false));
    let strict = args.endpoint_strict.iter().map(|address| spec(address, true));
    EndpointOptions {
        endpoints: given.chain(strict).chain(args.discovery.groups()).collect(),
        configured: config.configured.clone(),
        files: args.discovery.sd_files.clone(),
        file_interval: args.discovery.sd_interval,
        gateways: args.gateway.iter().map(ToString::to_string).collect(),
        channel: config.channel.clone(),
        selector: config.selector.clone(),
        endpoint_labels: args.labels.endpoint(),
        gateway_labels: args.labels.gateway(),
        info_interval: args.info_timeout,
        dns_interval: args.discovery.dns_interval,
        dns_metrics: DnsMetrics::new(registry),
        client_metrics: client_metrics(registry),
        unhealthy_timeout: args.unhealthy_timeout,
        ..EndpointOptions::default()
    }
}

/// Counts requests to stores under the names that the dashboards of Thanos have.
fn client_metrics(registry: &mut Registry) -> Option<GrpcMetrics> {
    let metrics = GrpcMetrics::client(registry, &[proto::DESCRIPTORS]);
    metrics.inspect_err(|error| tracing::error!(%error, "requests to stores are not counted")).ok()
}

fn engine_options(config: &Config, total: TotalBudget) -> EngineOptions {
    let parse = ParseOptions {
        extended_functions: config.has(Feature::XFunctions),
        ..parse_options(&config.args.features)
    };
    EngineOptions {
        parse,
        subquery_step: config.args.evaluation_interval,
        delayed_name_removal: config.has(Feature::DelayedNameRemoval),
        use_start_timestamps: config.has(Feature::StartTimestamps),
        max_samples: config.args.max_samples,
        max_bytes: config.max_memory,
        total,
        propagate_matchers: config.args.propagate_matchers == Propagate::Always,
        ..EngineOptions::default()
    }
}

fn dedup(config: &Config) -> Dedup {
    match config.args.deduplication {
        DedupFunction::Penalty => Dedup::Penalty,
        DedupFunction::Chain => Dedup::Chain,
    }
}

fn query_defaults(config: &Config) -> QueryDefaults {
    let args = &config.args;
    QueryDefaults {
        replica_labels: args.replica_labels(),
        dedup: dedup(config),
        timeout: args.timeout,
        lookback: args.lookback_delta,
        dynamic_lookback: args.dynamic_lookback_delta,
        max_resolution: args.instant_max_resolution,
    }
}

fn api_defaults(config: &Config) -> ApiDefaults {
    let args = &config.args;
    ApiDefaults {
        replica_labels: args.replica_labels(),
        dedup: dedup(config),
        partial_response: config.partial_response(),
        timeout: args.timeout,
        lookback: args.lookback_delta,
        dynamic_lookback: args.dynamic_lookback_delta,
        auto_downsampling: args.auto_downsampling,
        instant_max_resolution: args.instant_max_resolution,
        step: args.default_step,
        metadata_range: args.metadata_range,
        max_bytes: config.max_memory,
        cors: !args.disable_cors,
    }
}
