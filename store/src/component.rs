//! The store as a role: built from its flags, run until it is asked to stop.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;

use bucket::{Bucket, BucketMetrics, DataFolder, FetchMetrics, FetchOptions, Fetcher};
use proto::thanos;
use runtime::{Registry, RoleError, RoleInfo, RunningRole, Startup};
use storeapi::{RequestLimits, StoreServer};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::acknowledge::{Acknowledger, reader_id};
use crate::answer::Workers;
use crate::api::{self, BlocksApi};
use crate::blocks::{Blocks, BlocksOptions};
use crate::cache::Cache;
use crate::cache_metrics::CacheMetrics;
use crate::config::{Config, StoreArgs};
use crate::disk_cache::{DiskCache, DiskMetrics};
use crate::flights::Flights;
use crate::header::HeaderFolder;
use crate::hedge::Hedge;
use crate::memory_pool::MemoryPool;
use crate::metrics::StoreMetrics;
use crate::page_pool::PagePool;
use crate::page_source::{Doubted, PageSource};
use crate::scraped;
use crate::shared_cache::{SharedCache, SharedCaches, SharedConfig, SharedMetrics};
use crate::store::{BucketStore, BucketStoreParts};
use crate::sync::{SyncedBucket, Syncer};

pub(crate) const ROLE: RoleInfo = RoleInfo {
    name: "store",
    descriptors: &[proto::DESCRIPTORS],
    services: &[thanos::info::info_server::SERVICE_NAME, thanos::store_server::SERVICE_NAME],
    http_shows: "metrics, probes and the list of blocks",
    grpc_shows: "all samples of the buckets",
    ..RoleInfo::DEFAULT
};

/// Steps of requests that may wait for a bucket at once.
const STEPS_AT_ONCE: usize = 32;

/// Why the store is not ready before the first sync.
const NOT_SYNCED: &str = "the blocks of the buckets are not known yet";

/// Runs the store until a signal stops it: the command `isthmus store`.
pub fn run(args: StoreArgs) -> ExitCode {
    runtime::with_few_arenas();
    let common = args.common.clone();
    runtime::start(ROLE, &common, args.check(), build)
}

/// Builds the store: the buckets with their sync, the open blocks with their caches, and the StoreAPI over both.
pub(crate) async fn build(config: Config, mut startup: Startup) -> Result<RunningRole, RoleError> {
    startup.probes().not_ready(NOT_SYNCED);
    config.unneeded.warn();
    let folder = DataFolder::open(&config.data_dir, ROLE.name)?;
    let bucket_metrics = BucketMetrics::new(startup.registry());
    let buckets: Vec<Bucket> =
        config.buckets.iter().map(|bucket| bucket.config.open(&bucket_metrics)).collect::<Result<_, _>>()?;
    for bucket in &buckets {
        check_access(bucket).await?;
    }
    let Assembled { store, syncer, api } = assemble(&config, &buckets, &folder, startup.registry())?;
    startup.add_routes(api::routes(api));
    // The store counts before it reads, so the server need not count again.
    StoreServer::new(Arc::new(store), RequestLimits::default()).register(startup.services());
    let (probes, shutdown) = (startup.probes(), startup.shutdown());
    // A sync reads and writes the data folder, so it runs on a thread of its own.
    let handle = Handle::current();
    let syncing = tokio::task::spawn_blocking(move || {
        handle.block_on(syncer.run(probes, shutdown));
        // The folder is locked until the store no longer uses it.
        drop(folder);
    });
    startup.spawn("block sync", syncing);
    Ok(startup.serve())
}

/// The parts of a store that does not run yet.
pub(crate) struct Assembled {
    pub(crate) store: BucketStore,
    pub(crate) syncer: Syncer,
    pub(crate) api: BlocksApi,
}

/// Connects the parts of a store of `buckets`, in the order of the configuration.
pub(crate) fn assemble(
    config: &Config,
    buckets: &[Bucket],
    folder: &DataFolder,
    registry: &mut Registry,
) -> Result<Assembled, RoleError> {
    let metrics = StoreMetrics::new(registry);
    let cache = Arc::new(Cache::new(config.memory.cache_bytes, CacheMetrics::new(registry)));
    let source = PageSource {
        cache: Arc::clone(&cache),
        disk: disk_cache(config, folder, registry)?,
        shared: shared_caches(config, registry)?,
        doubted: Doubted::default(),
        flights: Flights::default(),
        pool: PagePool::default(),
        hedge: Arc::new(Hedge::default()),
        retry: config.retry,
        runtime: Handle::current(),
    };
    let blocks = Arc::new(open_blocks(config, buckets, source, folder)?);
    scraped::register(&blocks, registry);
    let synced = synced_buckets(config, buckets, folder, registry)?;
    let (syncer, catalog) = Syncer::new(synced, config.sync_interval, Arc::clone(&blocks), metrics.clone());
    let names = buckets.iter().map(|bucket| bucket.name().to_owned()).collect();
    let api = BlocksApi { catalog: catalog.clone(), blocks: Arc::clone(&blocks), buckets: names };
    let store = BucketStore::new(BucketStoreParts {
        catalog,
        workers: Workers { blocks, steps: Arc::new(Semaphore::new(STEPS_AT_ONCE)) },
        cache,
        sort_memory: Arc::new(MemoryPool::new(config.memory.sort_bytes)),
        ahead_memory: Arc::new(MemoryPool::new(config.memory.ahead_bytes)),
        times: config.times,
        limits: config.limits,
        metrics,
    });
    Ok(Assembled { store, syncer, api })
}

/// Ends the start when the access to a bucket can never work. A store that does not answer may do so later.
async fn check_access(bucket: &Bucket) -> Result<(), RoleError> {
    match bucket.list_dir("").await {
        Err(error) if error.exit_code() == runtime::EXIT_USAGE => Err(error.into()),
        Err(error) => {
            tracing::warn!(bucket = bucket.name(), %error, "the bucket cannot be read yet");
            Ok(())
        }
        Ok(_) => {
            tracing::info!(
                bucket = bucket.name(),
                prefix = bucket.prefix(),
                "serving the blocks of a bucket"
            );
            Ok(())
        }
    }
}

fn open_blocks(
    config: &Config,
    buckets: &[Bucket],
    source: PageSource,
    folder: &DataFolder,
) -> Result<Blocks, RoleError> {
    let headers = config.header_bytes.map(|limit| HeaderFolder::open(folder.path(), limit)).transpose();
    Ok(Blocks::new(BlocksOptions {
        buckets: buckets.to_vec(),
        source,
        headers: headers.map_err(RoleError::failed)?,
        index_bytes: config.memory.index_bytes,
        idle: config.idle,
    }))
}

/// The cache of pages in the data folder, if there is one.
fn disk_cache(
    config: &Config,
    folder: &DataFolder,
    registry: &mut Registry,
) -> Result<Option<Arc<DiskCache>>, RoleError> {
    let Some(limit) = config.disk_cache_bytes else {
        DiskCache::remove(folder.path());
        return Ok(None);
    };
    let waiting = (config.memory.write_back_bytes >> 14) as usize;
    DiskCache::open(folder.path(), limit, waiting, DiskMetrics::new(registry))
        .map(Some)
        .map_err(RoleError::failed)
}

/// The shared caches. Those on servers of one kind share their metrics.
fn shared_caches(config: &Config, registry: &mut Registry) -> Result<SharedCaches, RoleError> {
    let mut by_kind: BTreeMap<&'static str, SharedMetrics> = BTreeMap::new();
    let mut open = |settings: &Option<SharedConfig>, name| {
        let Some(settings) = settings else { return Ok(None) };
        let kind = settings.kind.name();
        let metrics = by_kind.entry(kind).or_insert_with(|| SharedMetrics::new(registry, kind));
        let limit = config.memory.write_back_bytes;
        SharedCache::new(settings.clone(), name, limit, metrics, &Handle::current())
            .map(|cache| Some(Arc::new(cache)))
            .map_err(RoleError::wrong_configuration)
    };
    Ok(SharedCaches {
        index: open(&config.shared.index, "index-cache")?,
        chunks: open(&config.shared.chunks, "caching-bucket")?,
    })
}

/// Each bucket has a cache of metas of its own, and, where there are several, metrics with its name.
fn synced_buckets(
    config: &Config,
    buckets: &[Bucket],
    folder: &DataFolder,
    registry: &mut Registry,
) -> Result<Vec<SyncedBucket>, RoleError> {
    let mut synced = Vec::new();
    let id = reader_id(folder.path());
    for (number, (bucket, served)) in buckets.iter().zip(&config.buckets).enumerate() {
        let (data_dir, metrics) = if number == 0 && buckets.len() == 1 {
            (folder.path().to_owned(), FetchMetrics::new(registry))
        } else {
            let name = [bucket.name(), bucket.prefix()].join("/");
            let labels = [("bucket".into(), name.trim_end_matches('/').to_owned().into())];
            let named = registry.sub_registry_with_labels(labels.into_iter());
            (folder.path().join(format!("bucket-{number}")), FetchMetrics::new(named))
        };
        let options = FetchOptions {
            discovery: config.discovery,
            data_dir: Some(data_dir),
            concurrency: config.fetch_concurrency,
            filters: config.filters.clone(),
            retry: config.retry,
            uses_index: config.uses_index,
            ..FetchOptions::default()
        };
        let fetcher = Fetcher::new(bucket.clone(), options, metrics).map_err(RoleError::failed)?;
        synced.push(SyncedBucket {
            name: bucket.name().to_owned(),
            fetcher,
            required: served.required_labels.clone(),
            acknowledger: Acknowledger::new(bucket, &id, config.sync_interval),
        });
    }
    Ok(synced)
}
