//! Keeps the catalog up to date with the buckets.

use std::sync::Arc;
use std::time::Duration;

use bucket::{BucketView, FetchError, Fetcher};
use model::Labels;
use runtime::{Probes, Shutdown};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::blocks::Blocks;
use crate::cache::BlockKey;
use crate::catalog::Catalog;
use crate::metrics::StoreMetrics;

/// A request waits at most this long for a sync that it asked for.
const REFRESH: Duration = Duration::from_secs(30);
/// Idle blocks are looked for this often.
const CLOSE_INTERVAL: Duration = Duration::from_secs(15);

/// The current catalog, for requests.
#[derive(Clone)]
pub(crate) struct CatalogHandle {
    catalogs: watch::Receiver<Arc<Catalog>>,
    wanted: Arc<Notify>,
}

impl CatalogHandle {
    /// The catalog of the last sync.
    pub(crate) fn current(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalogs.borrow())
    }

    /// The catalog of the next sync, which is asked for; the current one if the sync fails or takes long.
    pub(crate) async fn refreshed(&self) -> Arc<Catalog> {
        let mut catalogs = self.catalogs.clone();
        catalogs.mark_unchanged();
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
}

/// Fetches the views of all buckets at an interval.
pub(crate) struct Syncer {
    buckets: Vec<SyncedBucket>,
    interval: Duration,
    blocks: Arc<Blocks>,
    metrics: StoreMetrics,
    catalogs: watch::Sender<Arc<Catalog>>,
    wanted: Arc<Notify>,
}

impl Syncer {
    /// A syncer whose catalog is empty before the first sync.
    pub(crate) fn new(
        buckets: Vec<SyncedBucket>,
        interval: Duration,
        blocks: Arc<Blocks>,
        metrics: StoreMetrics,
    ) -> (Self, CatalogHandle) {
        let (sender, receiver) = watch::channel(Arc::new(Catalog::default()));
        let wanted = Arc::new(Notify::new());
        let handle = CatalogHandle { catalogs: receiver, wanted: Arc::clone(&wanted) };
        (Self { buckets, interval, blocks, metrics, catalogs: sender, wanted }, handle)
    }

    /// Syncs until `shutdown`. The store is ready after the first sync that found what there is.
    pub(crate) async fn run(self, probes: Probes, shutdown: Shutdown) {
        let mut views: Vec<Option<BucketView>> = self.buckets.iter().map(|_| None).collect();
        let closing = self.close_idle_blocks(&shutdown);
        let syncing = async {
            loop {
                let began = Instant::now();
                // A sync that hangs ends when the next one is due.
                let limit = self.interval.max(Duration::from_secs(60));
                let Some(done) =
                    shutdown.until_triggered(tokio::time::timeout(limit, self.sync(&mut views))).await
                else {
                    return;
                };
                match done {
                    Ok(true) => probes.ready(),
                    Ok(false) => {}
                    Err(_) => {
                        self.metrics.sync_failed();
                        tracing::error!(limit = ?limit, "sync of the buckets took too long and was ended");
                    }
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
    async fn sync(&self, views: &mut [Option<BucketView>]) -> bool {
        let began = Instant::now();
        let fetches = self.buckets.iter().map(|bucket| bucket.fetcher.fetch(crate::now()));
        let mut is_complete = true;
        for ((bucket, view), fetched) in
            self.buckets.iter().zip(views.iter_mut()).zip(futures::future::join_all(fetches).await)
        {
            match fetched {
                Ok(fetched) => *view = Some(fetched),
                Err(FetchError::Incomplete { view: fetched }) => {
                    is_complete = false;
                    tracing::warn!(bucket = %bucket.name, failed = fetched.failed.len(), "some blocks could not be looked up");
                    *view = Some(with_known(*fetched, view.as_ref()));
                }
                Err(error @ FetchError::Listing(_)) => {
                    is_complete = false;
                    tracing::error!(bucket = %bucket.name, %error, "sync failed, the blocks of the last one are served");
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
        true
    }

    fn publish(&self, catalog: Catalog) {
        let before = Arc::clone(&self.catalogs.borrow());
        for (key, reason) in catalog.refused.iter().filter(|(key, _)| !before.refused.contains_key(key)) {
            tracing::error!(block = %key.block, %reason, "block is not served");
        }
        let is_new = |block: &&crate::catalog::UnreadableBlock| {
            !before.unreadable.iter().any(|known| known.key == block.key)
        };
        for block in catalog.unreadable.iter().filter(is_new) {
            tracing::error!(block = %block.key.block, error = %block.reason, "block cannot be read and is not served");
        }
        let keys = catalog.keys();
        self.metrics.catalog(keys.len(), catalog.unreadable.len(), catalog.refused.len());
        self.blocks.keep_only(|key| keys.contains(&key));
        let blocks: std::collections::BTreeSet<tsdb::Ulid> =
            keys.iter().map(|key: &BlockKey| key.block).collect();
        self.blocks.keep_headers_only(|block| blocks.contains(&block));
        self.catalogs.send_replace(Arc::new(catalog));
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
    fetched
}
