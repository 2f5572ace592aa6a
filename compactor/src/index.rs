//! Keeps the index of a bucket: one object that lists its blocks for readers. The compactor itself decides nothing by it, except that a
//! marked block is not removed before the index has told of the mark for as long as the delay of removals.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bucket::bucket_index::{BucketContent, IndexTurn, IndexWriter};
use bucket::{Bucket, Retry};
use model::Timestamp;
use tokio::sync::Mutex;
use tsdb::Ulid;

/// Readers list the bucket themselves when the index is older. The index is written at least four times as often.
const VALID: Duration = Duration::from_secs(20 * 60);

/// The index of one bucket; clones share it.
#[derive(Clone)]
pub(crate) struct IndexKeeper {
    writer: Arc<Mutex<IndexWriter>>,
    /// Whether the last attempt failed, so that the problem is logged once.
    is_failing: Arc<AtomicBool>,
}

impl IndexKeeper {
    pub(crate) fn new(bucket: &Bucket, name: &str, retry: Retry) -> Self {
        let writer = IndexWriter::new(bucket, name, VALID, retry);
        Self { writer: Arc::new(Mutex::new(writer)), is_failing: Arc::default() }
    }

    /// Call this before a look at the bucket. Without an answer nothing is written: readers list the bucket when the index is old.
    pub(crate) async fn begin(&self) -> Option<IndexTurn> {
        let turn = self.writer.lock().await.begin().await;
        self.log(turn.as_ref().err());
        turn.ok()
    }

    /// Tells readers what the bucket contains.
    pub(crate) async fn tell(&self, turn: Option<IndexTurn>, content: &BucketContent, now: Timestamp) {
        let Some(turn) = turn else { return };
        let written = self.writer.lock().await.write(turn, content, now).await;
        self.log(written.as_ref().err());
    }

    /// Whether readers have known for at least `delay` that a block is marked: where there is an index, since it tells of that.
    pub(crate) async fn has_told(&self, block: Ulid, now: Timestamp, delay: Duration) -> bool {
        let writer = self.writer.lock().await;
        if !writer.has_index() {
            return true;
        }
        let told = writer.told(block);
        told.is_some_and(|told| now.millis_since(told).max(0) >= delay.as_millis() as i64)
    }

    fn log(&self, error: Option<&impl std::fmt::Display>) {
        let was_failing = self.is_failing.swap(error.is_some(), Ordering::Relaxed);
        match error {
            Some(error) if !was_failing => {
                tracing::warn!(%error, "the index of the bucket cannot be written; readers list the bucket");
            }
            None if was_failing => tracing::info!("the index of the bucket is written again"),
            _ => {}
        }
    }
}
