//! Downsampling of whole blocks: which blocks are due, and the job that makes the coarser block.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use bucket::Lease;
use model::Timestamp;
use series::{DownsampleError, Downsampler};
use tsdb::{BlockMeta, BlockOptions, BlockWriter, Chunk, Ulid, WriteError};

use crate::account::SampleAccount;
use crate::group::{GroupKey, resolution};
use crate::job::{JobError, JobResult, Workshop};
use crate::merge::Merged;
use crate::output::{self, DeletionsByBlock};
use crate::plan::HOUR;
use crate::retention::RetentionPolicy;
use crate::source::{Source, SourceError};

/// The resolutions of aggregates, in milliseconds, each with the resolution that it is made of and the length that a block must have,
/// as in Thanos.
const STEPS: [DownsampleStep; 2] = [
    DownsampleStep { from: 0, to: 300_000, min_length: 40 * HOUR },
    DownsampleStep { from: 300_000, to: 3_600_000, min_length: 10 * 24 * HOUR },
];
/// A block that retention will retire this soon is downsampled whatever its length.
const BEFORE_RETENTION: Duration = Duration::from_secs(2 * 24 * 3600);

#[derive(Clone, Copy, Debug)]
struct DownsampleStep {
    from: i64,
    to: i64,
    min_length: i64,
}

/// A block that is to be downsampled.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DownsamplePlan {
    pub(crate) source: Arc<BlockMeta>,
    /// Milliseconds between the aggregates of the new block.
    pub(crate) to: i64,
}

/// The blocks that are due, the oldest first. `is_excluded` says which blocks are never downsampled. A coarser block that was merged
/// from those of several replicas counts for each of them.
pub(crate) fn plan(
    blocks: &[Arc<BlockMeta>],
    replica_labels: &[String],
    is_excluded: impl Fn(Ulid) -> bool,
    retention: &RetentionPolicy,
    now: Timestamp,
) -> Vec<DownsamplePlan> {
    let made = sources_by_group(blocks, replica_labels);
    let mut plans = Vec::new();
    for step in STEPS {
        let of_step = blocks.iter().filter(|meta| resolution(meta) == step.from && !is_excluded(meta.ulid));
        plans.extend(
            of_step
                .filter(|meta| {
                    let length = meta.max_time.millis_since(meta.min_time);
                    let is_due =
                        length >= step.min_length || retention.is_due_within(meta, BEFORE_RETENTION, now);
                    let coarser = GroupKey { resolution: step.to, ..GroupKey::of(meta, replica_labels) };
                    let done = made.get(&coarser);
                    is_due
                        && !done.is_some_and(|done| {
                            meta.compaction.sources.iter().all(|source| done.contains(source))
                        })
                })
                .map(|source| DownsamplePlan { source: Arc::clone(source), to: step.to }),
        );
    }
    plans.sort_by_key(|plan| (plan.to, plan.source.min_time, plan.source.ulid));
    plans
}

/// The sources of all blocks by group.
fn sources_by_group(
    blocks: &[Arc<BlockMeta>],
    replica_labels: &[String],
) -> BTreeMap<GroupKey, BTreeSet<Ulid>> {
    let mut sources: BTreeMap<GroupKey, BTreeSet<Ulid>> = BTreeMap::new();
    for meta in blocks {
        sources.entry(GroupKey::of(meta, replica_labels)).or_default().extend(&meta.compaction.sources);
    }
    sources
}

/// Why a block was not downsampled, before it becomes a [`JobError`].
#[derive(Debug, thiserror::Error)]
enum DownsampleJobError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("series {series}: {error}")]
    Series { series: String, error: Box<DownsampleError> },
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl Workshop {
    /// Downsamples a block, without what `deletions` delete, and publishes the result. The source stays.
    ///
    /// # Errors
    /// See [`JobError`].
    ///
    /// # Cancel safety
    /// As [`Workshop::compact`].
    pub(crate) async fn downsample(
        &self,
        plan: &DownsamplePlan,
        deletions: &DeletionsByBlock,
        lease: &Lease,
    ) -> Result<JobResult, JobError> {
        let (meta, to) = (Arc::clone(&plan.source), plan.to);
        let id = output::downsampled_id(&meta, deletions, to);
        let rewrites = output::rewrites(std::slice::from_ref(&meta), deletions);
        let source = Source::open(&self.bucket, &meta, 1, self.retry).await;
        let source = source.map_err(|error| self.of_downsampling(&meta, error.into()))?;
        let source = source.with_deletions(deletions.get(&meta.ulid).cloned().unwrap_or_default());
        let folder = self.prepare(id, std::slice::from_ref(&source))?;
        let (stop, parent) = (Arc::clone(&self.stop), folder.path().to_owned());
        let written = tokio::task::spawn_blocking(move || {
            let (old, resolution) = (source.block.meta(), Duration::from_millis(to.unsigned_abs()));
            let mut options = BlockOptions::downsampled(id, old, resolution);
            if let Some(thanos) = &mut options.thanos {
                thanos.rewrites = rewrites;
            }
            let mut writer = BlockWriter::create(&parent, options)?;
            let downsampler = Downsampler::new(old.resolution(), resolution);
            let merged = write(&source, downsampler, &mut writer, &stop)?;
            if writer.series() == 0 {
                return Ok((merged, None));
            }
            let meta = writer.finish()?;
            Ok::<_, DownsampleJobError>((merged, Some(meta)))
        });
        let written = written.await.map_err(|error| JobError::Failed(error.to_string()))?;
        let (merged, written) = written.map_err(|error| self.of_downsampling(&meta, error))?;
        let output = match written {
            Some(new) => Some(self.publish(folder.path(), new, &merged, lease).await?),
            None => None,
        };
        Ok(JobResult { output, account: merged.account, is_retired: false })
    }

    fn of_downsampling(&self, source: &BlockMeta, error: DownsampleJobError) -> JobError {
        let damaged = |reason: String| JobError::Damaged { block: source.ulid, reason };
        match error {
            _ if self.stop.load(Ordering::Relaxed) => JobError::Stopped,
            DownsampleJobError::Source(error) if error.is_gone() => JobError::Gone(source.ulid),
            DownsampleJobError::Source(error) if error.is_damage() => damaged(error.to_string()),
            DownsampleJobError::Series { .. } => damaged(error.to_string()),
            other => JobError::Failed(other.to_string()),
        }
    }
}

/// Downsamples every series while the next ones are read.
fn write(
    source: &Source,
    mut downsampler: Downsampler,
    writer: &mut BlockWriter,
    stop: &std::sync::atomic::AtomicBool,
) -> Result<Merged, DownsampleJobError> {
    let (batches, received) = sync_channel(2);
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || source.read(&batches, stop));
        let mut merged = Merged::default();
        let mut all = || {
            for series in received.iter().flatten() {
                let chunks: Vec<Chunk> = series.chunks.into_iter().filter_map(|chunk| chunk.raw).collect();
                let downsampled = downsampler.series(&chunks).map_err(|error| {
                    DownsampleJobError::Series { series: series.labels.to_string(), error: Box::new(error) }
                })?;
                if !downsampled.is_empty() {
                    merged.account.written +=
                        downsampled.iter().map(|c| c.sample_count() as u64).sum::<u64>();
                    merged.digest.add(&series.labels, &downsampled);
                    writer.add_series(&series.labels, downsampled)?;
                }
            }
            Ok::<_, DownsampleJobError>(())
        };
        let written = all();
        drop(received);
        let account: SampleAccount = match reader.join() {
            Ok(Err(SourceError::Stopped)) if written.is_err() => SampleAccount::default(),
            Ok(read) => read?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        written?;
        merged.account.add(account);
        Ok(merged)
    })
}

#[cfg(test)]
mod tests {
    use tsdb::ThanosMeta;

    use super::*;

    fn block(number: u128, hours: i64, resolution: i64, sources: &[u128]) -> Arc<BlockMeta> {
        let at = |hours: i64| Timestamp::from_millis(hours * HOUR);
        let mut meta = BlockMeta::new(Ulid::from_parts(1, number), at(0), at(hours));
        meta.compaction.sources = sources.iter().map(|source| Ulid::from_parts(0, *source)).collect();
        let mut thanos = ThanosMeta::default();
        thanos.labels.insert("cluster".to_owned(), "a".to_owned());
        thanos.downsample.resolution_millis = resolution;
        meta.thanos = Some(thanos);
        Arc::new(meta)
    }

    fn planned(blocks: &[Arc<BlockMeta>], retention: &str, now: i64) -> Vec<(u128, i64)> {
        let retention = RetentionPolicy::from_durations(retention, "0d", "0d").unwrap();
        let replica = ["replica".to_owned()];
        let plans =
            plan(blocks, &replica, |id| id.random() == 9, &retention, Timestamp::from_millis(now * HOUR));
        plans.iter().map(|plan| (plan.source.ulid.random(), plan.to)).collect()
    }

    #[test]
    fn long_blocks_that_were_not_downsampled_are_due() {
        let blocks = [block(1, 48, 0, &[1]), block(2, 39, 0, &[2]), block(9, 48, 0, &[9])];
        assert_eq!(planned(&blocks, "0d", 48), [(1, 300_000)]);
        let done = [block(1, 48, 0, &[1, 2]), block(3, 48, 300_000, &[1]), block(4, 48, 300_000, &[2])];
        assert_eq!(planned(&done, "0d", 48), []);
        let next =
            [block(3, 240, 300_000, &[1]), block(4, 239, 300_000, &[2]), block(5, 240, 3_600_000, &[7])];
        assert_eq!(planned(&next, "0d", 48), [(3, 3_600_000)]);
    }

    #[test]
    fn replicas_whose_coarser_blocks_were_merged_are_not_downsampled_again() {
        let of_replica = |meta: Arc<BlockMeta>, replica: &str| {
            let mut meta = BlockMeta::clone(&meta);
            let labels = &mut meta.thanos.as_mut().unwrap().labels;
            labels.insert("replica".to_owned(), replica.to_owned());
            Arc::new(meta)
        };
        let raw = [of_replica(block(1, 48, 0, &[1]), "0"), of_replica(block(2, 48, 0, &[2]), "1")];
        assert_eq!(planned(&raw, "0d", 48), [(1, 300_000), (2, 300_000)]);
        let merged = [raw[0].clone(), raw[1].clone(), block(3, 48, 300_000, &[1, 2])];
        assert_eq!(planned(&merged, "0d", 48), []);
    }

    #[test]
    fn a_short_block_is_downsampled_before_retention_retires_it() {
        let blocks = [block(2, 2, 0, &[2])];
        assert_eq!(planned(&blocks, "10d", 2 + 7 * 24), []);
        assert_eq!(planned(&blocks, "10d", 2 + 8 * 24 + 1), [(2, 300_000)]);
    }
}
