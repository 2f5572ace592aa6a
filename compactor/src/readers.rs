//! Readers that must have acknowledged a view without a block before it is removed: the stores of the bucket.
//!
//! Each store writes an object after each sync (`bucket::readers`). Stores that cannot write, and those of Thanos, are not known; for them
//! the delay of removals counts, and nothing else.

use bucket::readers::{self, SeenReader};
use model::Timestamp;
use tsdb::Ulid;

use crate::history::{Action, Decision};
use crate::housekeeping::Pass;
use crate::worker::BucketWorker;

/// The objects of readers that have expired are removed after this time, in milliseconds.
const FORGET: i64 = 7 * 24 * 3_600_000;

impl BucketWorker {
    /// Whether a block that was marked at `marked` has to stay, because a known reader has not acknowledged a view without it. After the
    /// longest wait the block is removed nevertheless, as Thanos does, and the history says so.
    pub(crate) async fn must_wait_for_readers(
        &self,
        block: Ulid,
        marked: Timestamp,
        pass: &Pass<'_>,
    ) -> Result<bool, String> {
        let readers = self.readers(pass).await?;
        let waiting: Vec<&SeenReader> = readers
            .iter()
            .filter(|reader| !reader.is_expired(pass.now) && !reader.has_let_go(block, marked))
            .collect();
        let Some(first) = waiting.first() else { return Ok(false) };
        let most = self.settings.delete_delay + self.settings.reader_wait;
        let who = format!("{} ({}) and {} more", first.ack.name, first.ack.id, waiting.len() - 1);
        if pass.now < marked + most {
            tracing::info!(bucket = %self.name, %block, readers = %who, "a removal waits for readers");
            pass.waits.set(pass.waits.get() + 1);
            return Ok(true);
        }
        self.metrics.readers_ignored();
        let why = format!(
            "it is removed although {} stores have not acknowledged a view without it within {}: {who}",
            waiting.len(),
            runtime::format_duration(most)
        );
        tracing::warn!(bucket = %self.name, %block, "{why}");
        self.history.note(Decision::new(&self.name, Action::Skipped, "", why).from([block]));
        Ok(false)
    }

    /// The readers, listed once in a pass.
    async fn readers(&self, pass: &Pass<'_>) -> Result<Vec<SeenReader>, String> {
        if let Some(known) = pass.readers.borrow().clone() {
            return Ok(known);
        }
        let found =
            readers::list(&self.bucket, self.workshop.retry).await.map_err(|error| error.to_string())?;
        *pass.readers.borrow_mut() = Some(found.clone());
        Ok(found)
    }

    /// Notes how many removals wait, and removes the objects of readers that stopped long ago.
    ///
    /// # Errors
    /// When an object cannot be removed.
    pub(crate) async fn forget_readers(&self, pass: &Pass<'_>) -> Result<(), String> {
        self.metrics.waiting_for_readers(pass.waits.get());
        let known = pass.readers.borrow().clone().unwrap_or_default();
        for reader in known.iter().filter(|reader| pass.now.millis_since(reader.written) > FORGET) {
            let forgotten = readers::forget(&self.bucket, &reader.ack.id).await;
            forgotten.map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}
