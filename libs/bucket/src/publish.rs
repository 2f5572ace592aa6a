//! How a block gets into a bucket: files first, each read back and compared, `meta.json` last.
//!
//! ```text
//! 1. intent     isthmus/intent/<ULID>.json, renewed while the upload runs: "not abandoned"
//! 2. files      each created only where none is; read back, size and SHA-256 compared
//! 3. listing    exactly these objects, of these sizes
//! 4. meta.json  with the manifest in `thanos.files`; created only where none is; read back
//! 5. listing    once more: a cleaner that took the upload for abandoned may have had files removed; they are sent again
//! 6. the intent is removed
//! ```
//!
//! A process that ends anywhere in between leaves no block, or a whole one. Whoever calls again finds what is there,
//! compares it and goes on: nothing is sent twice, nothing is ever overwritten. An answer that is lost looks like a
//! conflict with oneself, which the comparison resolves. Thanos passes over intents, because they lie in no block's
//! folder, and reads the result.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tsdb::{BlockMeta, Ulid};

use crate::bucket::Bucket;
use crate::error::{BucketError, ErrorKind};
use crate::layout;
use crate::manifest::{self, ManifestFile};
use crate::retry::Retry;
use crate::upload::{Comparison, compare, create_from_file};

/// How often files that went while the block was published are sent again.
const ROUNDS: usize = 3;
/// How often an intent is renewed.
const HEARTBEAT: Duration = Duration::from_secs(300);

/// How to publish.
#[derive(Clone)]
pub struct PublishOptions {
    /// Files on their way at once; default 2. Each holds up to three parts (8 MiB unless configured) in memory.
    pub concurrency: usize,
    /// Refuses a block without external labels; default true. Without it only a Prometheus can use what is published.
    pub requires_labels: bool,
    /// Repetition of what failed for a reason that may pass.
    pub retry: Retry,
    /// Is told about bytes as they move, from several tasks; must not block.
    pub progress: Option<Arc<dyn Fn(Progress) + Send + Sync>>,
}

impl Default for PublishOptions {
    fn default() -> Self {
        Self { concurrency: 2, requires_labels: true, retry: Retry::default(), progress: None }
    }
}

impl fmt::Debug for PublishOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublishOptions")
            .field("concurrency", &self.concurrency)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}

/// How far an upload is. What is already in the bucket counts only as read back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of all files.
    pub total_bytes: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Bytes read back and hashed.
    pub verified_bytes: u64,
}

/// A block that is in the bucket, whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Published {
    /// The `meta.json` in the bucket, with the manifest.
    pub meta: BlockMeta,
    /// Bytes sent by this call; 0 where all was there.
    pub sent_bytes: u64,
    /// Bytes of all files.
    pub total_bytes: u64,
}

/// Why a block is not in the bucket, as far as this call can tell.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A file of the block cannot be read.
    #[error("read block {block}: {source}")]
    Local {
        /// The block.
        block: Ulid,
        /// What the system said, with the path.
        source: io::Error,
    },
    /// Blocks of nobody in particular would merge with each other.
    #[error(
        "block {0} has no external labels: set external_labels in its Prometheus, or give labels to the upload"
    )]
    NoLabels(Ulid),
    /// The bucket holds something else under a name of this block.
    #[error(
        "block {block}: {object} in the bucket differs from the local file; nothing was overwritten: verify both, and remove the wrong one by hand"
    )]
    Different {
        /// The block.
        block: Ulid,
        /// The object, relative to the block's folder.
        object: String,
    },
    /// The bucket holds more under the block's folder than belongs to it.
    #[error("block {block}: the bucket holds {object}, which is no file of the block; remove it by hand")]
    Unexpected {
        /// The block.
        block: Ulid,
        /// The first such object, relative to the block's folder.
        object: String,
    },
    /// The block is marked for deletion in the bucket.
    #[error("block {0} is marked for deletion in the bucket: it is not uploaded again")]
    Marked(Ulid),
    /// The store.
    #[error(transparent)]
    Bucket(#[from] BucketError),
}

impl PublishError {
    /// Whether the same call can succeed later without anybody's help.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Bucket(error) if error.is_retryable())
    }
}

/// Publishes the block in `dir`. `meta` is its meta with the `thanos` section that the bucket shall see; manifest
/// and upload time are filled in. See the module's text.
///
/// # Errors
/// See [`PublishError`]. After any of them the bucket holds no block of this id, or a whole one.
///
/// # Cancel safety
/// Dropping the future stops the upload between two steps; call again to go on.
pub async fn publish(
    bucket: &Bucket,
    dir: &Path,
    meta: BlockMeta,
    options: &PublishOptions,
) -> Result<Published, PublishError> {
    let block = meta.ulid;
    let has_labels = meta.thanos.as_ref().is_some_and(|thanos| !thanos.labels.is_empty());
    if options.requires_labels && !has_labels {
        return Err(PublishError::NoLabels(block));
    }
    let manifest = manifest::read_manifest(dir, options.concurrency).await;
    let manifest = manifest.map_err(|source| PublishError::Local { block, source })?;
    let meta = complete(meta, &manifest);
    let upload = Upload::new(bucket, block, dir, &manifest, options);
    let retry = options.retry;

    let mark = layout::block_file(block, layout::DELETION_MARK_FILE);
    if retry.run(|| bucket.exists(&mark)).await? {
        return Err(PublishError::Marked(block));
    }
    let existing = upload.existing_meta(&meta).await?;
    // A meta.json with hashes was written after the files had been read back: sizes are enough then.
    let is_verified = existing.as_ref().is_some_and(|existing| {
        let files = manifest::manifest_of(existing);
        !files.is_empty() && files.iter().all(|file| file.sha256.is_some())
    });
    if is_verified && upload.listing_is_complete().await? {
        let meta = existing.unwrap_or(meta);
        return Ok(Published { meta, sent_bytes: 0, total_bytes: upload.total_bytes() });
    }

    let intent = layout::intent(block);
    let content = intent_content(block);
    retry.run(|| bucket.put(&intent, content.clone())).await?;
    let meta = tokio::select! {
        result = upload.run(existing, meta) => result?,
        () = keep_alive(bucket, &intent, &content) => unreachable!("an intent is renewed for ever"),
    };
    // Best effort: an intent that stays behind only delays the cleaning of a partial upload that is none.
    if let Err(error) = retry.run(|| bucket.delete(&intent)).await {
        tracing::debug!("{error}");
    }
    let sent_bytes = upload.sent_bytes.load(Ordering::Relaxed);
    Ok(Published { meta, sent_bytes, total_bytes: upload.total_bytes() })
}

/// The meta with manifest, names of segments and time of the upload.
fn complete(mut meta: BlockMeta, manifest: &[ManifestFile]) -> BlockMeta {
    // A block without labels gets the section, too: nothing is published without a manifest.
    let thanos = meta.thanos.get_or_insert_default();
    thanos.version = 1;
    thanos.files = manifest::to_files(manifest);
    let prefix = format!("{}/", layout::CHUNKS_DIR);
    let segments = manifest.iter().filter_map(|file| file.path.strip_prefix(&prefix));
    thanos.segment_files = segments.map(str::to_owned).collect();
    thanos.upload_time = now();
    meta
}

fn now() -> String {
    OffsetDateTime::now_utc().format(&Rfc3339).expect("the year has four digits until 9999")
}

fn intent_content(block: Ulid) -> Bytes {
    let content = serde_json::json!({ "version": 1, "id": block.to_string(), "started": now() });
    content.to_string().into()
}

/// Renews an intent, for ever.
async fn keep_alive(bucket: &Bucket, intent: &str, content: &Bytes) {
    loop {
        tokio::time::sleep(HEARTBEAT).await;
        if let Err(error) = bucket.put(intent, content.clone()).await {
            // The upload goes on: the next renewal is in time by far.
            tracing::debug!("{error}");
        }
    }
}

/// Whether two metas describe the same block; the time of the upload, and hashes that one of them lacks, aside.
fn describe_same(a: &BlockMeta, b: &BlockMeta) -> bool {
    let (Some(a_thanos), Some(b_thanos)) = (&a.thanos, &b.thanos) else { return false };
    let by_path = |meta: &BlockMeta| -> BTreeMap<String, ManifestFile> {
        manifest::manifest_of(meta).into_iter().map(|file| (file.path.clone(), file)).collect()
    };
    let (a_files, b_files) = (by_path(a), by_path(b));
    let is_same_file = |(a, b): (&ManifestFile, &ManifestFile)| {
        let hashes = a.sha256.as_ref().zip(b.sha256.as_ref());
        a.path == b.path && a.size_bytes == b.size_bytes && hashes.is_none_or(|(a, b)| a == b)
    };
    let are_same_files = a_files.is_empty()
        || b_files.is_empty()
        || (a_files.len() == b_files.len() && a_files.values().zip(b_files.values()).all(is_same_file));
    a.ulid == b.ulid
        && a.min_time == b.min_time
        && a.max_time == b.max_time
        && a.stats == b.stats
        && a.compaction == b.compaction
        && a_thanos.labels == b_thanos.labels
        && a_thanos.downsample == b_thanos.downsample
        && are_same_files
}

/// One block on its way.
struct Upload<'a> {
    bucket: &'a Bucket,
    block: Ulid,
    dir: &'a Path,
    manifest: &'a [ManifestFile],
    options: &'a PublishOptions,
    sent_bytes: AtomicU64,
    verified_bytes: AtomicU64,
}

impl<'a> Upload<'a> {
    fn new(
        bucket: &'a Bucket,
        block: Ulid,
        dir: &'a Path,
        manifest: &'a [ManifestFile],
        options: &'a PublishOptions,
    ) -> Self {
        let (sent_bytes, verified_bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { bucket, block, dir, manifest, options, sent_bytes, verified_bytes }
    }

    fn total_bytes(&self) -> u64 {
        self.manifest.iter().map(|file| file.size_bytes).sum()
    }

    fn tell(&self, counter: &AtomicU64, bytes: u64) {
        counter.fetch_add(bytes, Ordering::Relaxed);
        if let Some(progress) = &self.options.progress {
            progress(Progress {
                total_bytes: self.total_bytes(),
                sent_bytes: self.sent_bytes.load(Ordering::Relaxed),
                verified_bytes: self.verified_bytes.load(Ordering::Relaxed),
            });
        }
    }

    /// The `meta.json` that is in the bucket already, which must describe this block.
    async fn existing_meta(&self, ours: &BlockMeta) -> Result<Option<BlockMeta>, PublishError> {
        let name = layout::meta(self.block);
        match self.options.retry.run(|| self.bucket.get(&name)).await {
            Ok(bytes) => self.accept(&bytes, ours).map(Some),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn accept(&self, found: &[u8], ours: &BlockMeta) -> Result<BlockMeta, PublishError> {
        match BlockMeta::parse(found) {
            Ok(meta) if describe_same(&meta, ours) => Ok(meta),
            _ => Err(self.different(layout::META_FILE)),
        }
    }

    fn different(&self, object: &str) -> PublishError {
        PublishError::Different { block: self.block, object: object.to_owned() }
    }

    /// Steps 2 to 5.
    async fn run(&self, existing: Option<BlockMeta>, meta: BlockMeta) -> Result<BlockMeta, PublishError> {
        let mut published = existing;
        for _ in 0..ROUNDS {
            futures::stream::iter(self.manifest)
                .map(|file| self.put_file(file))
                .buffer_unordered(self.options.concurrency.max(1))
                .try_collect::<()>()
                .await?;
            if !self.listing_is_complete().await? {
                continue;
            }
            let meta = match published.take() {
                Some(published) => published,
                None => self.put_meta(meta.clone()).await?,
            };
            if self.listing_is_complete().await? {
                return Ok(meta);
            }
            published = Some(meta);
        }
        let action = format!("publish block {}", self.block);
        Err(self.bucket.corrupt(action, "the listing lacks files that were written and read back").into())
    }

    /// Sends a file unless it is there, and reads it back.
    async fn put_file(&self, file: &ManifestFile) -> Result<(), PublishError> {
        let name = layout::block_file(self.block, &file.path);
        let path = self.dir.join(&file.path);
        let retry = &self.options.retry;
        let sent = |bytes| self.tell(&self.sent_bytes, bytes);
        let verified = |bytes| self.tell(&self.verified_bytes, bytes);

        let compared = retry.run(|| async {
            match self.bucket.head(&name).await {
                Ok(info) if info.size_bytes != file.size_bytes => return Ok(Comparison::Different),
                Ok(_) => {}
                Err(error) if error.is_not_found() => {
                    create_from_file(self.bucket, &name, &path, file.size_bytes, &sent).await?;
                }
                Err(error) => return Err(error),
            }
            match compare(self.bucket, &name, file, &verified).await? {
                // Some stores answer "conflict" to two creations at once, of which neither need succeed.
                Comparison::Absent => {
                    let action = format!("read back {name}");
                    Err(self.bucket.corrupt(action, "the object that was just written is not there"))
                }
                compared => Ok(compared),
            }
        });
        let compared = compared.await?;
        if compared == Comparison::Equal { Ok(()) } else { Err(self.different(&file.path)) }
    }

    /// Whether the bucket lists every file in its size, and nothing that does not belong to the block. A listing
    /// that lacks files is asked for again, because it may be old.
    async fn listing_is_complete(&self) -> Result<bool, PublishError> {
        let folder = self.block.to_string();
        let lacking = || {
            let action = format!("list block {}", self.block);
            BucketError::new(ErrorKind::Corrupt, self.bucket.name(), action, "files are missing")
        };
        let listed = self.options.retry.run(|| async {
            let objects = self.bucket.list_all(&folder).await?;
            let sizes: BTreeMap<String, u64> = objects
                .into_iter()
                .filter_map(|object| Some((layout::split(&object.name)?.1.to_owned(), object.size_bytes)))
                .collect();
            let is_complete = self.manifest.iter().all(|file| sizes.contains_key(&file.path));
            if is_complete { Ok(sizes) } else { Err(lacking()) }
        });
        let sizes = match listed.await {
            Ok(sizes) => sizes,
            Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let expected: BTreeMap<&str, u64> =
            self.manifest.iter().map(|file| (file.path.as_str(), file.size_bytes)).collect();
        for (path, size_bytes) in &sizes {
            match expected.get(path.as_str()) {
                Some(expected) if expected == size_bytes => {}
                Some(_) => return Err(self.different(path)),
                None if belongs(path, *size_bytes) => {}
                None => {
                    return Err(PublishError::Unexpected { block: self.block, object: path.clone() });
                }
            }
        }
        Ok(true)
    }

    /// Creates `meta.json` and reads it back.
    async fn put_meta(&self, meta: BlockMeta) -> Result<BlockMeta, PublishError> {
        let name = layout::meta(self.block);
        let json = Bytes::from(meta.to_json());
        let create = || async {
            match self.bucket.put_if_absent(&name, json.clone()).await {
                Ok(_) => {}
                // Perhaps our own, of an attempt whose answer was lost: what is there decides.
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Err(error) => return Err(error),
            }
            match self.bucket.get(&name).await {
                Err(error) if error.is_not_found() => Err(self
                    .bucket
                    .corrupt(format!("read back {name}"), "the object that was just written is not there")),
                result => result,
            }
        };
        let found = self.options.retry.run(create).await?;
        self.accept(&found, &meta)
    }
}

/// What may stand in a block's folder beside its files: marks, `meta.json`, and the empty objects with which some
/// tools show folders.
fn belongs(path: &str, size_bytes: u64) -> bool {
    layout::MARK_FILES.contains(&path)
        || path == layout::META_FILE
        || (size_bytes == 0 && (path.is_empty() || path == layout::CHUNKS_DIR))
}
