//! The scraper as a role: built from its flags and its file, run until it is asked to stop.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bucket::BucketMetrics;
use head::DatabaseOptions;
use localstore::{
    DatabaseMetrics, FolderOpening, LocalData, LocalStore, LocalStoreOptions, Maintenance, MaintenanceMetrics,
};
use model::{Labels, Timestamp};
use promapi::{ExemplarSeries, TargetDiscovery};
use proto::thanos;
use querier::{LocalQueries, QueryEngine, RemoteReadOptions, StartPage};
use remotewrite::{RemoteWriteMetrics, RemoteWriter};
use runtime::{RoleError, RoleInfo, RunningRole, Shutdown, Startup};
use shipper::{Producer, Shipped, Shipper, ShipperConfig};
use storeapi::{
    AnswerMemory, Apis, ListingServer, ListingStore, MetadataServer, StoreServer, TenantTsdbStatus,
    WireListing,
};
use tokio::sync::watch;
use tracing::info;

use crate::current::Current;
use crate::facts::{Facts, Targets};
use crate::flags::{RoleConfig, ScrapeArgs};
use crate::manager::{ScrapeManager, ScrapeOptions};
use crate::metrics::ScrapeMetrics;

/// What is known about the role before it starts.
pub const ROLE: RoleInfo = RoleInfo {
    name: "scraper",
    descriptors: &[proto::DESCRIPTORS],
    services: &[
        thanos::info::info_server::SERVICE_NAME,
        thanos::store_server::SERVICE_NAME,
        thanos::metadata_server::SERVICE_NAME,
        thanos::targets_server::SERVICE_NAME,
        thanos::exemplars_server::SERVICE_NAME,
        thanos::status_server::SERVICE_NAME,
    ],
    http_shows: "metrics, and queries over all samples of this scraper",
    grpc_shows: "all samples of this scraper",
    ..RoleInfo::DEFAULT
};

const PAGE: StartPage = StartPage {
    title: "Isthmus scraper",
    what: "the samples of this scraper",
    list: "<a href=\"api/v1/targets\">Targets</a>, <a href=\"api/v1/status/config\">configuration</a>, \
           <a href=\"api/v1/status/tsdb\">series</a>",
};

/// Why the scraper is not ready before its data folder is open.
const OPENING: &str = "the write-ahead log is being read";

/// Runs the scraper until a signal stops it: the command `isthmus scrape`.
pub fn run(args: ScrapeArgs) -> ExitCode {
    let common = args.common();
    runtime::start(ROLE, &common, args.check(Vec::new()), build)
}

/// Builds the scraper as a role of its own.
pub(crate) async fn build(config: RoleConfig, mut startup: Startup) -> Result<RunningRole, RoleError> {
    let folder = open(&config).await?;
    attach(&config, folder, &mut startup)?;
    Ok(startup.serve())
}

/// Adds a scraper to a role that begins: the API and the store over the data folder, which is opened meanwhile, then scrapes.
///
/// # Errors
/// The bucket cannot be used.
pub fn attach(config: &RoleConfig, folder: FolderOpening, startup: &mut Startup) -> Result<(), RoleError> {
    startup.probes().not_ready(OPENING);
    config.unneeded.warn();
    startup.serve_below(config.web.route_prefix());
    let data = LocalData::new();
    let registry = startup.registry();
    registry.register_collector(Box::new(DatabaseMetrics::new("scrape", data.clone())));
    let current = Current::new(config, registry);
    let metrics = ScrapeMetrics::default();
    metrics.register(registry);
    let maintenance = MaintenanceMetrics::new("scrape", registry);
    let remote_write = RemoteWriteMetrics::new(registry);

    let (producer, known_producer) = watch::channel(None);
    let shipped = start_uploads(config, known_producer, startup)?;
    serve(config, &current, &data, shipped.as_ref(), startup);
    startup.reload().register("--config.file", {
        let current = current.clone();
        move || {
            let current = current.clone();
            async move { current.reload().await }
        }
    });
    let work = Work {
        data,
        current,
        metrics,
        maintenance,
        remote_write,
        data_dir: config.data_dir.clone(),
        producer,
        shipped,
        block_range: config.block_range,
        probes: startup.probes(),
    };
    let shutdown = startup.shutdown();
    startup.spawn("scrapes", async move { work.run(folder, shutdown).await });
    Ok(())
}

/// Begins to open the data folder.
///
/// # Errors
/// It cannot be opened, which was found at once.
pub async fn open(config: &RoleConfig) -> Result<FolderOpening, RoleError> {
    let storage = config.prometheus.storage;
    let (keep_for, keep_bytes) = config.retention.with(&config.prometheus);
    let options = DatabaseOptions {
        block_range: config.block_range,
        keep_for,
        keep_bytes,
        most_exemplars: usize::try_from(storage.max_exemplars).unwrap_or(usize::MAX),
        out_of_order_window: storage.out_of_order_time_window,
        ..DatabaseOptions::default()
    };
    FolderOpening::begin(&config.data_dir, options).await
}

/// Starts the uploads, which wait until the data folder is open.
fn start_uploads(
    config: &RoleConfig,
    producer: watch::Receiver<Option<Producer>>,
    startup: &mut Startup,
) -> Result<Option<Shipped>, RoleError> {
    let Some(bucket) = &config.bucket else { return Ok(None) };
    let bucket = bucket.open(&BucketMetrics::new(startup.registry()))?;
    info!(bucket = bucket.name(), "uploading blocks to a bucket");
    let shipper =
        ShipperConfig { serve_uploaded: config.serve_uploaded, ..ShipperConfig::new(&config.data_dir) };
    Ok(Some(Shipper::start(startup, shipper, bucket, producer)))
}

/// Serves the data folder over HTTP and gRPC.
fn serve(
    config: &RoleConfig,
    current: &Current,
    data: &LocalData,
    shipped: Option<&Shipped>,
    startup: &mut Startup,
) {
    let serve_from =
        shipped.map_or_else(|| watch::channel(Timestamp::MIN).1, |shipped| shipped.serve_from.clone());
    let options = LocalStoreOptions {
        component: ROLE.name,
        external: current.external(),
        serve_from,
        apis: Apis { targets: true, ..Apis::default() },
    };
    let store = Arc::new(LocalStore::new(data.clone(), options, Arc::new(Targets(current.clone()))));
    let queries = LocalQueries {
        store: Arc::new(store.for_queries()),
        engine: QueryEngine::new(config.queries.clone(), startup.registry()),
        facts: Arc::new(Facts { flags: config.shown.clone(), current: current.clone(), data: data.clone() }),
        page: PAGE,
        paths: config.web.paths(),
        remote_read: Some(RemoteReadOptions {
            external: current.external(),
            args: config.remote_read.clone(),
        }),
        cors: true,
    };
    let routes = queries.routes(startup.registry());
    startup.add_routes(routes);
    StoreServer::new(store.clone(), config.limits).register(startup.services());
    MetadataServer::register(store.clone(), startup.services());
    serve_list::<TargetDiscovery>(&store, startup);
    serve_list::<ExemplarSeries>(&store, startup);
    serve_list::<TenantTsdbStatus>(&store, startup);
}

fn serve_list<L: WireListing>(store: &Arc<LocalStore>, startup: &mut Startup)
where
    LocalStore: ListingStore<L>,
{
    ListingServer::<L>::new(store.clone(), AnswerMemory::unlimited).register(startup.services());
}

/// What begins when the data folder is open.
struct Work {
    data: LocalData,
    current: Current,
    metrics: ScrapeMetrics,
    maintenance: MaintenanceMetrics,
    remote_write: RemoteWriteMetrics,
    data_dir: PathBuf,
    producer: watch::Sender<Option<Producer>>,
    shipped: Option<Shipped>,
    block_range: Duration,
    probes: runtime::Probes,
}

impl Work {
    async fn run(self, opening: FolderOpening, shutdown: Shutdown) -> Result<(), RoleError> {
        let Some((database, opened)) = opening.finish(&shutdown).await? else { return Ok(()) };
        let database = Arc::new(database);
        let manager =
            ScrapeManager::with_metrics(Arc::clone(&database), ScrapeOptions::default(), self.metrics);
        let writer = RemoteWriter::new(&self.data_dir, Arc::clone(&database), self.remote_write);
        let writer = Arc::new(writer);
        self.current
            .begin(manager.clone(), Arc::clone(&database), Arc::clone(&writer))
            .map_err(|mistakes| RoleError::wrong_configuration(mistakes.to_string()))?;
        self.data.opened(Arc::clone(&database), &opened.damaged);
        self.probes.ready();
        let maintenance = Maintenance {
            database: Arc::clone(&database),
            removable: self.shipped.map(|shipped| shipped.removable),
            metrics: self.maintenance,
        };
        let identify =
            follow_identity(self.current.clone(), self.producer, self.block_range, shutdown.clone());
        let scrapes = async {
            manager.run(shutdown.clone()).await;
        };
        tokio::join!(scrapes, writer.run(shutdown.clone()), maintenance.run(shutdown.clone()), identify);
        let synced = tokio::task::spawn_blocking(move || database.head().sync()).await?;
        synced.map_err(|cause| RoleError::failed(format!("--data-dir: {cause}")))
    }
}

/// Tells the shipper who produces the blocks, also after a reload.
async fn follow_identity(
    current: Current,
    producer: watch::Sender<Option<Producer>>,
    block_range: Duration,
    shutdown: Shutdown,
) {
    let mut external: watch::Receiver<Labels> = current.external();
    loop {
        let labels = external.borrow_and_update().clone();
        let out_of_order_window = current.storage().out_of_order_time_window;
        let known =
            (!labels.is_empty()).then_some(Producer { external: labels, out_of_order_window, block_range });
        producer.send_replace(known);
        match shutdown.until_triggered(external.changed()).await {
            Some(Ok(())) => {}
            Some(Err(_)) | None => return,
        }
    }
}
