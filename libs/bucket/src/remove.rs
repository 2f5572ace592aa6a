//! Removes blocks in an order in which no reader sees half a block, and uploads that were certainly abandoned.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use model::Timestamp;
use tsdb::{BlockMeta, Ulid};

use crate::bucket::Bucket;
use crate::error::{BucketError, ErrorKind};
use crate::layout;
use crate::manifest::manifest_of;
use crate::retry::Retry;

/// Objects that are removed at the same time.
const CONCURRENCY: usize = 8;

/// An upload counts as abandoned if none of its objects was written for this long.
pub const PARTIAL_UPLOAD_AGE: Duration = Duration::from_secs(48 * 3600);

/// The object that is written to read the store's clock.
const CLOCK_OBJECT: &str = "isthmus/clock";

/// Removes a block: `meta.json` first, so that readers no longer see the block, and the deletion mark last, so that an
/// interrupted removal is found and finished. Returns the number of files.
///
/// The caller decides whether the block may be removed.
///
/// # Errors
/// Any error of the store. The block is then removed for readers, or unchanged. Call again to continue.
///
/// # Cancel safety
/// As after an error.
pub async fn delete_block(bucket: &Bucket, block: Ulid, retry: Retry) -> Result<usize, BucketError> {
    let folder = block.to_string();
    let (meta, mark) = (layout::meta(block), layout::block_file(block, layout::DELETION_MARK_FILE));
    let list = || async {
        let objects = retry.run(|| bucket.list_all(&folder)).await?;
        let names = objects.into_iter().map(|object| object.name);
        Ok::<BTreeSet<String>, BucketError>(names.filter(|name| *name != meta && *name != mark).collect())
    };
    // The manifest lists files that a listing which is out of date may lack.
    let mut left = files_by_manifest(bucket, block, retry).await?;
    left.append(&mut list().await?);
    let count = left.len();
    retry.run(|| bucket.delete(&meta)).await?;
    while !left.is_empty() {
        delete_all(bucket, &left, retry).await?;
        let found = list().await?;
        // Objects that represent folders may be listed again after each removal; without this the loop would not end.
        if found == left {
            break;
        }
        left = found;
    }
    let (intent, deletions) = (layout::intent(block), layout::tombstones_mark(block));
    retry.run(|| bucket.delete(&intent)).await?;
    retry.run(|| bucket.delete(&deletions)).await?;
    retry.run(|| bucket.delete(&mark)).await?;
    Ok(count)
}

/// The files that a block's `meta.json` lists; none if it does not exist or cannot be used.
async fn files_by_manifest(
    bucket: &Bucket,
    block: Ulid,
    retry: Retry,
) -> Result<BTreeSet<String>, BucketError> {
    let name = layout::meta(block);
    let content = match retry.run(|| bucket.get(&name)).await {
        Ok(content) => content,
        Err(error) if error.is_not_found() || error.kind() == ErrorKind::TooLarge => {
            return Ok(BTreeSet::new());
        }
        Err(error) => return Err(error),
    };
    let files = BlockMeta::parse(&content).map(|meta| manifest_of(&meta)).unwrap_or_default();
    Ok(files.iter().map(|file| layout::block_file(block, &file.path)).collect())
}

/// Whether a block without `meta.json` may be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartialVerdict {
    /// Its upload was abandoned: [`delete_partial`] removes it.
    Abandoned {
        /// When its newest object was written, by the store's clock.
        newest: Timestamp,
    },
    /// It is kept, for this reason.
    Keep(&'static str),
}

/// Decides whether the upload of a block without `meta.json` was abandoned. In doubt the block is kept.
///
/// `now` is the store's time, see [`store_time`]: the clock of this machine cannot tell the age of objects. A block whose
/// `meta.json` cannot be used is corrupt, not partial, and is kept.
///
/// # Errors
/// Any error of the store. Keep the block then.
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
            return keep("its upload is running");
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
        return keep("the store does not report when its objects were written");
    }
    if objects.iter().any(|object| object.name == layout::meta(block)) {
        return keep("it has a meta.json");
    }
    if objects.iter().any(|object| is_mark(&object.name)) {
        return keep("it has a deletion or no-compact mark, so it is not an abandoned upload");
    }
    if age(newest, now) < PARTIAL_UPLOAD_AGE {
        return keep("its upload may still be running");
    }
    Ok(PartialVerdict::Abandoned { newest })
}

/// Removes an abandoned upload after another [`judge_partial`]. A `meta.json` is never removed: an uploader that resumes at
/// this moment notices which files were removed and sends them again.
///
/// # Errors
/// Any error of the store. Call again to continue.
///
/// # Cancel safety
/// As after an error.
pub async fn delete_partial(
    bucket: &Bucket,
    block: Ulid,
    now: Timestamp,
    retry: Retry,
) -> Result<PartialVerdict, BucketError> {
    let verdict = retry.run(|| judge_partial(bucket, block, now)).await?;
    if let PartialVerdict::Abandoned { .. } = verdict {
        let folder = block.to_string();
        let objects = retry.run(|| bucket.list_all(&folder)).await?;
        let meta = layout::meta(block);
        let files: Vec<String> =
            objects.into_iter().map(|object| object.name).filter(|name| *name != meta).collect();
        delete_all(bucket, &files, retry).await?;
        let intent = layout::intent(block);
        retry.run(|| bucket.delete(&intent)).await?;
    }
    Ok(verdict)
}

async fn delete_all(
    bucket: &Bucket,
    names: impl IntoIterator<Item = &String>,
    retry: Retry,
) -> Result<(), BucketError> {
    // The names are owned, so that the future is `Send` for callers that spawn it.
    let remove = |name: String| async move { retry.run(|| bucket.delete(&name)).await };
    let removals = names.into_iter().cloned().map(remove);
    futures::stream::iter(removals).buffer_unordered(CONCURRENCY).try_collect().await
}

/// Time from `at` to `now`; zero if `at` is later.
fn age(at: Timestamp, now: Timestamp) -> Duration {
    let millis = now.as_millis().saturating_sub(at.as_millis());
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// The time by the store's own clock: a small object, `isthmus/clock`, is written and its time is read. It is exact to
/// within the duration of the call.
///
/// # Errors
/// Any error of the store.
pub async fn store_time(bucket: &Bucket) -> Result<Timestamp, BucketError> {
    bucket
        .put(CLOCK_OBJECT, Bytes::from_static(b"The store's clock is read by writing this object.\n"))
        .await?;
    Ok(bucket.head(CLOCK_OBJECT).await?.last_modified)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;

    use super::*;
    use crate::fault::{Faults, FaultyStore};

    fn block() -> Ulid {
        tsdb::parse_block_id("01HZY3VQ6J0000000000000000").expect("it is one")
    }

    /// A bucket with the given files of the block, and the time at which they are `hours` old.
    async fn aged(files: &[&str], hours: i64) -> (Bucket, Timestamp) {
        let bucket = Bucket::new(Arc::new(InMemory::new()));
        for file in files {
            bucket.put(&layout::block_file(block(), file), Bytes::from_static(b"x")).await.unwrap();
        }
        let now = store_time(&bucket).await.unwrap();
        (bucket, now.offset_millis(hours * 3_600_000))
    }

    #[tokio::test]
    async fn an_upload_is_abandoned_after_48_hours_unless_it_has_a_meta_or_a_mark() {
        let check = |files: &'static [&'static str], hours, keep: Option<&'static str>| async move {
            let (bucket, now) = aged(files, hours).await;
            let judged = judge_partial(&bucket, block(), now).await.unwrap();
            match keep {
                Some(why) => assert_eq!(judged, PartialVerdict::Keep(why), "{files:?}, {hours} h"),
                None => assert!(matches!(judged, PartialVerdict::Abandoned { .. }), "{judged:?}"),
            }
        };
        check(&["index", "chunks/000001"], 49, None).await;
        check(&["index"], 47, Some("its upload may still be running")).await;
        check(&["index"], -100, Some("its upload may still be running")).await;
        check(&[], 49, Some("it has no objects")).await;
        // The content does not matter: a meta.json that cannot be used is never a reason to delete.
        check(&["index", "meta.json"], 49, Some("it has a meta.json")).await;
        let marked = Some("it has a deletion or no-compact mark, so it is not an abandoned upload");
        check(&["index", "deletion-mark.json"], 49, marked).await;
        check(&["index", "no-compact-mark.json"], 49, marked).await;
    }

    #[tokio::test]
    async fn an_abandoned_upload_is_removed_with_its_intent() {
        let (bucket, now) = aged(&["index", "chunks/000001"], 49).await;
        bucket.put(&layout::intent(block()), Bytes::new()).await.unwrap();
        let kept = delete_partial(&bucket, block(), now.offset_millis(-7_200_000), Retry::default()).await;
        assert!(matches!(kept.unwrap(), PartialVerdict::Keep(_)));
        assert_eq!(bucket.list_all(&block().to_string()).await.unwrap().len(), 2);
        let gone = delete_partial(&bucket, block(), now, Retry::default()).await;
        assert!(matches!(gone.unwrap(), PartialVerdict::Abandoned { .. }));
        let left = bucket.list_all("").await.unwrap();
        assert_eq!(left.iter().map(|object| object.name.as_str()).collect::<Vec<_>>(), [CLOCK_OBJECT]);
    }

    #[tokio::test]
    async fn a_young_intent_keeps_an_upload_and_an_old_intent_does_not() {
        let (bucket, now) = aged(&["index"], 49).await;
        bucket.put(&layout::intent(block()), Bytes::new()).await.unwrap();
        let judged = judge_partial(&bucket, block(), now).await.unwrap();
        assert!(matches!(judged, PartialVerdict::Abandoned { .. }), "{judged:?}");
        let soon = now.offset_millis(-2 * 3_600_000);
        let judged = judge_partial(&bucket, block(), soon).await.unwrap();
        assert_eq!(judged, PartialVerdict::Keep("its upload is running"));
    }

    #[tokio::test]
    async fn a_failing_store_gives_an_error_and_no_verdict() {
        let memory = Arc::new(InMemory::new());
        let plain = Bucket::new(memory.clone());
        plain.put(&layout::block_file(block(), "index"), Bytes::new()).await.unwrap();
        let now = store_time(&plain).await.unwrap().offset_millis(100 * 3_600_000);
        for requests in 0..3 {
            let store = FaultyStore::new(memory.clone(), 1);
            store.set(Faults { requests_left: Some(requests), ..Faults::default() });
            let judged = judge_partial(&Bucket::new(store), block(), now).await;
            assert!(judged.is_err(), "after {requests} requests: {judged:?}");
        }
        assert!(judge_partial(&plain, block(), now).await.is_ok());
    }
}
