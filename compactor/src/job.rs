//! One job from its plan to its result: read the sources, write the new block, verify it, publish it, and mark the sources.
//!
//! Every step can be repeated: the id and the bytes of the new block follow from its sources, so a job that was interrupted anywhere is
//! done again and finds what was done. A source is marked only after the new block was read back from the bucket, and only while
//! the lease is held.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bucket::marks::{self, Mark, MarkKind};
use bucket::{Bucket, BucketError, Lease, LeaseError, PublishError, PublishOptions, Retry, publish};
use model::Timestamp;
use series::ReplicaRule;
use tsdb::{BlockMeta, BlockWriter, Ulid, WriteError};

use crate::account::SampleAccount;
use crate::clock::{Clock, ClockError};
use crate::group::{GroupKey, external_labels};
use crate::merge::{MergeJobError, Merged, merge};
use crate::output::{self, DeletionsByBlock};
use crate::plan::Plan;
use crate::source::{Source, SourceError};
use crate::verify::{VerifyError, verify};

/// Why a job has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JobError {
    /// A source is damaged. The others can be merged without it.
    #[error("block {block} cannot be merged: {reason}")]
    Damaged { block: Ulid, reason: String },
    /// A source was removed meanwhile.
    #[error("block {0} was removed meanwhile")]
    Gone(Ulid),
    /// The disk is too small for the new block.
    #[error(
        "the job needs {needed} bytes in {}, which has {free} bytes free; make room, or give --data-dir a larger disk",
        dir.display()
    )]
    NoSpace { needed: u64, free: u64, dir: PathBuf },
    /// The samples do not add up, or the written block is not what was to be written.
    #[error("{0}; nothing was published, and the sources stay")]
    Unbalanced(String),
    /// The program stops, or another process has the lease.
    #[error("the job was stopped")]
    Stopped,
    /// It can be tried again.
    #[error("{0}")]
    Failed(String),
}

impl From<LeaseError> for JobError {
    fn from(error: LeaseError) -> Self {
        match error {
            LeaseError::Lost { .. } => Self::Stopped,
            other => Self::Failed(other.to_string()),
        }
    }
}

impl From<BucketError> for JobError {
    fn from(error: BucketError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// What a job made.
#[derive(Clone, Debug)]
pub(crate) struct JobResult {
    /// The new block; `None` if nothing was left.
    pub(crate) output: Option<Arc<BlockMeta>>,
    pub(crate) account: SampleAccount,
    /// Whether the sources were marked for deletion.
    pub(crate) is_retired: bool,
}

/// Where jobs run and how they write.
#[derive(Clone, Debug)]
pub(crate) struct Workshop {
    pub(crate) bucket: Bucket,
    /// The folder for unfinished blocks.
    pub(crate) dir: PathBuf,
    pub(crate) retry: Retry,
    pub(crate) rule: ReplicaRule,
    /// Files of a block that are sent at once.
    pub(crate) file_concurrency: usize,
    /// Whether jobs have to stop.
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) clock: Clock,
}

impl Workshop {
    /// Merges the sources of a plan into a block of the group, without what `deletions` delete, publishes it, and marks the sources for
    /// deletion.
    ///
    /// # Errors
    /// See [`JobError`]. Sources are marked only after success.
    ///
    /// # Cancel safety
    /// Do not drop the future: a thread would go on writing. Set [`Workshop::stop`].
    pub(crate) async fn compact(
        &self,
        group: &GroupKey,
        plan: &Plan,
        deletions: &DeletionsByBlock,
        lease: &Lease,
    ) -> Result<JobResult, JobError> {
        let id = output::merged_id(group, &plan.sources, deletions, self.rule);
        let sources = self.open(&plan.sources, deletions).await?;
        let dir = self.prepare(id, &sources)?;
        let producers = producers(&plan.sources);
        let options = output::merged_options(group, &plan.sources, deletions, id);
        let (rule, stop, parent) = (self.rule, Arc::clone(&self.stop), dir.path().to_owned());
        let written = tokio::task::spawn_blocking(move || {
            let mut writer = BlockWriter::create(&parent, options)?;
            let merged = merge(&sources, &producers, rule, &mut writer, &stop)?;
            finish(writer, merged)
        });
        let written = written.await.map_err(|error| JobError::Failed(error.to_string()))?;
        let (merged, meta) = written.map_err(|error| self.of_merge(&plan.sources, error))?;
        if !merged.account.is_balanced() {
            return Err(JobError::Unbalanced(format!("the samples do not add up: {}", merged.account)));
        }
        let output = match meta {
            Some(meta) => Some(self.publish(dir.path(), meta, &merged, lease).await?),
            None => None,
        };
        let is_retired =
            self.retire_sources(&plan.sources, "source of compacted block", output.as_deref(), lease).await?;
        Ok(JobResult { output, account: merged.account, is_retired })
    }

    /// Marks the sources of a job; `what` is said of them before the id of the new block. While the clocks differ they stay as blocks that the new one covers, which housekeeping marks
    /// later; then the answer is `false`.
    pub(crate) async fn retire_sources(
        &self,
        sources: &[Arc<BlockMeta>],
        what: &str,
        output: Option<&BlockMeta>,
        lease: &Lease,
    ) -> Result<bool, JobError> {
        let now = match self.clock.of_bucket(&self.bucket, self.retry).await {
            Ok(now) => now,
            Err(error @ ClockError::Differs { .. }) => {
                tracing::warn!(%error, "the sources of a job are not marked for deletion");
                return Ok(false);
            }
            Err(ClockError::Bucket(error)) => return Err(error.into()),
        };
        let replaced_by: Vec<Ulid> = output.iter().map(|meta| meta.ulid).collect();
        for source in sources {
            let why = match output {
                Some(output) => format!("{what} {}", output.ulid),
                None => "no sample of it is left".to_owned(),
            };
            self.retire(source.ulid, &replaced_by, why, now, lease).await?;
        }
        Ok(true)
    }

    /// Opens blocks for a job that reads all of them, without what `deletions` delete.
    pub(crate) async fn open(
        &self,
        metas: &[Arc<BlockMeta>],
        deletions: &DeletionsByBlock,
    ) -> Result<Vec<Source>, JobError> {
        let mut sources = Vec::with_capacity(metas.len());
        for meta in metas {
            let source = Source::open(&self.bucket, meta, metas.len(), self.retry).await;
            let source = source.map_err(|error| of_source(meta.ulid, error))?;
            sources.push(source.with_deletions(deletions.get(&meta.ulid).cloned().unwrap_or_default()));
        }
        Ok(sources)
    }

    /// Verifies the new block in `parent` and publishes it.
    pub(crate) async fn publish(
        &self,
        parent: &Path,
        meta: BlockMeta,
        merged: &Merged,
        lease: &Lease,
    ) -> Result<Arc<BlockMeta>, JobError> {
        let dir = parent.join(meta.ulid.to_string());
        let (checked, digest) = (dir.clone(), merged.digest.clone());
        let verified = tokio::task::spawn_blocking(move || verify(&checked, &digest)).await;
        match verified.map_err(|error| JobError::Failed(error.to_string()))? {
            Ok(()) => {}
            Err(VerifyError::Read(error)) => return Err(JobError::Failed(error.to_string())),
            Err(error @ VerifyError::Different) => return Err(JobError::Unbalanced(error.to_string())),
        }
        let held = lease.clone();
        let options = PublishOptions {
            concurrency: self.file_concurrency,
            requires_labels: false,
            retry: self.retry,
            may_finish: Some(Arc::new(move || held.is_held())),
            ..PublishOptions::default()
        };
        match publish(&self.bucket, &dir, meta, &options).await {
            Ok(published) => Ok(Arc::new(published.meta)),
            Err(PublishError::Stopped(_)) => Err(JobError::Stopped),
            Err(error) => Err(JobError::Failed(error.to_string())),
        }
    }

    /// Marks a block for deletion because the blocks `replaced_by` have its samples. `now` is the time of the bucket.
    pub(crate) async fn retire(
        &self,
        block: Ulid,
        replaced_by: &[Ulid],
        why: String,
        now: Timestamp,
        lease: &Lease,
    ) -> Result<(), JobError> {
        let mut mark = Mark::new(MarkKind::Deletion, block, now);
        mark.details = Some(why);
        mark.replaced_by = replaced_by.to_vec();
        if !lease.is_held() {
            return Err(JobError::Stopped);
        }
        self.retry.run(|| marks::create(&self.bucket, &mark)).await?;
        Ok(())
    }

    /// An empty folder for the new block, on a disk that has room for it.
    pub(crate) fn prepare(&self, id: Ulid, sources: &[Source]) -> Result<JobFolder, JobError> {
        let folder = JobFolder::create(self.dir.join(id.to_string())).map_err(|error| {
            JobError::Failed(format!("create a folder in {}: {error}", self.dir.display()))
        })?;
        let needed = needed_bytes(sources);
        let free = rustix::fs::statvfs(folder.path())
            .map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize))
            .map_err(|error| {
                JobError::Failed(format!("look at the disk of {}: {error}", self.dir.display()))
            })?;
        tracing::info!(block = %id, needs_disk_bytes = needed, free_bytes = free, "writing a new block");
        if free < needed {
            return Err(JobError::NoSpace { needed, free, dir: self.dir.clone() });
        }
        Ok(folder)
    }

    /// What an error of a merge means for the job.
    pub(crate) fn of_merge(&self, sources: &[Arc<BlockMeta>], error: MergeJobError) -> JobError {
        if self.stop.load(Ordering::Relaxed) {
            return JobError::Stopped;
        }
        match error {
            MergeJobError::Source { source, error } => match sources.get(source) {
                Some(meta) => of_source(meta.ulid, error),
                None => JobError::Failed(error.to_string()),
            },
            MergeJobError::Write(error @ WriteError::Times { .. }) => damaged_times(sources, error),
            other => JobError::Failed(other.to_string()),
        }
    }
}

/// Samples outside of the times in the meta of their block: the meta is wrong. It is not known of which source.
fn damaged_times(sources: &[Arc<BlockMeta>], error: WriteError) -> JobError {
    match sources {
        [only] => JobError::Damaged { block: only.ulid, reason: error.to_string() },
        _ => JobError::Failed(error.to_string()),
    }
}

fn of_source(block: Ulid, error: SourceError) -> JobError {
    match error {
        SourceError::Stopped => JobError::Stopped,
        error if error.is_gone() => JobError::Gone(block),
        error if error.is_damage() => JobError::Damaged { block, reason: error.to_string() },
        error => JobError::Failed(error.to_string()),
    }
}

/// Completes the block; there is none if nothing was written.
pub(crate) fn finish(
    writer: BlockWriter,
    merged: Merged,
) -> Result<(Merged, Option<BlockMeta>), MergeJobError> {
    if writer.series() == 0 {
        return Ok((merged, None));
    }
    let meta = writer.finish()?;
    Ok((merged, Some(meta)))
}

/// The producer of each source: a number for each set of external labels, in their order. Replicas are preferred in this order, so that
/// it is the same one from block to block, and the one that a querier prefers.
fn producers(sources: &[Arc<BlockMeta>]) -> Vec<usize> {
    let ranks: BTreeSet<_> = sources.iter().map(|meta| external_labels(meta)).collect();
    let ranks: BTreeMap<_, _> = ranks.into_iter().zip(0..).collect();
    sources.iter().filter_map(|meta| ranks.get(external_labels(meta)).copied()).collect()
}

/// Most bytes of disk that a job needs: the new block is at most as large as its sources, and the index is written from a
/// temporary file.
fn needed_bytes(sources: &[Source]) -> u64 {
    let all: u64 = sources.iter().map(|source| source.size_bytes).sum();
    all + all / 4
}

/// The folder of a job, which is removed when the job has ended.
#[derive(Debug)]
pub(crate) struct JobFolder(PathBuf);

impl JobFolder {
    fn create(path: PathBuf) -> std::io::Result<Self> {
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for JobFolder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(folder = %self.0.display(), %error, "the folder of a job could not be removed");
        }
    }
}

/// The times of a group of blocks, for messages.
pub(crate) fn span(sources: &[Arc<BlockMeta>]) -> (Timestamp, Timestamp) {
    let min = sources.iter().map(|meta| meta.min_time).min().unwrap_or(Timestamp::EPOCH);
    let max = sources.iter().map(|meta| meta.max_time).max().unwrap_or(Timestamp::EPOCH);
    (min, max)
}

#[cfg(test)]
mod tests {
    use tsdb::ThanosMeta;

    use super::*;

    #[test]
    fn replicas_are_numbered_by_their_labels_and_not_by_their_blocks() {
        let block = |number: u128, replica: &str| {
            let mut meta = BlockMeta::new(Ulid::from_parts(1, number), Timestamp::EPOCH, Timestamp::EPOCH);
            let labels = BTreeMap::from([("replica".to_owned(), replica.to_owned())]);
            meta.thanos = Some(ThanosMeta { labels, ..ThanosMeta::default() });
            Arc::new(meta)
        };
        assert_eq!(producers(&[block(1, "b"), block(2, "a"), block(3, "b")]), [1, 0, 1]);
    }
}
