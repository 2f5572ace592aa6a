//! Retiring and removing blocks: those that another block covers, those that are too old, those that were marked long enough ago, and
//! abandoned uploads.
//!
//! Nothing is marked or removed by an incomplete view, or while the clock of the bucket differs from that of this machine by more than
//! five minutes. Ages are measured by the clock of the bucket. A marked block is removed only while what replaces it is there.

use std::time::Duration;

use bucket::marks::{self, Mark, MarkKind, MarkState};
use bucket::{Lease, LeaseAttempt, PartialVerdict, delete_block, delete_partial, store_time};
use model::Timestamp;
use tsdb::Ulid;

use crate::group::{GroupKey, resolution, resolution_name};
use crate::history::{Action, Decision};
use crate::retention::Expired;
use crate::view::CompactorView;
use crate::worker::BucketWorker;

/// The clocks may differ by this much.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(300);
/// So many blocks may always be retired in one pass without being replaced.
const BREAKER_BLOCKS: usize = 20;

/// What a pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HousekeepingOutcome {
    pub(crate) marked: usize,
    pub(crate) removed: usize,
    pub(crate) failed: usize,
    pub(crate) waiting: bool,
}

/// What is done of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chores {
    All,
    /// Only what retention retires is marked.
    Retention,
}

impl BucketWorker {
    /// Marks what is covered or too old, and removes what was marked long enough ago. With `approved`, the breaker does not count.
    ///
    /// # Errors
    /// When the bucket cannot be read or written, or its clock differs.
    pub(crate) async fn housekeep(
        &self,
        chores: Chores,
        approved: bool,
    ) -> Result<HousekeepingOutcome, String> {
        let mut outcome = HousekeepingOutcome::default();
        let lease = match self.leases.acquire("housekeeping").await {
            Ok(LeaseAttempt::Held(lease)) => lease,
            Ok(LeaseAttempt::Taken { holder }) => {
                tracing::info!(bucket = %self.name, %holder, "another compactor retires and removes blocks");
                outcome.waiting = true;
                return Ok(outcome);
            }
            Err(error) => return Err(error.to_string()),
        };
        let done = self.housekeep_held(chores, approved, &lease, &mut outcome).await;
        if lease.is_held()
            && let Err(error) = lease.release().await
        {
            tracing::warn!(bucket = %self.name, %error, "the lease of housekeeping could not be released");
        }
        done.map(|()| outcome)
    }

    async fn housekeep_held(
        &self,
        chores: Chores,
        approved: bool,
        lease: &Lease,
        outcome: &mut HousekeepingOutcome,
    ) -> Result<(), String> {
        let mut view = self.view().await?;
        let now = self.checked_time().await?;
        if chores == Chores::Retention {
            self.mark_expired(&view, now, approved, lease, outcome).await;
            return Ok(());
        }
        self.find_interrupted_removals(&mut view).await?;
        self.mark_covered(&view, lease, outcome).await;
        self.mark_expired(&view, now, approved, lease, outcome).await;
        self.remove_marked(&view, now, lease, outcome).await;
        self.remove_abandoned(&view, now, lease, outcome).await;
        Ok(())
    }

    /// Adds the marks of blocks without `meta.json`: their removal was interrupted, because the mark is removed last.
    async fn find_interrupted_removals(&self, view: &mut CompactorView) -> Result<(), String> {
        for block in &view.partial {
            let retry = self.workshop.retry;
            let found = retry.run(|| marks::load(&self.bucket, *block, MarkKind::Deletion)).await;
            match found.map_err(|error| error.to_string())? {
                MarkState::Marked(mark) => _ = view.marked.insert(*block, mark),
                MarkState::Unusable(_) | MarkState::Absent => {}
            }
        }
        Ok(())
    }

    /// The time by the clock of the bucket.
    async fn checked_time(&self) -> Result<Timestamp, String> {
        let before = crate::now();
        let of_store =
            self.workshop.retry.run(|| store_time(&self.bucket)).await.map_err(|error| error.to_string())?;
        let millis = of_store.as_millis();
        let (early, late) = (before.as_millis() - millis, millis - crate::now().as_millis());
        let tolerated = CLOCK_TOLERANCE.as_millis() as i64;
        let differs = early > tolerated || late > tolerated;
        self.metrics.guards(false, differs);
        if differs {
            return Err(format!(
                "the clock of bucket {:?} says {}, that of this machine {}: nothing is retired or removed before both agree within 5 \
                 minutes; correct the clock of this machine",
                self.name,
                crate::history::rfc3339(of_store),
                crate::history::rfc3339(before)
            ));
        }
        Ok(of_store)
    }

    async fn mark(
        &self,
        group: impl ToString,
        expired: Expired,
        reason: &'static str,
        lease: &Lease,
        outcome: &mut HousekeepingOutcome,
    ) {
        let Expired { block, why, replaced_by } = expired;
        let decision =
            Decision::new(&self.name, Action::Marked, group, &why).from([block]).to(replaced_by.clone());
        match self.workshop.retire(block, &replaced_by, why, lease).await {
            Ok(()) => {
                outcome.marked += 1;
                self.metrics.marked(reason);
                self.history.note(decision);
            }
            Err(error) => {
                outcome.failed += 1;
                let why = format!("mark for deletion: {error}");
                self.history.note(Decision { action: Action::Failed, why, ..decision });
            }
        }
    }

    /// Marks blocks whose sources are all in another block.
    async fn mark_covered(&self, view: &CompactorView, lease: &Lease, outcome: &mut HousekeepingOutcome) {
        for (meta, cover) in &view.covered {
            let why = format!("outdated block: all of its sources are in {cover}");
            let group = GroupKey::of(meta, &self.settings.replica_labels);
            self.mark(
                group,
                Expired { block: meta.ulid, why, replaced_by: vec![*cover] },
                "garbage",
                lease,
                outcome,
            )
            .await;
        }
    }

    /// Marks blocks that are older than they are kept.
    async fn mark_expired(
        &self,
        view: &CompactorView,
        now: Timestamp,
        approved: bool,
        lease: &Lease,
        outcome: &mut HousekeepingOutcome,
    ) {
        let verdict = self.settings.retention.decide(&view.blocks, now);
        for (block, why) in &verdict.kept {
            tracing::warn!(bucket = %self.name, %block, %why, "a block stays although it is old");
        }
        let most = ((view.blocks.len() as f64 * self.settings.breaker_share) as usize).max(BREAKER_BLOCKS);
        let lost = verdict.expired.iter().filter(|expired| expired.replaced_by.is_empty()).count();
        let is_open = lost > most && !approved;
        self.metrics.guards(is_open, false);
        if is_open {
            outcome.failed += 1;
            let why = format!(
                "retention would retire {lost} of {} blocks at once, more than {most}: none is retired. If this is intended, run \
                 `isthmus tools bucket retention --approve` once, or raise --retention.max-share",
                view.blocks.len()
            );
            self.history.note(Decision::new(&self.name, Action::Skipped, "", why));
            return;
        }
        for expired in verdict.expired {
            let meta = view.blocks.iter().find(|meta| meta.ulid == expired.block);
            let group = meta
                .map(|meta| GroupKey::of(meta, &self.settings.replica_labels).to_string())
                .unwrap_or_default();
            self.mark(group, expired, "retention", lease, outcome).await;
        }
    }

    /// Removes blocks whose marks are old enough.
    async fn remove_marked(
        &self,
        view: &CompactorView,
        now: Timestamp,
        lease: &Lease,
        outcome: &mut HousekeepingOutcome,
    ) {
        for (block, mark) in
            view.marked.iter().filter(|(_, mark)| mark.age(now) >= self.settings.delete_delay)
        {
            let decision = Decision::new(
                &self.name,
                Action::Deleted,
                "",
                mark.details.as_deref().unwrap_or("marked for deletion"),
            )
            .from([*block])
            .to(mark.replaced_by.clone());
            match self.remove(*block, mark, view, now, lease).await {
                Ok(None) => {
                    outcome.removed += 1;
                    self.metrics.cleaned(true);
                    self.history.note(decision);
                }
                Ok(Some(why)) => self.history.note(Decision { action: Action::Skipped, why, ..decision }),
                Err(why) => {
                    outcome.failed += 1;
                    self.metrics.cleaned(false);
                    self.history.note(Decision { action: Action::Failed, why, ..decision });
                }
            }
        }
    }

    /// Removes a marked block, or returns why it is kept.
    async fn remove(
        &self,
        block: Ulid,
        mark: &Mark,
        view: &CompactorView,
        now: Timestamp,
        lease: &Lease,
    ) -> Result<Option<String>, String> {
        if let Some(why) = self.missing_replacement(block, mark, view) {
            return Ok(Some(why));
        }
        let retry = self.workshop.retry;
        let found = retry.run(|| marks::load(&self.bucket, block, MarkKind::Deletion)).await;
        match found.map_err(|error| error.to_string())? {
            MarkState::Marked(found) if found.age(now) >= self.settings.delete_delay => {}
            _ => return Ok(Some("its deletion mark was changed or removed meanwhile".to_owned())),
        }
        if !lease.is_held() {
            return Err("the lease was lost".to_owned());
        }
        delete_block(&self.bucket, block, retry).await.map(|_| None).map_err(|error| error.to_string())
    }

    /// Why a marked block must stay although its time has come: what has its samples is not there.
    fn missing_replacement(&self, block: Ulid, mark: &Mark, view: &CompactorView) -> Option<String> {
        let gone: Vec<&Ulid> =
            mark.replaced_by.iter().filter(|id| !view.blocks.iter().any(|meta| meta.ulid == **id)).collect();
        let first = gone.first()?;
        // What replaced it may have been merged further since.
        let meta = view.marked_blocks.get(&block)?;
        let of_group = |other: &&std::sync::Arc<tsdb::BlockMeta>| {
            let (a, b) = (
                GroupKey::of(other, &self.settings.replica_labels),
                GroupKey::of(meta, &self.settings.replica_labels),
            );
            a.labels == b.labels && resolution(other) >= resolution(meta)
        };
        let mut left = meta.compaction.sources.clone();
        for other in view.blocks.iter().filter(of_group) {
            left.retain(|source| !other.compaction.sources.contains(source));
        }
        let is_retired = left.is_empty() || self.settings.retention.is_past(meta, crate::now());
        (!is_retired).then(|| {
            format!(
                "block {first}, which replaced it at {}, is not in the bucket, and no other block has its samples: it is kept; remove its \
                 deletion mark to use it again",
                resolution_name(resolution(meta))
            )
        })
    }

    /// Removes uploads that were abandoned.
    async fn remove_abandoned(
        &self,
        view: &CompactorView,
        now: Timestamp,
        lease: &Lease,
        outcome: &mut HousekeepingOutcome,
    ) {
        for block in view.partial.iter().filter(|block| !view.marked.contains_key(block)) {
            if !lease.is_held() {
                return;
            }
            match delete_partial(&self.bucket, *block, now, self.workshop.retry).await {
                Ok(PartialVerdict::Abandoned { newest }) => {
                    outcome.removed += 1;
                    self.metrics.partial_removed();
                    let why = format!("its upload was abandoned at {}", crate::history::rfc3339(newest));
                    self.history.note(Decision::new(&self.name, Action::Cleaned, "", why).from([*block]));
                }
                Ok(PartialVerdict::Keep(reason)) => {
                    tracing::debug!(bucket = %self.name, %block, reason, "an incomplete block is kept");
                }
                Err(error) => {
                    outcome.failed += 1;
                    self.metrics.cleaned(false);
                    self.history.note(Decision::new(&self.name, Action::Failed, "", error).from([*block]));
                }
            }
        }
    }
}
