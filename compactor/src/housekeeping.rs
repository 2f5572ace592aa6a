//! A pass of housekeeping: blocks that another block covers or that are too old are marked, and what was marked long enough ago is
//! removed (`removal.rs`).
//!
//! Nothing is marked or removed by an incomplete view, or while the clock of the bucket differs from that of this machine by more than
//! five minutes. Ages are measured by the clock of the bucket. Retention settings act from their second pass on.

use std::cell::{Cell, RefCell};

use bucket::marks::{self, MarkKind, MarkState};
use bucket::readers::SeenReader;
use bucket::{Lease, LeaseAttempt};
use model::Timestamp;

use crate::clock::ClockError;
use crate::group::GroupKey;
use crate::history::{Action, Decision};
use crate::retention::Expired;
use crate::retention_memory::were_seen;
use crate::view::CompactorView;
use crate::worker::BucketWorker;

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

/// What a pass knows while it marks and removes.
pub(crate) struct Pass<'a> {
    pub(crate) view: CompactorView,
    /// The time of the bucket.
    pub(crate) now: Timestamp,
    pub(crate) lease: &'a Lease,
    /// Whether the retention settings were seen in an earlier pass, or a person has approved them.
    pub(crate) trusts_retention: bool,
    approved: bool,
    /// The readers of the bucket, once they were needed.
    pub(crate) readers: RefCell<Option<Vec<SeenReader>>>,
    /// Removals that wait for readers.
    pub(crate) waits: Cell<usize>,
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
        let view = self.look().await?;
        let now = self.checked_time().await?;
        let trusts_retention = approved || self.knows_retention(now, outcome).await;
        let (readers, waits) = (RefCell::default(), Cell::default());
        let mut pass = Pass { view, now, lease, trusts_retention, approved, readers, waits };
        if chores == Chores::Retention {
            self.mark_expired(&pass, outcome).await;
            return Ok(());
        }
        self.find_interrupted_removals(&mut pass.view).await?;
        self.carry_deletions(&pass.view, lease).await?;
        self.mark_covered(&pass, outcome).await;
        self.mark_expired(&pass, outcome).await;
        self.remove_marked(&pass, outcome).await;
        self.remove_abandoned(&pass, outcome).await;
        self.remove_orphaned_deletions(&pass.view, lease).await?;
        self.forget_readers(&pass).await?;
        if outcome.marked + outcome.removed > 0 {
            self.look().await?;
        }
        Ok(())
    }

    /// Whether the retention settings were seen in an earlier pass.
    async fn knows_retention(&self, now: Timestamp, outcome: &mut HousekeepingOutcome) -> bool {
        let Some(fingerprint) = self.settings.retention.fingerprint() else { return true };
        match were_seen(&self.bucket, &fingerprint, now, self.workshop.retry).await {
            Ok(seen) => seen,
            Err(error) => {
                outcome.failed += 1;
                self.history.note(Decision::new(&self.name, Action::Failed, "", error));
                false
            }
        }
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
        let time = self.workshop.clock.of_bucket(&self.bucket, self.workshop.retry).await;
        self.metrics.guards(false, matches!(time, Err(ClockError::Differs { .. })));
        time.map_err(|error| error.to_string())
    }

    async fn mark(
        &self,
        group: impl ToString,
        expired: Expired,
        reason: &'static str,
        pass: &Pass<'_>,
        outcome: &mut HousekeepingOutcome,
    ) {
        let Expired { block, why, replaced_by } = expired;
        let decision =
            Decision::new(&self.name, Action::Marked, group, &why).from([block]).to(replaced_by.clone());
        match self.workshop.retire(block, &replaced_by, why, pass.now, pass.lease).await {
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
    async fn mark_covered(&self, pass: &Pass<'_>, outcome: &mut HousekeepingOutcome) {
        let (began, failed) = (std::time::Instant::now(), outcome.failed);
        for (meta, cover) in &pass.view.covered {
            let why = format!("outdated block: all of its sources are in {cover}");
            let group = GroupKey::of(meta, &self.settings.replica_labels);
            let covered = Expired { block: meta.ulid, why, replaced_by: vec![*cover] };
            self.mark(group, covered, "garbage", pass, outcome).await;
        }
        self.metrics.collected(began.elapsed(), outcome.failed == failed);
    }

    /// Marks blocks that are older than they are kept.
    async fn mark_expired(&self, pass: &Pass<'_>, outcome: &mut HousekeepingOutcome) {
        let view = &pass.view;
        let verdict = self.settings.retention.decide(&view.blocks, &self.settings.replica_labels, pass.now);
        for (block, why) in &verdict.kept {
            tracing::warn!(bucket = %self.name, %block, %why, "a block stays although it is old");
        }
        let most = ((view.blocks.len() as f64 * self.settings.breaker_share) as usize).max(BREAKER_BLOCKS);
        let lost = verdict.expired.iter().filter(|expired| expired.replaced_by.is_empty()).count();
        let is_open = lost > most && !pass.approved;
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
        if !pass.trusts_retention && !verdict.expired.is_empty() {
            let why = format!(
                "these retention settings are new in this bucket and would retire {} of {} blocks: the next pass retires them if the \
                 settings are still the same; `isthmus tools bucket retention --approve` retires them at once",
                verdict.expired.len(),
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
            self.mark(group, expired, "retention", pass, outcome).await;
        }
    }
}
