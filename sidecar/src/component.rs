//! The sidecar as a role: built from its flags, run until it is asked to stop.

use std::process::ExitCode;
use std::sync::Arc;

use bucket::BucketMetrics;
use model::Timestamp;
use promapi::{ExemplarSeries, RuleGroup, TargetDiscovery};
use proto::thanos;
use runtime::{BoxError, RoleError, RoleInfo, RunningRole, Shutdown, Startup};
use shipper::{Producer, Shipper};
use storeapi::{
    AnswerMemory, ListingServer, ListingStore, MetadataServer, StoreServer, TenantTsdbStatus, WireListing,
};
use tokio::sync::watch;
use tracing::info;

use crate::config::{Config, SidecarArgs, Uploads};
use crate::metrics::SidecarMetrics;
use crate::reloader::{Reloader, ReloaderConfig, ReloaderMetrics, Trigger};
use crate::store::PrometheusStore;
use crate::upstream::{Heartbeat, PrometheusState, StateReporter, first_answer};

const ROLE: RoleInfo = RoleInfo {
    name: "sidecar",
    descriptors: &[proto::DESCRIPTORS],
    services: &[
        thanos::info::info_server::SERVICE_NAME,
        thanos::store_server::SERVICE_NAME,
        thanos::metadata_server::SERVICE_NAME,
        thanos::rules_server::SERVICE_NAME,
        thanos::targets_server::SERVICE_NAME,
        thanos::exemplars_server::SERVICE_NAME,
        thanos::status_server::SERVICE_NAME,
    ],
    http_shows: "metrics and probes",
    grpc_shows: "all samples of this Prometheus",
    ..RoleInfo::DEFAULT
};

/// Why the sidecar is not ready before the first answer of Prometheus.
const NO_ANSWER_YET: &str = "Prometheus has not answered yet";

/// Runs the sidecar until a signal stops it: the command `isthmus sidecar`.
pub fn run(args: SidecarArgs) -> ExitCode {
    let common = args.common.clone();
    runtime::start(ROLE, &common, args.check(), build)
}

/// Builds the sidecar: uploads and reloads where they are configured, the heartbeat, and the store over Prometheus.
async fn build(config: Config, mut startup: Startup) -> Result<RunningRole, RoleError> {
    startup.probes().not_ready(NO_ANSWER_YET);
    let metrics = SidecarMetrics::new(startup.registry());
    report(&config);

    let (sender, state) = watch::channel(Err(NO_ANSWER_YET.to_owned()));
    let preflight = config.uploads.as_ref().map(|uploads| uploads.checked.preflight.clone());
    let serve_from = match config.uploads {
        Some(uploads) => spawn_uploads(&mut startup, uploads, state.clone())?,
        None => watch::channel(Timestamp::MIN).1,
    };
    if let Some((reloader, trigger)) = config.reloads {
        spawn_reloader(&mut startup, reloader, trigger);
    }
    let reporter = StateReporter::new(
        config.client.clone(),
        config.get_config_timeout,
        sender,
        startup.probes(),
        metrics.clone(),
    );
    let store =
        PrometheusStore::new(config.client, state, reporter.clone(), config.min_time, serve_from, metrics);
    let heartbeat =
        Heartbeat { interval: config.get_config_interval, tsdb_path: config.tsdb_path, preflight, reporter };
    let heartbeat = heartbeat.run(startup.shutdown());
    startup.spawn("Prometheus heartbeat", heartbeat);

    let store = Arc::new(store);
    StoreServer::new(store.clone(), config.limits).register(startup.services());
    MetadataServer::register(store.clone(), startup.services());
    serve_list::<RuleGroup>(&store, &mut startup);
    serve_list::<TargetDiscovery>(&store, &mut startup);
    serve_list::<ExemplarSeries>(&store, &mut startup);
    serve_list::<TenantTsdbStatus>(&store, &mut startup);
    Ok(startup.serve())
}

/// Serves a list of Prometheus over gRPC. Info announces the same lists.
fn serve_list<L: WireListing>(store: &Arc<PrometheusStore>, startup: &mut Startup)
where
    PrometheusStore: ListingStore<L>,
{
    ListingServer::<L>::new(store.clone(), AnswerMemory::unlimited).register(startup.services());
}

/// Logs which Prometheus is served, and which settings have no effect.
fn report(config: &Config) {
    info!(prometheus = config.client.url(), "serving the data of a Prometheus");
    config.unneeded.warn();
    for setting in &config.without_effect {
        info!(setting, "--prometheus.http-client: a setting has no effect");
    }
}

/// Starts the uploads; returns the time from which the sidecar must serve.
fn spawn_uploads(
    startup: &mut Startup,
    uploads: Uploads,
    state: watch::Receiver<PrometheusState>,
) -> Result<watch::Receiver<Timestamp>, RoleError> {
    let bucket = uploads.bucket.open(&BucketMetrics::new(startup.registry()))?;
    info!(bucket = bucket.name(), "uploading blocks to a bucket");

    let shutdown = startup.shutdown();
    let (wait_state, wait_shutdown) = (state.clone(), shutdown.clone());
    startup.spawn("wait for Prometheus", async move {
        let answer = wait_shutdown.until_triggered(first_answer(wait_state, uploads.ready_timeout)).await;
        answer.unwrap_or(Ok(())).map_err(BoxError::from)
    });
    let (known, producer) = watch::channel(None);
    startup.spawn("last known producer", follow_producer(state, known, shutdown.clone()));

    let shipped = Shipper::start(startup, uploads.checked.shipper, bucket, producer);
    Ok(shipped.serve_from)
}

fn spawn_reloader(startup: &mut Startup, config: ReloaderConfig, trigger: Trigger) {
    let reloader = Reloader::new(config, trigger, ReloaderMetrics::new(startup.registry()));
    let shutdown = startup.shutdown();
    startup.spawn("reloader", async move { reloader.run(shutdown).await });
}

/// Keeps the last known producer, so that uploads continue while Prometheus does not answer. They stop while its flags do not
/// permit them.
async fn follow_producer(
    mut state: watch::Receiver<PrometheusState>,
    known: watch::Sender<Option<Producer>>,
    shutdown: Shutdown,
) {
    loop {
        let fresh = state.borrow_and_update().as_ref().ok().map(|facts| facts.producer.clone());
        if let Some(fresh) = fresh {
            known.send_if_modified(|old| {
                let is_new = *old != fresh;
                *old = fresh;
                is_new
            });
        }
        match shutdown.until_triggered(state.changed()).await {
            Some(Ok(())) => {}
            Some(Err(_)) | None => return,
        }
    }
}
