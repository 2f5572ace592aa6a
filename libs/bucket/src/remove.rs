//! How blocks leave a bucket: whole ones in an order that never shows half a block, abandoned uploads only
//! when nothing speaks for them.

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use model::Timestamp;
use tsdb::Ulid;

use crate::bucket::Bucket;
use crate::error::BucketError;
use crate::layout;
use crate::retry::Retry;

/// Objects that are removed at once.
const CONCURRENCY: usize = 8;

/// An upload is abandoned when nothing of it was written for this long.
pub const PARTIAL_UPLOAD_AGE: Duration = Duration::from_secs(48 * 3600);

/// The object with whose help the store's clock is read.
const CLOCK_OBJECT: &str = "isthmus/clock";

/// Removes a block: `meta.json` first, so that nobody sees the block any more, then all else, the deletion mark last,
/// so that whoever finds the rest knows what to do with it. Says how many objects there were.
///
/// Whether the block may go is the caller's to decide.
///
/// # Errors
/// What the store says; the block is then gone for readers, or untouched. Call again to go on.
///
/// # Cancel safety
/// As after an error.
pub async fn delete_block(bucket: &Bucket, block: Ulid, retry: Retry) -> Result<usize, BucketError> {
    let folder = block.to_string();
    let listed = retry.run(|| bucket.list_all(&folder)).await?;
    // Removed by name and not by the listing, which may lack what was written last.
    let meta = layout::meta(block);
    retry.run(|| bucket.delete(&meta)).await?;
    let mark = layout::block_file(block, layout::DELETION_MARK_FILE);
    let mut left: Vec<String> = listed.iter().map(|object| object.name.clone()).collect();
    loop {
        left.retain(|name| *name != meta && *name != mark);
        if left.is_empty() {
            break;
        }
        futures::stream::iter(&left)
            .map(|name| retry.run(|| bucket.delete(name)))
            .buffer_unordered(CONCURRENCY)
            .try_collect::<()>()
            .await?;
        let found = retry.run(|| bucket.list_all(&folder)).await?;
        let found: Vec<String> = found.into_iter().map(|object| object.name).collect();
        // Markers of folders keep their names whatever is removed below them; going on would never end.
        if found == left {
            break;
        }
        left = found;
    }
    retry.run(|| bucket.delete(&mark)).await?;
    Ok(listed.len())
}

/// What the rules say about a block without `meta.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartialVerdict {
    /// Its upload was given up: [`delete_block`] may have it.
    Abandoned {
        /// When its newest object was written, by the store's clock.
        newest: Timestamp,
    },
    /// It stays, and why.
    Keep(&'static str),
}

/// Judges a block that seems to lack its `meta.json`. On any doubt it stays.
///
/// `now` is the store's time, see [`store_time`]: the clock of this machine says nothing about the age of objects.
/// A `meta.json` that cannot be read is no matter of this: such a block is corrupt, not partial, and is kept.
///
/// # Errors
/// What the store says; nothing is known then, and the block stays.
pub async fn judge_partial(
    bucket: &Bucket,
    block: Ulid,
    now: Timestamp,
) -> Result<PartialVerdict, BucketError> {
    let keep = |why| Ok(PartialVerdict::Keep(why));
    if bucket.exists(&layout::meta(block)).await? {
        return keep("it has a meta.json");
    }
    match bucket.head(&layout::intent(block)).await {
        Ok(intent) if age(intent.last_modified, now) < PARTIAL_UPLOAD_AGE => {
            return keep("somebody is uploading it");
        }
        Ok(_) => {}
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error),
    }
    let objects = bucket.list_all(&block.to_string()).await?;
    let is_mark =
        |name: &str| layout::split(name).is_some_and(|(_, file)| layout::MARK_FILES.contains(&file));
    let Some(newest) = objects.iter().map(|object| object.last_modified).max() else {
        return keep("it has no objects");
    };
    if objects.iter().any(|object| object.last_modified.as_millis() <= 0) {
        return keep("the store does not say when its objects were written");
    }
    if objects.iter().any(|object| object.name == layout::meta(block)) {
        return keep("it has a meta.json");
    }
    if objects.iter().any(|object| is_mark(&object.name)) {
        return keep("it is marked, so whoever follows the mark removes it");
    }
    if age(newest, now) < PARTIAL_UPLOAD_AGE {
        return keep("its upload may still be going on");
    }
    Ok(PartialVerdict::Abandoned { newest })
}

/// How long ago `at` was at `now`; zero for the future.
fn age(at: Timestamp, now: Timestamp) -> Duration {
    let millis = now.as_millis().saturating_sub(at.as_millis());
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// The time by the store's own clock, to within the duration of the call: that at which it says it wrote a small
/// object, `isthmus/clock`.
///
/// # Errors
/// What the store says.
pub async fn store_time(bucket: &Bucket) -> Result<Timestamp, BucketError> {
    bucket
        .put(CLOCK_OBJECT, Bytes::from_static(b"The store's clock is read by writing this object.\n"))
        .await?;
    Ok(bucket.head(CLOCK_OBJECT).await?.last_modified)
}
