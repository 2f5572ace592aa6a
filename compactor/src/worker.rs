//! The work on one bucket: passes of compaction and downsampling, each group under a lease of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bucket::marks::{self, Mark, MarkKind};
use bucket::{Bucket, Fetcher, Lease, LeaseAttempt, Leases};
use futures::StreamExt;
use model::Labels;
use serde_json::{Value, json};
use tsdb::{BlockMeta, Ulid};

use crate::downsample::{self, DownsamplePlan};
use crate::group::{GroupKey, by_group, resolution_name, size_bytes};
use crate::history::{Action, Decision, History};
use crate::index::IndexKeeper;
use crate::job::{JobError, JobResult, Workshop, span};
use crate::metrics::CompactorMetrics;
use crate::output::DeletionsByBlock;
use crate::plan::{Plan, PlanReason, PlanRules, plan, too_large};
use crate::progress::{self, BucketProgress, Progress, TroubledBlock};
use crate::retention::RetentionPolicy;
use crate::view::{CompactorView, times};

/// A block that could not be read is tried again after this time.
const QUARANTINE: Duration = Duration::from_secs(3600);

/// How the work on a bucket is done.
#[derive(Clone, Debug)]
pub(crate) struct WorkSettings {
    pub(crate) rules: PlanRules,
    pub(crate) replica_labels: Vec<String>,
    pub(crate) concurrency: usize,
    pub(crate) downsample_concurrency: usize,
    /// Whether blocks are downsampled.
    pub(crate) downsamples: bool,
    pub(crate) retention: RetentionPolicy,
    pub(crate) delete_delay: Duration,
    /// How much longer a removal waits for readers that have not acknowledged it.
    pub(crate) reader_wait: Duration,
    /// The part of the blocks that may be retired in one pass without being replaced.
    pub(crate) breaker_share: f64,
}

/// One bucket, and everything that is needed to work on it.
#[derive(Clone)]
pub(crate) struct BucketWorker {
    pub(crate) name: String,
    pub(crate) bucket: Bucket,
    pub(crate) required: Labels,
    pub(crate) fetcher: Arc<Fetcher>,
    pub(crate) workshop: Workshop,
    pub(crate) leases: Leases,
    pub(crate) settings: Arc<WorkSettings>,
    pub(crate) history: History,
    pub(crate) metrics: CompactorMetrics,
    pub(crate) progress: Progress,
    pub(crate) index: IndexKeeper,
    /// Blocks that could not be read, since when, and why.
    pub(crate) quarantine: Arc<Mutex<BTreeMap<Ulid, (Instant, String)>>>,
}

/// Most passes of [`BucketWorker::work_off`]: each merges what the one before it made.
const MOST_PASSES: usize = 100;

/// What a pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PassOutcome {
    /// Blocks that were made.
    pub(crate) made: usize,
    /// Jobs that failed, and blocks that could not be read.
    pub(crate) failed: usize,
    /// Groups on which another compactor works.
    pub(crate) waiting: usize,
}

impl PassOutcome {
    fn add(&mut self, other: Self) {
        self.made += other.made;
        self.failed += other.failed;
        self.waiting += other.waiting;
    }
}

impl BucketWorker {
    /// The view of the bucket now. Updates the progress, too.
    ///
    /// # Errors
    /// A text that names the bucket; nothing must be decided then.
    pub(crate) async fn view(&self) -> Result<CompactorView, String> {
        let fetched = CompactorView::fetch(
            &self.fetcher,
            &self.required,
            &self.settings.replica_labels,
            self.workshop.clock.now(),
        )
        .await;
        let mut view = fetched.map_err(|error| error.to_string())?;
        view.refuse_removed(|block| self.history.removed_at(&self.name, block));
        self.report(&view);
        Ok(view)
    }

    /// The view of the bucket now, for work. The index of the bucket tells other readers of it.
    ///
    /// # Errors
    /// As [`BucketWorker::view`].
    pub(crate) async fn look(&self) -> Result<CompactorView, String> {
        let turn = self.index.begin().await;
        let view = self.view().await?;
        if let Some(content) = &view.content {
            self.index.tell(turn, content, self.workshop.clock.now()).await;
        }
        Ok(view)
    }

    /// Merges what is due, and downsamples if `downsamples`, until a pass makes nothing or fails. After each merge `go_on` is asked
    /// whether to continue.
    ///
    /// # Errors
    /// When the bucket cannot be read.
    pub(crate) async fn work_off(
        &self,
        downsamples: bool,
        go_on: impl Fn() -> bool,
    ) -> Result<PassOutcome, String> {
        let mut all = PassOutcome::default();
        for _ in 0..MOST_PASSES {
            let mut pass = self.compact().await?;
            let is_stopped = !go_on();
            if downsamples && !is_stopped {
                pass.add(self.downsample().await?);
            }
            all.add(pass);
            if is_stopped || pass.made == 0 || pass.failed > 0 {
                break;
            }
        }
        Ok(all)
    }

    /// Merges what is due, until nothing is left in any group.
    ///
    /// # Errors
    /// When the bucket cannot be read. A failed job is counted and stops no other group.
    pub(crate) async fn compact(&self) -> Result<PassOutcome, String> {
        let view = self.look().await?;
        let due: Vec<GroupKey> = by_group(&view.blocks, &self.settings.replica_labels)
            .into_iter()
            .filter(|(_, blocks)| {
                self.next(blocks, &view).is_some()
                    || !self.too_large(blocks, &view).is_empty()
                    || !self.rewrites(blocks, &view).is_empty()
            })
            .map(|(key, _)| key)
            .collect();
        self.progress.stop_waiting(&self.name, &due);
        let outcomes = futures::stream::iter(due)
            .map(|key| async move { self.compact_group(&key).await })
            .buffer_unordered(self.settings.concurrency.max(1))
            .collect::<Vec<_>>()
            .await;
        let mut all = PassOutcome::default();
        outcomes.into_iter().for_each(|outcome| all.add(outcome));
        if all.made > 0 {
            self.look().await?;
        }
        Ok(all)
    }

    fn next(&self, blocks: &[Arc<BlockMeta>], view: &CompactorView) -> Option<Plan> {
        plan(blocks, |id| self.is_excluded(id, view), &self.settings.rules, self.workshop.clock.now())
    }

    fn too_large(&self, blocks: &[Arc<BlockMeta>], view: &CompactorView) -> Vec<Ulid> {
        too_large(blocks, |id| self.is_excluded(id, view), &self.settings.rules)
    }

    fn is_excluded(&self, block: Ulid, view: &CompactorView) -> bool {
        view.no_compact.contains(&block) || self.is_quarantined(block)
    }

    pub(crate) fn is_quarantined(&self, block: Ulid) -> bool {
        let quarantine = self.quarantine.lock().unwrap_or_else(PoisonError::into_inner);
        quarantine.get(&block).is_some_and(|(since, _)| since.elapsed() < QUARANTINE)
    }

    /// Acquires the lease of a group; `None` if another compactor has it, or it cannot be read.
    async fn lease(&self, key: &GroupKey, outcome: &mut PassOutcome) -> Option<Lease> {
        let name = format!("compact-{}", key.id().replace('@', "-"));
        match self.leases.acquire(&name).await {
            Ok(LeaseAttempt::Held(lease)) => Some(lease),
            Ok(LeaseAttempt::Taken { holder }) => {
                outcome.waiting += 1;
                tracing::info!(bucket = %self.name, group = %key, %holder, "another compactor works on this group");
                let state = format!("{} for the compactor {holder:?}", progress::WAITING);
                self.progress.state(&self.name, key, Some(state));
                None
            }
            Err(error) => {
                outcome.failed += 1;
                self.history.note(Decision::new(&self.name, Action::Failed, key, error));
                None
            }
        }
    }

    async fn compact_group(&self, key: &GroupKey) -> PassOutcome {
        let mut outcome = PassOutcome::default();
        let Some(lease) = self.lease(key, &mut outcome).await else { return outcome };
        self.progress.state(&self.name, key, None);
        // Another compactor may have worked on the group before the lease was free.
        match self.look().await {
            Ok(view) => outcome.add(self.compact_held(key, view, &lease).await),
            Err(error) => {
                outcome.failed += 1;
                self.history.note(Decision::new(&self.name, Action::Failed, key, error));
            }
        }
        self.progress.state(&self.name, key, self.skipped(key));
        self.release(key, lease).await;
        outcome
    }

    /// Why the last job of the group was skipped, if it was.
    fn skipped(&self, key: &GroupKey) -> Option<String> {
        let (groups, ..) = self.progress.all();
        let state = groups
            .into_iter()
            .find(|group| group.bucket == self.name && group.group == key.to_string())?
            .state;
        state.filter(|state| state.starts_with(progress::SKIPPED))
    }

    async fn compact_held(&self, key: &GroupKey, mut view: CompactorView, lease: &Lease) -> PassOutcome {
        let mut outcome = PassOutcome::default();
        let mut blocks = view.group(key, &self.settings.replica_labels);
        let inherited = lease.inherited_plan().and_then(|recorded| recorded_plan(recorded, &blocks));
        let is_excluded = |plan: &Plan| plan.sources.iter().any(|meta| self.is_excluded(meta.ulid, &view));
        let mut inherited = inherited.filter(|plan| !is_excluded(plan));
        loop {
            let Some(next) = inherited.take().or_else(|| self.next(&blocks, &view)) else {
                for block in self.too_large(&blocks, &view) {
                    outcome.failed += usize::from(!self.exclude(key, block, lease).await);
                    view.no_compact.insert(block);
                }
                outcome.add(self.rewrite_group(key, &blocks, &view, lease).await);
                return outcome;
            };
            if self.workshop.stop.load(Ordering::Relaxed) {
                return outcome;
            }
            match self.run(key, &next, &view.deletions, lease).await {
                Ok(result) => {
                    outcome.made += usize::from(result.output.is_some());
                    blocks.retain(|meta| !next.sources.iter().any(|source| source.ulid == meta.ulid));
                    blocks.extend(result.output);
                    blocks.sort_by_key(|meta| (meta.min_time, meta.max_time, meta.ulid));
                }
                Err(JobError::Damaged { block, reason }) => {
                    outcome.failed += 1;
                    self.put_into_quarantine(key, block, reason);
                }
                // What is gone was merged or removed by another program; the next pass sees what there is.
                Err(JobError::Stopped | JobError::Gone(_)) => return outcome,
                Err(error) => {
                    outcome.failed += 1;
                    self.failed(key, &next, &error);
                    // Deleted samples do not wait for another job.
                    outcome.add(self.rewrite_group(key, &blocks, &view, lease).await);
                    return outcome;
                }
            }
        }
    }

    /// Runs one merge, with its plan recorded in the lease meanwhile.
    async fn run(
        &self,
        key: &GroupKey,
        next: &Plan,
        deletions: &DeletionsByBlock,
        lease: &Lease,
    ) -> Result<JobResult, JobError> {
        let (min, max) = span(&next.sources);
        let bytes: u64 = next.sources.iter().map(|meta| size_bytes(meta)).sum();
        let what = format!(
            "merging {} blocks, {bytes} bytes, {}, {}",
            next.sources.len(),
            next.why,
            times(min, max)
        );
        tracing::info!(bucket = %self.name, group = %key, "{what}");
        self.progress.state(&self.name, key, Some(what));
        let began = Instant::now();
        lease.record(Some(record(next))).await?;
        let result = self.workshop.compact(key, next, deletions, lease).await?;
        lease.record(None).await?;
        let took = began.elapsed();
        self.metrics.compacted(next.is_vertical(), took, result.account.written, result.account.conflicts);
        self.progress.done(bytes, took);
        for _ in next.sources.iter().filter(|_| result.is_retired) {
            self.metrics.marked("source");
        }
        let mut decision =
            Decision::new(&self.name, Action::Compacted, key, format!("{}, {}", next.why, times(min, max)))
                .from(next.sources.iter().map(|meta| meta.ulid))
                .to(result.output.iter().map(|meta| meta.ulid));
        decision.samples = Some(result.account);
        self.history.note(decision);
        Ok(result)
    }

    fn failed(&self, key: &GroupKey, next: &Plan, error: &JobError) {
        let action = match error {
            JobError::NoSpace { .. } => {
                self.progress.state(&self.name, key, Some(format!("{}: {error}", progress::SKIPPED)));
                Action::Skipped
            }
            _ => {
                self.metrics.failed();
                Action::Failed
            }
        };
        let ids = next.sources.iter().map(|meta| meta.ulid);
        self.history.note(Decision::new(&self.name, action, key, error).from(ids));
    }

    /// Leaves a block alone, because it cannot be read. The rest of its group goes on.
    pub(crate) fn put_into_quarantine(&self, key: &GroupKey, block: Ulid, reason: String) {
        self.metrics.failed();
        let why = format!(
            "{reason}; it is left alone for an hour: verify it with `isthmus tools bucket verify`, upload it again or salvage it with \
             `isthmus tools bucket rewrite --salvage`"
        );
        self.history.note(Decision::new(&self.name, Action::Quarantined, key, &why).from([block]));
        let mut quarantine = self.quarantine.lock().unwrap_or_else(PoisonError::into_inner);
        quarantine.insert(block, (Instant::now(), reason));
    }

    /// Marks a block as too large to be merged. Returns whether that worked.
    async fn exclude(&self, key: &GroupKey, block: Ulid, lease: &Lease) -> bool {
        let mut mark = Mark::new(MarkKind::NoCompact, block, self.workshop.clock.now());
        mark.reason = Some("index-size-exceeding".to_owned());
        mark.details = Some(format!(
            "the index of the merged block could exceed {} bytes",
            self.settings.rules.max_index_bytes
        ));
        if !lease.is_held() {
            return false;
        }
        let marked = self.workshop.retry.run(|| marks::create(&self.bucket, &mark)).await;
        let why = mark.details.unwrap_or_default();
        match marked {
            Ok(_) => {
                self.metrics.excluded();
                self.history.note(Decision::new(&self.name, Action::Skipped, key, why).from([block]));
                true
            }
            Err(error) => {
                self.history.note(Decision::new(&self.name, Action::Failed, key, error).from([block]));
                false
            }
        }
    }

    /// Downsamples what is due, 5m before 1h.
    ///
    /// # Errors
    /// As [`BucketWorker::compact`].
    pub(crate) async fn downsample(&self) -> Result<PassOutcome, String> {
        let mut all = PassOutcome::default();
        if !self.settings.downsamples {
            return Ok(all);
        }
        for to in [300_000, 3_600_000] {
            let view = self.look().await?;
            let due = self.due(&view).into_iter().filter(|plan| plan.to == to);
            let groups: BTreeSet<GroupKey> = due.map(|plan| self.target(&plan)).collect();
            for key in groups {
                all.add(self.downsample_group(&key).await);
            }
        }
        Ok(all)
    }

    pub(crate) fn due(&self, view: &CompactorView) -> Vec<DownsamplePlan> {
        let is_excluded = |id: Ulid| view.no_downsample.contains(&id) || self.is_quarantined(id);
        downsample::plan(
            &view.blocks,
            &self.settings.replica_labels,
            is_excluded,
            &self.settings.retention,
            self.workshop.clock.now(),
        )
    }

    /// The group of the block that a plan makes.
    fn target(&self, plan: &DownsamplePlan) -> GroupKey {
        GroupKey { resolution: plan.to, ..GroupKey::of(&plan.source, &self.settings.replica_labels) }
    }

    /// Makes the blocks that are due in a group, under its lease.
    async fn downsample_group(&self, key: &GroupKey) -> PassOutcome {
        let mut outcome = PassOutcome::default();
        let Some(lease) = self.lease(key, &mut outcome).await else { return outcome };
        // Another compactor may have done some of it before the lease was free.
        match self.look().await {
            Ok(view) => {
                let due = self.due(&view).into_iter().filter(|plan| self.target(plan) == *key);
                let (lease, deletions) = (&lease, &view.deletions);
                let outcomes = futures::stream::iter(due)
                    .map(|plan| async move { self.downsample_block(key, &plan, deletions, lease).await })
                    .buffer_unordered(self.settings.downsample_concurrency.max(1))
                    .collect::<Vec<_>>()
                    .await;
                outcomes.into_iter().for_each(|one| outcome.add(one));
            }
            Err(error) => {
                outcome.failed += 1;
                self.history.note(Decision::new(&self.name, Action::Failed, key, error));
            }
        }
        self.progress.state(&self.name, key, None);
        self.release(key, lease).await;
        outcome
    }

    async fn downsample_block(
        &self,
        key: &GroupKey,
        plan: &DownsamplePlan,
        deletions: &DeletionsByBlock,
        lease: &Lease,
    ) -> PassOutcome {
        let mut outcome = PassOutcome::default();
        if self.workshop.stop.load(Ordering::Relaxed) {
            return outcome;
        }
        self.progress.state(&self.name, key, Some(format!("downsampling {}", plan.source.ulid)));
        let began = Instant::now();
        match self.workshop.downsample(plan, deletions, lease).await {
            Ok(result) => {
                outcome.made += usize::from(result.output.is_some());
                self.metrics.downsampled(plan.to, began.elapsed());
                let why = format!("{} is due", resolution_name(plan.to));
                let mut decision = Decision::new(&self.name, Action::Downsampled, key, why)
                    .from([plan.source.ulid])
                    .to(result.output.iter().map(|meta| meta.ulid));
                decision.samples = Some(result.account);
                self.history.note(decision);
            }
            Err(JobError::Stopped | JobError::Gone(_)) => {}
            Err(error) => {
                outcome.failed += 1;
                self.metrics.downsampling_failed();
                match error {
                    JobError::Damaged { block, reason } => self.put_into_quarantine(key, block, reason),
                    error => {
                        let is_skipped = matches!(error, JobError::NoSpace { .. });
                        let action = if is_skipped { Action::Skipped } else { Action::Failed };
                        self.history
                            .note(Decision::new(&self.name, action, key, error).from([plan.source.ulid]));
                    }
                }
            }
        }
        outcome
    }

    /// Gives the lease of a group back. If that fails, it ends by itself.
    async fn release(&self, key: &GroupKey, lease: Lease) {
        if lease.is_held()
            && let Err(error) = lease.release().await
        {
            tracing::warn!(bucket = %self.name, group = %key, %error, "the lease could not be released");
        }
    }

    /// Updates what the metrics and the API show.
    fn report(&self, view: &CompactorView) {
        let now = self.workshop.clock.now();
        let mut progress = BucketProgress { marked: view.marked.len(), ..BucketProgress::default() };
        for (key, blocks) in by_group(&view.blocks, &self.settings.replica_labels) {
            let is_excluded = |id| self.is_excluded(id, view);
            let group = progress::of_group(&self.name, &key, &blocks, is_excluded, &self.settings.rules, now);
            progress.groups.insert(key, group);
        }
        for plan in self.due(view).iter().filter(|_| self.settings.downsamples) {
            let key = GroupKey::of(&plan.source, &self.settings.replica_labels);
            progress.groups.entry(key).or_default().downsample_blocks += 1;
        }
        let trouble = |state, (id, reason): (&Ulid, &String)| TroubledBlock {
            ulid: id.to_string(),
            bucket: self.name.clone(),
            state,
            reason: reason.clone(),
        };
        progress.troubled.extend(view.corrupt.iter().map(|block| trouble("corrupt", block)));
        progress.troubled.extend(view.refused.iter().map(|block| trouble("refused", block)));
        let quarantine = self.quarantine.lock().unwrap_or_else(PoisonError::into_inner);
        let quarantined = quarantine.iter().filter(|(_, (since, _))| since.elapsed() < QUARANTINE);
        progress.troubled.extend(quarantined.map(|(id, (_, reason))| trouble("quarantined", (id, reason))));
        drop(quarantine);
        self.progress.set(&self.name, progress);
        let (_, _, backlog, _) = self.progress.all();
        self.metrics.backlog(&backlog);
    }
}

/// A plan as it is recorded in a lease.
fn record(plan: &Plan) -> Value {
    let sources: Vec<String> = plan.sources.iter().map(|meta| meta.ulid.to_string()).collect();
    json!({ "sources": sources, "why": plan.why.to_string() })
}

/// The plan that an earlier holder did not finish, if all of its sources are still there. A plan that is not readable is not needed:
/// the planner makes the next one.
fn recorded_plan(recorded: &Value, blocks: &[Arc<BlockMeta>]) -> Option<Plan> {
    let ids = recorded.get("sources")?.as_array()?;
    let find = |id: &Value| {
        let id = tsdb::parse_block_id(id.as_str()?)?;
        blocks.iter().find(|meta| meta.ulid == id).cloned()
    };
    let sources: Vec<Arc<BlockMeta>> = ids.iter().map(find).collect::<Option<_>>()?;
    (sources.len() > 1).then_some(Plan { sources, why: PlanReason::Overlap })
}
