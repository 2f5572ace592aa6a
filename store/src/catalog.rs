//! The blocks that the store knows, and which of them a request needs. No I/O: [`crate::sync`] fetches what is in here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bucket::BucketView;
use bucket::deletions::BlockDeletions;
use model::{ExternalMatch, Labels, Matcher, TimeRange, Timestamp};
use series::Producer;
use tsdb::{BlockMeta, Ulid};

use crate::cache::BlockKey;

/// The resolutions that Thanos writes, in milliseconds.
const RESOLUTIONS: [i64; 3] = [0, 300_000, 3_600_000];

/// A block that can be asked for series.
#[derive(Debug)]
pub(crate) struct KnownBlock {
    pub(crate) key: BlockKey,
    pub(crate) meta: Arc<BlockMeta>,
    pub(crate) external: Labels,
    pub(crate) producer: Option<Producer>,
    /// The first and the last instant of which it may have samples.
    pub(crate) range: TimeRange,
    /// Samples that are in its files and in no answer.
    pub(crate) deletions: Arc<BlockDeletions>,
}

/// A block of which nothing can be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnreadableBlock {
    pub(crate) key: BlockKey,
    pub(crate) reason: String,
    /// The instants of which it may have samples.
    pub(crate) range: TimeRange,
}

/// The blocks of one producer.
#[derive(Debug)]
struct LabelGroup {
    external: Labels,
    /// By resolution in milliseconds; each list sorted by times.
    by_resolution: BTreeMap<i64, Vec<Arc<KnownBlock>>>,
}

/// All blocks that the store knows. It does not change: a sync makes another one.
#[derive(Debug)]
pub(crate) struct Catalog {
    /// When the last of its views was fetched.
    pub(crate) fetched_at: SystemTime,
    groups: Vec<LabelGroup>,
    /// Blocks whose `meta.json` cannot be used or could not be read.
    pub(crate) unreadable: Vec<UnreadableBlock>,
    /// Blocks that are not served because their labels are not those that their bucket permits, with the reason.
    pub(crate) refused: BTreeMap<BlockKey, String>,
}

impl Default for Catalog {
    fn default() -> Self {
        Self {
            fetched_at: SystemTime::UNIX_EPOCH,
            groups: Vec::new(),
            unreadable: Vec::new(),
            refused: BTreeMap::new(),
        }
    }
}

/// A block that a request needs.
#[derive(Clone, Debug)]
pub(crate) struct SelectedBlock {
    pub(crate) known: Arc<KnownBlock>,
    /// The part of the range of the request that this block answers.
    pub(crate) slice: TimeRange,
    /// The matchers of the request without those on external labels, which are satisfied.
    pub(crate) matchers: Arc<Vec<Matcher>>,
}

/// What the store announces of one producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProducerRange {
    pub(crate) external: Labels,
    pub(crate) range: TimeRange,
}

impl Catalog {
    /// The blocks of the views of all buckets. `required` has, for each bucket, the labels that its blocks must have.
    pub(crate) fn new(views: &[BucketView], required: &[Labels], fetched_at: SystemTime) -> Self {
        let mut catalog = Self { fetched_at, ..Self::default() };
        let mut groups: BTreeMap<Labels, LabelGroup> = BTreeMap::new();
        for (bucket, view) in (0_u16..).zip(views) {
            let key = |block: &Ulid| BlockKey { bucket, block: *block };
            for (block, reason) in view.corrupt.iter().chain(&view.failed) {
                if !view.blocks.contains_key(block) {
                    catalog.unreadable.push(UnreadableBlock {
                        key: key(block),
                        reason: reason.clone(),
                        range: before_creation(*block),
                    });
                }
            }
            for (block, meta) in &view.blocks {
                let key = key(block);
                let deletions = view.deletions.get(block).cloned().unwrap_or_default();
                match KnownBlock::new(key, meta, deletions) {
                    Err(reason) => {
                        catalog.unreadable.push(UnreadableBlock { key, reason, range: times(meta) });
                    }
                    Ok(known) => match required.get(usize::from(bucket)).and_then(|r| known.misses(r)) {
                        Some(reason) => _ = catalog.refused.insert(key, reason),
                        None => {
                            let group = groups.entry(known.external.clone()).or_insert_with(|| LabelGroup {
                                external: known.external.clone(),
                                by_resolution: BTreeMap::new(),
                            });
                            group.by_resolution.entry(known.resolution()).or_default().push(Arc::new(known));
                        }
                    },
                }
            }
        }
        catalog.groups = groups.into_values().collect();
        for blocks in catalog.groups.iter_mut().flat_map(|group| group.by_resolution.values_mut()) {
            blocks.sort_by_key(|block| (block.range.min, block.range.max, block.key));
        }
        catalog
    }

    /// The blocks that have series for a request, and the unreadable ones that may have some.
    ///
    /// For each producer, the coarsest permitted resolution is taken, and where it has no block, the next finer one
    /// (`bucketBlockSet.getFor` in `pkg/store/bucket.go` of Thanos). In contrast to Thanos, a finer block is asked only for the
    /// time that no coarser block covers, so that no sample is counted twice. If the request allows it, the time that is left
    /// is covered by the finest block that is coarser than permitted.
    pub(crate) fn select(
        &self,
        range: TimeRange,
        matchers: &[Matcher],
        permitted: Resolutions,
    ) -> (Vec<SelectedBlock>, Vec<&UnreadableBlock>) {
        let max = i64::try_from(permitted.max.as_millis()).unwrap_or(i64::MAX);
        let mut selected = Vec::new();
        for group in &self.groups {
            let ExternalMatch::Rest(rest) = ExternalMatch::split(matchers, &group.external) else { continue };
            let rest = Arc::new(rest);
            let finer = group.by_resolution.range(..=max).rev();
            let coarser = group.by_resolution.iter().filter(|(resolution, _)| **resolution > max);
            let coarser = coarser.take_while(|_| permitted.coarser_if_needed);
            let levels: Vec<&[Arc<KnownBlock>]> = finer.chain(coarser).map(|(_, blocks)| &**blocks).collect();
            let mut slices = Vec::new();
            fill(&levels, range, &mut slices);
            selected.extend(slices.into_iter().map(|(known, slice)| SelectedBlock {
                known,
                slice,
                matchers: Arc::clone(&rest),
            }));
        }
        let unreadable = self.unreadable.iter().filter(|block| block.range.overlaps(&range)).collect();
        (selected, unreadable)
    }

    /// All blocks.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = &Arc<KnownBlock>> {
        self.groups.iter().flat_map(|group| group.by_resolution.values()).flatten()
    }

    /// The keys of all blocks.
    pub(crate) fn keys(&self) -> BTreeSet<BlockKey> {
        self.blocks().map(|block| block.key).collect()
    }

    /// The producers, sorted by their labels, each with the times of its blocks within `limits`; those without a block within
    /// them are left out.
    pub(crate) fn producers(&self, limits: TimeRange) -> Vec<ProducerRange> {
        let range_of = |group: &LabelGroup| {
            let ranges = group.by_resolution.values().flatten().map(|block| block.range.intersect(&limits));
            ranges
                .filter(|range| !range.is_empty())
                .reduce(|a, b| TimeRange::new(a.min.min(b.min), a.max.max(b.max)))
        };
        let announced = |group: &LabelGroup| {
            Some(ProducerRange { external: group.external.clone(), range: range_of(group)? })
        };
        self.groups.iter().filter_map(announced).collect()
    }
}

impl KnownBlock {
    fn new(key: BlockKey, meta: &Arc<BlockMeta>, deletions: Arc<BlockDeletions>) -> Result<Self, String> {
        let thanos = meta.thanos.as_ref();
        let external = Labels::from_pairs(thanos.iter().flat_map(|thanos| &thanos.labels))
            .map_err(|error| format!("meta.json: thanos.labels: {error}"))?;
        let resolution = thanos.map_or(0, |thanos| thanos.downsample.resolution_millis);
        if !RESOLUTIONS.contains(&resolution) {
            return Err(format!(
                "meta.json: thanos.downsample.resolution is {resolution}, expected 0, 300000 or 3600000"
            ));
        }
        let producer = Producer::of(&external);
        Ok(Self { key, meta: Arc::clone(meta), external, producer, range: times(meta), deletions })
    }

    /// Milliseconds between its samples; 0 for raw samples.
    pub(crate) fn resolution(&self) -> i64 {
        self.meta.thanos.as_ref().map_or(0, |thanos| thanos.downsample.resolution_millis)
    }

    /// Why the block may not be served from a bucket that requires these labels.
    fn misses(&self, required: &Labels) -> Option<String> {
        let missed = required.iter().find(|label| self.external.get(label.name) != Some(label.value))?;
        Some(format!(
            "its label {}={:?} must be {:?}, as required_labels of its bucket says",
            missed.name,
            self.external.value(missed.name),
            missed.value
        ))
    }
}

/// The instants of which a block may have samples. The end in `meta.json` is exclusive.
fn times(meta: &BlockMeta) -> TimeRange {
    TimeRange::new(meta.min_time, meta.max_time.offset_millis(-1))
}

/// The instants of which a block may have samples whose `meta.json` is not known: those before it was written.
fn before_creation(block: Ulid) -> TimeRange {
    let created = i64::try_from(block.timestamp_ms()).unwrap_or(i64::MAX);
    TimeRange::new(Timestamp::MIN, Timestamp::from_millis(created))
}

/// The resolutions that a request permits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resolutions {
    /// The coarsest one.
    pub(crate) max: Duration,
    /// Whether coarser ones are permitted for times without another block.
    pub(crate) coarser_if_needed: bool,
}

impl Resolutions {
    /// Every resolution, the coarsest one first.
    pub(crate) const ALL: Self = Self { max: Duration::MAX, coarser_if_needed: false };
}

/// Covers `range` with blocks of the first of `levels`, and gaps with blocks of the following ones.
fn fill(levels: &[&[Arc<KnownBlock>]], range: TimeRange, out: &mut Vec<(Arc<KnownBlock>, TimeRange)>) {
    let Some((level, finer)) = levels.split_first() else { return };
    if range.is_empty() {
        return;
    }
    let mut from = range.min;
    let mut is_covered = false;
    for block in level.iter().filter(|block| block.range.overlaps(&range)) {
        if block.range.min > from && !is_covered {
            fill(finer, TimeRange::new(from, block.range.min.offset_millis(-1)), out);
        }
        out.push((Arc::clone(block), range));
        is_covered |= block.range.max >= range.max;
        from = from.max(block.range.max.offset_millis(1));
    }
    if !is_covered {
        fill(finer, TimeRange::new(from, range.max), out);
    }
}

#[cfg(test)]
mod tests;
