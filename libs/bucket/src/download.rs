//! Downloads a block into a folder. Every file is compared with the manifest; `meta.json` is written last.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{StreamExt, TryStreamExt};
use tsdb::{BlockMeta, Ulid};

use crate::bucket::{Bucket, ObjectInfo};
use crate::error::{BucketError, ErrorKind};
use crate::layout;
use crate::manifest::{self, Hasher, ManifestFile};
use crate::retry::Retry;

/// How to download.
#[derive(Clone)]
pub struct DownloadOptions {
    /// Files that are downloaded at the same time; default 4.
    pub concurrency: usize,
    /// Retries of operations that failed for a reason that may pass.
    pub retry: Retry,
    /// Downloads the files that the bucket has, whatever the manifest says, to salvage a damaged block.
    pub ignores_manifest: bool,
    /// Called from several tasks with the bytes that are downloaded and the bytes of all files; must not block.
    pub progress: Option<Arc<dyn Fn(u64, u64) + Send + Sync>>,
}

impl Default for DownloadOptions {
    fn default() -> Self {
        Self { concurrency: 4, retry: Retry::default(), ignores_manifest: false, progress: None }
    }
}

/// Why a block was not downloaded.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The block does not exist, or its upload has not finished.
    #[error(
        "block {0} in the bucket: meta.json does not exist: the block was removed, or its upload has not finished"
    )]
    Absent(Ulid),
    /// Its `meta.json` cannot be used.
    #[error("block {block} in the bucket is corrupt: {reason}")]
    Meta {
        /// The block.
        block: Ulid,
        /// What is wrong.
        reason: String,
    },
    /// A file differs from its manifest.
    #[error("block {block} in the bucket is corrupt: {file} {reason}")]
    File {
        /// The block.
        block: Ulid,
        /// The file, relative to the block's folder.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// A local file cannot be written.
    #[error("download block {block}: {source}")]
    Local {
        /// The block.
        block: Ulid,
        /// The error of the system, with the path.
        source: io::Error,
    },
    /// An error of the store.
    #[error(transparent)]
    Bucket(#[from] BucketError),
}

/// Downloads `block` into the folder `dir`, which is created and becomes the block's folder. Local files of the right size
/// and hash are kept. Others are downloaded as `*.download` and renamed, so that a file is never incomplete.
///
/// If the manifest has no hash for a file, only the size is compared. If there is no manifest, the listing is used
/// instead. Tombstones are in no manifest and are downloaded if there are some. Marks are not downloaded.
///
/// # Errors
/// See [`DownloadError`]. After an error the folder has no `meta.json`, so it is not a block. Call again to continue.
///
/// # Cancel safety
/// As after an error.
pub async fn download(
    bucket: &Bucket,
    block: Ulid,
    dir: &Path,
    options: &DownloadOptions,
) -> Result<BlockMeta, DownloadError> {
    let name = layout::meta(block);
    let content = match options.retry.run(|| bucket.get(&name)).await {
        Ok(content) => content,
        Err(error) if error.is_not_found() => return Err(DownloadError::Absent(block)),
        Err(error) => return Err(error.into()),
    };
    let meta = BlockMeta::parse(&content)
        .map_err(|error| DownloadError::Meta { block, reason: error.to_string() })?;
    if meta.ulid != block {
        let reason = format!("its meta.json is that of block {}", meta.ulid);
        return Err(DownloadError::Meta { block, reason });
    }
    let mut manifest = match options.ignores_manifest {
        true => Vec::new(),
        false => manifest::manifest_of(&meta),
    };
    if manifest.is_empty() {
        manifest = manifest_by_listing(bucket, block, options.retry).await?;
    }
    if !manifest.iter().any(|file| file.path == layout::TOMBSTONES_FILE) {
        manifest.extend(tombstones(bucket, block, options.retry).await?);
    }
    let local = |path: &Path, source| DownloadError::Local { block, source: manifest::named(path, source) };
    let chunks = dir.join(layout::CHUNKS_DIR);
    std::fs::create_dir_all(&chunks).map_err(|source| local(&chunks, source))?;

    // Another program wrote the sizes: their sum may overflow.
    let total_bytes = manifest.iter().fold(0, |sum: u64, file| sum.saturating_add(file.size_bytes));
    let done_bytes = AtomicU64::new(0);
    let report = |bytes: u64| {
        let done_bytes = done_bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if let Some(progress) = &options.progress {
            progress(done_bytes.min(total_bytes), total_bytes);
        }
    };
    futures::stream::iter(&manifest)
        .map(|file| download_file(bucket, block, file, dir, options.retry, &report))
        .buffer_unordered(options.concurrency.max(1))
        .try_collect::<()>()
        .await?;

    // The names of the segments must be on disk before `meta.json`, which lists them.
    let flushed = std::fs::File::open(&chunks).and_then(|folder| folder.sync_all());
    flushed.map_err(|source| local(&chunks, source))?;
    let path = dir.join(layout::META_FILE);
    write_durably(&path, &content).map_err(|source| local(&path, source))?;
    Ok(meta)
}

/// The manifest of a block whose uploader wrote none.
async fn manifest_by_listing(
    bucket: &Bucket,
    block: Ulid,
    retry: Retry,
) -> Result<Vec<ManifestFile>, BucketError> {
    let folder = block.to_string();
    let objects = retry.run(|| bucket.list_all(&folder)).await?;
    let to_file = |object: ObjectInfo| {
        let path = layout::split(&object.name)?.1.to_owned();
        let is_segment = path.strip_prefix(layout::CHUNKS_DIR).is_some_and(|rest| rest.starts_with('/'));
        let is_wanted = (is_segment || path == layout::INDEX_FILE) && manifest::is_block_path(&path);
        is_wanted.then_some(ManifestFile { path, size_bytes: object.size_bytes, sha256: None })
    };
    Ok(objects.into_iter().filter_map(to_file).collect())
}

/// The tombstones of a block, if another program has uploaded some.
async fn tombstones(bucket: &Bucket, block: Ulid, retry: Retry) -> Result<Option<ManifestFile>, BucketError> {
    let path = layout::TOMBSTONES_FILE.to_owned();
    let name = layout::block_file(block, &path);
    match retry.run(|| bucket.head(&name)).await {
        Ok(info) => Ok(Some(ManifestFile { path, size_bytes: info.size_bytes, sha256: None })),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

async fn download_file(
    bucket: &Bucket,
    block: Ulid,
    file: &ManifestFile,
    dir: &Path,
    retry: Retry,
    report: &(dyn Fn(u64) + Send + Sync),
) -> Result<(), DownloadError> {
    let path = dir.join(&file.path);
    let local = |source| DownloadError::Local { block, source: manifest::named(&path, source) };
    let wrong =
        |reason: &str| DownloadError::File { block, file: file.path.clone(), reason: reason.to_owned() };
    if is_there(path.clone(), file.clone()).await.map_err(local)? {
        report(file.size_bytes);
        return Ok(());
    }
    let name = layout::block_file(block, &file.path);
    let attempt = || async {
        let (info, mut pieces) = bucket.get_stream(&name).await?;
        if info.size_bytes != file.size_bytes {
            return Ok(Err(wrong(&format!(
                "is {} bytes large, its manifest says {}",
                info.size_bytes, file.size_bytes
            ))));
        }
        let partial = PathBuf::from(format!("{}.download", path.display()));
        let (mut sink, mut hasher, mut received_bytes) = (
            tokio::fs::File::create(&partial).await.map_err(|e| local_error(bucket, &partial, &e))?,
            Hasher::new(),
            0,
        );
        while let Some(piece) = pieces.try_next().await? {
            hasher.update(&piece);
            tokio::io::AsyncWriteExt::write_all(&mut sink, &piece)
                .await
                .map_err(|error| local_error(bucket, &partial, &error))?;
            received_bytes += piece.len() as u64;
            report(piece.len() as u64);
        }
        debug_assert_eq!(received_bytes, file.size_bytes, "a stream of another length ends with an error");
        let done = async {
            sink.sync_all().await?;
            drop(sink);
            if file.sha256.as_ref().is_some_and(|expected| *expected != hasher.finish()) {
                tokio::fs::remove_file(&partial).await?;
                return Ok(false);
            }
            tokio::fs::rename(&partial, &path).await?;
            Ok(true)
        };
        match done.await {
            Ok(true) => Ok(Ok(())),
            Ok(false) => Ok(Err(wrong("does not match its manifest: the SHA-256 differs"))),
            Err(error) => Err(local_error(bucket, &path, &error)),
        }
    };
    match retry.run(attempt).await {
        Ok(result) => result,
        Err(error) if error.is_not_found() => Err(wrong("is missing")),
        Err(error) => Err(error.into()),
    }
}

/// Whether an earlier attempt has downloaded a file.
async fn is_there(path: PathBuf, file: ManifestFile) -> io::Result<bool> {
    let look = move || match std::fs::metadata(&path) {
        Ok(metadata) if metadata.len() == file.size_bytes => match &file.sha256 {
            Some(expected) => Ok(manifest::hash_file(&path)?.1 == *expected),
            // A file has this name only after it was downloaded whole.
            None => Ok(true),
        },
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    };
    tokio::task::spawn_blocking(look).await.map_err(io::Error::other).flatten()
}

fn local_error(bucket: &Bucket, path: &Path, error: &io::Error) -> BucketError {
    BucketError::new(ErrorKind::Local, bucket.name(), format!("write {}", path.display()), error.to_string())
}

/// Writes a small file, which is whole or absent even after a power cut.
pub(crate) fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    let partial = PathBuf::from(format!("{}.tmp", path.display()));
    let mut file = std::fs::File::create(&partial)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&partial, path)?;
    match path.parent() {
        Some(folder) => std::fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}
