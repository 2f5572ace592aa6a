//! The sidecar as a running role.

use std::process::ExitCode;
use std::sync::Arc;

use promapi::{Client, ClientOptions};
use runtime::{
    GrpcMetrics, GrpcOptions, GrpcServer, HttpServer, Probes, Registry, Supervisor, admin_routes, init_logs,
};
use storeapi::{MetadataServer, StoreServer};
use tokio::sync::watch;
use tonic::service::RoutesBuilder;
use tracing::info;

use crate::config::SidecarArgs;
use crate::metrics::Metrics;
use crate::store::PrometheusStore;
use crate::upstream::Heartbeat;

/// Runs the sidecar until a signal ends it, and says how it went.
pub fn run(args: SidecarArgs) -> ExitCode {
    let client = match Client::new(&args.prometheus_url, ClientOptions::default()) {
        Ok(client) => client,
        Err(error) => {
            eprintln!("error: --prometheus.url: {error}");
            return ExitCode::from(runtime::EXIT_USAGE);
        }
    };
    let started = init_logs(args.common.log_level, args.common.log_format)
        .map_err(runtime::BoxError::from)
        .and_then(|()| Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?));
    let outcome = started.and_then(|tokio| tokio.block_on(serve(args, client)));
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::from(runtime::EXIT_ERROR)
    })
}

async fn serve(args: SidecarArgs, client: Client) -> Result<ExitCode, runtime::BoxError> {
    let common = args.common.clone();
    let probes = Probes::new();
    probes.not_ready("Prometheus has not answered yet");
    let mut supervisor = Supervisor::new(probes.clone(), common.grace_period());
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let grpc_metrics = GrpcMetrics::server(&mut registry, &[proto::DESCRIPTORS])?;

    let http = HttpServer::bind(&common.http_address).await?;
    let grpc = GrpcServer::bind(&common.grpc_address, GrpcOptions::from(&common)).await?;
    info!(
        http = %http.local_addr(),
        grpc = %grpc.local_addr(),
        prometheus = client.url(),
        version = runtime::Version::CURRENT.version,
        "sidecar starts"
    );

    let (state, facts) = watch::channel(Err("Prometheus has not answered yet".to_owned()));
    let store = Arc::new(PrometheusStore::new(client.clone(), facts, args.min_time, metrics.clone()));
    let heartbeat = Heartbeat {
        client,
        interval: args.get_config_interval,
        timeout: args.get_config_timeout,
        tsdb_path: args.tsdb_path.clone(),
        state,
        probes: probes.clone(),
        metrics,
    };
    let mut services = RoutesBuilder::default();
    StoreServer::new(Arc::clone(&store), args.limits()).register(&mut services);
    MetadataServer::register(store, &mut services);
    let shutdown = supervisor.shutdown();
    supervisor.spawn("Prometheus heartbeat", {
        let shutdown = shutdown.clone();
        async move {
            heartbeat.run(shutdown).await;
            Ok::<(), runtime::BoxError>(())
        }
    });
    let routes = admin_routes(runtime::Metrics::new(registry), probes.clone(), supervisor.reload());
    supervisor.spawn("HTTP server", {
        let shutdown = shutdown.clone();
        async move {
            http.serve(routes, common.http_grace_period, shutdown).await;
            Ok::<(), runtime::BoxError>(())
        }
    });
    supervisor.spawn("gRPC server", async move {
        grpc.serve(services, &[proto::DESCRIPTORS], grpc_metrics, probes, shutdown).await
    });
    Ok(supervisor.run().await)
}
