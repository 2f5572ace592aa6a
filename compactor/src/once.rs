//! One run by hand: the commands `isthmus tools bucket compact`, `downsample`, `retention` and `progress`.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bucket::{DataFolder, ObjstoreArgs};
use runtime::{ConfigMistakes, Registry, RoleError};
use tsdb::Ulid;

use crate::component::{ROLE, workers};
use crate::config::WorkArgs;
use crate::group::{GroupKey, by_group};
use crate::history::{Action, Decision};
use crate::housekeeping::Chores;
use crate::output;
use crate::progress::{GroupProgress, TroubledBlock, next_plans};
use crate::worker::{BucketWorker, PassOutcome};

/// A compactor that runs on request.
pub struct OneRun {
    workers: Vec<BucketWorker>,
    _folder: DataFolder,
}

/// What a run did, or would do.
#[derive(Clone, Debug, Default)]
pub struct OneRunReport {
    /// In the order of time.
    pub rows: Vec<OneRunRow>,
    /// Jobs that failed, and blocks that could not be read; also those that are only due.
    pub failed: usize,
    /// Groups on which another compactor works.
    pub waiting: usize,
}

/// One decision, for people.
#[derive(Clone, Debug)]
pub struct OneRunRow {
    /// The bucket.
    pub bucket: String,
    /// `compacted`, `would be compacted`, `failed` ...
    pub action: String,
    /// Labels and resolution of the group.
    pub group: String,
    /// Why.
    pub why: String,
    /// The blocks that were read or marked.
    pub from: Vec<Ulid>,
    /// The blocks that were made, or that replace those that were marked.
    pub to: Vec<Ulid>,
}

/// What is left in a group.
#[derive(Clone, Debug)]
pub struct OneRunProgress {
    /// The bucket.
    pub bucket: String,
    /// Labels and resolution.
    pub group: String,
    /// Blocks of the group now.
    pub blocks_now: usize,
    /// Merges that are due, the blocks that they read, and the bytes of those.
    pub jobs: usize,
    /// See `jobs`.
    pub blocks: usize,
    /// See `jobs`.
    pub bytes: u64,
    /// Blocks that are due to be downsampled.
    pub downsample_blocks: usize,
}

impl OneRun {
    /// Checks the flags, locks the data folder and opens the buckets.
    ///
    /// # Errors
    /// All mistakes, or why a folder or bucket cannot be used.
    pub async fn open(args: WorkArgs, objstore: &ObjstoreArgs) -> Result<Self, RoleError> {
        let mistakes = |mistakes: ConfigMistakes| RoleError::wrong_configuration(mistakes.lines().join("; "));
        let config = args.check(objstore).map_err(mistakes)?;
        let folder = DataFolder::open(&config.data_dir, ROLE.name)?;
        let stop = Arc::new(AtomicBool::new(false));
        let workers = workers(&config, folder.path(), &stop, &mut Registry::default())?;
        Ok(Self { workers, _folder: folder })
    }

    /// Merges what is due. With `dry_run`, only says what would be merged.
    ///
    /// # Errors
    /// When a bucket cannot be read.
    pub async fn compact(&self, dry_run: bool) -> Result<OneRunReport, String> {
        let mut report = OneRunReport::default();
        for worker in &self.workers {
            if dry_run {
                report.rows.extend(would_compact(worker).await?);
                continue;
            }
            report.count(worker.work_off(false, || true).await?);
        }
        Ok(self.with_decisions(report))
    }

    /// Downsamples what is due.
    ///
    /// # Errors
    /// As [`OneRun::compact`].
    pub async fn downsample(&self, dry_run: bool) -> Result<OneRunReport, String> {
        let mut report = OneRunReport::default();
        for worker in &self.workers {
            if dry_run {
                report.rows.extend(would_downsample(worker).await?);
            } else {
                report.count(worker.downsample().await?);
            }
        }
        Ok(self.with_decisions(report))
    }

    /// Marks blocks for deletion that are older than they are kept. With `approved`, however many they are.
    ///
    /// # Errors
    /// As [`OneRun::compact`]; when the clock of a bucket differs.
    pub async fn retention(&self, dry_run: bool, approved: bool) -> Result<OneRunReport, String> {
        let mut report = OneRunReport::default();
        for worker in &self.workers {
            if dry_run {
                report.rows.extend(would_retire(worker).await?);
            } else {
                let outcome = worker.housekeep(Chores::Retention, approved).await?;
                report.failed += outcome.failed;
                report.waiting += usize::from(outcome.waiting);
            }
        }
        Ok(self.with_decisions(report))
    }

    /// What is left in each group, and the blocks that a person should look at: id, bucket, state and reason.
    ///
    /// # Errors
    /// As [`OneRun::compact`].
    pub async fn progress(&self) -> Result<(Vec<OneRunProgress>, Vec<[String; 4]>), String> {
        for worker in &self.workers {
            worker.view().await?;
        }
        let Some(worker) = self.workers.first() else { return Ok((Vec::new(), Vec::new())) };
        let (groups, troubled, ..) = worker.progress.all();
        let group = |group: GroupProgress| OneRunProgress {
            bucket: group.bucket,
            group: group.group,
            blocks_now: group.blocks_now,
            jobs: group.jobs,
            blocks: group.blocks,
            bytes: group.bytes,
            downsample_blocks: group.downsample_blocks,
        };
        let block = |block: TroubledBlock| [block.ulid, block.bucket, block.state.to_owned(), block.reason];
        Ok((groups.into_iter().map(group).collect(), troubled.into_iter().map(block).collect()))
    }

    fn with_decisions(&self, mut report: OneRunReport) -> OneRunReport {
        // All workers share one history.
        let decisions = self.workers.first().map(|worker| worker.history.last()).unwrap_or_default();
        report.rows.extend(decisions.into_iter().rev().map(row));
        report
    }
}

impl OneRunReport {
    fn count(&mut self, outcome: PassOutcome) {
        self.failed += outcome.failed;
        self.waiting += outcome.waiting;
    }
}

fn row(decision: Decision) -> OneRunRow {
    let Decision { bucket, action, group, why, from, to, .. } = decision;
    let action = match action {
        Action::Compacted => "compacted",
        Action::Rewritten => "rewritten",
        Action::Downsampled => "downsampled",
        Action::Marked => "marked",
        Action::Deleted | Action::Cleaned => "removed",
        Action::Quarantined => "cannot be read",
        Action::Failed => "failed",
        Action::Skipped => "skipped",
    };
    OneRunRow { bucket, action: action.to_owned(), group, why, from, to }
}

async fn would_compact(worker: &BucketWorker) -> Result<Vec<OneRunRow>, String> {
    let view = worker.view().await?;
    let mut rows = Vec::new();
    for (key, blocks) in by_group(&view.blocks, &worker.settings.replica_labels) {
        let is_excluded = |id| view.no_compact.contains(&id);
        for plan in
            next_plans(&key, &blocks, is_excluded, &worker.settings.rules, worker.workshop.clock.now())
        {
            rows.push(OneRunRow {
                bucket: worker.name.clone(),
                action: "would be compacted".to_owned(),
                group: key.to_string(),
                why: plan.why.to_string(),
                from: plan.sources.iter().map(|meta| meta.ulid).collect(),
                to: vec![output::merged_id(&key, &plan.sources, &view.deletions, worker.workshop.rule)],
            });
        }
        for plan in worker.rewrites(&blocks, &view) {
            rows.push(OneRunRow {
                bucket: worker.name.clone(),
                action: "would be rewritten".to_owned(),
                group: key.to_string(),
                why: plan.why(),
                from: vec![plan.source.ulid],
                to: vec![output::rewritten_id(&plan.source, &plan.deletions)],
            });
        }
    }
    Ok(rows)
}

async fn would_downsample(worker: &BucketWorker) -> Result<Vec<OneRunRow>, String> {
    let view = worker.view().await?;
    let row = |plan: crate::downsample::DownsamplePlan| OneRunRow {
        bucket: worker.name.clone(),
        action: "would be downsampled".to_owned(),
        group: GroupKey::of(&plan.source, &worker.settings.replica_labels).to_string(),
        why: format!("{} is due", crate::group::resolution_name(plan.to)),
        from: vec![plan.source.ulid],
        to: vec![output::downsampled_id(&plan.source, &view.deletions, plan.to)],
    };
    Ok(worker.due(&view).into_iter().map(row).collect())
}

async fn would_retire(worker: &BucketWorker) -> Result<Vec<OneRunRow>, String> {
    let view = worker.view().await?;
    let verdict = worker.settings.retention.decide(
        &view.blocks,
        &worker.settings.replica_labels,
        worker.workshop.clock.now(),
    );
    let group = |block: Ulid| {
        let meta = view.blocks.iter().find(|meta| meta.ulid == block);
        meta.map(|meta| GroupKey::of(meta, &worker.settings.replica_labels).to_string()).unwrap_or_default()
    };
    let expired = verdict.expired.into_iter().map(|expired| OneRunRow {
        bucket: worker.name.clone(),
        action: "would be marked".to_owned(),
        group: group(expired.block),
        why: expired.why,
        from: vec![expired.block],
        to: expired.replaced_by,
    });
    let kept = verdict.kept.into_iter().map(|(block, why)| OneRunRow {
        bucket: worker.name.clone(),
        action: "stays".to_owned(),
        group: group(block),
        why,
        from: vec![block],
        to: Vec::new(),
    });
    Ok(expired.chain(kept).collect())
}
