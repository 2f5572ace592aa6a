//! Opens a block where it lies in the bucket. Only the parts that are needed are read, as ranges of objects.
//!
//! ```text
//! 1. meta.json and the listing of the block's folder, at the same time
//! 2. every file of the manifest is listed with its size
//! 3. the index is opened, which checks its header, its table of contents, its symbols and its postings offset table
//! ```
//!
//! An error says which object is at fault and, as a [`BlockFault`], what the caller should do about it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use tsdb::{
    Block, BlockError, BlockMeta, BlockPart, BlockParts, BlockProblem, IndexMemory, MetaError, ReadAt, Ulid,
};

use crate::bucket::Bucket;
use crate::error::{BucketError, ErrorKind};
use crate::file::BucketFile;
use crate::layout;
use crate::manifest::{ManifestFile, manifest_of};
use crate::retry::Retry;

/// How to open a block.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenBlockOptions {
    /// How often a request is repeated that failed for a reason that may pass, now and in later reads of the block.
    pub retry: Retry,
    /// What the index keeps in memory, which decides how often the store is asked for parts of it.
    pub index_memory: IndexMemory,
}

/// A block in a bucket, opened for reading.
#[derive(Debug)]
pub struct RemoteBlock {
    block: Block,
    files: Vec<ManifestFile>,
}

impl RemoteBlock {
    /// The block. Reading from it blocks the thread until the store has answered, so read on a thread that may block,
    /// as in `tokio::task::spawn_blocking`. [`BlockFault::of_read`] says what to do about an error.
    pub fn block(&self) -> &Block {
        &self.block
    }

    /// The block without its list of files.
    pub fn into_block(self) -> Block {
        self.block
    }

    /// Index and segments with their sizes, sorted by path. The hash is `None` where the uploader listed none.
    pub fn files(&self) -> &[ManifestFile] {
        &self.files
    }
}

/// What is wrong with a block, in terms of what its reader should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlockFault {
    /// The block is not in the bucket: it was removed, or its upload has not finished. Skip it.
    Gone,
    /// An object is missing or is not what was uploaded. Report the block and skip it until a person has looked at it.
    /// Never delete it for this reason.
    Corrupt,
    /// A newer program wrote the block. Skip it; it can be read after an upgrade of this program.
    NewerVersion,
    /// The store did not answer, or its answer was cut short. Nothing is known about the block. Retry later.
    Unavailable,
    /// The store refused the credential, or the configuration cannot work. Retry after a person has corrected it.
    Refused,
}

impl BlockFault {
    /// What an error means that came from reading a [`RemoteBlock`].
    ///
    /// Answers that are cut short count as [`BlockFault::Unavailable`]: the sizes of all objects were checked when the
    /// block was opened, so the store is at fault.
    pub fn of_read(error: &BlockError) -> Self {
        match &error.problem {
            BlockProblem::Io(error) => {
                let from_store = error.get_ref().and_then(|source| source.downcast_ref::<BucketError>());
                match (from_store, error.kind()) {
                    (Some(error), _) => Self::of_store(error.kind()),
                    (None, std::io::ErrorKind::UnexpectedEof) => Self::Corrupt,
                    (None, _) => Self::Unavailable,
                }
            }
            BlockProblem::Version { found, newest } if found > newest => Self::NewerVersion,
            BlockProblem::Meta(error) => Self::of_meta(error),
            _ => Self::Corrupt,
        }
    }

    fn of_store(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::NotFound => Self::Gone,
            ErrorKind::TooLarge => Self::Corrupt,
            ErrorKind::NoBucket | ErrorKind::Denied | ErrorKind::Unsupported | ErrorKind::Config => {
                Self::Refused
            }
            ErrorKind::Conflict | ErrorKind::Unavailable | ErrorKind::Corrupt | ErrorKind::Local => {
                Self::Unavailable
            }
        }
    }

    fn of_meta(error: &MetaError) -> Self {
        match error {
            MetaError::Version(version) | MetaError::ThanosVersion(version)
                if *version > BlockMeta::NEWEST_VERSION =>
            {
                Self::NewerVersion
            }
            _ => Self::Corrupt,
        }
    }
}

/// Why a block could not be opened, in one line that names the block, the bucket and the object.
#[derive(Debug)]
pub struct OpenBlockError(Box<OpenBlockDetails>);

#[derive(Debug)]
struct OpenBlockDetails {
    block: Ulid,
    bucket: String,
    object: String,
    fault: BlockFault,
    cause: OpenBlockCause,
}

#[derive(Debug)]
enum OpenBlockCause {
    Store(BucketError),
    Meta(MetaError),
    Read(BlockError),
    /// What was found instead, to be read after the object's name.
    Found(String),
}

impl OpenBlockError {
    /// The block.
    pub fn block(&self) -> Ulid {
        self.0.block
    }

    /// The object at fault, relative to the block's folder, such as `index`; empty for the folder itself.
    pub fn object(&self) -> &str {
        &self.0.object
    }

    /// What the caller should do.
    pub fn fault(&self) -> BlockFault {
        self.0.fault
    }

    /// The store's error, where a request failed.
    pub fn store_error(&self) -> Option<&BucketError> {
        match &self.0.cause {
            OpenBlockCause::Store(error) => Some(error),
            _ => None,
        }
    }
}

impl fmt::Display for OpenBlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OpenBlockDetails { block, bucket, object, fault, cause } = &*self.0;
        match cause {
            OpenBlockCause::Store(error) => write!(f, "open block {block}: {error}")?,
            OpenBlockCause::Meta(error) => write!(f, "block {block} in bucket {bucket:?}: {error}")?,
            OpenBlockCause::Read(error) => write!(f, "bucket {bucket:?}: {error}")?,
            OpenBlockCause::Found(what) => write!(f, "block {block} in bucket {bucket:?}: {object} {what}")?,
        }
        match fault {
            BlockFault::Corrupt => f.write_str("; upload the block again, or mark it for deletion"),
            BlockFault::NewerVersion => f.write_str("; upgrade this program to read the block"),
            BlockFault::Gone | BlockFault::Unavailable | BlockFault::Refused => Ok(()),
        }
    }
}

impl std::error::Error for OpenBlockError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0.cause {
            OpenBlockCause::Store(error) => Some(error),
            OpenBlockCause::Meta(error) => Some(error),
            OpenBlockCause::Read(error) => Some(error),
            OpenBlockCause::Found(_) => None,
        }
    }
}

impl Bucket {
    /// Opens a block for reading by ranges. Must be called on a Tokio runtime, which later reads use.
    ///
    /// Objects that the manifest in `meta.json` does not list are ignored, except tombstones, which no manifest lists. Without
    /// a manifest, as in blocks of old versions, the block has the index and all segments, numbered from 1 without a gap, that
    /// are in the bucket.
    ///
    /// # Errors
    /// See [`BlockFault`].
    ///
    /// # Cancel safety
    /// Nothing is written. A read of the index that has begun on a blocking thread runs to its end.
    pub async fn open_block(
        &self,
        block: Ulid,
        options: &OpenBlockOptions,
    ) -> Result<RemoteBlock, OpenBlockError> {
        BlockOpener { bucket: self, block, retry: options.retry }.open(options.index_memory).await
    }

    /// The index and the segments of the block with this `meta.json`, each with its size, sorted by path. Their sizes in the bucket
    /// are compared with the manifest.
    ///
    /// For a reader that opens the files itself; [`Bucket::open_block`] does both.
    ///
    /// # Errors
    /// See [`BlockFault`].
    pub async fn block_files(
        &self,
        meta: &BlockMeta,
        retry: Retry,
    ) -> Result<Vec<ManifestFile>, OpenBlockError> {
        let opener = BlockOpener { bucket: self, block: meta.ulid, retry };
        let listed = opener.list().await?;
        opener.find_files(meta, &listed).await
    }
}

/// One block that is being opened.
struct BlockOpener<'a> {
    bucket: &'a Bucket,
    block: Ulid,
    retry: Retry,
}

impl BlockOpener<'_> {
    async fn open(&self, index_memory: IndexMemory) -> Result<RemoteBlock, OpenBlockError> {
        let (meta, listed) = futures::future::join(self.load_meta(), self.list()).await;
        let meta = meta?;
        let listed = listed?;
        let files = self.find_files(&meta, &listed).await?;
        let reader = |file: &ManifestFile| -> Arc<dyn ReadAt> {
            let name = layout::block_file(self.block, &file.path);
            Arc::new(BucketFile::with_size(self.bucket, &name, file.size_bytes).with_retry(self.retry))
        };
        let Some(index) = files.iter().find(|file| file.path == layout::INDEX_FILE).map(reader) else {
            return Err(self.missing(layout::INDEX_FILE).await);
        };
        let segments: Vec<Arc<dyn ReadAt>> =
            files.iter().filter(|file| is_segment(&file.path)).map(reader).collect();
        let tombstones = listed.get(layout::TOMBSTONES_FILE).map(|&size_bytes| {
            reader(&ManifestFile { path: layout::TOMBSTONES_FILE.to_owned(), size_bytes, sha256: None })
        });
        let (block, parts) = (self.block, BlockParts { meta, index, segments, tombstones, index_memory });
        let opened = tokio::task::spawn_blocking(move || Block::from_parts(block, parts)).await;
        match opened {
            Ok(Ok(block)) => Ok(RemoteBlock { block, files }),
            Ok(Err(error)) => Err(self.unreadable(error).await),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => {
                let action = format!("read the index of block {}", self.block);
                let reason = "the program is shutting down";
                let error = BucketError::new(ErrorKind::Unavailable, self.bucket.name(), action, reason);
                Err(self.store(layout::INDEX_FILE, error))
            }
        }
    }

    async fn load_meta(&self) -> Result<BlockMeta, OpenBlockError> {
        let name = layout::meta(self.block);
        let content = match self.retry.run(|| self.bucket.get(&name)).await {
            Ok(content) => content,
            Err(error) if error.is_not_found() => return Err(self.gone()),
            Err(error) => return Err(self.store(layout::META_FILE, error)),
        };
        let meta = BlockMeta::parse(&content).map_err(|error| {
            self.error(layout::META_FILE, BlockFault::of_meta(&error), OpenBlockCause::Meta(error))
        })?;
        if meta.ulid == self.block {
            return Ok(meta);
        }
        Err(self.corrupt(layout::META_FILE, format!("is that of block {}", meta.ulid)))
    }

    /// The sizes of all objects in the block's folder, by path.
    async fn list(&self) -> Result<BTreeMap<String, u64>, OpenBlockError> {
        let folder = self.block.to_string();
        let objects = self.retry.run(|| self.bucket.list_all(&folder)).await;
        let objects = objects.map_err(|error| self.store("", error))?;
        let sizes =
            objects.iter().filter_map(|object| Some((layout::split(&object.name)?.1, object.size_bytes)));
        Ok(sizes.map(|(path, size_bytes)| (path.to_owned(), size_bytes)).collect())
    }

    /// Index and segments, each with the size that it has in the bucket, sorted by path.
    async fn find_files(
        &self,
        meta: &BlockMeta,
        listed: &BTreeMap<String, u64>,
    ) -> Result<Vec<ManifestFile>, OpenBlockError> {
        let mut files = manifest_of(meta);
        if files.is_empty() {
            return self.find_files_without_manifest(listed).await;
        }
        files.retain(|file| file.path == layout::INDEX_FILE || is_segment(&file.path));
        files.sort_by(|a, b| a.path.cmp(&b.path));
        for file in &files {
            let Some(size_bytes) = self.size_of(&file.path, listed).await? else {
                return Err(self.missing(&file.path).await);
            };
            if size_bytes != file.size_bytes {
                let what = format!("is {size_bytes} bytes large, its manifest says {}", file.size_bytes);
                return Err(self.corrupt(&file.path, what));
            }
        }
        let segments = files.iter().filter(|file| is_segment(&file.path));
        for (file, expected) in segments.zip((1..).map(segment_path)) {
            if file.path != expected {
                return Err(self.missing(&expected).await);
            }
        }
        Ok(files)
    }

    /// Index and segments of a block without manifest: those that are listed, and those that exist without being listed.
    async fn find_files_without_manifest(
        &self,
        listed: &BTreeMap<String, u64>,
    ) -> Result<Vec<ManifestFile>, OpenBlockError> {
        let last_listed = listed.keys().rev().find(|path| is_segment(path));
        let mut files = Vec::new();
        for path in (1..).map(segment_path) {
            match self.size_of(&path, listed).await? {
                Some(size_bytes) => files.push(ManifestFile { path, size_bytes, sha256: None }),
                None if last_listed.is_some_and(|last| *last > path) => {
                    return Err(self.missing(&path).await);
                }
                None => break,
            }
        }
        let path = layout::INDEX_FILE.to_owned();
        match self.size_of(&path, listed).await? {
            Some(size_bytes) => files.push(ManifestFile { path, size_bytes, sha256: None }),
            None => return Err(self.missing(&path).await),
        }
        Ok(files)
    }

    /// The size of an object; `None` if it does not exist. Some stores list new objects late, so an object that is not
    /// listed is looked up.
    async fn size_of(
        &self,
        path: &str,
        listed: &BTreeMap<String, u64>,
    ) -> Result<Option<u64>, OpenBlockError> {
        if let Some(size_bytes) = listed.get(path) {
            return Ok(Some(*size_bytes));
        }
        let name = layout::block_file(self.block, path);
        match self.retry.run(|| self.bucket.head(&name)).await {
            Ok(info) => Ok(Some(info.size_bytes)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(self.store(path, error)),
        }
    }

    /// The error for a file that is not there. A block is removed from its `meta.json` on, so a block without it is
    /// gone; with it the block is corrupt.
    async fn missing(&self, path: &str) -> OpenBlockError {
        let meta = layout::meta(self.block);
        match self.retry.run(|| self.bucket.exists(&meta)).await {
            Ok(true) => self.corrupt(path, "is missing"),
            Ok(false) => self.gone(),
            Err(error) => self.store(layout::META_FILE, error),
        }
    }

    /// The error for an index that cannot be read.
    async fn unreadable(&self, error: BlockError) -> OpenBlockError {
        let object = match error.part {
            BlockPart::Segment(_) | BlockPart::Meta | BlockPart::Tombstones => error.part.to_string(),
            BlockPart::Directory => String::new(),
            _ => layout::INDEX_FILE.to_owned(),
        };
        match BlockFault::of_read(&error) {
            BlockFault::Gone => self.missing(&object).await,
            fault => self.error(&object, fault, OpenBlockCause::Read(error)),
        }
    }

    fn gone(&self) -> OpenBlockError {
        let what = "does not exist: the block was removed, or its upload has not finished";
        self.error(layout::META_FILE, BlockFault::Gone, OpenBlockCause::Found(what.to_owned()))
    }

    fn corrupt(&self, object: &str, what: impl Into<String>) -> OpenBlockError {
        self.error(object, BlockFault::Corrupt, OpenBlockCause::Found(what.into()))
    }

    fn store(&self, object: &str, error: BucketError) -> OpenBlockError {
        self.error(object, BlockFault::of_store(error.kind()), OpenBlockCause::Store(error))
    }

    fn error(&self, object: &str, fault: BlockFault, cause: OpenBlockCause) -> OpenBlockError {
        let (block, bucket, object) = (self.block, self.bucket.name().to_owned(), object.to_owned());
        OpenBlockError(Box::new(OpenBlockDetails { block, bucket, object, fault, cause }))
    }
}

/// The path of a segment in a block's folder, by its number from 1 on.
fn segment_path(number: u32) -> String {
    format!("{}/{number:06}", layout::CHUNKS_DIR)
}

/// Whether a path in a block's folder is that of a segment. Other objects in `chunks/`, such as those with which some
/// tools show folders, are not read.
fn is_segment(path: &str) -> bool {
    let name = path.strip_prefix(layout::CHUNKS_DIR).and_then(|rest| rest.strip_prefix('/'));
    name.is_some_and(|name| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_store_error_has_its_fault() {
        for (kind, fault) in [
            (ErrorKind::NotFound, BlockFault::Gone),
            (ErrorKind::TooLarge, BlockFault::Corrupt),
            (ErrorKind::NoBucket, BlockFault::Refused),
            (ErrorKind::Denied, BlockFault::Refused),
            (ErrorKind::Unsupported, BlockFault::Refused),
            (ErrorKind::Config, BlockFault::Refused),
            (ErrorKind::Conflict, BlockFault::Unavailable),
            (ErrorKind::Unavailable, BlockFault::Unavailable),
            (ErrorKind::Corrupt, BlockFault::Unavailable),
            (ErrorKind::Local, BlockFault::Unavailable),
        ] {
            assert_eq!(BlockFault::of_store(kind), fault, "{kind:?}");
        }
    }

    #[test]
    fn only_digits_name_a_segment() {
        for path in ["chunks/000001", "chunks/123456"] {
            assert!(is_segment(path), "{path}");
        }
        for path in ["chunks", "chunks/", "chunks/000001.tmp", "chunks/a/000001", "index", "x/000001"] {
            assert!(!is_segment(path), "{path}");
        }
    }
}
