//! The blocks that are open: opened when a request needs them, closed when they were idle for long or there are too many, kept
//! away from requests for a while when they cannot be read.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bucket::{BlockFault, Bucket, BucketFile, ManifestFile, OpenBlockError, layout, manifest_of};
use tokio::sync::OnceCell;
use tokio::time::Instant;
use tsdb::{Block, BlockError, BlockMeta, BlockPart, BlockParts, IndexMemory, ReadAt};

use crate::cache::{BlockKey, FileKey};
use crate::catalog::KnownBlock;
use crate::header::HeaderFolder;
use crate::page_source::PageSource;
use crate::pages::PagedFile;
use crate::reading::{NO_ANSWER, ReadContext};

/// A block that cannot be read is tried again after this time.
const QUARANTINE: Duration = Duration::from_secs(300);
/// Larger files are refused: pages are numbered with 32 bits.
const MAX_FILE_BYTES: u64 = 1 << 46;

/// A block, opened for reading.
pub(crate) struct OpenBlock {
    pub(crate) known: Arc<KnownBlock>,
    pub(crate) block: Block,
    source: PageSource,
    is_doubted: AtomicBool,
    /// Set when the files in the bucket were found to be those that `meta.json` lists.
    compared: OnceCell<()>,
}

impl OpenBlock {
    /// Notes that damaged bytes were read. Returns whether it is worth reading them again: the first time, from the bucket.
    pub(crate) fn doubt(&self) -> bool {
        let is_first = !self.is_doubted.swap(true, Ordering::Relaxed);
        if is_first {
            self.source.doubt(self.known.key);
        }
        is_first
    }
}

/// Why a block, or a part of it, cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlockFailure {
    pub(crate) key: BlockKey,
    pub(crate) fault: BlockFault,
    /// One line that names the block.
    pub(crate) reason: String,
}

impl BlockFailure {
    pub(crate) fn of_read(key: BlockKey, error: &BlockError) -> Self {
        Self { key, fault: BlockFault::of_read(error), reason: error.to_string() }
    }

    fn of_open(key: BlockKey, error: &OpenBlockError) -> Self {
        Self { key, fault: error.fault(), reason: error.to_string() }
    }

    /// Whether the block itself is at fault, and not the way to it.
    pub(crate) fn is_of_block(&self) -> bool {
        matches!(self.fault, BlockFault::Corrupt | BlockFault::NewerVersion)
    }
}

/// How blocks are opened.
pub(crate) struct BlocksOptions {
    /// The buckets of the store.
    pub(crate) buckets: Vec<Bucket>,
    /// What their files share.
    pub(crate) source: PageSource,
    /// `None` if no index headers are kept.
    pub(crate) headers: Option<HeaderFolder>,
    /// Most bytes of memory of the indexes of open blocks that no request uses.
    pub(crate) index_bytes: u64,
    /// Blocks that no request used for this long are closed.
    pub(crate) idle: Duration,
}

/// The state of what the files of blocks share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SharedState {
    /// Bytes of the cache in memory.
    pub(crate) cache_bytes: u64,
    /// Bytes of the cache on disk, if there is one.
    pub(crate) disk_bytes: Option<u64>,
    /// Requests to buckets that were sent twice.
    pub(crate) hedged: u64,
}

/// The blocks that are open.
pub(crate) struct Blocks {
    options: Arc<BlocksOptions>,
    slots: Mutex<BTreeMap<BlockKey, Slot>>,
    quarantine: Mutex<BTreeMap<BlockKey, Quarantined>>,
}

#[derive(Clone)]
struct Slot {
    block: Arc<OnceCell<Arc<OpenBlock>>>,
    used: Instant,
}

struct Quarantined {
    failure: BlockFailure,
    until: Instant,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Blocks {
    pub(crate) fn new(options: BlocksOptions) -> Self {
        Self { options: Arc::new(options), slots: Mutex::default(), quarantine: Mutex::default() }
    }

    /// The block, opened, with its files compared.
    ///
    /// # Errors
    /// As [`Blocks::open`] and [`Blocks::compare`].
    pub(crate) async fn open_compared(
        &self,
        known: &Arc<KnownBlock>,
        at_once: usize,
        reads: &ReadContext,
    ) -> Result<Arc<OpenBlock>, BlockFailure> {
        let open = self.open(known, at_once, reads).await?;
        self.compare(&open, reads).await.map(|()| open)
    }

    /// Compares the files of a block in the bucket with the list in its `meta.json`. That is one request, and only the first time.
    ///
    /// # Errors
    /// When a file is missing or has another size, or the bucket does not answer.
    pub(crate) async fn compare(&self, open: &OpenBlock, reads: &ReadContext) -> Result<(), BlockFailure> {
        let listed = open.compared.get_or_try_init(|| async { self.list(&open.known).await.map(|_| ()) });
        let listed = reads.in_time(listed).await.unwrap_or_else(|| Err(self.no_answer(open.known.key)));
        listed.copied().inspect_err(|failure| self.note_failure(failure))
    }

    fn no_answer(&self, key: BlockKey) -> BlockFailure {
        let bucket = self.options.buckets.get(usize::from(key.bucket)).map_or("", |bucket| bucket.name());
        let reason = format!("block {}: bucket {bucket} {NO_ANSWER}", key.block);
        BlockFailure { key, fault: BlockFault::Unavailable, reason }
    }

    /// The block, opened. `at_once` is the number of blocks that the request opens: the more, the less each keeps in memory. Where
    /// `meta.json` lists its files, they are not compared with the bucket: [`Blocks::compare`] does that while the first series
    /// are read.
    ///
    /// # Errors
    /// When it cannot be opened, or could not be a short time ago.
    pub(crate) async fn open(
        &self,
        known: &Arc<KnownBlock>,
        at_once: usize,
        reads: &ReadContext,
    ) -> Result<Arc<OpenBlock>, BlockFailure> {
        if let Some(failure) = self.quarantined(known.key) {
            return Err(failure);
        }
        let slot = {
            let mut slots = lock(&self.slots);
            let slot = slots
                .entry(known.key)
                .or_insert_with(|| Slot { block: Arc::default(), used: Instant::now() });
            slot.used = Instant::now();
            slot.clone()
        };
        let memory = self.index_memory(at_once);
        let opened = slot.block.get_or_try_init(|| self.open_now(known, memory));
        let opened = reads.in_time(opened).await.unwrap_or_else(|| Err(self.no_answer(known.key)));
        opened.cloned().inspect_err(|failure| self.note_failure(failure))
    }

    /// Keeps a block away from requests for a while, if the block itself is at fault.
    pub(crate) fn note_failure(&self, failure: &BlockFailure) {
        if !failure.is_of_block() {
            return;
        }
        let until = Instant::now() + QUARANTINE;
        let quarantined = Quarantined { failure: failure.clone(), until };
        if lock(&self.quarantine).insert(failure.key, quarantined).is_none() {
            tracing::error!(block = %failure.key.block, error = %failure.reason, "block cannot be read and is not served");
        }
        lock(&self.slots).remove(&failure.key);
        // When it is tried again, its bytes come from the bucket.
        self.options.source.doubt(failure.key);
        if let Some(headers) = &self.options.headers {
            headers.discard(failure.key.block);
        }
    }

    /// The blocks that could not be read a short time ago and are not tried again yet.
    pub(crate) fn quarantine(&self) -> Vec<BlockFailure> {
        let now = Instant::now();
        let quarantine = lock(&self.quarantine);
        let current = quarantine.values().filter(|quarantined| quarantined.until > now);
        current.map(|quarantined| quarantined.failure.clone()).collect()
    }

    /// Forgets blocks that are no longer in a bucket.
    pub(crate) fn keep_only(&self, is_known: impl Fn(BlockKey) -> bool) {
        lock(&self.slots).retain(|key, _| is_known(*key));
        lock(&self.quarantine).retain(|key, _| is_known(*key));
        self.options.source.doubted.keep_only(is_known);
    }

    /// Removes the index headers of blocks that are no longer in a bucket.
    pub(crate) fn keep_headers_only(&self, is_known: impl Fn(tsdb::Ulid) -> bool) {
        if let Some(headers) = &self.options.headers {
            headers.keep_only(is_known);
        }
    }

    /// Closes blocks that were idle for long, then those that were idle for the longest time while there are too many. Blocks
    /// that a request uses stay open.
    pub(crate) fn close_idle(&self) {
        let mut slots = lock(&self.slots);
        let is_used = |slot: &Slot| slot.block.get().is_none_or(|block| Arc::strong_count(block) > 1);
        let idle = self.options.idle;
        slots.retain(|_, slot| is_used(slot) || slot.used.elapsed() < idle);
        let bytes =
            |slot: &Slot| slot.block.get().map_or(0, |block| block.block.index().memory_bytes() as u64);
        let mut total: u64 = slots.values().map(bytes).sum();
        let mut by_age: Vec<(Instant, BlockKey)> =
            slots.iter().filter(|(_, slot)| !is_used(slot)).map(|(key, slot)| (slot.used, *key)).collect();
        by_age.sort_unstable();
        for (_, key) in by_age {
            if total <= self.options.index_bytes {
                break;
            }
            total -= slots.remove(&key).as_ref().map_or(0, bytes);
        }
    }

    /// Number of open blocks, and bytes of memory of their indexes.
    pub(crate) fn opened(&self) -> (usize, u64) {
        let slots = lock(&self.slots);
        let open = slots.values().filter_map(|slot| slot.block.get());
        let bytes = |(count, bytes): (usize, u64), block: &Arc<OpenBlock>| {
            (count + 1, bytes + block.block.index().memory_bytes() as u64)
        };
        open.fold((0, 0), bytes)
    }

    /// What the files of blocks share.
    #[cfg(test)]
    pub(crate) fn source(&self) -> &PageSource {
        &self.options.source
    }

    /// The state of what the files of blocks share.
    pub(crate) fn shared(&self) -> SharedState {
        let source = &self.options.source;
        SharedState {
            cache_bytes: source.cache.size_bytes(),
            disk_bytes: source.disk.as_ref().map(|disk| disk.size_bytes()),
            hedged: source.hedge.sent_twice(),
        }
    }

    /// Bytes of the index headers on disk.
    pub(crate) fn header_bytes(&self) -> u64 {
        self.options.headers.as_ref().map_or(0, HeaderFolder::size_bytes)
    }

    fn quarantined(&self, key: BlockKey) -> Option<BlockFailure> {
        let mut quarantine = lock(&self.quarantine);
        let found = quarantine.get(&key)?;
        if found.until > Instant::now() {
            return Some(found.failure.clone());
        }
        quarantine.remove(&key);
        None
    }

    /// What each of `at_once` blocks may keep of its index in memory.
    fn index_memory(&self, at_once: usize) -> IndexMemory {
        let each = self.options.index_bytes / (at_once.max(16) as u64);
        let (least, most) = (IndexMemory::SAMPLED, IndexMemory::default());
        if each <= least.symbols_bytes + least.postings_table_bytes {
            return least;
        }
        IndexMemory {
            symbols_bytes: (each / 4 * 3).min(most.symbols_bytes),
            postings_table_bytes: (each / 4).min(most.postings_table_bytes),
            symbol_stride: 4,
            value_stride: 64,
        }
    }

    /// Opens a block with the files that its `meta.json` lists, or else with those that are in the bucket.
    async fn open_now(
        &self,
        known: &Arc<KnownBlock>,
        memory: IndexMemory,
    ) -> Result<Arc<OpenBlock>, BlockFailure> {
        let Some(files) = listed_files(&known.meta) else {
            let files = self.list(known).await?;
            let open = self.open_files(known, files, memory).await?;
            // It is set once, here.
            let _ = open.compared.set(());
            return Ok(open);
        };
        match self.open_files(known, files, memory).await {
            // The comparison says more, such as that the block is gone.
            Err(failure) => Err(self.list(known).await.err().unwrap_or(failure)),
            open => open,
        }
    }

    /// The index and the segments of a block, found by a request to the bucket.
    async fn list(&self, known: &KnownBlock) -> Result<Vec<ManifestFile>, BlockFailure> {
        let files = self.bucket(known.key)?.block_files(&known.meta, self.options.source.retry);
        files.await.map_err(|error| BlockFailure::of_open(known.key, &error))
    }

    fn bucket(&self, key: BlockKey) -> Result<&Bucket, BlockFailure> {
        self.options.buckets.get(usize::from(key.bucket)).ok_or_else(|| {
            let reason = format!("internal error: block {} is in an unknown bucket", key.block);
            BlockFailure { key, fault: BlockFault::Unavailable, reason }
        })
    }

    async fn open_files(
        &self,
        known: &Arc<KnownBlock>,
        files: Vec<ManifestFile>,
        memory: IndexMemory,
    ) -> Result<Arc<OpenBlock>, BlockFailure> {
        let key = known.key;
        let bucket = self.bucket(key)?;
        let missing = || BlockFailure {
            key,
            fault: BlockFault::Corrupt,
            reason: format!("block {}: the index is missing", key.block),
        };
        let file = files.iter().find(|file| file.path == layout::INDEX_FILE).ok_or_else(missing)?;
        let index = self.index(bucket, key, file).await?;
        let segments: Vec<Arc<dyn ReadAt>> = (1..)
            .zip(files.iter().filter(|file| file.path != layout::INDEX_FILE))
            .map(|(number, file)| Arc::new(self.paged(bucket, key, file, number)) as Arc<dyn ReadAt>)
            .collect();
        let source = &self.options.source;
        match assemble(known, index, segments.clone(), memory, source).await? {
            Err(error) if is_of_header(&error) && self.options.headers.is_some() => {
                // The header on disk may be damaged in a way that only its content shows.
                tracing::warn!(block = %key.block, %error, "index header is built again");
                self.options.headers.iter().for_each(|headers| headers.discard(key.block));
                let index = self.index(bucket, key, file).await?;
                let again = assemble(known, index, segments, memory, source).await?;
                again.map_err(|error| BlockFailure::of_read(key, &error))
            }
            opened => opened.map_err(|error| BlockFailure::of_read(key, &error)),
        }
    }

    /// The index of a block, with its header where headers are kept.
    async fn index(
        &self,
        bucket: &Bucket,
        key: BlockKey,
        file: &ManifestFile,
    ) -> Result<Arc<dyn ReadAt>, BlockFailure> {
        if file.size_bytes > MAX_FILE_BYTES {
            let reason =
                format!("block {}: the index has {} bytes, more than any index", key.block, file.size_bytes);
            return Err(BlockFailure { key, fault: BlockFault::Corrupt, reason });
        }
        let paged: Arc<dyn ReadAt> = Arc::new(self.paged(bucket, key, file, 0));
        if self.options.headers.is_none() {
            return Ok(paged);
        }
        let name = layout::block_file(key.block, &file.path);
        let direct =
            BucketFile::with_size(bucket, &name, file.size_bytes).with_retry(self.options.source.retry);
        let direct: Arc<dyn ReadAt> = Arc::new(direct);
        let options = Arc::clone(&self.options);
        let build = move || match &options.headers {
            Some(headers) => headers.index(key.block, paged, &direct),
            None => Ok(paged),
        };
        blocking(key, build).await?.map_err(|error| BlockFailure::of_read(key, &error))
    }

    fn paged(&self, bucket: &Bucket, key: BlockKey, file: &ManifestFile, number: u32) -> PagedFile {
        let name = layout::block_file(key.block, &file.path);
        PagedFile::new(
            &self.options.source,
            bucket,
            name,
            FileKey { block: key, file: number },
            file.size_bytes,
        )
    }
}

/// The index and the segments that `meta.json` lists, sorted by path; `None` if it does not list all of them.
fn listed_files(meta: &BlockMeta) -> Option<Vec<ManifestFile>> {
    let segments = format!("{}/", layout::CHUNKS_DIR);
    let mut files = manifest_of(meta);
    files.retain(|file| file.path == layout::INDEX_FILE || file.path.starts_with(&segments));
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let (index, chunks) =
        files.iter().partition::<Vec<&ManifestFile>, _>(|file| file.path == layout::INDEX_FILE);
    let has_no_gap =
        chunks.iter().zip(1..).all(|(file, number)| file.path == format!("{segments}{number:06}"));
    (index.len() == 1 && !chunks.is_empty() && has_no_gap).then_some(files)
}

/// Opens a block from its files.
async fn assemble(
    known: &Arc<KnownBlock>,
    index: Arc<dyn ReadAt>,
    segments: Vec<Arc<dyn ReadAt>>,
    index_memory: IndexMemory,
    source: &PageSource,
) -> Result<Result<Arc<OpenBlock>, BlockError>, BlockFailure> {
    let parts =
        BlockParts { meta: known.meta.as_ref().clone(), index, segments, tombstones: None, index_memory };
    let (known, source) = (Arc::clone(known), source.clone());
    let key = known.key;
    let open = move || {
        let opened = |block| {
            let (is_doubted, compared) = (AtomicBool::new(false), OnceCell::new());
            Arc::new(OpenBlock { known, block, source, is_doubted, compared })
        };
        Block::from_parts(key.block, parts).map(opened)
    };
    blocking(key, open).await
}

/// Runs `work` on a thread that may block.
async fn blocking<T: Send + 'static>(
    key: BlockKey,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, BlockFailure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(BlockFailure {
            key,
            fault: BlockFault::Unavailable,
            reason: format!("block {}: the program is shutting down", key.block),
        }),
    }
}

/// Whether an error is in a part of an index that a header copies.
fn is_of_header(error: &BlockError) -> bool {
    let copied =
        [BlockPart::IndexHeader, BlockPart::Symbols, BlockPart::PostingsTable, BlockPart::TableOfContents];
    copied.contains(&error.part) && BlockFault::of_read(error) == BlockFault::Corrupt
}
