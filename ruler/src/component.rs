//! The ruler as a role: built from its flags, run until it is asked to stop.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use alertmanager::{Notifier, NotifierConfig};
use bucket::BucketMetrics;
use head::{Database, DatabaseOptions};
use httpclient::DnsCounters;
use localstore::{
    DatabaseMetrics, FolderOpening, LocalData, LocalStore, LocalStoreOptions, Maintenance,
    MaintenanceMetrics, NoLists,
};
use model::{Labels, Timestamp};
use promapi::{ExemplarSeries, RuleGroup};
use proto::thanos;
use querier::{GlobalQueries, LocalQueries, QueryEngine, StartPage};
use remotewrite::{RemoteWriteConfig, RemoteWriteMetrics, RemoteWriter};
use rules::GroupOptions;
use runtime::{BoxError, Registry, RoleError, RoleInfo, RunningRole, Shutdown, Startup};
use shipper::{Producer, Shipped, Shipper};
use storeapi::{
    AnswerMemory, Apis, ListingServer, ListingStore, MetadataServer, StoreServer, TenantTsdbStatus,
    WireListing,
};
use tokio::sync::{Semaphore, watch};
use tracing::{info, warn};

use crate::alert_labels::AlertLabels;
use crate::alert_link::AlertLink;
use crate::alert_sender::AlertSender;
use crate::evaluation::Evaluator;
use crate::facts::{Begun, Facts, RulerLists};
use crate::flags::{RoleConfig, RuleArgs, SourceConfig};
use crate::last_reload::LastReload;
use crate::manager::RuleManager;
use crate::metrics::RuleMetrics;
use crate::reloading::Reloading;
use crate::rules_only::RulesOnly;
use crate::source::{HttpQueriers, QuerySource};

/// What is known about the role before it starts.
pub const ROLE: RoleInfo = RoleInfo {
    name: "ruler",
    descriptors: &[proto::DESCRIPTORS],
    services: &[
        thanos::info::info_server::SERVICE_NAME,
        thanos::store_server::SERVICE_NAME,
        thanos::rules_server::SERVICE_NAME,
        thanos::metadata_server::SERVICE_NAME,
        thanos::exemplars_server::SERVICE_NAME,
        thanos::status_server::SERVICE_NAME,
    ],
    http_shows: "metrics, rules and alerts, and queries over all samples of this ruler",
    grpc_shows: "rules, and all samples of this ruler",
    ..RoleInfo::DEFAULT
};

/// What Info announces as the component, as Thanos does.
const COMPONENT: &str = "rule";

const PAGE: StartPage = StartPage {
    title: "Isthmus ruler",
    what: "the samples of this ruler",
    list: "<a href=\"api/v1/rules\">Rules</a>, <a href=\"api/v1/alerts\">alerts</a>, \
           <a href=\"api/v1/alertmanagers\">Alertmanagers</a>",
};

/// Why the ruler is not ready before its data folder is open.
const OPENING: &str = "the write-ahead log is being read";

/// Runs the ruler until a signal stops it: the command `isthmus rule`.
pub fn run(args: RuleArgs) -> ExitCode {
    let common = args.common.clone();
    runtime::start(ROLE, &common, args.check(), build)
}

/// Builds the ruler.
///
/// # Errors
/// The data folder, the bucket, the queue of alerts or a file of TLS settings cannot be used.
pub(crate) async fn build(mut config: RoleConfig, mut startup: Startup) -> Result<RunningRole, RoleError> {
    config.unneeded.warn();
    for feature in &config.ignored_features {
        warn!(feature, "this value of --enable-feature is not known here and has no effect");
    }
    startup.probes().not_ready(OPENING);
    let options = DatabaseOptions {
        block_range: config.storage.block_duration,
        keep_for: Some(config.storage.retention).filter(|time| !time.is_zero()),
        ..DatabaseOptions::default()
    };
    let folder = FolderOpening::begin(&config.storage.data_dir, options).await?;
    let data = LocalData::new();
    let registry = startup.registry();
    registry.register_collector(Box::new(DatabaseMetrics::new("rule", data.clone())));
    let maintenance = MaintenanceMetrics::new("rule", registry);
    let remote_write = RemoteWriteMetrics::new(registry);
    let metrics = RuleMetrics::new(registry);
    let engine = QueryEngine::new(config.queries.clone(), registry);
    let shipped = start_uploads(&config, &mut startup)?;
    let source = start_source(&config, &engine, &mut startup)?;
    let notifier = open_notifier(&config, &mut startup).await?;
    let begun = Arc::new(Begun::default());
    if let Some(notifier) = &notifier {
        // Set once.
        let _ = begun.notifier.set(Arc::clone(notifier));
    }
    let reloading = start_reloading(&mut config, &begun, &metrics, &mut startup).await;
    let store = serve(&config, engine, &data, shipped.as_ref(), &begun, &reloading, &mut startup);
    let work = Work {
        data,
        store,
        source,
        notifier,
        reloading,
        metrics,
        maintenance,
        writer: (config.remote_write, remote_write),
        data_dir: config.storage.data_dir,
        shipped,
        groups: config.groups,
        external: config.external,
        external_url: config.external_url,
        query_limit: config.query_limit,
        concurrency: config.concurrency,
        alerts: (config.alert_labels, config.alert_link),
        probes: startup.probes(),
    };
    let shutdown = startup.shutdown();
    startup.spawn("rules", async move { work.run(folder, shutdown).await });
    Ok(startup.serve())
}

/// Starts the uploads, which wait until there are blocks.
fn start_uploads(config: &RoleConfig, startup: &mut Startup) -> Result<Option<Shipped>, RoleError> {
    let Some((bucket, shipper)) = &config.storage.uploads else { return Ok(None) };
    if !config.remote_write.is_empty() {
        warn!("blocks are not uploaded with --remote-write.config: the receivers have the samples");
        return Ok(None);
    }
    let bucket = bucket.open(&BucketMetrics::new(startup.registry()))?;
    info!(bucket = bucket.name(), "uploading blocks to a bucket");
    let producer = Producer {
        external: config.external.clone(),
        out_of_order_window: Duration::ZERO,
        block_range: config.storage.block_duration,
    };
    let (known, producer) = watch::channel(Some(producer));
    let shipped = Shipper::start(startup, shipper.clone(), bucket, producer);
    // The shipper ends when its producer cannot change any more.
    let shutdown = startup.shutdown();
    startup.spawn("producer", async move {
        shutdown.triggered().await;
        drop(known);
    });
    Ok(Some(shipped))
}

/// Begins to follow who answers expressions.
fn start_source(
    config: &RoleConfig,
    engine: &QueryEngine,
    startup: &mut Startup,
) -> Result<QuerySource, RoleError> {
    let shutdown = startup.shutdown();
    Ok(match &config.source {
        SourceConfig::Http(queriers, options) => {
            let lookups = count_lookups(startup.registry());
            let queriers = HttpQueriers::new(queriers.clone(), *options, &lookups);
            let queriers =
                queriers.map_err(|why| RoleError::wrong_configuration(format!("--query.config: {why}")))?;
            let running = queriers.clone();
            startup.spawn("queriers", async move { running.run(shutdown).await });
            QuerySource::Http(queriers)
        }
        SourceConfig::Global(global) => {
            let queries = GlobalQueries::new(global, engine, startup.registry());
            let running = queries.clone();
            startup.spawn("endpoints", async move { running.run(shutdown).await });
            QuerySource::Global(Box::new(queries))
        }
    })
}

/// Counters of lookups of queriers in DNS, with the names of Thanos.
fn count_lookups(registry: &mut Registry) -> DnsCounters {
    let counters = DnsCounters::default();
    let name = "thanos_rule_query_apis_dns_lookups";
    registry.register(name, "Lookups of queriers in DNS", counters.lookups.clone());
    let name = "thanos_rule_query_apis_dns_failures";
    registry.register(name, "Lookups of queriers in DNS that failed", counters.failures.clone());
    counters
}

/// Opens the queue of alerts; `None` if no Alertmanager is configured.
async fn open_notifier(
    config: &RoleConfig,
    startup: &mut Startup,
) -> Result<Option<Arc<Notifier>>, RoleError> {
    if config.notifier.groups.is_empty() {
        warn!(
            "no Alertmanager is configured, alerts are stored and shown and not sent; give --alertmanagers.url"
        );
        return Ok(None);
    }
    let notifier: NotifierConfig = config.notifier.clone();
    let opened = Notifier::open(notifier, Some(&config.storage.data_dir), startup.registry());
    let opened = opened.map_err(|why| RoleError::failed(format!("--alertmanagers: {why}")))?;
    Ok(Some(Arc::new(opened)))
}

async fn start_reloading(
    config: &mut RoleConfig,
    begun: &Arc<Begun>,
    metrics: &RuleMetrics,
    startup: &mut Startup,
) -> Arc<Reloading> {
    let reloading = Arc::new(Reloading {
        patterns: config.patterns.clone(),
        options: config.file_options,
        last: Arc::new(LastReload::new(metrics.clone())),
        begun: Arc::clone(begun),
        waiting: tokio::sync::Mutex::default(),
    });
    reloading.apply(std::mem::take(&mut config.files)).await;
    startup.reload().register("--rule-file", {
        let reloading = Arc::clone(&reloading);
        move || -> std::pin::Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>> {
            Box::pin(Arc::clone(&reloading).reload())
        }
    });
    startup.reload_below(config.web.route.as_str());
    reloading
}

/// Serves the data folder and the rules over HTTP and gRPC. Returns the store without external labels.
fn serve(
    config: &RoleConfig,
    engine: QueryEngine,
    data: &LocalData,
    shipped: Option<&Shipped>,
    begun: &Arc<Begun>,
    reloading: &Arc<Reloading>,
    startup: &mut Startup,
) -> LocalStore {
    let serve_from =
        shipped.map_or_else(|| watch::channel(Timestamp::MIN).1, |shipped| shipped.serve_from.clone());
    let options = LocalStoreOptions {
        component: COMPONENT,
        external: watch::channel(config.external.clone()).1,
        serve_from,
        apis: Apis { rules: true, ..Apis::default() },
    };
    // The rules read the folder, so that what they read must not have the rules: both would never end.
    let own = LocalStore::new(data.clone(), options.clone(), Arc::new(NoLists)).for_queries();
    let store = LocalStore::new(data.clone(), options, Arc::new(RulerLists(Arc::clone(begun))));
    let queries = LocalQueries {
        store: Arc::new(store.for_queries()),
        engine,
        facts: Arc::new(Facts {
            flags: config.shown.clone(),
            data: data.clone(),
            last_reload: Arc::clone(&reloading.last),
            retention: config.storage.retention,
        }),
        page: PAGE,
        paths: config.web.clone(),
        remote_read: None,
        cors: config.cors,
    };
    let routes = queries.routes(startup.registry());
    startup.add_routes(routes);
    let store = Arc::new(store);
    serve_list::<RuleGroup>(&store, startup);
    if config.remote_write.is_empty() {
        StoreServer::new(store.clone(), config.limits).register(startup.services());
        MetadataServer::register(store.clone(), startup.services());
        serve_list::<ExemplarSeries>(&store, startup);
        serve_list::<TenantTsdbStatus>(&store, startup);
    } else {
        let rules = RulesOnly((*store).clone());
        StoreServer::new(Arc::new(rules), config.limits).register(startup.services());
    }
    own
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
    /// The data folder without external labels.
    store: LocalStore,
    source: QuerySource,
    notifier: Option<Arc<Notifier>>,
    reloading: Arc<Reloading>,
    metrics: RuleMetrics,
    maintenance: MaintenanceMetrics,
    writer: (Vec<RemoteWriteConfig>, RemoteWriteMetrics),
    data_dir: PathBuf,
    shipped: Option<Shipped>,
    groups: GroupOptions,
    external: Labels,
    external_url: String,
    query_limit: Duration,
    concurrency: usize,
    alerts: (AlertLabels, AlertLink),
    probes: runtime::Probes,
}

impl Work {
    async fn run(self, folder: FolderOpening, shutdown: Shutdown) -> Result<(), RoleError> {
        let Some((database, opened)) = folder.finish(&shutdown).await? else { return Ok(()) };
        let database = Arc::new(database);
        let (remote_write, metrics) = self.writer;
        let prepared = RemoteWriter::prepare(&remote_write, &self.external);
        let prepared = prepared
            .map_err(|why| RoleError::wrong_configuration(format!("--remote-write.config: {why}")))?;
        let writer = RemoteWriter::new(&self.data_dir, Arc::clone(&database), metrics);
        writer.apply(prepared);
        self.data.opened(Arc::clone(&database), &opened.damaged);
        let (labels, link) = self.alerts;
        let sender = self.notifier.clone().map(|notifier| AlertSender { notifier, labels, link });
        let evaluator = Evaluator {
            source: self.source,
            database: Arc::clone(&database),
            local: self.store,
            external: self.external,
            external_url: self.external_url,
            query_limit: self.query_limit,
            // One rule of a group is always evaluated.
            beside: Arc::new(Semaphore::new(self.concurrency.saturating_sub(1))),
            sender,
            ignored_labels: self.groups.restore.ignored_labels.clone(),
        };
        let manager = Arc::new(RuleManager::new(Arc::new(evaluator), self.groups, self.metrics));
        let maintenance = Maintenance {
            database: Arc::clone(&database),
            removable: self.shipped.map(|shipped| shipped.removable),
            metrics: self.maintenance,
        };
        self.reloading.begin(Arc::clone(&manager)).await;
        self.probes.ready();
        keep_going(&manager, self.notifier.as_deref(), &writer, maintenance, shutdown).await;
        sync(database).await
    }
}

/// Evaluates, sends and keeps until shutdown. What was evaluated last is sent, too.
async fn keep_going(
    manager: &RuleManager,
    notifier: Option<&Notifier>,
    writer: &RemoteWriter,
    maintenance: Maintenance,
    shutdown: Shutdown,
) {
    let after_rules = Shutdown::new();
    let evaluate = async {
        shutdown.triggered().await;
        manager.stop().await;
        after_rules.trigger();
    };
    let notify = async {
        if let Some(notifier) = notifier {
            notifier.run(after_rules.clone()).await;
        }
    };
    tokio::join!(evaluate, notify, writer.run(after_rules.clone()), maintenance.run(after_rules.clone()));
}

async fn sync(database: Arc<Database>) -> Result<(), RoleError> {
    let synced = tokio::task::spawn_blocking(move || database.head().sync()).await?;
    synced.map_err(|cause| RoleError::failed(format!("--data-dir: {cause}")))
}
