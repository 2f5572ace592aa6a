//! One bucket: an object store, the prefix that is used of it, and the counters of its operations.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use model::Timestamp;
use object_store::path::Path;
use object_store::{
    Attributes, GetOptions, GetRange, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode,
    PutMultipartOptions, PutOptions, UpdateVersion,
};

use crate::error::{BucketError, ErrorKind};
use crate::local_list;
use crate::metrics::{BucketCounters, BucketMetrics, Operation};
use crate::pieces::{self, PieceError};

/// Largest object that [`Bucket::get`] reads into one buffer. `meta.json` and marks are far smaller; the bound keeps a
/// foreign object from taking more memory.
const MAX_GET_BYTES: u64 = 64 << 20;

/// Default size of the parts of a large upload. Thanos' default is 64 MiB; ours is smaller because a part stays in
/// memory until it is sent. Objects above 80 GiB get larger parts, so that there are at most 10,000 of them.
pub(crate) const DEFAULT_PART_BYTES: u64 = 8 << 20;

/// A bucket, or the part of one below a prefix. Clones are cheap and share everything.
///
/// Names are relative to the prefix, with `/` between parts and none at either end. Every method sends one request, or
/// one for each page or part. The store's client retries a request as the configuration says, where that is safe.
///
/// # Cancel safety
/// Dropping the future of a read has no effect. A write whose future is dropped may or may not have happened.
/// An object appears whole or not at all.
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
    pub(crate) inner: Arc<OpenedStore>,
}

pub(crate) struct OpenedStore {
    pub(crate) store: Arc<dyn ObjectStore>,
    name: String,
    /// The kind of the store with its endpoint.
    service: String,
    prefix: Path,
    pub(crate) counters: Arc<BucketCounters>,
    pub(crate) settings: WriteSettings,
    /// Whether the store refused a conditional write that it accepted without the condition.
    lacks_conditions: Arc<AtomicBool>,
}

/// How objects are written.
#[derive(Clone, Debug)]
pub(crate) struct WriteSettings {
    /// Objects above this many bytes are written in parts of this size.
    pub(crate) part_bytes: u64,
    /// Objects are never written in parts.
    pub(crate) single_put: bool,
    /// Set on every object written.
    pub(crate) attributes: Attributes,
    /// The folder of a bucket in a local directory; its entries are flushed to disk after a removal.
    pub(crate) folder: Option<PathBuf>,
}

impl Default for WriteSettings {
    fn default() -> Self {
        Self {
            part_bytes: DEFAULT_PART_BYTES,
            single_put: false,
            attributes: Attributes::new(),
            folder: None,
        }
    }
}

/// An object as the store describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// The name, relative to the bucket's prefix.
    pub name: String,
    /// The size in bytes.
    pub size_bytes: u64,
    /// When it was last written, by the store's clock.
    pub last_modified: Timestamp,
    /// Identifies this content of the object, for [`Bucket::update`].
    pub version: ObjectVersion,
}

impl ObjectInfo {
    /// Whether two objects that are described alike have the same content.
    pub(crate) fn is_identified(&self) -> bool {
        self.version.is_known()
    }
}

impl ObjectVersion {
    /// Whether the store has said which content it is.
    pub(crate) fn is_known(&self) -> bool {
        self.0.e_tag.is_some() || self.0.version.is_some()
    }
}

/// Identifies one content of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectVersion(pub(crate) UpdateVersion);

/// The direct content of a folder of a bucket; each list is sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FolderListing {
    /// Full names of the folders, without a trailing slash.
    pub dirs: Vec<String>,
    /// The objects.
    pub objects: Vec<ObjectInfo>,
}

impl Bucket {
    /// A bucket that is all of `store` and has its name. Its operations are counted in no registry.
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        let name = store.to_string();
        let (metrics, settings) = (BucketMetrics::default(), WriteSettings::default());
        Self::open(store, name, String::new(), Path::default(), &metrics, settings)
    }

    pub(crate) fn open(
        store: Arc<dyn ObjectStore>,
        name: String,
        service: String,
        prefix: Path,
        metrics: &BucketMetrics,
        settings: WriteSettings,
    ) -> Self {
        let counters = Arc::new(metrics.of(&name));
        let lacks_conditions = Arc::default();
        Self {
            inner: Arc::new(OpenedStore {
                store,
                name,
                service,
                prefix,
                counters,
                settings,
                lacks_conditions,
            }),
        }
    }

    /// The same bucket, which writes objects above `part_bytes` in parts of that size.
    #[must_use]
    pub fn with_part_bytes(&self, part_bytes: u64) -> Self {
        let inner = &self.inner;
        let settings = WriteSettings { part_bytes: part_bytes.max(1), ..inner.settings.clone() };
        let inner = OpenedStore {
            store: Arc::clone(&inner.store),
            name: inner.name.clone(),
            service: inner.service.clone(),
            prefix: inner.prefix.clone(),
            counters: Arc::clone(&inner.counters),
            settings,
            lacks_conditions: Arc::clone(&inner.lacks_conditions),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The name of the bucket, container or folder.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// A text that is different for different buckets, and for different prefixes of one: the kind of the store with its endpoint, the
    /// bucket and the prefix.
    pub fn location(&self) -> String {
        // Each part is preceded by its length, so that no two buckets have the same text.
        let parts = [self.inner.service.as_str(), self.name(), self.prefix()];
        parts.map(|part| format!("{}:{part}", part.len())).join(" ")
    }

    /// The prefix of all names; empty for the whole bucket.
    pub fn prefix(&self) -> &str {
        self.inner.prefix.as_ref()
    }

    /// Whether conditional writes are replaced by a look and a write.
    pub(crate) fn lacks_conditions(&self) -> &AtomicBool {
        &self.inner.lacks_conditions
    }

    /// Size in bytes above which an object is written in parts; `u64::MAX` where parts are switched off.
    pub(crate) fn part_bytes(&self) -> u64 {
        if self.inner.settings.single_put { u64::MAX } else { self.inner.settings.part_bytes }
    }

    /// Reads a small object whole.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::TooLarge`] above 64 MiB; [`ErrorKind::Corrupt`] for an answer that was cut short.
    pub async fn get(&self, name: &str) -> Result<Bytes, BucketError> {
        Ok(self.get_versioned(name).await?.0)
    }

    /// Reads a small object whole, with the version that [`Bucket::update`] needs to replace exactly this content.
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
                let reason = format!(
                    "the object is {} bytes large, expected at most {MAX_GET_BYTES}; Prometheus and Thanos write no such object here, remove or replace it",
                    info.size_bytes
                );
                return Err(BucketError::new(ErrorKind::TooLarge, self.name(), action(), reason));
            }
            let bytes = result.bytes().await.map_err(|error| self.failed(action(), error))?;
            self.check_length(&action, bytes.len() as u64, info.size_bytes)?;
            self.inner.counters.moved(Operation::Get, bytes.len() as u64);
            Ok((bytes, info))
        };
        self.inner.counters.count(Operation::Get, work).await
    }

    /// Reads an object as a stream of pieces. The stream ends with an error if the store sends fewer bytes than the
    /// object has.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], or another error of the store. Errors after the first byte are items of the stream.
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
        let bucket = self.clone();
        let pieces = pieces::checked(result).map(move |piece| match piece {
            Ok(piece) => {
                bucket.inner.counters.moved(Operation::Get, piece.len() as u64);
                Ok(piece)
            }
            Err(PieceError::TooLong) => {
                Err(bucket.corrupt(action.clone(), "the answer has more bytes than the object"))
            }
            Err(PieceError::TooShort(left_bytes)) => {
                let reason = format!("the answer ended {left_bytes} bytes before the end of the object");
                Err(bucket.corrupt(action.clone(), reason))
            }
            Err(PieceError::Store(error)) => Err(bucket.failed(action.clone(), error)),
        });
        Ok((info, pieces.boxed()))
    }

    /// Reads the bytes `range` of an object: all of them, or an error.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Corrupt`] if the object ends before the range does.
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

    /// Reads several ranges of an object and returns them in the given order. Ranges near each other share a request.
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

    /// Writes an object and replaces one of the same name.
    ///
    /// # Errors
    /// Any error of the store.
    pub async fn put(&self, name: &str, content: Bytes) -> Result<ObjectVersion, BucketError> {
        self.put_mode(name, content, PutMode::Overwrite).await
    }

    /// Replaces an object if its content is still that of `version`.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if the object was changed or removed since, [`ErrorKind::Unsupported`] on a local
    /// directory.
    pub async fn update(
        &self,
        name: &str,
        content: Bytes,
        version: ObjectVersion,
    ) -> Result<ObjectVersion, BucketError> {
        match self.put_mode(name, content, PutMode::Update(version.0)).await {
            // Some stores answer "not found" if the object was removed.
            Err(error) if error.is_not_found() => Err(BucketError::new(
                ErrorKind::Conflict,
                self.name(),
                format!("update {name}"),
                "the object was removed",
            )),
            Err(error) if error.refuses_conditions() => Err(BucketError::new(
                ErrorKind::Unsupported,
                self.name(),
                format!("update {name}"),
                "the store does not support conditional writes (If-Match)",
            )),
            result => result,
        }
    }

    pub(crate) async fn put_mode(
        &self,
        name: &str,
        content: Bytes,
        mode: PutMode,
    ) -> Result<ObjectVersion, BucketError> {
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
            self.check_folder(|| format!("{verb} {name}")).await?;
            let result = self.inner.store.put_opts(&path, content.into(), options).await;
            let result = result.map_err(|error| self.failed(format!("{verb} {name}"), error))?;
            self.inner.counters.moved(Operation::Upload, bytes);
            Ok(ObjectVersion(result.into()))
        };
        self.inner.counters.count(Operation::Upload, work).await
    }

    /// Begins an object that is written in parts. It appears, and replaces one of the same name, when it is completed.
    pub(crate) async fn put_parts(&self, name: &str) -> Result<Box<dyn MultipartUpload>, BucketError> {
        let path = self.path(name)?;
        let attributes = self.inner.settings.attributes.clone();
        let options = PutMultipartOptions { attributes, ..PutMultipartOptions::default() };
        self.check_folder(|| format!("begin the upload of {name}")).await?;
        let upload = self.inner.store.put_multipart_opts(&path, options).await;
        upload.map_err(|error| self.failed(format!("begin the upload of {name}"), error))
    }

    /// Fails if the bucket is a local directory that does not exist any more: a write would create it where its disk is missing.
    async fn check_folder(&self, action: impl FnOnce() -> String) -> Result<(), BucketError> {
        let Some(folder) = self.inner.settings.folder.clone() else { return Ok(()) };
        let checked = tokio::task::spawn_blocking(move || local_list::check_root(&folder)).await;
        let checked = checked.map_err(std::io::Error::other).flatten();
        checked.map_err(|error| {
            BucketError::new(ErrorKind::Unavailable, self.name(), action(), error.to_string())
        })
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

    /// Removes an object. It is not an error if there is none.
    ///
    /// # Errors
    /// Any error of the store.
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

    /// Flushes a removal from a local directory to disk, so that removals keep their order across a power cut.
    async fn flush_removal(&self, name: &str) -> Result<(), BucketError> {
        let Some(folder) = &self.inner.settings.folder else { return Ok(()) };
        let (folder, file) = (folder.clone(), self.local_file(name).unwrap_or_default());
        let flush = move || {
            // Empty folders are removed too, so flush the innermost folder that still exists.
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

    /// Size, time and version of an object.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], or another error of the store.
    pub async fn head(&self, name: &str) -> Result<ObjectInfo, BucketError> {
        let path = self.path(name)?;
        let work = async {
            let result = self.inner.store.head(&path).await;
            result.map_err(|error| self.failed(format!("get the size of {name}"), error))
        };
        Ok(self.info(self.inner.counters.count(Operation::Attributes, work).await?))
    }

    /// Whether an object exists.
    ///
    /// # Errors
    /// Any error of the store except [`ErrorKind::NotFound`].
    pub async fn exists(&self, name: &str) -> Result<bool, BucketError> {
        let path = self.path(name)?;
        let work = async {
            let result = self.inner.store.head(&path).await;
            result.map_err(|error| self.failed(format!("check whether {name} exists"), error))
        };
        match self.inner.counters.count(Operation::Exists, work).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn path(&self, name: &str) -> Result<Path, BucketError> {
        let prefix = self.inner.prefix.as_ref();
        let full = match (prefix.is_empty(), name.is_empty()) {
            (true, _) => name.to_owned(),
            (false, true) => prefix.to_owned(),
            (false, false) => format!("{prefix}/{name}"),
        };
        Path::parse(&full).map_err(|error| {
            let action = format!("use {name:?}");
            BucketError::new(
                ErrorKind::Config,
                self.name(),
                action,
                format!("it is not a valid object name: {error}"),
            )
        })
    }

    /// The file of an object in a local directory; `None` for other stores.
    pub(crate) fn local_file(&self, name: &str) -> Option<PathBuf> {
        let folder = self.inner.settings.folder.as_ref()?;
        Some(folder.join(self.inner.prefix.as_ref()).join(name))
    }

    pub(crate) fn relative(&self, path: &Path) -> String {
        self.relative_name(path.as_ref()).to_owned()
    }

    /// A name in the store as a name in this bucket: without the prefix.
    pub(crate) fn relative_name<'a>(&self, full: &'a str) -> &'a str {
        let rest = full.strip_prefix(self.inner.prefix.as_ref()).unwrap_or(full);
        rest.trim_start_matches('/')
    }

    pub(crate) fn info(&self, meta: ObjectMeta) -> ObjectInfo {
        ObjectInfo {
            name: self.relative(&meta.location),
            size_bytes: meta.size,
            last_modified: Timestamp::from_millis(meta.last_modified.timestamp_millis()),
            version: ObjectVersion(UpdateVersion { e_tag: meta.e_tag, version: meta.version }),
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
        Err(self.corrupt(action(), format!("the answer has {found} bytes, expected {expected}")))
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket").field("name", &self.name()).field("prefix", &self.prefix()).finish()
    }
}
