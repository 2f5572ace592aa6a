//! Keeps the catalog up to date with the buckets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bucket::deletions::effective;
use bucket::{BucketView, FetchError, Fetcher};
use model::Labels;
use runtime::{Probes, Shutdown};
use storeapi::StoreError;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::acknowledge::Acknowledger;
use crate::blocks::Blocks;
use crate::cache::BlockKey;
use crate::catalog::Catalog;
use crate::metrics::StoreMetrics;

/// A request waits at most this long for a sync that it asked for.
const REFRESH: Duration = Duration::from_secs(30);
/// A sync of a bucket may take this long, also if the next one is due sooner.
const LEAST_LIMIT: Duration = Duration::from_secs(60);
/// Idle blocks are looked for this often.
const CLOSE_INTERVAL: Duration = Duration::from_secs(15);

/// The current catalog, for requests.
#[derive(Clone)]
pub(crate) struct CatalogHandle {
    /// `None` before the first sync.
    catalogs: watch::Receiver<Option<Arc<Catalog>>>,
    wanted: Arc<Notify>,
    /// Whether a block of the catalog was gone, so that an index that told of it is wrong.
    is_doubted: Arc<AtomicBool>,
}

impl CatalogHandle {
    /// The catalog of the last sync; an empty one before the first sync.
    pub(crate) fn current(&self) -> Arc<Catalog> {
        self.catalogs.borrow().clone().unwrap_or_default()
    }

    /// The catalog of the last sync.
    ///
    /// # Errors
    /// Before the first sync. An empty answer would look as if there were no blocks.
    pub(crate) fn synced(&self) -> Result<Arc<Catalog>, StoreError> {
        let not_synced =
            || StoreError::unavailable("the store has just started and does not know its blocks yet");
        self.catalogs.borrow().clone().ok_or_else(not_synced)
    }

    /// The catalog of the next sync, which is asked for; the current one if the sync fails or takes long.
    pub(crate) async fn refreshed(&self) -> Arc<Catalog> {
        let mut catalogs = self.catalogs.clone();
        catalogs.mark_unchanged();
        self.is_doubted.store(true, Ordering::Relaxed);
        self.wanted.notify_one();
        // A sync that runs already may have listed the bucket before; then the caller asks again.
        let _ = tokio::time::timeout(REFRESH, catalogs.changed()).await;
        self.current()
    }
}

/// One bucket that the store serves.
pub(crate) struct SyncedBucket {
    pub(crate) name: String,
    pub(crate) fetcher: Fetcher,
    /// The labels that its blocks must have.
    pub(crate) required: Labels,
    pub(crate) acknowledger: Acknowledger,
}

/// Fetches the views of all buckets at an interval.
pub(crate) struct Syncer {
    buckets: Vec<SyncedBucket>,
    interval: Duration,
    blocks: Arc<Blocks>,
    metrics: StoreMetrics,
    catalogs: watch::Sender<Option<Arc<Catalog>>>,
    wanted: Arc<Notify>,
    is_doubted: Arc<AtomicBool>,
}

impl Syncer {
    /// A syncer that has not synced yet.
    pub(crate) fn new(
        buckets: Vec<SyncedBucket>,
        interval: Duration,
        blocks: Arc<Blocks>,
        metrics: StoreMetrics,
    ) -> (Self, CatalogHandle) {
        let (sender, receiver) = watch::channel(None);
        let wanted = Arc::new(Notify::new());
        let is_doubted = Arc::new(AtomicBool::new(false));
        let handle = CatalogHandle {
            catalogs: receiver,
            wanted: Arc::clone(&wanted),
            is_doubted: Arc::clone(&is_doubted),
        };
        (Self { buckets, interval, blocks, metrics, catalogs: sender, wanted, is_doubted }, handle)
    }

    /// Syncs until `shutdown`. The store is ready after the first sync that found what there is.
    pub(crate) async fn run(self, probes: Probes, shutdown: Shutdown) {
        let mut views: Vec<Option<BucketView>> = self.buckets.iter().map(|_| None).collect();
        let closing = self.close_idle_blocks(&shutdown);
        let syncing = async {
            loop {
                let began = Instant::now();
                match shutdown.until_triggered(self.sync(&mut views)).await {
                    Some(true) => probes.ready(),
                    Some(false) => {}
                    None => return,
                }
                let is_first = views.iter().any(Option::is_none);
                // At the start, each failure delays the moment at which the store can serve.
                let pause = if is_first { Duration::from_secs(5).min(self.interval) } else { self.interval };
                let due = tokio::time::sleep_until(began + pause);
                let next = async {
                    tokio::select! {
                        () = due => {}
                        () = self.wanted.notified() => {}
                    }
                };
                if shutdown.until_triggered(next).await.is_none() {
                    return;
                }
            }
        };
        tokio::select! {
            () = syncing => {}
            () = closing => {}
        }
    }

    /// Fetches all views. Returns whether each bucket was read at least once.
    ///
    /// A bucket that hangs is given up when the next sync is due, so that the blocks of the others are known until then.
    async fn sync(&self, views: &mut [Option<BucketView>]) -> bool {
        let began = Instant::now();
        let limit = self.interval.max(LEAST_LIMIT);
        if self.is_doubted.swap(false, Ordering::Relaxed) {
            self.buckets.iter().for_each(|bucket| bucket.fetcher.distrust_index());
        }
        let fetches =
            self.buckets.iter().map(|bucket| tokio::time::timeout(limit, bucket.fetcher.fetch(crate::now())));
        let (mut is_complete, mut whole) = (true, Vec::new());
        for ((bucket, view), fetched) in
            self.buckets.iter().zip(views.iter_mut()).zip(futures::future::join_all(fetches).await)
        {
            let consequence = match view {
                Some(_) => "its blocks of the last sync are served",
                None => "the store is not ready until it is synced",
            };
            whole.push(matches!(fetched, Ok(Ok(_))));
            match fetched {
                Ok(Ok(fetched)) => *view = Some(fetched),
                Ok(Err(FetchError::Incomplete { view: fetched })) => {
                    is_complete = false;
                    tracing::warn!(bucket = %bucket.name, failed = fetched.failed.len(), "some blocks could not be looked up");
                    *view = Some(with_known(*fetched, view.as_ref()));
                }
                Ok(Err(error @ FetchError::Listing(_))) => {
                    is_complete = false;
                    tracing::error!(bucket = %bucket.name, %error, consequence, "bucket could not be synced");
                }
                Err(_) => {
                    is_complete = false;
                    tracing::error!(bucket = %bucket.name, ?limit, consequence, "sync of a bucket took too long and was ended");
                }
            }
        }
        if is_complete {
            self.metrics.synced(began.elapsed());
        } else {
            self.metrics.sync_failed();
        }
        if views.iter().any(Option::is_none) {
            return false;
        }
        let required: Vec<Labels> = self.buckets.iter().map(|bucket| bucket.required.clone()).collect();
        let views: Vec<BucketView> = views.iter().flatten().cloned().collect();
        self.publish(Catalog::new(&views, &required, std::time::SystemTime::now()));
        // A store that hangs must not delay the next sync for longer than a fetch would.
        let _ = tokio::time::timeout(limit, self.acknowledge(&views, &whole)).await;
        true
    }

    /// Tells the compactors of the buckets which marked blocks are still read. Nothing is said of a bucket of which this sync has no whole
    /// view.
    async fn acknowledge(&self, views: &[BucketView], whole: &[bool]) {
        let keys = self.catalogs.borrow().as_ref().map(|catalog| catalog.keys()).unwrap_or_default();
        for (number, (bucket, view)) in (0_u16..).zip(self.buckets.iter().zip(views)) {
            if whole.get(usize::from(number)) != Some(&true) {
                continue;
            }
            let is_served = |block| keys.contains(&BlockKey { bucket: number, block });
            bucket.acknowledger.acknowledge(view, is_served).await;
        }
    }

    fn publish(&self, catalog: Catalog) {
        let before = self.catalogs.borrow().clone().unwrap_or_default();
        for (key, reason) in catalog.refused.iter().filter(|(key, _)| !before.refused.contains_key(key)) {
            tracing::error!(block = %key.block, %reason, "block is not served");
        }
        let is_new = |block: &&crate::catalog::UnreadableBlock| {
            !before.unreadable.iter().any(|known| known.key == block.key)
        };
        let (new_keys, old_keys) = (catalog.keys(), before.keys());
        self.metrics.changed(
            new_keys.difference(&old_keys).count(),
            catalog.unreadable.iter().filter(is_new).count(),
            old_keys.difference(&new_keys).count(),
        );
        for block in catalog.unreadable.iter().filter(is_new) {
            tracing::error!(block = %block.key.block, error = %block.reason, "block cannot be read and is not served");
        }
        let keys = new_keys;
        self.metrics.catalog(keys.len(), catalog.unreadable.len(), catalog.refused.len());
        self.blocks.keep_only(|key| keys.contains(&key));
        let blocks: std::collections::BTreeSet<tsdb::Ulid> =
            keys.iter().map(|key: &BlockKey| key.block).collect();
        self.blocks.keep_headers_only(|block| blocks.contains(&block));
        self.catalogs.send_replace(Some(Arc::new(catalog)));
    }

    async fn close_idle_blocks(&self, shutdown: &Shutdown) {
        while shutdown.until_triggered(tokio::time::sleep(CLOSE_INTERVAL)).await.is_some() {
            self.blocks.close_idle();
        }
    }
}

/// An incomplete view with the blocks of the last one that could not be looked up now: they are still there as far as is known.
fn with_known(mut fetched: BucketView, last: Option<&BucketView>) -> BucketView {
    let failed: Vec<tsdb::Ulid> = fetched.failed.keys().copied().collect();
    for block in failed {
        if let Some(meta) = last.and_then(|last| last.blocks.get(&block)) {
            fetched.blocks.entry(block).or_insert_with(|| Arc::clone(meta));
        }
    }
    fetched.deletions = effective(&fetched.tombstones, fetched.blocks.values());
    fetched
}
