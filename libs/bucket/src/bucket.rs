//! One bucket: an object store, the prefix below which it is ours, and what is counted about it.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use model::Timestamp;
use object_store::path::Path;
use object_store::{
    Attributes, GetOptions, GetRange, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode,
    PutMultipartOptions, PutOptions, UpdateVersion,
};

use crate::error::{BucketError, ErrorKind};
use crate::metrics::{BucketMetrics, OneBucket, Operation};
use crate::pieces;

/// Largest object of which [`Bucket::get`] makes one buffer: descriptions and marks are far smaller, and a
/// reader of foreign bytes must not be made to hold more.
const MAX_GET_BYTES: u64 = 64 << 20;

/// Size of the parts of a large upload where the configuration names none. Thanos takes 64 MiB; a part is held in
/// memory while it is on its way, and parts of an object above 80 GiB, which would be more than 10,000, are larger.
pub(crate) const DEFAULT_PART_BYTES: u64 = 8 << 20;

/// A bucket, or the part of one below a prefix. Clones are cheap and share everything.
///
/// Names are relative to the prefix, with `/` between parts and none at either end. Every method is one request
/// (or one for each page or part) and is retried inside as the configuration says, for as long as it is safe to.
///
/// # Cancel safety
/// Dropping the future of a read has no effect. A write whose future is dropped may or may not have happened;
/// objects appear whole or not at all.
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use std::sync::Arc;
/// let bucket = bucket::Bucket::new(Arc::new(object_store::memory::InMemory::new()));
/// bucket.put("a/b", "text".into()).await?;
/// assert_eq!(bucket.get_range("a/b", 1..3).await?, "ex");
/// assert_eq!(bucket.list_dir("").await?.dirs, ["a"]);
/// # Ok::<_, bucket::BucketError>(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct Bucket {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn ObjectStore>,
    name: String,
    prefix: Path,
    counters: Arc<OneBucket>,
    settings: Settings,
}

/// What a configuration says about writes, beside where they go.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Objects above this many bytes are written in parts of this size.
    pub(crate) part_bytes: u64,
    /// Never write in parts.
    pub(crate) single_put: bool,
    /// Set on every object written.
    pub(crate) attributes: Attributes,
    /// The folder, where the bucket is one: its entries are flushed to disk after a removal.
    pub(crate) folder: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            part_bytes: DEFAULT_PART_BYTES,
            single_put: false,
            attributes: Attributes::new(),
            folder: None,
        }
    }
}

/// What a store says about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// The name, relative to the bucket's prefix.
    pub name: String,
    /// The size in bytes.
    pub size_bytes: u64,
    /// When it was written, by the store's clock.
    pub last_modified: Timestamp,
    /// Names this content of the object, for [`Bucket::update`].
    pub version: Version,
}

/// Names one content of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version(UpdateVersion);

/// What stands directly in a folder of a bucket, each list in the order of names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Full names of the folders, without a slash at the end.
    pub dirs: Vec<String>,
    /// The objects.
    pub objects: Vec<ObjectInfo>,
}

impl Bucket {
    /// The bucket that is the whole of `store`, called as `store` calls itself, counted nowhere.
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        let name = store.to_string();
        Self::open(store, name, Path::default(), &BucketMetrics::default(), Settings::default())
    }

    pub(crate) fn open(
        store: Arc<dyn ObjectStore>,
        name: String,
        prefix: Path,
        metrics: &BucketMetrics,
        settings: Settings,
    ) -> Self {
        let counters = Arc::new(metrics.of(&name));
        Self { inner: Arc::new(Inner { store, name, prefix, counters, settings }) }
    }

    /// The same bucket with uploads above `part_bytes` made in parts of that size.
    #[must_use]
    pub fn with_part_bytes(&self, part_bytes: u64) -> Self {
        let inner = &self.inner;
        let settings = Settings { part_bytes: part_bytes.max(1), ..inner.settings.clone() };
        let inner = Inner {
            store: Arc::clone(&inner.store),
            name: inner.name.clone(),
            prefix: inner.prefix.clone(),
            counters: Arc::clone(&inner.counters),
            settings,
        };
        Self { inner: Arc::new(inner) }
    }

    /// The name of the bucket, container or folder.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The prefix below which the bucket is ours; empty for the whole bucket.
    pub fn prefix(&self) -> &str {
        self.inner.prefix.as_ref()
    }

    /// Size in bytes above which an object is written in parts; `u64::MAX` where parts are switched off.
    pub(crate) fn part_bytes(&self) -> u64 {
        if self.inner.settings.single_put { u64::MAX } else { self.inner.settings.part_bytes }
    }

    /// Reads a small object whole.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Corrupt`] above 64 MiB or for an answer cut short.
    pub async fn get(&self, name: &str) -> Result<Bytes, BucketError> {
        Ok(self.get_versioned(name).await?.0)
    }

    /// Reads a small object whole, with what [`Bucket::update`] needs to replace exactly this content.
    ///
    /// # Errors
    /// As [`Bucket::get`].
    pub async fn get_versioned(&self, name: &str) -> Result<(Bytes, ObjectInfo), BucketError> {
        let action = || format!("get {name}");
        let path = self.path(name)?;
        let work = async {
            let result = self.inner.store.get(&path).await.map_err(|error| self.failed(action(), error))?;
            let info = self.info(result.meta.clone());
            if info.size_bytes > MAX_GET_BYTES {
                let reason = format!("it is {} bytes large, more than any such object is", info.size_bytes);
                return Err(self.corrupt(action(), reason));
            }
            let bytes = result.bytes().await.map_err(|error| self.failed(action(), error))?;
            self.check_length(&action, bytes.len() as u64, info.size_bytes)?;
            self.inner.counters.moved(Operation::Get, bytes.len() as u64);
            Ok((bytes, info))
        };
        self.inner.counters.count(Operation::Get, work).await
    }

    /// Reads an object as a stream of pieces, which ends with an error where fewer bytes come than there are.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], or what the store says; later ones are items of the stream.
    pub async fn get_stream(
        &self,
        name: &str,
    ) -> Result<(ObjectInfo, BoxStream<'static, Result<Bytes, BucketError>>), BucketError> {
        let action = format!("get {name}");
        let path = self.path(name)?;
        let work =
            async { self.inner.store.get(&path).await.map_err(|error| self.failed(action.clone(), error)) };
        let result = self.inner.counters.count(Operation::Get, work).await?;
        let info = self.info(result.meta.clone());
        Ok((info, pieces::checked(self.clone(), action, result)))
    }

    /// Reads the bytes `range` of an object, all of them or none.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Corrupt`] for an object that ends before the range does.
    pub async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, BucketError> {
        let action = || format!("get bytes {}..{} of {name}", range.start, range.end);
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let path = self.path(name)?;
        let work = async {
            let options = GetOptions::new().with_range(Some(GetRange::Bounded(range.clone())));
            let result = self.inner.store.get_opts(&path, options).await;
            let result = result.map_err(|error| self.failed(action(), error))?;
            let bytes = result.bytes().await.map_err(|error| self.failed(action(), error))?;
            self.check_length(&action, bytes.len() as u64, range.end - range.start)?;
            self.inner.counters.moved(Operation::GetRange, bytes.len() as u64);
            Ok(bytes)
        };
        self.inner.counters.count(Operation::GetRange, work).await
    }

    /// Reads several ranges of an object, in the order asked for. Ranges near each other share a request.
    ///
    /// # Errors
    /// As [`Bucket::get_range`].
    pub async fn get_ranges(&self, name: &str, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, BucketError> {
        let action = || format!("get {} ranges of {name}", ranges.len());
        let path = self.path(name)?;
        let asked: Vec<Range<u64>> = ranges.iter().filter(|range| !range.is_empty()).cloned().collect();
        let work = async {
            let parts = self.inner.store.get_ranges(&path, &asked).await;
            let parts = parts.map_err(|error| self.failed(action(), error))?;
            let bytes: u64 = parts.iter().map(|part| part.len() as u64).sum();
            self.check_length(&action, parts.len() as u64, asked.len() as u64)?;
            for (part, range) in parts.iter().zip(&asked) {
                self.check_length(&action, part.len() as u64, range.end - range.start)?;
            }
            self.inner.counters.moved(Operation::GetRange, bytes);
            Ok(parts)
        };
        let mut parts = self.inner.counters.count(Operation::GetRange, work).await?.into_iter();
        let fill = |range: &Range<u64>| if range.is_empty() { None } else { parts.next() };
        Ok(ranges.iter().map(fill).map(Option::unwrap_or_default).collect())
    }

    /// Writes an object, over whatever is there.
    ///
    /// # Errors
    /// What the store says.
    pub async fn put(&self, name: &str, content: Bytes) -> Result<Version, BucketError> {
        self.put_mode(name, content, PutMode::Overwrite).await
    }

    /// Writes an object that must not be there yet.
    ///
    /// After an answer was lost, a second try finds its own work: compare before taking a conflict for somebody
    /// else's. A few stores ignore the condition; [`Bucket::probe`] finds out.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when the object is there.
    pub async fn put_if_absent(&self, name: &str, content: Bytes) -> Result<Version, BucketError> {
        self.put_mode(name, content, PutMode::Create).await
    }

    /// Replaces exactly the content that `version` names.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when the object has changed or gone since, [`ErrorKind::Unsupported`] on a local
    /// directory.
    pub async fn update(&self, name: &str, content: Bytes, version: Version) -> Result<Version, BucketError> {
        match self.put_mode(name, content, PutMode::Update(version.0)).await {
            // Some stores say so of an object that has gone.
            Err(error) if error.is_not_found() => Err(BucketError::new(
                ErrorKind::Conflict,
                self.name(),
                format!("update {name}"),
                "the object has gone",
            )),
            result => result,
        }
    }

    async fn put_mode(&self, name: &str, content: Bytes, mode: PutMode) -> Result<Version, BucketError> {
        let verb = match mode {
            PutMode::Overwrite => "put",
            PutMode::Create => "create",
            PutMode::Update(_) => "update",
        };
        let path = self.path(name)?;
        let bytes = content.len() as u64;
        let attributes = self.inner.settings.attributes.clone();
        let options = PutOptions { mode, attributes, ..PutOptions::default() };
        let work = async {
            let result = self.inner.store.put_opts(&path, content.into(), options).await;
            let result = result.map_err(|error| self.failed(format!("{verb} {name}"), error))?;
            self.inner.counters.moved(Operation::Upload, bytes);
            Ok(Version(result.into()))
        };
        self.inner.counters.count(Operation::Upload, work).await
    }

    /// Begins an object that is written in parts and appears, over whatever is there, with its completion.
    pub(crate) async fn put_parts(&self, name: &str) -> Result<Box<dyn MultipartUpload>, BucketError> {
        let path = self.path(name)?;
        let attributes = self.inner.settings.attributes.clone();
        let options = PutMultipartOptions { attributes, ..PutMultipartOptions::default() };
        let upload = self.inner.store.put_multipart_opts(&path, options).await;
        upload.map_err(|error| self.failed(format!("begin {name}"), error))
    }

    /// Counts bytes that a read moved after its answer had begun.
    pub(crate) fn count_bytes(&self, operation: Operation, bytes: u64) {
        self.inner.counters.moved(operation, bytes);
    }

    /// Counts a write that was made in parts.
    pub(crate) async fn count_upload<T>(
        &self,
        bytes: u64,
        work: impl Future<Output = Result<T, BucketError>>,
    ) -> Result<T, BucketError> {
        let result = self.inner.counters.count(Operation::Upload, work).await;
        if result.is_ok() {
            self.inner.counters.moved(Operation::Upload, bytes);
        }
        result
    }

    /// All objects below a folder (all of the bucket for `""`), however deep, in no promised order.
    pub fn list(&self, dir: &str) -> BoxStream<'static, Result<ObjectInfo, BucketError>> {
        let path = match self.path(dir) {
            Ok(path) => path,
            Err(error) => return futures::stream::once(async { Err(error) }).boxed(),
        };
        let bucket = self.clone();
        let watch = bucket.inner.counters.watch(Operation::Iter);
        let action = format!("list {dir:?}");
        let prefix = (!path.as_ref().is_empty()).then_some(path);
        let objects = self.inner.store.list(prefix.as_ref());
        objects
            .map(move |object| match object {
                Ok(meta) => Ok(bucket.info(meta)),
                Err(error) => {
                    bucket.inner.counters.failed(Operation::Iter);
                    Err(bucket.failed(action.clone(), error))
                }
            })
            // The time of a listing ends when its stream is dropped.
            .inspect(move |_| _ = &watch)
            .boxed()
    }

    /// [`Bucket::list`] in the order of names.
    ///
    /// # Errors
    /// What the store says; nothing is returned of a listing that broke off.
    pub async fn list_all(&self, dir: &str) -> Result<Vec<ObjectInfo>, BucketError> {
        let mut objects: Vec<ObjectInfo> = self.list(dir).try_collect().await?;
        objects.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(objects)
    }

    /// What stands directly in a folder; nothing for a folder that is not there.
    ///
    /// # Errors
    /// What the store says.
    pub async fn list_dir(&self, dir: &str) -> Result<Listing, BucketError> {
        let path = self.path(dir)?;
        let prefix = (!path.as_ref().is_empty()).then_some(path);
        let work = async {
            let result = self.inner.store.list_with_delimiter(prefix.as_ref()).await;
            result.map_err(|error| self.failed(format!("list {dir:?}"), error))
        };
        let result = self.inner.counters.count(Operation::Iter, work).await?;
        let mut dirs: Vec<String> = result.common_prefixes.iter().map(|path| self.relative(path)).collect();
        dirs.sort_unstable();
        let mut objects: Vec<ObjectInfo> = result.objects.into_iter().map(|meta| self.info(meta)).collect();
        objects.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Listing { dirs, objects })
    }

    /// Removes an object; nothing happens where there is none.
    ///
    /// # Errors
    /// What the store says.
    pub async fn delete(&self, name: &str) -> Result<(), BucketError> {
        let path = self.path(name)?;
        let work = async {
            match self.inner.store.delete(&path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => self.flush_removal(name).await,
                Err(error) => Err(self.failed(format!("delete {name}"), error)),
            }
        };
        self.inner.counters.count(Operation::Delete, work).await
    }

    /// Makes a removal from a local directory outlive a power cut, so that the order of removals holds.
    async fn flush_removal(&self, name: &str) -> Result<(), BucketError> {
        let Some(folder) = &self.inner.settings.folder else { return Ok(()) };
        let (folder, file) = (folder.clone(), folder.join(self.inner.prefix.as_ref()).join(name));
        let flush = move || {
            // Folders that became empty are removed too: flush the first that is left.
            let left = file.ancestors().skip(1).take_while(|dir| dir.starts_with(&folder));
            for dir in left {
                match std::fs::File::open(dir) {
                    Ok(dir) => return dir.sync_all(),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        };
        let flushed = tokio::task::spawn_blocking(flush).await.map_err(std::io::Error::other).flatten();
        flushed.map_err(|error| {
            let action = format!("flush the removal of {name} to disk");
            BucketError::new(ErrorKind::Unavailable, self.name(), action, error.to_string())
        })
    }

    /// What the store says about an object.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], or what the store says.
    pub async fn head(&self, name: &str) -> Result<ObjectInfo, BucketError> {
        let path = self.path(name)?;
        let work = async {
            let result = self.inner.store.head(&path).await;
            result.map_err(|error| self.failed(format!("look at {name}"), error))
        };
        Ok(self.info(self.inner.counters.count(Operation::Attributes, work).await?))
    }

    /// Whether an object is there.
    ///
    /// # Errors
    /// What the store says, other than that the object is not there.
    pub async fn exists(&self, name: &str) -> Result<bool, BucketError> {
        let path = self.path(name)?;
        let work = async {
            let result = self.inner.store.head(&path).await;
            result.map_err(|error| self.failed(format!("look for {name}"), error))
        };
        match self.inner.counters.count(Operation::Exists, work).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn path(&self, name: &str) -> Result<Path, BucketError> {
        let prefix = self.inner.prefix.as_ref();
        let full = match (prefix.is_empty(), name.is_empty()) {
            (true, _) => name.to_owned(),
            (false, true) => prefix.to_owned(),
            (false, false) => format!("{prefix}/{name}"),
        };
        Path::parse(&full).map_err(|error| {
            let action = format!("use {name:?}");
            BucketError::new(ErrorKind::Config, self.name(), action, format!("it is no object name: {error}"))
        })
    }

    fn relative(&self, path: &Path) -> String {
        let full = path.as_ref();
        let rest = full.strip_prefix(self.inner.prefix.as_ref()).unwrap_or(full);
        rest.trim_start_matches('/').to_owned()
    }

    fn info(&self, meta: ObjectMeta) -> ObjectInfo {
        ObjectInfo {
            name: self.relative(&meta.location),
            size_bytes: meta.size,
            last_modified: Timestamp::from_millis(meta.last_modified.timestamp_millis()),
            version: Version(UpdateVersion { e_tag: meta.e_tag, version: meta.version }),
        }
    }

    pub(crate) fn failed(&self, action: String, error: object_store::Error) -> BucketError {
        BucketError::from_store(self.name(), action, error)
    }

    pub(crate) fn corrupt(&self, action: impl Into<String>, reason: impl Into<String>) -> BucketError {
        BucketError::new(ErrorKind::Corrupt, self.name(), action, reason)
    }

    fn check_length(
        &self,
        action: &dyn Fn() -> String,
        found: u64,
        expected: u64,
    ) -> Result<(), BucketError> {
        if found == expected {
            return Ok(());
        }
        Err(self.corrupt(action(), format!("{found} bytes came, {expected} were promised")))
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket").field("name", &self.name()).field("prefix", &self.prefix()).finish()
    }
}
