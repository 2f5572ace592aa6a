//! What the files of all blocks share: the caches, and how a bucket is asked.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use bucket::Retry;
use tokio::runtime::Handle;

use crate::cache::{BlockKey, Cache};
use crate::disk_cache::DiskCache;
use crate::flights::Flights;
use crate::hedge::Hedge;
use crate::page_pool::PagePool;
use crate::shared_cache::SharedCaches;

/// What all files of a store share.
#[derive(Clone)]
pub(crate) struct PageSource {
    pub(crate) cache: Arc<Cache>,
    /// `None` where no pages are kept on disk.
    pub(crate) disk: Option<Arc<DiskCache>>,
    pub(crate) shared: SharedCaches,
    /// Blocks of which a page was damaged.
    pub(crate) doubted: Doubted,
    /// Pages that requests read now.
    pub(crate) flights: Flights,
    /// The memory of the pages that are cached.
    pub(crate) pool: PagePool,
    pub(crate) hedge: Arc<Hedge>,
    pub(crate) retry: Retry,
    /// The runtime on which requests run while a thread that may block waits for them.
    pub(crate) runtime: Handle,
}

/// Blocks of which damaged bytes were read. Their pages are not taken from disk or from a shared cache any more: the bytes may have been damaged on
/// their way from the bucket into the cache.
#[derive(Clone, Debug, Default)]
pub(crate) struct Doubted(Arc<Mutex<BTreeSet<BlockKey>>>);

impl Doubted {
    pub(crate) fn contains(&self, block: BlockKey) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&block)
    }

    /// Forgets the blocks that are gone.
    pub(crate) fn keep_only(&self, is_known: impl Fn(BlockKey) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|block| is_known(*block));
    }
}

impl PageSource {
    /// Reads the pages of a block from the bucket again, because one of them is damaged.
    pub(crate) fn doubt(&self, block: BlockKey) {
        self.doubted.0.lock().unwrap_or_else(PoisonError::into_inner).insert(block);
        self.cache.forget(block);
    }
}
