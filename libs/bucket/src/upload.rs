//! Uploads one local file as one object: in parts if it is large, never over an existing object.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use crate::bucket::Bucket;
use crate::error::{BucketError, ErrorKind};
use crate::manifest::{Hasher, ManifestFile};

/// Maximum number of parts of an S3 object.
const MAX_PARTS: u64 = 10_000;
/// Parts of one file that are sent at the same time; each is in memory until then.
const PARTS_IN_FLIGHT: usize = 2;

/// The result of comparing an object with a file of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ObjectComparison {
    Absent,
    Equal,
    Different,
}

/// Uploads a file whose object must not exist yet. `sent` is called with the number of bytes that the store has received.
///
/// Returns `false` if an object of that name exists. It may come from an earlier attempt whose answer was lost, so the
/// caller must compare it. Uploads in parts have no condition at the store. Instead the name is checked before the first
/// part and before completion; only a second uploader of the same block between check and completion would not be noticed.
pub(crate) async fn create_from_file(
    bucket: &Bucket,
    name: &str,
    path: &Path,
    size_bytes: u64,
    sent: &(dyn Fn(u64) + Send + Sync),
) -> Result<bool, BucketError> {
    let file = Arc::new(File::open(path).map_err(|error| local(bucket, path, &error))?);
    if size_bytes <= bucket.part_bytes() {
        let content = read_part(bucket, &file, path, 0, size_bytes).await?;
        return match bucket.put_if_absent(name, content).await {
            Ok(_) => {
                sent(size_bytes);
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(false),
            Err(error) => Err(error),
        };
    }
    if bucket.exists(name).await? {
        return Ok(false);
    }
    bucket.count_upload(size_bytes, create_in_parts(bucket, name, file, path, size_bytes, sent)).await
}

async fn create_in_parts(
    bucket: &Bucket,
    name: &str,
    file: Arc<File>,
    path: &Path,
    size_bytes: u64,
    sent: &(dyn Fn(u64) + Send + Sync),
) -> Result<bool, BucketError> {
    let part_bytes = bucket.part_bytes().max(size_bytes.div_ceil(MAX_PARTS));
    let mut upload = bucket.put_parts(name).await?;
    let parts = {
        let upload = &mut upload;
        let reads = (0..size_bytes.div_ceil(part_bytes)).map(|part| {
            let start = part * part_bytes;
            let length = part_bytes.min(size_bytes - start);
            let file = Arc::clone(&file);
            async move { read_part(bucket, &file, path, start, length).await }
        });
        // Parts are read one after the other, because they are numbered in the order in which they begin. They are sent
        // concurrently.
        futures::stream::iter(reads)
            .buffered(1)
            .map_ok(|content| {
                let length = content.len() as u64;
                let request = upload.put_part(content.into());
                async move {
                    request.await.map_err(|error| bucket.failed(format!("write a part of {name}"), error))?;
                    sent(length);
                    Ok::<_, BucketError>(())
                }
            })
            .try_buffer_unordered(PARTS_IN_FLIGHT)
            .try_for_each(|()| std::future::ready(Ok(())))
            .await
    };
    let ready = match parts {
        Ok(()) => bucket.exists(name).await.map(|is_there| !is_there),
        Err(error) => Err(error),
    };
    let done = match ready {
        Ok(true) => {
            let done = upload.complete().await;
            done.map(|_| true).map_err(|error| bucket.failed(format!("complete {name}"), error))
        }
        other => other,
    };
    if !matches!(done, Ok(true))
        && let Err(error) = upload.abort().await
    {
        // If only the answer to the completion was lost, there is nothing to abort. Parts that remain only use space, and
        // the store's lifecycle rules remove them.
        tracing::debug!(object = name, %error, "upload in parts could not be aborted");
    }
    done
}

async fn read_part(
    bucket: &Bucket,
    file: &Arc<File>,
    path: &Path,
    start: u64,
    length: u64,
) -> Result<Bytes, BucketError> {
    let handle = Arc::clone(file);
    let read = move || {
        // A part is small enough for memory.
        let mut content = vec![0; length as usize];
        handle.read_exact_at(&mut content, start)?;
        Ok(Bytes::from(content))
    };
    let read = tokio::task::spawn_blocking(read).await.map_err(std::io::Error::other).flatten();
    read.map_err(|error| local(bucket, path, &error))
}

fn local(bucket: &Bucket, path: &Path, error: &std::io::Error) -> BucketError {
    BucketError::new(ErrorKind::Local, bucket.name(), format!("upload {}", path.display()), error.to_string())
}

/// Reads an object back and compares its size, then its hash, with the expected ones.
pub(crate) async fn compare(
    bucket: &Bucket,
    name: &str,
    expected: &ManifestFile,
    moved: &(dyn Fn(u64) + Send + Sync),
) -> Result<ObjectComparison, BucketError> {
    let (info, mut pieces) = match bucket.get_stream(name).await {
        Ok(found) => found,
        Err(error) if error.is_not_found() => return Ok(ObjectComparison::Absent),
        Err(error) => return Err(error),
    };
    if info.size_bytes != expected.size_bytes {
        return Ok(ObjectComparison::Different);
    }
    let Some(sha256) = &expected.sha256 else { return Ok(ObjectComparison::Equal) };
    let mut hasher = Hasher::new();
    while let Some(piece) = pieces.try_next().await? {
        hasher.update(&piece);
        moved(piece.len() as u64);
    }
    Ok(if hasher.finish() == *sha256 { ObjectComparison::Equal } else { ObjectComparison::Different })
}
