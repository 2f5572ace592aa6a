//! The marks in a bucket: read, changed by conditional writes, removed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tsdb::Ulid;

use crate::bucket::Bucket;
use crate::deletions::deletion::Deletion;
use crate::deletions::effective::BlockDeletions;
use crate::deletions::mark::{MAX_BYTES, MAX_DELETIONS, TombstonesMark};
use crate::error::{BucketError, ErrorKind};
use crate::layout;
use crate::lease::{LeaseAttempt, LeaseError, Leases};
use crate::retry::Retry;

/// Attempts while other processes change the same mark.
const ATTEMPTS: usize = 20;

/// Why a mark could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum TombstonesError {
    /// An error of the store.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// There is an object that is not a mark.
    #[error("{object} in bucket {bucket:?} is not a list of deletions: {reason}; correct it, or remove it")]
    Unusable {
        /// Its name.
        object: String,
        /// The bucket.
        bucket: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The block has too many deletions that are not done yet.
    #[error(
        "block {0} has {MAX_DELETIONS} deletions or {MAX_BYTES} bytes of them, which is the most; run the compactor, which applies them"
    )]
    Full(Ulid),
    /// The lock of a bucket in a local directory cannot be taken.
    #[error("lock the marks: {0}")]
    Lock(#[from] LeaseError),
    /// Other processes changed the mark each time.
    #[error("the mark of block {0} is changed by other processes all the time; try again")]
    Busy(Ulid),
}

/// The mark of a block; `None` if there is none.
///
/// # Errors
/// See [`TombstonesError`].
pub async fn load(
    bucket: &Bucket,
    block: Ulid,
    retry: Retry,
) -> Result<Option<TombstonesMark>, TombstonesError> {
    let name = layout::tombstones_mark(block);
    match retry.run(|| bucket.get(&name)).await {
        Ok(content) => parse(bucket, block, &content).map(Some),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Adds deletions to the mark of a block, and returns how many it did not have yet.
///
/// # Errors
/// See [`TombstonesError`]. A mark that cannot be used is never overwritten.
pub async fn add(
    bucket: &Bucket,
    block: Ulid,
    deletions: &[Arc<Deletion>],
    retry: Retry,
) -> Result<usize, TombstonesError> {
    // A local directory has no conditional updates, but locks.
    let _lock = if bucket.inner.settings.folder.is_some() { Some(lock(bucket).await?) } else { None };
    let name = layout::tombstones_mark(block);
    for _ in 0..ATTEMPTS {
        let (mut mark, version) = match retry.run(|| bucket.get_versioned(&name)).await {
            Ok((content, info)) => (parse(bucket, block, &content)?, Some(info.version)),
            Err(error) if error.is_not_found() => (TombstonesMark { block, deletions: Vec::new() }, None),
            Err(error) => return Err(error.into()),
        };
        let added = mark.add(deletions);
        if added == 0 {
            return Ok(0);
        }
        let content = mark.to_json();
        if mark.deletions.len() > MAX_DELETIONS || content.len() > MAX_BYTES {
            return Err(TombstonesError::Full(block));
        }
        let written = match version {
            None => bucket.put_if_absent(&name, content).await,
            Some(version) => match bucket.update(&name, content.clone(), version).await {
                Err(error) if error.kind() == ErrorKind::Unsupported => bucket.put(&name, content).await,
                written => written,
            },
        };
        match written {
            Ok(_) => return Ok(added),
            // Another process was faster, or the answer to an earlier attempt was lost: the next look shows it.
            Err(error) if error.kind() == ErrorKind::Conflict || error.is_retryable() => {
                tokio::time::sleep(retry.delay).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(TombstonesError::Busy(block))
}

/// Gives each block the deletions that hold for it because a block that shares a source with it has them: one that was merged or
/// downsampled while they were requested. Otherwise they would be forgotten when that block is removed. `effective` and `marks` are those
/// of a view; `may_write` is asked before each write. Returns the number of blocks.
///
/// # Errors
/// See [`TombstonesError`]. No block should be removed then.
pub async fn carry(
    bucket: &Bucket,
    effective: &BTreeMap<Ulid, Arc<BlockDeletions>>,
    marks: &BTreeMap<Ulid, TombstonesMark>,
    may_write: impl Fn() -> bool,
    retry: Retry,
) -> Result<usize, TombstonesError> {
    let mut carried = 0;
    for (block, effective) in effective {
        let own = marks.get(block).into_iter().flat_map(|mark| &mark.deletions);
        let own: BTreeSet<&str> = own.map(|deletion| &*deletion.id).collect();
        let missing: Vec<Arc<Deletion>> =
            effective.iter().filter(|deletion| !own.contains(&*deletion.id)).cloned().collect();
        if missing.is_empty() {
            continue;
        }
        if !may_write() {
            break;
        }
        let added = add(bucket, *block, &missing, retry).await?;
        tracing::info!(%block, bucket = bucket.name(), deletions = added, "deletions of series go over to a block");
        carried += 1;
    }
    Ok(carried)
}

/// Gives block `new`, which is made of block `old`, or is a copy of it, the deletions that were requested of `old`.
///
/// # Errors
/// See [`TombstonesError`]. The new block must not be published then.
pub async fn copy(
    from: &Bucket,
    old: Ulid,
    to: &Bucket,
    new: Ulid,
    retry: Retry,
) -> Result<(), TombstonesError> {
    match load(from, old, retry).await? {
        Some(mark) if !mark.deletions.is_empty() => add(to, new, &mark.deletions, retry).await.map(|_| ()),
        _ => Ok(()),
    }
}

/// Removes the mark of a block. It is not an error if there is none.
///
/// # Errors
/// Any error of the store.
pub async fn remove(bucket: &Bucket, block: Ulid) -> Result<(), BucketError> {
    bucket.delete(&layout::tombstones_mark(block)).await
}

fn parse(bucket: &Bucket, block: Ulid, content: &[u8]) -> Result<TombstonesMark, TombstonesError> {
    TombstonesMark::parse(block, content).map_err(|reason| TombstonesError::Unusable {
        object: layout::tombstones_mark(block),
        bucket: bucket.name().to_owned(),
        reason,
    })
}

async fn lock(bucket: &Bucket) -> Result<crate::lease::Lease, TombstonesError> {
    let leases = Leases::new(bucket, "tombstones", Duration::from_secs(60));
    loop {
        match leases.acquire("tombstones").await? {
            LeaseAttempt::Held(lease) => return Ok(lease),
            LeaseAttempt::Taken { .. } => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}
