//! The querier as a role: built from its flags, run until it is told to stop.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use budget::{BudgetLimits, TotalBudget};
use promql::{EngineOptions, ParseOptions, QUERIES};
use runtime::{
    BindError, BoxError, EXIT_ERROR, EXIT_USAGE, GrpcMetrics, GrpcOptions, GrpcServer, HttpMetrics,
    HttpServer, Metrics, Probes, Registry, Supervisor, admin_routes, init_logs,
};
use series::Dedup;
use storeapi::{MetadataServer, StoreServer};
use tonic::service::RoutesBuilder;

use crate::api::{self, Api, ApiDefaults};
use crate::config::{Config, DedupFunction, Feature, Propagate, QueryArgs};
use crate::endpoints::{EndpointOptions, EndpointSet};
use crate::fanout::{FanoutMetrics, ProxyOptions, ProxyStore};
use crate::metrics::{QueryMemory, StoreNodes};
use crate::query::{Driver, Gate, QueryMetrics};

/// Runs the querier until a signal ends it: the command `isthmus query`.
pub fn run(args: QueryArgs) -> ExitCode {
    let fail = |code: u8, error: &dyn std::fmt::Display| {
        eprintln!("error: {error}");
        ExitCode::from(code)
    };
    if let Err(error) = init_logs(args.common.log_level, args.common.log_format) {
        return fail(EXIT_ERROR, &error);
    }
    let config = match args.check() {
        Ok(config) => config,
        Err(error) => return fail(EXIT_USAGE, &error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(EXIT_ERROR, &format!("start the runtime: {error}")),
    };
    runtime.block_on(async {
        match Querier::build(config).await {
            Ok(querier) => querier.run().await,
            Err(error) => fail(EXIT_ERROR, &error),
        }
    })
}

/// Why the querier cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// An address cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Descriptors that reflection cannot use.
    #[error("gRPC metrics: {0}")]
    Descriptors(BoxError),
}

/// A querier whose servers listen and whose endpoints are being asked.
pub struct Querier {
    supervisor: Supervisor,
    http: SocketAddr,
    grpc: SocketAddr,
}

impl Querier {
    /// Binds the servers and starts all tasks. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// When an address cannot be bound.
    pub async fn build(config: Config) -> Result<Self, BuildError> {
        let args = &config.args;
        let mut registry = Registry::default();
        let http_metrics = HttpMetrics::new(&mut registry);
        let grpc_metrics = GrpcMetrics::server(&mut registry, &[proto::DESCRIPTORS])
            .map_err(|cause| BuildError::Descriptors(cause.into()))?;
        let endpoints = EndpointSet::new(endpoint_options(&config));
        registry.register_collector(Box::new(StoreNodes::new(endpoints.clone())));
        let stores = ProxyStore::new(
            Arc::new(endpoints.clone()),
            ProxyOptions {
                selector_labels: config.selector_labels.clone(),
                response_timeout: Some(args.response_timeout).filter(|length| !length.is_zero()),
                sort_bytes: usize::try_from(config.max_memory).unwrap_or(usize::MAX),
                store_series: args.max_series_per_store,
            },
            FanoutMetrics::new(&mut registry),
        );
        let gate = Gate::new(args.max_concurrent, &mut registry);
        let query_metrics = QueryMetrics::new(&mut registry);
        let engine = engine_options(&config);
        registry.register_collector(Box::new(QueryMemory(engine.total.clone())));
        let driver = Driver::new(
            stores.clone(),
            engine,
            args.propagate_matchers == Propagate::Auto,
            gate,
            args.max_concurrent_select,
            query_metrics,
        );
        let api = Api {
            driver,
            stores: stores.clone(),
            endpoints: endpoints.clone(),
            defaults: api_defaults(&config),
            flags: config.flags(),
            started: SystemTime::now(),
        };

        let probes = Probes::new();
        let mut supervisor = Supervisor::new(probes.clone(), args.common.grace_period());
        let http = HttpServer::bind(&args.common.http_address).await?;
        let grpc = GrpcServer::bind(&args.common.grpc_address, GrpcOptions::from(&args.common)).await?;
        let querier_addresses = (http.local_addr(), grpc.local_addr());
        tracing::info!(http = %querier_addresses.0, grpc = %querier_addresses.1, "querier listens");

        let routes = admin_routes(Metrics::new(registry), probes.clone(), supervisor.reload())
            .merge(api::routes(api, &http_metrics));
        let mut services = RoutesBuilder::default();
        StoreServer::new(Arc::new(stores.clone()), config.limits()).register(&mut services);
        MetadataServer::register(Arc::new(stores), &mut services);

        let shutdown = supervisor.shutdown();
        let grace = args.common.http_grace_period;
        supervisor.spawn("http server", {
            let shutdown = shutdown.clone();
            async move {
                http.serve(routes, grace, shutdown).await;
                Ok::<(), BoxError>(())
            }
        });
        supervisor.spawn("grpc server", {
            let (probes, shutdown) = (probes.clone(), shutdown.clone());
            async move { grpc.serve(services, &[proto::DESCRIPTORS], grpc_metrics, probes, shutdown).await }
        });
        supervisor.spawn("endpoints", async move {
            endpoints.run(move || probes.ready(), shutdown).await;
            Ok::<(), BoxError>(())
        });
        Ok(Self { supervisor, http: querier_addresses.0, grpc: querier_addresses.1 })
    }

    /// Where the HTTP API in fact listens.
    pub fn http_addr(&self) -> SocketAddr {
        self.http
    }

    /// Where StoreAPI in fact listens.
    pub fn grpc_addr(&self) -> SocketAddr {
        self.grpc
    }

    /// Runs until a signal or a failure.
    pub async fn run(self) -> ExitCode {
        self.supervisor.run().await
    }
}

fn endpoint_options(config: &Config) -> EndpointOptions {
    let args = &config.args;
    let given = args.endpoint.iter().map(|address| (address.clone(), false));
    let strict = args.endpoint_strict.iter().map(|address| (address.clone(), true));
    EndpointOptions {
        endpoints: given.chain(strict).collect(),
        gateways: args.gateway.iter().map(ToString::to_string).collect(),
        info_interval: args.info_timeout,
        unhealthy_timeout: args.unhealthy_timeout,
    }
}

fn engine_options(config: &Config) -> EngineOptions {
    let parse = ParseOptions {
        experimental_functions: config.has(Feature::ExperimentalFunctions),
        extended_range_selectors: config.has(Feature::ExtendedRangeSelectors),
        fill_modifiers: config.has(Feature::BinopFillModifiers),
        extended_functions: config.has(Feature::XFunctions),
        ..ParseOptions::default()
    };
    EngineOptions {
        parse,
        subquery_step: config.args.evaluation_interval,
        delayed_name_removal: config.has(Feature::DelayedNameRemoval),
        use_start_timestamps: config.has(Feature::StartTimestamps),
        max_samples: config.args.max_samples,
        max_bytes: config.max_memory,
        total: TotalBudget::new(
            &QUERIES,
            BudgetLimits { samples: config.max_total_samples, bytes: config.max_total_memory },
        ),
        propagate_matchers: config.args.propagate_matchers == Propagate::Always,
        ..EngineOptions::default()
    }
}

fn api_defaults(config: &Config) -> ApiDefaults {
    let args = &config.args;
    ApiDefaults {
        replica_labels: args.replica_label.clone(),
        dedup: match args.deduplication {
            DedupFunction::Penalty => Dedup::Penalty,
            DedupFunction::Chain => Dedup::Chain,
        },
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
