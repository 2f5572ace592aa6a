//! The view of a bucket: which blocks it has, by their metas, and which of them the caller needs.
//!
//! ```text
//! ids        listed, each with or without a meta.json
//! metas      from memory, from <data-dir>/meta-syncer/<ULID>/meta.json, from the bucket
//! deletions  of series, from the marks in isthmus/tombstones
//! filters    time, shard, consistency delay, deletion marks, replica labels, duplicates, in Thanos' order
//! view       the remaining blocks, and which blocks are partial, corrupt or could not be read
//! ```
//!
//! Specified by `pkg/block/fetcher.go` of Thanos, with two differences: a block whose `meta.json` cannot be used is reported
//! as corrupt instead of as a partial upload (Thanos deletes those in the end), and so is a block whose meta has another
//! id.

mod cache;
mod filters;
mod from_index;
mod metrics;
mod selector;
#[cfg(test)]
mod tests;
mod tombstones;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures::{StreamExt, TryStreamExt};
use model::Timestamp;
use tsdb::{BlockMeta, Ulid};

pub use self::filters::{BLOCK_ID_LABEL, Filters, covered_blocks};
pub use self::metrics::FetchMetrics;
pub use self::selector::{SelectorError, parse_selector};
pub use self::view::{BlockState, BucketView, FetchError};
use crate::bucket::Bucket;
use crate::bucket_index::BucketContent;
use crate::error::{BucketError, ErrorKind};
use crate::layout;
use crate::marks::{self, MarkKind, MarkState};
use crate::retry::Retry;

/// A view is built from at most so many looks at a bucket.
const MOST_LOOKS: usize = 5;

/// How blocks are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Discovery {
    /// List the top of the bucket, then request the existence of each block's `meta.json`: a short listing and many small
    /// requests.
    #[default]
    Concurrent,
    /// List everything: one long listing, which also shows which metas changed and which blocks have marks.
    Recursive,
}

impl std::str::FromStr for Discovery {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "concurrent" => Ok(Self::Concurrent),
            "recursive" => Ok(Self::Recursive),
            other => Err(format!("{other:?} is unknown, expected \"concurrent\" or \"recursive\"")),
        }
    }
}

/// How to fetch.
#[derive(Clone, Debug)]
pub struct FetchOptions {
    /// How blocks are found.
    pub discovery: Discovery,
    /// The role's data folder; metas are cached in `meta-syncer` below it. `None`: metas are cached in memory only.
    pub data_dir: Option<PathBuf>,
    /// Concurrent requests; default 32.
    pub concurrency: usize,
    /// Which blocks the caller needs.
    pub filters: Filters,
    /// Kinds of marks that are loaded for every block, in addition to deletion marks if a filter needs them.
    pub gather: Vec<MarkKind>,
    /// Retries of operations that failed for a reason that may pass.
    pub retry: Retry,
    /// Whether a fresh index of the bucket is used instead of a listing. Not for a program that decides by the view what to write or
    /// to remove.
    pub uses_index: bool,
    /// Whether the content of the bucket before the filters is kept as [`BucketView::content`], with the marks of all blocks.
    pub keeps_content: bool,
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
            uses_index: false,
            keeps_content: false,
        }
    }
}

/// Fetches views of a bucket. Metas are cached, so that each is fetched once.
#[derive(Debug)]
pub struct Fetcher {
    bucket: Bucket,
    options: FetchOptions,
    metrics: FetchMetrics,
    disk: Option<cache::DiskCache>,
    memory: Mutex<BTreeMap<Ulid, KnownMeta>>,
    tombstones: tombstones::TombstonesCache,
    index: Mutex<from_index::IndexState>,
    used_index: Mutex<Option<u64>>,
}

/// A meta from an earlier fetch. `written` is the time of its object, if the discovery reports it.
#[derive(Clone, Debug)]
struct KnownMeta {
    meta: Arc<BlockMeta>,
    written: Option<Timestamp>,
}

/// A block as the discovery found it.
#[derive(Clone, Debug, Default)]
struct ListedBlock {
    has_meta: bool,
    meta_written: Option<Timestamp>,
    /// The marks of the block; `None` if the discovery does not report them.
    marks: Option<BTreeSet<MarkKind>>,
}

enum LoadedMeta {
    Meta(KnownMeta),
    Absent,
    Corrupt(String),
    Failed(String),
}

impl Fetcher {
    /// A fetcher with an empty cache in memory.
    ///
    /// # Errors
    /// If the folder of the cache cannot be created.
    pub fn new(bucket: Bucket, options: FetchOptions, metrics: FetchMetrics) -> std::io::Result<Self> {
        let disk = options.data_dir.as_deref().map(cache::DiskCache::open).transpose()?;
        Ok(Self {
            bucket,
            options,
            metrics,
            disk,
            memory: Mutex::default(),
            tombstones: Mutex::default(),
            index: Mutex::default(),
            used_index: Mutex::default(),
        })
    }

    /// Fetches a view of the bucket. Relative times and ages count from `now`.
    ///
    /// # Errors
    /// See [`FetchError`]: an incomplete view is an error that contains what could be read.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the cache unchanged, or with additional metas.
    pub async fn fetch(&self, now: Timestamp) -> Result<BucketView, FetchError> {
        let start = Instant::now();
        self.metrics.begin();
        let result = self.build_view(now).await;
        self.metrics.end(start.elapsed(), &result);
        result
    }

    async fn build_view(&self, now: Timestamp) -> Result<BucketView, FetchError> {
        if self.options.uses_index
            && let Some(index) = self.usable_index(now).await
        {
            return Ok(counted(self.view_of_index(&index, now)));
        }
        let (found, loaded) = self.look().await?;
        let mut view = BucketView::default();
        let mut known = BTreeMap::new();
        view.partial = found.iter().filter(|(_, found)| !found.has_meta).map(|(block, _)| *block).collect();
        for (block, loaded) in loaded {
            match loaded {
                LoadedMeta::Meta(meta) => _ = known.insert(block, meta),
                // It was removed after the last listing.
                LoadedMeta::Absent => _ = view.partial.insert(block),
                LoadedMeta::Corrupt(reason) => {
                    let bucket = self.bucket.name();
                    tracing::warn!(%block, bucket, %reason, "block is corrupt and is ignored");
                    view.corrupt.insert(block, reason);
                }
                LoadedMeta::Failed(reason) => _ = view.failed.insert(block, reason),
            }
        }
        view.blocks = known.iter().map(|(block, known)| (*block, Arc::clone(&known.meta))).collect();
        // After the blocks: the deletions of a merged block are written before its `meta.json`.
        self.mask(&mut view).await?;
        if view.failed.is_empty() {
            // Only a complete view shows which metas are no longer needed.
            if let Some(disk) = &self.disk {
                disk.keep_only(&known.keys().copied().collect());
            }
            *self.memory.lock().unwrap_or_else(PoisonError::into_inner) = known;
        }
        if self.options.keeps_content {
            for kind in MarkKind::ALL {
                self.gather(&mut view, &found, kind).await;
            }
            view.content = content(&view);
            self.filter_before_marks(&mut view, now);
            self.keep_marks_of_view(&mut view);
        } else {
            self.filter_before_marks(&mut view, now);
            for kind in self.kinds() {
                self.gather(&mut view, &found, kind).await;
            }
        }
        self.filter_by_marks(&mut view, now);
        let view = counted(view);
        if view.failed.is_empty() { Ok(view) } else { Err(FetchError::Incomplete { view: Box::new(view) }) }
    }

    /// Finds the blocks and reads their metas.
    ///
    /// If a block is removed meanwhile, what has its samples can be newer than the listing. Then this is done again: the view would
    /// lack both.
    async fn look(&self) -> Result<(BTreeMap<Ulid, ListedBlock>, Vec<(Ulid, LoadedMeta)>), BucketError> {
        let known = self.memory.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect();
        let mut before: BTreeSet<Ulid> = known;
        let mut looks = 1;
        loop {
            let found = match self.options.discovery {
                Discovery::Concurrent => self.discover_each().await?,
                Discovery::Recursive => self.discover_all().await?,
            };
            let with_meta = found.iter().filter(|(_, found)| found.has_meta);
            let loads = with_meta.map(|(block, found)| async { (*block, self.load(*block, found).await) });
            let loaded: Vec<(Ulid, LoadedMeta)> =
                futures::stream::iter(loads).buffer_unordered(self.concurrency()).collect().await;
            let is_there = |(_, loaded): &&(Ulid, LoadedMeta)| !matches!(loaded, LoadedMeta::Absent);
            let there: BTreeSet<Ulid> = loaded.iter().filter(is_there).map(|(block, _)| *block).collect();
            if there.len() == loaded.len() && before.is_subset(&there) {
                return Ok((found, loaded));
            }
            if looks == MOST_LOOKS {
                let bucket = self.bucket.name();
                tracing::warn!(bucket, looks, "blocks are removed while the bucket is looked at");
                return Ok((found, loaded));
            }
            (before, looks) = (there, looks + 1);
        }
    }

    fn concurrency(&self) -> usize {
        self.options.concurrency.max(1)
    }

    /// One listing of the top, then a request for each block.
    async fn discover_each(&self) -> Result<BTreeMap<Ulid, ListedBlock>, BucketError> {
        let retry = self.options.retry;
        let listing = retry.run(|| self.bucket.list_dir("")).await?;
        let blocks = listing.dirs.iter().filter_map(|dir| tsdb::parse_block_id(dir));
        let looks = blocks.map(|block| async move {
            let name = layout::meta(block);
            let has_meta = retry.run(|| self.bucket.exists(&name)).await?;
            Ok::<_, BucketError>((block, ListedBlock { has_meta, ..ListedBlock::default() }))
        });
        futures::stream::iter(looks).buffer_unordered(self.concurrency() * 2).try_collect().await
    }

    /// One listing of everything.
    async fn discover_all(&self) -> Result<BTreeMap<Ulid, ListedBlock>, BucketError> {
        let read = || async {
            let mut found: BTreeMap<Ulid, ListedBlock> = BTreeMap::new();
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

    async fn load(&self, block: Ulid, found: &ListedBlock) -> LoadedMeta {
        let known = self.memory.lock().unwrap_or_else(PoisonError::into_inner).get(&block).cloned();
        let has_changed = |known: &KnownMeta| match (known.written, found.meta_written) {
            (Some(then), Some(now)) => then != now,
            _ => false,
        };
        match known {
            Some(known) if !has_changed(&known) => return LoadedMeta::Meta(known),
            Some(_) => {
                self.metrics.cache_bust();
                if let Some(disk) = &self.disk {
                    disk.remove(block);
                }
            }
            None => {
                // A cached meta is valid only if its object still has the same time.
                if let Some(meta) = self.disk.as_ref().and_then(|disk| disk.read(block, found.meta_written)) {
                    return LoadedMeta::Meta(KnownMeta { meta: Arc::new(meta), written: found.meta_written });
                }
            }
        }
        let name = layout::meta(block);
        let content = match self.options.retry.run(|| self.bucket.get(&name)).await {
            Ok(content) => content,
            Err(error) if error.is_not_found() => return LoadedMeta::Absent,
            Err(error) if error.kind() == ErrorKind::TooLarge => {
                return LoadedMeta::Corrupt(error.to_string());
            }
            Err(error) => return LoadedMeta::Failed(error.to_string()),
        };
        match BlockMeta::parse(&content) {
            Ok(meta) if meta.ulid == block => {
                if let Some(disk) = &self.disk {
                    disk.write(block, &content, found.meta_written);
                }
                LoadedMeta::Meta(KnownMeta { meta: Arc::new(meta), written: found.meta_written })
            }
            Ok(meta) => LoadedMeta::Corrupt(format!("its meta.json is that of block {}", meta.ulid)),
            Err(error) => LoadedMeta::Corrupt(error.to_string()),
        }
    }

    /// The kinds of marks that the options request.
    fn kinds(&self) -> BTreeSet<MarkKind> {
        let mut kinds: BTreeSet<MarkKind> = self.options.gather.iter().copied().collect();
        if self.options.filters.ignore_marked_after.is_some() {
            kinds.insert(MarkKind::Deletion);
        }
        kinds
    }

    fn filter_before_marks(&self, view: &mut BucketView, now: Timestamp) {
        let filters = &self.options.filters;
        filters.by_time(view, now);
        filters.by_shard(view);
        filters.by_age(view, now);
    }

    /// Leaves the marks of the requested kinds of blocks that passed the first filters.
    fn keep_marks_of_view(&self, view: &mut BucketView) {
        let (kinds, blocks) = (self.kinds(), &view.blocks);
        let is_wanted = |key: &(MarkKind, Ulid)| kinds.contains(&key.0) && blocks.contains_key(&key.1);
        view.marks.retain(|key, _| is_wanted(key));
        view.unusable_marks.retain(|key, _| is_wanted(key));
    }

    fn filter_by_marks(&self, view: &mut BucketView, now: Timestamp) {
        let filters = &self.options.filters;
        filters.by_deletion_mark(view, now);
        let changed = filters.remove_replica_labels(view);
        self.metrics.replica_labels_removed(changed);
        filters.deduplicate(view);
        // Counted in addition to "loaded", for the remaining blocks.
        for (kind, state) in [
            (MarkKind::NoCompact, BlockState::MarkedForNoCompaction),
            (MarkKind::NoDownsample, BlockState::MarkedForNoDownsample),
        ] {
            let marked = view.marks.keys().filter(|(k, block)| *k == kind && view.blocks.contains_key(block));
            let marked = marked.count();
            view.count(state, marked);
        }
    }

    /// Loads the marks of one kind of all blocks in the view.
    async fn gather(&self, view: &mut BucketView, found: &BTreeMap<Ulid, ListedBlock>, kind: MarkKind) {
        let may_have = |block: &&Ulid| {
            let marks = found.get(*block).and_then(|found| found.marks.as_ref());
            marks.is_none_or(|marks| marks.contains(&kind))
        };
        let reads = view.blocks.keys().copied().filter(|block| may_have(&block)).map(|block| async move {
            let read = self.options.retry.run(|| marks::load(&self.bucket, block, kind)).await;
            (block, read)
        });
        let reads: Vec<_> = futures::stream::iter(reads).buffer_unordered(self.concurrency()).collect().await;
        for (block, read) in reads {
            match read {
                Ok(MarkState::Marked(mark)) => _ = view.marks.insert((kind, block), mark),
                Ok(MarkState::Absent) => {}
                Ok(MarkState::Unusable(reason)) => _ = view.unusable_marks.insert((kind, block), reason),
                Err(error) => _ = view.failed.insert(block, error.to_string()),
            }
        }
    }
}

/// The view with the numbers of its blocks, and with the deletions of these only.
fn counted(mut view: BucketView) -> BucketView {
    let blocks = &view.blocks;
    view.deletions.retain(|block, _| blocks.contains_key(block));
    view.count(BlockState::NoMeta, view.partial.len());
    view.count(BlockState::Corrupt, view.corrupt.len());
    view.count(BlockState::Failed, view.failed.len());
    view.count(BlockState::Loaded, view.blocks.len());
    view
}

/// What the bucket contains, by a view before its filters; `None` if a part of it is unknown.
fn content(view: &BucketView) -> Option<Arc<BucketContent>> {
    let content = || BucketContent {
        blocks: view.blocks.clone(),
        partial: view.partial.clone(),
        corrupt: view.corrupt.clone(),
        marks: view.marks.clone(),
        unusable_marks: view.unusable_marks.clone(),
        tombstones: view.tombstones.clone(),
    };
    view.failed.is_empty().then(|| Arc::new(content()))
}
