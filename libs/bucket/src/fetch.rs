//! The view of a bucket: which blocks there are, by their metas, and which of them concern the caller.
//!
//! ```text
//! ids        listed, each with or without a meta.json
//! metas      from memory, from <data-dir>/meta-syncer/<ULID>/meta.json, from the bucket
//! filters    time, shard, consistency delay, deletion marks, replica labels, duplicates, in Thanos' order
//! view       what is left; beside it what is partial, corrupt or could not be read
//! ```
//!
//! Specified by `pkg/block/fetcher.go` of Thanos, with two differences: a `meta.json` that is no meta puts the block
//! on a list of corrupt ones instead of that of partial uploads (which are deleted in the end), and a meta that names
//! another block is corrupt too.

mod cache;
mod filters;
mod metrics;
mod selector;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures::{StreamExt, TryStreamExt};
use model::Timestamp;
use tsdb::{BlockMeta, Ulid};

pub use self::filters::Filters;
pub use self::metrics::{BlockState, FetchMetrics};
pub use self::selector::{SelectorError, parse_selector};
use crate::bucket::Bucket;
use crate::error::BucketError;
use crate::layout;
use crate::marks::{self, Mark, MarkKind, MarkState};
use crate::retry::Retry;

/// How blocks are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Discovery {
    /// List the top of the bucket, then look for each block's `meta.json`: few names listed, many small requests.
    #[default]
    Concurrent,
    /// List everything: one long listing, which also tells which metas changed and which blocks are marked.
    Recursive,
}

impl std::str::FromStr for Discovery {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "concurrent" => Ok(Self::Concurrent),
            "recursive" => Ok(Self::Recursive),
            other => Err(format!("{other:?} is neither \"concurrent\" nor \"recursive\"")),
        }
    }
}

/// How to fetch.
#[derive(Clone, Debug)]
pub struct FetchOptions {
    /// How blocks are found.
    pub discovery: Discovery,
    /// The role's data folder; metas are kept in `meta-syncer` below it. `None`: only in memory.
    pub data_dir: Option<PathBuf>,
    /// Requests on their way at once; default 32.
    pub concurrency: usize,
    /// Which blocks concern the caller.
    pub filters: Filters,
    /// Marks that are read for every block beside the deletion marks that a filter needs.
    pub gather: Vec<MarkKind>,
    /// Repetition of what failed for a reason that may pass.
    pub retry: Retry,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self {
            discovery: Discovery::default(),
            data_dir: None,
            concurrency: 32,
            filters: Filters::default(),
            gather: Vec::new(),
            retry: Retry::default(),
        }
    }
}

/// What a bucket holds, as far as the filters let it through.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The blocks that concern the caller.
    pub blocks: BTreeMap<Ulid, Arc<BlockMeta>>,
    /// Blocks without a `meta.json`: being uploaded, being deleted, or abandoned.
    pub partial: BTreeSet<Ulid>,
    /// Blocks whose `meta.json` is no meta, or that of another block, and why. To be looked at by a person; never
    /// to be deleted by a program.
    pub corrupt: BTreeMap<Ulid, String>,
    /// Blocks of which something could not be read, and why. Not empty in an incomplete view only.
    pub failed: BTreeMap<Ulid, String>,
    /// Marks of the kinds that were asked for, of all blocks that were not filtered out before.
    pub marks: BTreeMap<(MarkKind, Ulid), Mark>,
    /// Blocks all of whose sources are in another block; left out of [`View::blocks`].
    pub duplicates: BTreeSet<Ulid>,
    /// How many blocks are in which state, as the metric `thanos_blocks_meta_synced` tells.
    pub counts: BTreeMap<BlockState, usize>,
}

/// Why there is no view, or none that is whole.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The blocks could not even be listed.
    #[error(transparent)]
    Listing(#[from] BucketError),
    /// Something of some blocks could not be read. What could be is here: good enough to serve from, never to
    /// delete by.
    #[error("incomplete view of the bucket: {} of {} blocks could not be read, the first: {}",
        view.failed.len(), view.failed.len() + view.blocks.len(),
        view.failed.values().next().map_or("", String::as_str))]
    Incomplete {
        /// What could be read.
        view: Box<View>,
    },
}

/// Keeps a view of a bucket, cheaply from one call to the next.
#[derive(Debug)]
pub struct Fetcher {
    bucket: Bucket,
    options: FetchOptions,
    metrics: FetchMetrics,
    disk: Option<cache::DiskCache>,
    memory: Mutex<BTreeMap<Ulid, Known>>,
}

/// A meta from an earlier fetch, with the time its object was written where the discovery tells it.
#[derive(Clone, Debug)]
struct Known {
    meta: Arc<BlockMeta>,
    written: Option<Timestamp>,
}

/// A block as a listing shows it.
#[derive(Clone, Debug, Default)]
struct Found {
    has_meta: bool,
    meta_written: Option<Timestamp>,
    /// The marks that are there; `None` where the discovery does not tell.
    marks: Option<BTreeSet<MarkKind>>,
}

enum Loaded {
    Meta(Known),
    Absent,
    Corrupt(String),
    Failed(String),
}

impl Fetcher {
    /// A fetcher that has seen nothing yet.
    ///
    /// # Errors
    /// When the cache's folder cannot be made.
    pub fn new(bucket: Bucket, options: FetchOptions, metrics: FetchMetrics) -> std::io::Result<Self> {
        let disk = options.data_dir.as_deref().map(cache::DiskCache::open).transpose()?;
        Ok(Self { bucket, options, metrics, disk, memory: Mutex::default() })
    }

    /// Looks at the bucket. `now` is what relative times and ages count from.
    ///
    /// # Errors
    /// See [`FetchError`]: an incomplete view is an error that holds what was read.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the cache as it was, or with more in it.
    pub async fn fetch(&self, now: Timestamp) -> Result<View, FetchError> {
        let start = Instant::now();
        self.metrics.begin();
        let result = self.look(now).await;
        self.metrics.end(start.elapsed(), &result);
        result
    }

    async fn look(&self, now: Timestamp) -> Result<View, FetchError> {
        let found = match self.options.discovery {
            Discovery::Concurrent => self.discover_each().await?,
            Discovery::Recursive => self.discover_all().await?,
        };
        let mut view = View::default();
        let with_meta = found.iter().filter(|(_, found)| found.has_meta);
        let loads = with_meta.map(|(block, found)| async { (*block, self.load(*block, found).await) });
        let loaded: Vec<(Ulid, Loaded)> =
            futures::stream::iter(loads).buffer_unordered(self.concurrency()).collect().await;
        let mut known = BTreeMap::new();
        view.partial = found.iter().filter(|(_, found)| !found.has_meta).map(|(block, _)| *block).collect();
        for (block, loaded) in loaded {
            match loaded {
                Loaded::Meta(meta) => _ = known.insert(block, meta),
                // Removed since the listing.
                Loaded::Absent => _ = view.partial.insert(block),
                Loaded::Corrupt(reason) => {
                    tracing::warn!("block {block} in bucket {:?} is corrupt: {reason}", self.bucket.name());
                    view.corrupt.insert(block, reason);
                }
                Loaded::Failed(reason) => _ = view.failed.insert(block, reason),
            }
        }
        view.count(BlockState::NoMeta, view.partial.len());
        view.count(BlockState::Corrupt, view.corrupt.len());
        view.blocks = known.iter().map(|(block, known)| (*block, Arc::clone(&known.meta))).collect();
        if view.failed.is_empty() {
            // Only a complete view says which metas are no longer needed.
            if let Some(disk) = &self.disk {
                disk.keep_only(&known.keys().copied().collect());
            }
            *self.memory.lock().unwrap_or_else(PoisonError::into_inner) = known;
        }
        self.filter(&mut view, &found, now).await;
        view.count(BlockState::Failed, view.failed.len());
        view.count(BlockState::Loaded, view.blocks.len());
        if view.failed.is_empty() { Ok(view) } else { Err(FetchError::Incomplete { view: Box::new(view) }) }
    }

    fn concurrency(&self) -> usize {
        self.options.concurrency.max(1)
    }

    /// One listing of the top, then a question for each block.
    async fn discover_each(&self) -> Result<BTreeMap<Ulid, Found>, BucketError> {
        let retry = self.options.retry;
        let listing = retry.run(|| self.bucket.list_dir("")).await?;
        let blocks = listing.dirs.iter().filter_map(|dir| tsdb::parse_block_id(dir));
        let looks = blocks.map(|block| async move {
            let name = layout::meta(block);
            let has_meta = retry.run(|| self.bucket.exists(&name)).await?;
            Ok::<_, BucketError>((block, Found { has_meta, ..Found::default() }))
        });
        futures::stream::iter(looks).buffer_unordered(self.concurrency() * 2).try_collect().await
    }

    /// One listing of everything.
    async fn discover_all(&self) -> Result<BTreeMap<Ulid, Found>, BucketError> {
        let read = || async {
            let mut found: BTreeMap<Ulid, Found> = BTreeMap::new();
            let mut objects = self.bucket.list("");
            while let Some(object) = objects.try_next().await? {
                let Some((block, file)) = layout::split(&object.name) else { continue };
                let found = found.entry(block).or_default();
                let marks = found.marks.get_or_insert_default();
                if file == layout::META_FILE {
                    found.has_meta = true;
                    found.meta_written = Some(object.last_modified);
                } else if let Some(kind) = MarkKind::ALL.into_iter().find(|kind| kind.file() == file) {
                    marks.insert(kind);
                }
            }
            Ok(found)
        };
        self.options.retry.run(read).await
    }

    async fn load(&self, block: Ulid, found: &Found) -> Loaded {
        let known = self.memory.lock().unwrap_or_else(PoisonError::into_inner).get(&block).cloned();
        let has_changed = |known: &Known| match (known.written, found.meta_written) {
            (Some(then), Some(now)) => then != now,
            _ => false,
        };
        match known {
            Some(known) if !has_changed(&known) => return Loaded::Meta(known),
            Some(_) => {
                self.metrics.cache_bust();
                if let Some(disk) = &self.disk {
                    disk.forget(block);
                }
            }
            None => {
                // Only metas with the same time are of the object that is there now.
                if let Some(meta) = self.disk.as_ref().and_then(|disk| disk.read(block, found.meta_written)) {
                    return Loaded::Meta(Known { meta: Arc::new(meta), written: found.meta_written });
                }
            }
        }
        let name = layout::meta(block);
        let content = match self.options.retry.run(|| self.bucket.get(&name)).await {
            Ok(content) => content,
            Err(error) if error.is_not_found() => return Loaded::Absent,
            Err(error) => return Loaded::Failed(error.to_string()),
        };
        match BlockMeta::parse(&content) {
            Ok(meta) if meta.ulid == block => {
                if let Some(disk) = &self.disk {
                    disk.write(block, &content, found.meta_written);
                }
                Loaded::Meta(Known { meta: Arc::new(meta), written: found.meta_written })
            }
            Ok(meta) => Loaded::Corrupt(format!("its meta.json is that of block {}", meta.ulid)),
            Err(error) => Loaded::Corrupt(error.to_string()),
        }
    }

    async fn filter(&self, view: &mut View, found: &BTreeMap<Ulid, Found>, now: Timestamp) {
        let filters = &self.options.filters;
        filters.by_time(view, now);
        filters.by_shard(view);
        filters.by_age(view, now);
        let mut kinds: BTreeSet<MarkKind> = self.options.gather.iter().copied().collect();
        if filters.ignore_marked_after.is_some() {
            kinds.insert(MarkKind::Deletion);
        }
        for kind in kinds {
            self.gather(view, found, kind).await;
        }
        filters.by_deletion_mark(view, now);
        let changed = filters.remove_replica_labels(view);
        self.metrics.replica_labels_removed(changed);
        filters.deduplicate(view);
        // Counted beside "loaded", for those that are left.
        for (kind, state) in [
            (MarkKind::NoCompact, BlockState::MarkedForNoCompaction),
            (MarkKind::NoDownsample, BlockState::MarkedForNoDownsample),
        ] {
            let marked = view.marks.keys().filter(|(k, block)| *k == kind && view.blocks.contains_key(block));
            let marked = marked.count();
            view.count(state, marked);
        }
    }

    /// Reads the marks of one kind of all blocks in the view.
    async fn gather(&self, view: &mut View, found: &BTreeMap<Ulid, Found>, kind: MarkKind) {
        let may_have = |block: &&Ulid| {
            let marks = found.get(*block).and_then(|found| found.marks.as_ref());
            marks.is_none_or(|marks| marks.contains(&kind))
        };
        let reads = view.blocks.keys().copied().filter(|block| may_have(&block)).map(|block| async move {
            let read = self.options.retry.run(|| marks::read(&self.bucket, block, kind)).await;
            (block, read)
        });
        let reads: Vec<_> = futures::stream::iter(reads).buffer_unordered(self.concurrency()).collect().await;
        for (block, read) in reads {
            match read {
                Ok(MarkState::Marked(mark)) => _ = view.marks.insert((kind, block), mark),
                Ok(MarkState::Absent | MarkState::Unusable(_)) => {}
                Err(error) => _ = view.failed.insert(block, error.to_string()),
            }
        }
    }
}

impl View {
    /// Adds to the count of a state.
    fn count(&mut self, state: BlockState, blocks: usize) {
        *self.counts.entry(state).or_default() += blocks;
    }
}
