//! Writing blocks again without deleted samples: which blocks are due, and the job.
//!
//! ```text
//! raw block           its samples that are not deleted
//! downsampled block   series without deleted samples stay as they are. Of the others, windows whose time is deleted are dropped.
//!                     A window that is deleted in part is calculated again if finer blocks have all of its samples, as are all
//!                     windows of such a series then; otherwise it is dropped, and the history says so
//! ```
//!
//! The new block has the labels, times and sources of the old one, and an id that sorts before it, so that readers use it at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bucket::Lease;
use bucket::deletions::BlockDeletions;
use bucket::marks::{self, MarkKind, MarkState};
use model::{Labels, TimeRange};
use series::DeletedTimes;
use series::{Contribution, Downsampler, MergedSeries, ReplicaRule, unite_chunks};
use tsdb::{BlockMeta, BlockWriter, Chunk, Ulid};

use crate::group::{external_labels, resolution, resolution_name};
use crate::job::{JobError, JobResult, Workshop, finish};
use crate::merge::{MergeJobError, Merged, merge, merge_batches, read_all};
use crate::output::{self, DeletionsByBlock};
use crate::source::Source;
use crate::view::CompactorView;

/// A block with a `tombstones` file is written again when so large a part of its series has tombstones, as in Prometheus.
const MOST_TOMBSTONES: f64 = 0.05;
/// The resolutions from the finest one on, in milliseconds.
const RESOLUTIONS: [i64; 3] = [0, 300_000, 3_600_000];

/// A block that is written again.
#[derive(Clone, Debug)]
pub(crate) struct RewritePlan {
    pub(crate) source: Arc<BlockMeta>,
    /// For a downsampled block, the finer blocks that have all of its samples; empty if there are none.
    pub(crate) finer: Vec<Arc<BlockMeta>>,
    /// What is deleted in these blocks.
    pub(crate) deletions: DeletionsByBlock,
}

/// The blocks of a group that are written again.
pub(crate) fn due(
    view: &CompactorView,
    group: &[Arc<BlockMeta>],
    is_excluded: impl Fn(Ulid) -> bool,
) -> Vec<RewritePlan> {
    let is_due = |meta: &&Arc<BlockMeta>| {
        !is_excluded(meta.ulid) && (view.deletions.contains_key(&meta.ulid) || has_many_tombstones(meta))
    };
    group.iter().filter(is_due).map(|meta| RewritePlan::new(meta, view)).collect()
}

fn has_many_tombstones(meta: &BlockMeta) -> bool {
    meta.stats.tombstones as f64 / (meta.stats.series + 1) as f64 > MOST_TOMBSTONES
}

impl RewritePlan {
    fn new(source: &Arc<BlockMeta>, view: &CompactorView) -> Self {
        let own = view.deletions.get(&source.ulid).cloned().unwrap_or_default();
        let finer = if own.is_empty() { Vec::new() } else { finer(source, &view.blocks) };
        let mut deletions = DeletionsByBlock::new();
        for meta in &finer {
            // What is deleted in the block is deleted in the finer ones, too, whatever their marks say by now.
            let theirs = view.deletions.get(&meta.ulid).cloned().unwrap_or_default();
            let all: BTreeMap<&str, _> = own.iter().chain(theirs.iter()).map(|one| (&*one.id, one)).collect();
            deletions.insert(meta.ulid, Arc::new(BlockDeletions::of(all.into_values(), meta)));
        }
        if !own.is_empty() {
            deletions.insert(source.ulid, own);
        }
        Self { source: Arc::clone(source), finer, deletions }
    }

    /// Why, for the history.
    pub(crate) fn why(&self) -> String {
        let Some(deletions) = self.deletions.get(&self.source.ulid) else {
            return format!(
                "{} tombstones in a block of {} series",
                self.source.stats.tombstones, self.source.stats.series
            );
        };
        let ids: Vec<&str> = deletions.iter().map(|deletion| &*deletion.id).collect();
        let why = format!("deletion of series {}", ids.join(", "));
        match (resolution(&self.source), self.finer.first()) {
            (0, _) => why,
            (_, Some(finer)) => {
                format!(
                    "{why}; windows were calculated again from {} blocks",
                    resolution_name(resolution(finer))
                )
            }
            (_, None) => format!(
                "{why}; windows that are deleted in part were dropped, because no finer blocks have all of their samples"
            ),
        }
    }
}

/// The blocks of the finest resolution that together have all sources of a downsampled block.
fn finer(source: &BlockMeta, blocks: &[Arc<BlockMeta>]) -> Vec<Arc<BlockMeta>> {
    let wanted: BTreeSet<Ulid> = source.compaction.sources.iter().copied().collect();
    for of in RESOLUTIONS.into_iter().take_while(|of| *of < resolution(source)) {
        let mut found: Vec<Arc<BlockMeta>> = blocks
            .iter()
            .filter(|meta| resolution(meta) == of && external_labels(meta) == external_labels(source))
            .filter(|meta| meta.compaction.sources.iter().any(|id| wanted.contains(id)))
            .cloned()
            .collect();
        found.sort_by_key(|meta| (meta.min_time, meta.max_time, meta.ulid));
        let overlap = found.windows(2).any(|pair| pair[1].min_time < pair[0].max_time);
        let theirs: BTreeSet<Ulid> = found.iter().flat_map(|meta| meta.compaction.sources.clone()).collect();
        // Windows of blocks that overlap cannot be joined.
        if wanted.is_subset(&theirs) && !wanted.is_empty() && (of == 0 || !overlap) {
            return found;
        }
    }
    Vec::new()
}

impl Workshop {
    /// Writes a block again, publishes the new one, and marks the old one for deletion. Its other marks are copied.
    ///
    /// # Errors
    /// See [`JobError`].
    ///
    /// # Cancel safety
    /// As [`Workshop::compact`].
    pub(crate) async fn rewrite(&self, plan: &RewritePlan, lease: &Lease) -> Result<JobResult, JobError> {
        let source = &plan.source;
        let id = output::rewritten_id(source, &plan.deletions);
        let metas: Vec<Arc<BlockMeta>> = std::iter::once(source).chain(&plan.finer).cloned().collect();
        let mut sources = self.open(&metas, &plan.deletions).await?;
        let dir = self.prepare(id, &sources)?;
        let own = plan.deletions.get(&source.ulid).cloned().unwrap_or_default();
        for finer in sources.split_off(1) {
            sources.push(finer.with_series_of(Arc::clone(&own)));
        }
        let mut options = output::rewritten_options(source, &plan.deletions, id);
        if resolution(source) > 0 {
            options.samples_by_kind = Some((source.stats.float_samples, source.stats.histogram_samples));
        }
        let (stop, parent, again) = (Arc::clone(&self.stop), dir.path().to_owned(), plan.clone());
        let written = tokio::task::spawn_blocking(move || {
            let mut writer = BlockWriter::create(&parent, options)?;
            let merged = if again.finer.is_empty() {
                merge(&sources, &[0], ReplicaRule::OneToOne, &mut writer, &stop)?
            } else {
                calculate_again(&again, &own, &sources, &mut writer, &stop)?
            };
            finish(writer, merged)
        });
        let written = written.await.map_err(|error| JobError::Failed(error.to_string()))?;
        let (merged, meta) = written.map_err(|error| self.of_merge(&metas, error))?;
        if !merged.account.is_balanced() {
            return Err(JobError::Unbalanced(format!("the samples do not add up: {}", merged.account)));
        }
        let output = match meta {
            Some(meta) => Some(self.publish(dir.path(), meta, &merged, lease).await?),
            None => None,
        };
        if let Some(new) = &output {
            self.copy_marks(source.ulid, new.ulid, lease).await?;
        }
        let sources = std::slice::from_ref(source);
        let is_retired = self.retire_sources(sources, "block rewritten as", output.as_deref(), lease).await?;
        Ok(JobResult { output, account: merged.account, is_retired })
    }

    /// Gives the new block the marks against compaction and downsampling that the old one has.
    async fn copy_marks(&self, old: Ulid, new: Ulid, lease: &Lease) -> Result<(), JobError> {
        for kind in [MarkKind::NoCompact, MarkKind::NoDownsample] {
            let found = self.retry.run(|| marks::load(&self.bucket, old, kind)).await?;
            let MarkState::Marked(mut mark) = found else { continue };
            mark.block = new;
            if !lease.is_held() {
                return Err(JobError::Stopped);
            }
            self.retry.run(|| marks::create(&self.bucket, &mark)).await?;
        }
        Ok(())
    }
}

/// Writes a downsampled block again. The first of `sources` is the block; the others have the finer samples of the series of which
/// something is deleted. Blocks the thread.
fn calculate_again(
    plan: &RewritePlan,
    deletions: &BlockDeletions,
    sources: &[Source],
    writer: &mut BlockWriter,
    stop: &std::sync::atomic::AtomicBool,
) -> Result<Merged, MergeJobError> {
    let from = plan.finer.first().map_or(0, |meta| resolution(meta));
    let steps: Vec<i64> =
        RESOLUTIONS.into_iter().filter(|to| *to > from && *to <= resolution(&plan.source)).collect();
    let lengths = std::iter::once(from).chain(steps.iter().copied());
    let millis = |millis: i64| Duration::from_millis(millis.unsigned_abs());
    let mut run = Recalculation {
        deletions,
        times: TimeRange::new(plan.source.min_time, plan.source.max_time.offset_millis(-1)),
        finer: millis(from),
        steps: lengths.zip(&steps).map(|(from, to)| Downsampler::new(millis(from), millis(*to))).collect(),
        writer,
        merged: Merged::default(),
    };
    let accounts = read_all(sources, stop, |batches| merge_batches(&batches, |series| run.series(series)))?;
    let mut merged = run.merged;
    // Only the windows of the block are accounted for; the finer samples stay where they are.
    accounts.into_iter().take(1).for_each(|account| merged.account.add(account));
    Ok(merged)
}

struct Recalculation<'a> {
    deletions: &'a BlockDeletions,
    /// The times of the block.
    times: TimeRange,
    /// The resolution of the finer samples.
    finer: Duration,
    /// From the finer samples to the windows of the block.
    steps: Vec<Downsampler>,
    writer: &'a mut BlockWriter,
    merged: Merged,
}

impl Recalculation<'_> {
    fn series(&mut self, series: MergedSeries) -> Result<(), MergeJobError> {
        let MergedSeries { labels, contributions } = series;
        let (mut own, mut finer) = (Vec::new(), Vec::new());
        for Contribution { input, chunks } in contributions {
            let chunks: Vec<Chunk> = chunks.into_iter().filter_map(|chunk| chunk.raw).collect();
            if input == 0 { own.extend(chunks) } else { finer.push(chunks) }
        }
        let windows: u64 = own.iter().map(|chunk| chunk.sample_count() as u64).sum();
        let is_touched = self.deletions.of_series(&labels).next().is_some();
        let chunks = if is_touched {
            self.merged.account.replaced += windows;
            self.downsampled(&labels, finer)?
        } else {
            self.merged.account.written += windows;
            own
        };
        if !chunks.is_empty() {
            self.merged.digest.add(&labels, &chunks);
            self.writer.add_series(&labels, chunks)?;
        }
        Ok(())
    }

    /// The windows of the finer samples, within the times of the block.
    fn downsampled(&mut self, labels: &Labels, finer: Vec<Vec<Chunk>>) -> Result<Vec<Chunk>, MergeJobError> {
        let failed = |error| MergeJobError::Series { series: labels.to_string(), error: Box::new(error) };
        let outside = [
            TimeRange::new(TimeRange::ALL.min, self.times.min.offset_millis(-1)),
            TimeRange::new(self.times.max.offset_millis(1), TimeRange::ALL.max),
        ];
        let outside = DeletedTimes::new(outside, self.finer);
        let mut chunks = Vec::new();
        for chunk in unite_chunks(finer).map_err(failed)?.chunks {
            chunks.extend(outside.leave(chunk).map_err(failed)?);
        }
        for step in &mut self.steps {
            chunks = step.series(&chunks).map_err(|error| MergeJobError::Downsample {
                series: labels.to_string(),
                error: Box::new(error),
            })?;
        }
        Ok(chunks)
    }
}
