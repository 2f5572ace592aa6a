//! The sidecar as a running role.

use std::process::ExitCode;
use std::sync::Arc;

use bucket::{Bucket, BucketError, BucketMetrics};
use model::Timestamp;
use runtime::{
    BoxError, CommonArgs, GrpcMetrics, GrpcOptions, GrpcServer, HttpServer, Probes, Registry, Supervisor,
    admin_routes, init_logs,
};
use storeapi::{MetadataServer, StoreServer};
use tokio::sync::{oneshot, watch};
use tonic::service::RoutesBuilder;
use tracing::{info, warn};

use crate::admission;
use crate::config::{Config, SidecarArgs, Uploads};
use crate::metrics::Metrics;
use crate::reloader::{Reloader, ReloaderMetrics};
use crate::shipper::{Producer, Shipper, ShipperMetrics};
use crate::store::PrometheusStore;
use crate::upstream::{Heartbeat, State, first_answer};

/// Runs the sidecar until a signal ends it, and says how it went.
pub fn run(args: SidecarArgs) -> ExitCode {
    let config = match args.check() {
        Ok(config) => config,
        Err(mistakes) => {
            mistakes.iter().for_each(|mistake| eprintln!("error: {mistake}"));
            return ExitCode::from(runtime::EXIT_USAGE);
        }
    };
    let started = init_logs(config.common.log_level, config.common.log_format)
        .map_err(BoxError::from)
        .and_then(|()| Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?));
    let outcome = started.and_then(|tokio| tokio.block_on(serve(config)));
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        let by_cause = error.downcast_ref::<BucketError>().map(BucketError::exit_code);
        ExitCode::from(by_cause.unwrap_or(runtime::EXIT_ERROR))
    })
}

async fn serve(config: Config) -> Result<ExitCode, BoxError> {
    let common = config.common.clone();
    let probes = Probes::new();
    probes.not_ready("Prometheus has not answered yet");
    let mut supervisor = Supervisor::new(probes.clone(), common.grace_period());
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let grpc_metrics = GrpcMetrics::server(&mut registry, &[proto::DESCRIPTORS])?;

    let servers = Servers::bind(&common).await?;
    info!(
        http = %servers.http.local_addr(),
        grpc = %servers.grpc.local_addr(),
        prometheus = config.client.url(),
        version = runtime::Version::CURRENT.version,
        "sidecar starts"
    );

    for setting in &config.without_effect {
        warn!(
            setting,
            "--prometheus.http-client: this setting has no effect, Prometheus is asked over plain HTTP"
        );
    }

    let (refusal, mut refused) = oneshot::channel();
    let (sender, state) = watch::channel(Err("Prometheus has not answered yet".to_owned()));
    let preflight = config.uploads.as_ref().map(|uploads| uploads.shipper.preflight());
    let handed_over = match config.uploads {
        Some(uploads) => {
            let bucket = uploads.bucket.open(&BucketMetrics::new(&mut registry))?;
            let metrics = ShipperMetrics::new(&mut registry);
            spawn_admission(&mut supervisor, bucket.clone(), refusal);
            spawn_uploads(&mut supervisor, uploads, bucket, metrics, state.clone())
        }
        None => watch::channel(Timestamp::MIN).1,
    };
    if let Some((reloader, trigger)) = config.reloads {
        let reloader = Reloader::new(reloader, trigger, ReloaderMetrics::new(&mut registry));
        let shutdown = supervisor.shutdown();
        supervisor.spawn("reloader", async move {
            reloader.run(shutdown).await;
            Ok::<(), BoxError>(())
        });
    }
    let store =
        PrometheusStore::new(config.client.clone(), state, config.min_time, handed_over, metrics.clone());
    let heartbeat = Heartbeat {
        client: config.client,
        interval: config.get_config_interval,
        timeout: config.get_config_timeout,
        tsdb_path: config.tsdb_path,
        preflight,
        state: sender,
        probes: probes.clone(),
        metrics,
    };
    let shutdown = supervisor.shutdown();
    supervisor.spawn("Prometheus heartbeat", async move {
        heartbeat.run(shutdown).await;
        Ok::<(), BoxError>(())
    });

    let store = Arc::new(store);
    let mut services = RoutesBuilder::default();
    StoreServer::new(Arc::clone(&store), config.limits).register(&mut services);
    MetadataServer::register(store, &mut services);
    servers.spawn(&mut supervisor, &common, services, runtime::Metrics::new(registry), grpc_metrics, probes);
    let code = supervisor.run().await;
    match refused.try_recv() {
        Ok(cause) => Err(cause.into()),
        Err(_) => Ok(code),
    }
}

/// Asks whether the bucket lets the sidecar in; where it never will, that ends the sidecar, with the cause in `refusal`.
fn spawn_admission(supervisor: &mut Supervisor, bucket: Bucket, refusal: oneshot::Sender<BucketError>) {
    let shutdown = supervisor.shutdown();
    supervisor.spawn("bucket", async move {
        if let Err(cause) = admission::admitted(&bucket, admission::RETRY, &shutdown).await {
            drop(refusal.send(cause));
            shutdown.trigger();
        }
        Ok::<(), BoxError>(())
    });
}

/// Starts the uploads; gives the instant from which on the sidecar must serve.
fn spawn_uploads(
    supervisor: &mut Supervisor,
    uploads: Uploads,
    bucket: Bucket,
    metrics: ShipperMetrics,
    state: watch::Receiver<State>,
) -> watch::Receiver<Timestamp> {
    let (begin, handed_over) = watch::channel(Timestamp::MIN);
    let (known, producer) = watch::channel(None);
    info!(bucket = bucket.name(), "blocks are uploaded");
    uploads.bucket.warnings().iter().for_each(|warning| warn!(bucket = bucket.name(), "{warning}"));
    let shutdown = supervisor.shutdown();
    supervisor.spawn("wait for Prometheus", {
        let (state, shutdown) = (state.clone(), shutdown.clone());
        async move {
            let answer = shutdown.until_triggered(first_answer(state, uploads.ready_timeout)).await;
            answer.unwrap_or(Ok(())).map_err(BoxError::from)
        }
    });
    supervisor.spawn("last known producer", follow_producer(state, known, shutdown.clone()));
    let shipper = Shipper::new(uploads.shipper, bucket, metrics, begin);
    // It flushes files and reads blocks whole: on a thread of its own that holds up nobody.
    let handle = tokio::runtime::Handle::current();
    let shipping = tokio::task::spawn_blocking(move || handle.block_on(shipper.run(producer, shutdown)));
    supervisor.spawn("shipper", shipping);
    handed_over
}

/// Keeps what was last known of Prometheus, so that uploads go on while it is away.
async fn follow_producer(
    mut state: watch::Receiver<State>,
    known: watch::Sender<Option<Producer>>,
    shutdown: runtime::Shutdown,
) -> Result<(), BoxError> {
    loop {
        let fresh = state.borrow_and_update().as_ref().ok().and_then(|facts| facts.producer.clone());
        if fresh.is_some() {
            known.send_if_modified(|old| {
                let is_new = *old != fresh;
                *old = fresh;
                is_new
            });
        }
        match shutdown.until_triggered(state.changed()).await {
            Some(Ok(())) => {}
            Some(Err(_)) | None => return Ok(()),
        }
    }
}

/// Both servers, bound.
struct Servers {
    http: HttpServer,
    grpc: GrpcServer,
}

impl Servers {
    async fn bind(common: &CommonArgs) -> Result<Self, BoxError> {
        let http = HttpServer::bind(&common.http_address).await?;
        let grpc = GrpcServer::bind(&common.grpc_address, GrpcOptions::from(common)).await?;
        Ok(Self { http, grpc })
    }

    fn spawn(
        self,
        supervisor: &mut Supervisor,
        common: &CommonArgs,
        services: RoutesBuilder,
        metrics: runtime::Metrics,
        grpc_metrics: GrpcMetrics,
        probes: Probes,
    ) {
        let (shutdown, grace) = (supervisor.shutdown(), common.http_grace_period);
        let routes = admin_routes(metrics, probes.clone(), supervisor.reload());
        supervisor.spawn("HTTP server", {
            let shutdown = shutdown.clone();
            async move {
                self.http.serve(routes, grace, shutdown).await;
                Ok::<(), BoxError>(())
            }
        });
        supervisor.spawn("gRPC server", async move {
            self.grpc.serve(services, &[proto::DESCRIPTORS], grpc_metrics, probes, shutdown).await
        });
    }
}
