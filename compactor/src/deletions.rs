//! Deletions of series on one bucket: blocks are written again without them, and marks go over to the blocks that merging makes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bucket::Lease;
use bucket::deletions;
use tsdb::{BlockMeta, Ulid};

use crate::group::{GroupKey, size_bytes};
use crate::history::{Action, Decision};
use crate::job::JobError;
use crate::rewrite::{self, RewritePlan};
use crate::view::CompactorView;
use crate::worker::{BucketWorker, PassOutcome};

impl BucketWorker {
    /// The blocks of a group that are written again.
    pub(crate) fn rewrites(&self, blocks: &[Arc<BlockMeta>], view: &CompactorView) -> Vec<RewritePlan> {
        rewrite::due(view, blocks, |id| self.is_quarantined(id))
    }

    /// Writes the blocks of a group again that are due, one after the other, under its lease. `left` are the blocks of the group that
    /// are still there.
    pub(crate) async fn rewrite_group(
        &self,
        key: &GroupKey,
        left: &[Arc<BlockMeta>],
        view: &CompactorView,
        lease: &Lease,
    ) -> PassOutcome {
        let mut outcome = PassOutcome::default();
        for plan in self.rewrites(left, view) {
            if self.workshop.stop.load(Ordering::Relaxed) {
                break;
            }
            match self.rewrite_block(key, &plan, lease).await {
                Ok(is_made) => outcome.made += usize::from(is_made),
                Err(JobError::Damaged { block, reason }) => {
                    outcome.failed += 1;
                    self.put_into_quarantine(key, block, reason);
                }
                Err(JobError::Stopped) => break,
                Err(JobError::Gone(_)) => {}
                Err(error) => {
                    outcome.failed += 1;
                    let is_skipped = matches!(error, JobError::NoSpace { .. });
                    let action = if is_skipped { Action::Skipped } else { Action::Failed };
                    self.metrics.failed();
                    self.history.note(Decision::new(&self.name, action, key, error).from([plan.source.ulid]));
                }
            }
        }
        outcome
    }

    async fn rewrite_block(
        &self,
        key: &GroupKey,
        plan: &RewritePlan,
        lease: &Lease,
    ) -> Result<bool, JobError> {
        let what = format!("writing {} again: {}", plan.source.ulid, plan.why());
        tracing::info!(bucket = %self.name, group = %key, "{what}");
        self.progress.state(&self.name, key, Some(what));
        let began = Instant::now();
        let result = self.workshop.rewrite(plan, lease).await?;
        self.progress.done(size_bytes(&plan.source), began.elapsed());
        self.metrics.rewritten(began.elapsed(), result.account.deleted);
        let mut decision = Decision::new(&self.name, Action::Rewritten, key, plan.why())
            .from([plan.source.ulid])
            .to(result.output.iter().map(|meta| meta.ulid));
        decision.samples = Some(result.account);
        self.history.note(decision);
        self.progress.state(&self.name, key, None);
        Ok(result.output.is_some())
    }

    /// Gives blocks the deletions that hold for them because of the marks of other blocks, before those are removed.
    ///
    /// # Errors
    /// When a mark cannot be written. No block must be removed then.
    pub(crate) async fn carry_deletions(&self, view: &CompactorView, lease: &Lease) -> Result<(), String> {
        let (retry, may_write) = (self.workshop.retry, || lease.is_held());
        let carried =
            deletions::carry(&self.bucket, &view.deletions, &view.tombstones, may_write, retry).await;
        carried.map(|_| ()).map_err(|error| error.to_string())
    }

    /// Removes the marks of blocks that are not in the bucket any more.
    pub(crate) async fn remove_orphaned_deletions(
        &self,
        view: &CompactorView,
        lease: &Lease,
    ) -> Result<(), String> {
        let is_known = |id: &Ulid| {
            view.marked.contains_key(id)
                || view.partial.contains(id)
                || view.corrupt.contains_key(id)
                || view.refused.contains_key(id)
                || view.blocks.iter().any(|meta| meta.ulid == *id)
                || view.covered.iter().any(|(meta, _)| meta.ulid == *id)
        };
        for block in view.tombstones.keys().filter(|id| !is_known(id)) {
            // The block may only be outside of what this compactor works on.
            let (retry, folder) = (self.workshop.retry, block.to_string());
            let listed = retry.run(|| self.bucket.list_dir(&folder)).await;
            let listed = listed.map_err(|error| error.to_string())?;
            if listed.dirs.is_empty() && listed.objects.is_empty() && lease.is_held() {
                retry
                    .run(|| deletions::remove(&self.bucket, *block))
                    .await
                    .map_err(|error| error.to_string())?;
                tracing::info!(bucket = %self.name, %block, "deletions of a block that is gone were removed");
            }
        }
        Ok(())
    }

    /// Whether deletions of a block were requested that are not in the view, so that other blocks do not have them yet.
    ///
    /// # Errors
    /// When that cannot be read.
    pub(crate) async fn has_new_deletions(&self, block: Ulid, view: &CompactorView) -> Result<bool, String> {
        let now = deletions::load(&self.bucket, block, self.workshop.retry).await;
        let now = now.map_err(|error| error.to_string())?;
        Ok(now.as_ref() != view.tombstones.get(&block) && now.is_some())
    }
}
