//! The compactor as a role: built from its flags, run until nothing is left, or until it is asked to stop.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bucket::{Bucket, BucketMetrics, DataFolder, FetchMetrics, FetchOptions, Fetcher, Leases};
use runtime::{Probes, Registry, RoleError, RoleInfo, RunningRole, Shutdown, Startup};

use crate::api::{self, CompactorApi};
use crate::clock::Clock;
use crate::config::{CompactArgs, Config, WorkConfig};
use crate::history::History;
use crate::housekeeping::Chores;
use crate::index::IndexKeeper;
use crate::job::Workshop;
use crate::metrics::CompactorMetrics;
use crate::progress::Progress;
use crate::worker::BucketWorker;

pub(crate) const ROLE: RoleInfo = RoleInfo {
    name: "compactor",
    http_shows: "metrics, probes and the progress of compaction",
    ..RoleInfo::DEFAULT
};

/// The folder of unfinished blocks in the data folder.
const WORK_DIR: &str = "compact";

/// Runs the compactor: the command `isthmus compact`.
pub fn run(args: CompactArgs) -> ExitCode {
    let common = args.common.clone();
    runtime::start(ROLE, &common, args.check(), build)
}

/// Builds the compactor: a worker for each bucket, and the tasks that drive them.
pub(crate) async fn build(config: Config, mut startup: Startup) -> Result<RunningRole, RoleError> {
    startup.probes().not_ready("the buckets were not read yet");
    config.unneeded.warn();
    let folder = DataFolder::open(&config.work.data_dir, ROLE.name)?;
    let stop = Arc::new(AtomicBool::new(false));
    let workers = workers(&config.work, folder.path(), &stop, startup.registry())?;
    for worker in &workers {
        check_access(&worker.bucket).await?;
    }
    if let Some(worker) = workers.first() {
        startup.add_routes(api::routes(CompactorApi {
            progress: worker.progress.clone(),
            history: worker.history.clone(),
        }));
    }
    let (probes, shutdown) = (startup.probes(), startup.shutdown());
    let watched = shutdown.clone();
    startup.spawn("stop of jobs", async move {
        watched.triggered().await;
        stop.store(true, Ordering::Relaxed);
    });
    // The work reads and writes the data folder, so it runs on a thread of its own.
    let handle = tokio::runtime::Handle::current();
    let work = tokio::task::spawn_blocking(move || {
        let _folder = folder;
        handle.block_on(async {
            match config.wait {
                Some(interval) => {
                    run_for_ever(&workers, interval, config.cleanup_interval, &probes, &shutdown).await;
                    Ok(())
                }
                None => run_once(&workers, &probes, &shutdown).await,
            }
        })
    });
    startup.spawn("compaction", async move { work.await.map_err(RoleError::failed)? });
    Ok(startup.serve())
}

/// A worker for each bucket.
pub(crate) fn workers(
    config: &WorkConfig,
    data_dir: &Path,
    stop: &Arc<AtomicBool>,
    registry: &mut Registry,
) -> Result<Vec<BucketWorker>, RoleError> {
    let bucket_metrics = BucketMetrics::new(registry);
    let metrics = CompactorMetrics::new(registry);
    let (history, progress) = (History::new(Some(data_dir)), Progress::default());
    let work_dir = data_dir.join(WORK_DIR);
    match std::fs::remove_dir_all(&work_dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(RoleError::failed(format!("remove {}: {error}", work_dir.display())));
        }
        _ => {}
    }
    std::fs::create_dir_all(&work_dir)
        .map_err(|error| RoleError::failed(format!("create {}: {error}", work_dir.display())))?;
    let several = config.buckets.len() > 1;
    let settings = Arc::new(config.settings.clone());
    let mut workers = Vec::new();
    for (number, served) in config.buckets.iter().enumerate() {
        let bucket = served.config.open(&bucket_metrics)?;
        let name = [bucket.name(), bucket.prefix()].join("/").trim_end_matches('/').to_owned();
        let (cache, fetch_metrics) = if several {
            let labels = [("bucket".into(), name.clone().into())];
            let named = registry.sub_registry_with_labels(labels.into_iter());
            (data_dir.join(format!("bucket-{number}")), FetchMetrics::new(named))
        } else {
            (data_dir.to_owned(), FetchMetrics::new(registry))
        };
        let options = FetchOptions { data_dir: Some(cache), ..config.fetch.clone() };
        let fetcher = Fetcher::new(bucket.clone(), options, fetch_metrics).map_err(RoleError::failed)?;
        let index = IndexKeeper::new(&bucket, &config.name, config.retry);
        workers.push(BucketWorker {
            name,
            required: served.required_labels.clone(),
            fetcher: Arc::new(fetcher),
            workshop: Workshop {
                bucket: bucket.clone(),
                dir: work_dir.join(number.to_string()),
                retry: config.retry,
                rule: config.rule,
                file_concurrency: config.file_concurrency,
                stop: Arc::clone(stop),
                clock: Clock::system(),
            },
            leases: Leases::new(&bucket, &config.name, config.lease),
            bucket,
            settings: Arc::clone(&settings),
            history: history.clone(),
            metrics: metrics.clone(),
            progress: progress.clone(),
            index,
            quarantine: Arc::new(std::sync::Mutex::new(BTreeMap::new())),
        });
    }
    Ok(workers)
}

/// Ends the start when the access to a bucket can never work. A store that does not answer may do so later.
async fn check_access(bucket: &Bucket) -> Result<(), RoleError> {
    match bucket.probe(true).await {
        Err(error) if error.exit_code() == runtime::EXIT_USAGE => Err(error.into()),
        Err(error) => {
            tracing::warn!(bucket = bucket.name(), %error, "the bucket cannot be used yet");
            Ok(())
        }
        Ok(_) => Ok(()),
    }
}

/// Works on all buckets until `shutdown`. Merging, downsampling and housekeeping do not wait for each other.
async fn run_for_ever(
    workers: &[BucketWorker],
    interval: Duration,
    cleanup_interval: Duration,
    probes: &Probes,
    shutdown: &Shutdown,
) {
    let merging = futures::future::join_all(workers.iter().map(|worker| async move {
        repeat(interval, shutdown, || async {
            let done = worker.compact().await;
            log(worker, "compaction", done.as_ref().err());
            if done.is_ok() {
                probes.ready();
            }
            if done.as_ref().is_ok_and(|outcome| outcome.failed == 0) {
                worker.metrics.iterated();
            }
        })
        .await;
    }));
    let downsampling = futures::future::join_all(workers.iter().map(|worker| async move {
        repeat(interval, shutdown, || async {
            log(worker, "downsampling", worker.downsample().await.err().as_ref())
        })
        .await;
    }));
    let cleaning = futures::future::join_all(workers.iter().map(|worker| async move {
        repeat(cleanup_interval, shutdown, || async {
            log(worker, "housekeeping", worker.housekeep(Chores::All, false).await.err().as_ref());
        })
        .await;
    }));
    futures::future::join3(merging, downsampling, cleaning).await;
}

/// Calls `work` at an interval until `shutdown`. Work that runs is not dropped: its jobs stop by themselves.
async fn repeat<F: Future<Output = ()>>(interval: Duration, shutdown: &Shutdown, work: impl Fn() -> F) {
    while !shutdown.is_triggered() {
        work().await;
        if shutdown.until_triggered(tokio::time::sleep(interval)).await.is_none() {
            return;
        }
    }
}

fn log(worker: &BucketWorker, what: &str, error: Option<&String>) {
    if let Some(error) = error {
        tracing::error!(bucket = %worker.name, %error, "{what} failed and is tried again");
    }
}

/// Merges, downsamples, retires and removes what is due, and stops the role.
async fn run_once(workers: &[BucketWorker], probes: &Probes, shutdown: &Shutdown) -> Result<(), RoleError> {
    let mut failed = 0;
    for worker in workers {
        let failure = |error: String| RoleError::failed(error);
        let go_on = || {
            probes.ready();
            !shutdown.is_triggered()
        };
        failed += worker.work_off(true, go_on).await.map_err(failure)?.failed;
        if !shutdown.is_triggered() {
            failed += worker.housekeep(Chores::All, false).await.map_err(failure)?.failed;
        }
    }
    if failed > 0 {
        return Err(RoleError::failed(format!("{failed} jobs failed, see the log above")));
    }
    workers.iter().for_each(|worker| worker.metrics.iterated());
    shutdown.trigger();
    Ok(())
}
