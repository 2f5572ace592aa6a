//! Publishes a block in a bucket: the files first, each read back and compared, then `meta.json`.
//!
//! ```text
//! 1. intent     isthmus/intent/<ULID>.json, renewed while the upload runs: the upload is not abandoned
//! 2. files      each created only if it does not exist; read back, size and SHA-256 compared
//! 3. listing    exactly these objects, with these sizes
//! 4. meta.json  with the manifest in `thanos.files`; created only if it does not exist; read back
//! 5. listing    again: if a cleaner has removed files of an upload that it considered abandoned, they are sent again
//! 6. the intent is removed
//! ```
//!
//! A process that is killed at any step leaves no block, or a whole one. The next call compares the objects that exist and
//! continues: nothing is sent twice, and nothing is ever overwritten. If an answer was lost, the retry conflicts with our
//! own object, which the comparison resolves. Thanos ignores intents, because they are not in a block's folder, and reads
//! the published block.

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
use crate::marks::{self, MarkKind};
use crate::retry::Retry;
use crate::upload::{ObjectComparison, compare, create_from_file};

/// How often files are sent again that were removed while the block was published.
const ROUNDS: usize = 3;
/// How often an intent is renewed.
const HEARTBEAT: Duration = Duration::from_secs(300);

/// How to publish.
#[derive(Clone)]
pub struct PublishOptions {
    /// Files that are sent at the same time; default 2. Each needs memory for up to three parts (8 MiB by default).
    pub concurrency: usize,
    /// Rejects a block without external labels; default true. Only a Prometheus can use a block without them.
    pub requires_labels: bool,
    /// Retries of operations that failed for a reason that may pass.
    pub retry: Retry,
    /// Called from several tasks as bytes are sent and read back; must not block.
    pub progress: Option<Arc<dyn Fn(UploadProgress) + Send + Sync>>,
    /// Asked directly before `meta.json` is written, which makes the block visible: whether this process may still publish it.
    /// Without it, it always may.
    pub may_finish: Option<Arc<dyn Fn() -> bool + Send + Sync>>,
}

impl Default for PublishOptions {
    fn default() -> Self {
        Self {
            concurrency: 2,
            requires_labels: true,
            retry: Retry::default(),
            progress: None,
            may_finish: None,
        }
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

/// Progress of an upload. Bytes that were in the bucket before count only as verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UploadProgress {
    /// Bytes of all files.
    pub total_bytes: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Bytes read back and hashed.
    pub verified_bytes: u64,
}

/// A block that is whole in the bucket.
#[derive(Clone, Debug, PartialEq)]
pub struct Published {
    /// The `meta.json` in the bucket, with the manifest.
    pub meta: BlockMeta,
    /// Bytes sent by this call; 0 if all files were in the bucket.
    pub sent_bytes: u64,
    /// Bytes of all files.
    pub total_bytes: u64,
}

/// Why a block was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A file of the block cannot be read.
    #[error("read block {block}: {source}")]
    Local {
        /// The block.
        block: Ulid,
        /// The error of the system, with the path.
        source: io::Error,
    },
    /// Without external labels, blocks of several producers would be merged.
    #[error(
        "block {0} has no external labels: set external_labels in its Prometheus, or add labels to the upload"
    )]
    NoLabels(Ulid),
    /// An object of this block differs from the local file.
    #[error(
        "block {block}: {object} in the bucket differs from the local file; nothing was overwritten: verify both, and remove the wrong one yourself"
    )]
    Different {
        /// The block.
        block: Ulid,
        /// The object, relative to the block's folder.
        object: String,
    },
    /// The block's folder in the bucket has an object that does not belong to the block.
    #[error("block {block}: {object} in the bucket does not belong to the block: remove it yourself")]
    Unexpected {
        /// The block.
        block: Ulid,
        /// The first such object, relative to the block's folder.
        object: String,
    },
    /// The block is marked for deletion in the bucket.
    #[error(
        "block {0} is marked for deletion in the bucket and is not uploaded again: remove the mark to upload it"
    )]
    Marked(Ulid),
    /// This process may no longer publish the block: [`PublishOptions::may_finish`].
    #[error("block {0} was not published: this process may no longer do so")]
    Stopped(Ulid),
    /// An error of the store.
    #[error(transparent)]
    Bucket(#[from] BucketError),
}

impl PublishError {
    /// Whether the same call can succeed later without a change by a person.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Bucket(error) if error.is_retryable())
    }
}

/// Publishes the block in `dir`. `meta` is its meta with the `thanos` section to publish; the manifest and the upload time
/// are added. The steps are listed at the top of `publish.rs`.
///
/// # Errors
/// See [`PublishError`]. After an error the bucket has no block of this id, or a whole one.
///
/// # Cancel safety
/// Dropping the future stops the upload between two steps. Call again to continue.
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
    let upload = BlockUpload::new(bucket, block, dir, &manifest, options);
    let retry = options.retry;

    let mark = retry.run(|| marks::load(bucket, block, MarkKind::Deletion)).await?;
    if mark.mark().is_some() {
        return Err(PublishError::Marked(block));
    }
    let existing = upload.existing_meta(&meta).await?;
    // A meta.json with hashes was written after the files had been read back, so comparing sizes is enough.
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
        () = keep_alive(bucket, &intent, &content) => unreachable!("the intent is renewed without end"),
    };
    // Best effort: an intent that remains has no effect on a whole block.
    if let Err(error) = retry.run(|| bucket.delete(&intent)).await {
        tracing::debug!(%block, %error, "upload intent could not be removed");
    }
    let sent_bytes = upload.sent_bytes.load(Ordering::Relaxed);
    Ok(Published { meta, sent_bytes, total_bytes: upload.total_bytes() })
}

/// The meta with the manifest, the names of the segments and the upload time.
fn complete(mut meta: BlockMeta, manifest: &[ManifestFile]) -> BlockMeta {
    // A block without labels gets the section too, because every published block has a manifest.
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

/// Renews an intent until the future is dropped.
async fn keep_alive(bucket: &Bucket, intent: &str, content: &Bytes) {
    loop {
        tokio::time::sleep(HEARTBEAT).await;
        if let Err(error) = bucket.put(intent, content.clone()).await {
            // The upload continues. The intent is valid for many more renewals.
            tracing::debug!(object = intent, %error, "upload intent could not be renewed");
        }
    }
}

/// Whether two metas describe the same block. The upload time, and hashes that one of them lacks, are not compared.
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

/// One block that is being published.
struct BlockUpload<'a> {
    bucket: &'a Bucket,
    block: Ulid,
    dir: &'a Path,
    manifest: &'a [ManifestFile],
    options: &'a PublishOptions,
    sent_bytes: AtomicU64,
    verified_bytes: AtomicU64,
}

impl<'a> BlockUpload<'a> {
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

    fn report(&self, counter: &AtomicU64, bytes: u64) {
        counter.fetch_add(bytes, Ordering::Relaxed);
        if let Some(progress) = &self.options.progress {
            progress(UploadProgress {
                total_bytes: self.total_bytes(),
                sent_bytes: self.sent_bytes.load(Ordering::Relaxed),
                verified_bytes: self.verified_bytes.load(Ordering::Relaxed),
            });
        }
    }

    /// The `meta.json` that exists in the bucket, which must describe this block.
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
                None if self.options.may_finish.as_ref().is_some_and(|may_finish| !may_finish()) => {
                    return Err(PublishError::Stopped(self.block));
                }
                None => self.put_meta(meta.clone()).await?,
            };
            if self.listing_is_complete().await? {
                return Ok(meta);
            }
            published = Some(meta);
        }
        let action = format!("publish block {}", self.block);
        Err(self
            .bucket
            .corrupt(
                action,
                "the listing lacks files that were written and read back; publish the block again",
            )
            .into())
    }

    /// Sends a file unless its object exists, and reads it back.
    async fn put_file(&self, file: &ManifestFile) -> Result<(), PublishError> {
        let name = layout::block_file(self.block, &file.path);
        let path = self.dir.join(&file.path);
        let retry = &self.options.retry;
        let sent = |bytes| self.report(&self.sent_bytes, bytes);
        let verified = |bytes| self.report(&self.verified_bytes, bytes);

        let compared = retry.run(|| async {
            match self.bucket.head(&name).await {
                Ok(info) if info.size_bytes != file.size_bytes => return Ok(ObjectComparison::Different),
                Ok(_) => {}
                Err(error) if error.is_not_found() => {
                    create_from_file(self.bucket, &name, &path, file.size_bytes, &sent).await?;
                }
                Err(error) => return Err(error),
            }
            match compare(self.bucket, &name, file, &verified).await? {
                // Some stores answer "conflict" to both of two concurrent creations.
                ObjectComparison::Absent => {
                    let action = format!("read back {name}");
                    Err(self.bucket.corrupt(action, "the object was written and cannot be found"))
                }
                compared => Ok(compared),
            }
        });
        let compared = compared.await?;
        if compared == ObjectComparison::Equal { Ok(()) } else { Err(self.different(&file.path)) }
    }

    /// Whether the bucket lists every file with its size, and nothing that does not belong to the block. A listing that
    /// lacks files is requested again, because it may be out of date.
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
                // It may be our own, from an attempt whose answer was lost: its content decides.
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Err(error) => return Err(error),
            }
            match self.bucket.get(&name).await {
                Err(error) if error.is_not_found() => Err(self
                    .bucket
                    .corrupt(format!("read back {name}"), "the object was written and cannot be found")),
                result => result,
            }
        };
        let found = self.options.retry.run(create).await?;
        self.accept(&found, &meta)
    }
}

/// Whether an object may be in a block's folder beside its files: marks, `meta.json`, and the empty objects by which some
/// tools represent folders.
fn belongs(path: &str, size_bytes: u64) -> bool {
    layout::MARK_FILES.contains(&path)
        || path == layout::META_FILE
        || (size_bytes == 0 && (path.is_empty() || path == layout::CHUNKS_DIR))
}
