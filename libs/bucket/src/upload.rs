//! One local file to one object: never over another, in parts where it is large, compared where it is there.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use crate::bucket::Bucket;
use crate::error::{BucketError, ErrorKind};
use crate::manifest::{Hasher, ManifestFile};

/// Most parts that an S3 object may have.
const MAX_PARTS: u64 = 10_000;
/// Parts of one file on their way at once; each is held in memory.
const PARTS_IN_FLIGHT: usize = 2;

/// What an object turned out to be, compared with a file of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Absent,
    Equal,
    Different,
}

/// Writes a file that must not be there yet. `moved` is told of bytes as they arrive.
///
/// Returns `false` where an object of that name was found instead: it may be our own, from an attempt whose answer
/// was lost, so it is for the caller to compare. In parts the store offers no condition; the name is looked at
/// before the first part and before the last step, which nobody but a second uploader of the same block within that
/// moment can slip through.
pub(crate) async fn create_from_file(
    bucket: &Bucket,
    name: &str,
    path: &Path,
    size_bytes: u64,
    moved: &(dyn Fn(u64) + Send + Sync),
) -> Result<bool, BucketError> {
    let file = Arc::new(File::open(path).map_err(|error| local(bucket, path, &error))?);
    if size_bytes <= bucket.part_bytes() {
        let content = read_part(bucket, &file, path, 0, size_bytes).await?;
        return match bucket.put_if_absent(name, content).await {
            Ok(_) => {
                moved(size_bytes);
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(false),
            Err(error) => Err(error),
        };
    }
    if bucket.exists(name).await? {
        return Ok(false);
    }
    bucket.count_upload(size_bytes, create_in_parts(bucket, name, file, path, size_bytes, moved)).await
}

async fn create_in_parts(
    bucket: &Bucket,
    name: &str,
    file: Arc<File>,
    path: &Path,
    size_bytes: u64,
    moved: &(dyn Fn(u64) + Send + Sync),
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
        // Read one after the other, because parts are numbered as they are begun; sent side by side.
        futures::stream::iter(reads)
            .buffered(1)
            .map_ok(|content| {
                let length = content.len() as u64;
                let sent = upload.put_part(content.into());
                async move {
                    sent.await.map_err(|error| bucket.failed(format!("write a part of {name}"), error))?;
                    moved(length);
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
        // Nothing to abort where the completion worked and only its answer was lost. Parts that stay behind are
        // removed by the store's own rules, and cost no more than room.
        tracing::debug!("abort the upload of {name}: {error}");
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
        // The length is that of a part, which fits into memory by its definition.
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

/// Reads an object back and compares it with what it should be: its size first, then its hash.
pub(crate) async fn compare(
    bucket: &Bucket,
    name: &str,
    expected: &ManifestFile,
    moved: &(dyn Fn(u64) + Send + Sync),
) -> Result<Comparison, BucketError> {
    let (info, mut pieces) = match bucket.get_stream(name).await {
        Ok(found) => found,
        Err(error) if error.is_not_found() => return Ok(Comparison::Absent),
        Err(error) => return Err(error),
    };
    if info.size_bytes != expected.size_bytes {
        return Ok(Comparison::Different);
    }
    let Some(sha256) = &expected.sha256 else { return Ok(Comparison::Equal) };
    let mut hasher = Hasher::new();
    while let Some(piece) = pieces.try_next().await? {
        hasher.update(&piece);
        moved(piece.len() as u64);
    }
    Ok(if hasher.finish() == *sha256 { Comparison::Equal } else { Comparison::Different })
}
