//! Which blocks a caller needs. The filters are applied in the order of the methods in this file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use model::{LabelsBuilder, Relabeling, Timestamp};
use runtime::TimeArg;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tsdb::{BlockMeta, ThanosMeta, Ulid};

use crate::fetch::view::{BlockState, BucketView};
use crate::marks::MarkKind;

/// The label with a block's id in rules of selection.
/// The label that has the id of a block, besides its external labels.
pub const BLOCK_ID_LABEL: &str = "__block_id";
/// Sources whose blocks replace others and therefore pass the consistency delay at once.
const NEVER_TOO_FRESH: [&str; 3] = ["bucket.repair", "compactor", "compactor.repair"];
/// The value of the first replica label if a block has no other labels.
const NO_LABELS_LEFT: &str = "deduped";

/// Which blocks a caller needs; the default passes all of them.
#[derive(Clone, Debug, Default)]
pub struct Filters {
    /// Only blocks that overlap this time, both ends included.
    pub time: Option<(TimeArg, TimeArg)>,
    /// Only blocks that these rules keep by their labels and `__block_id`; see [`parse_selector`](crate::parse_selector).
    pub selector: Relabeling,
    /// Labels that distinguish replicas. The selector does not see them, so that replicas are in the same shard.
    pub replica_labels: Vec<String>,
    /// Only blocks that were uploaded at least this long ago, because some stores list new objects late. Blocks of a
    /// compactor or a repair always pass.
    pub consistency_delay: Duration,
    /// Drops blocks that were marked for deletion longer ago than this; `None` keeps them and reads no marks.
    pub ignore_marked_after: Option<Duration>,
    /// Removes [`Filters::replica_labels`] from the metas in the view.
    pub removes_replica_labels: bool,
    /// Drops blocks whose sources are all in another block of the same labels and resolution.
    pub deduplicates: bool,
}

impl Filters {
    pub(super) fn by_time(&self, view: &mut BucketView, now: Timestamp) {
        let Some((min, max)) = self.time else { return };
        let (min, max) = (min.at(now), max.at(now));
        drop_blocks(view, BlockState::TimeExcluded, |_, meta| meta.max_time < min || meta.min_time > max);
    }

    pub(super) fn by_shard(&self, view: &mut BucketView) {
        if self.selector.is_empty() {
            return;
        }
        drop_blocks(view, BlockState::LabelExcluded, |block, meta| {
            let mut labels = LabelsBuilder::new();
            labels.set(BLOCK_ID_LABEL, &block.to_string());
            for (name, value) in external_labels(meta) {
                if !self.replica_labels.contains(name) {
                    labels.set(name, value);
                }
            }
            self.selector.apply(&labels.build()).is_none_or(|labels| labels.is_empty())
        });
    }

    pub(super) fn by_age(&self, view: &mut BucketView, now: Timestamp) {
        if self.consistency_delay.is_zero() {
            return;
        }
        let delay = i64::try_from(self.consistency_delay.as_millis()).unwrap_or(i64::MAX);
        drop_blocks(view, BlockState::TooFresh, |block, meta| {
            let source = meta.thanos.as_ref().map_or("", |thanos| thanos.source.as_str());
            let since = uploaded(meta).unwrap_or(block.timestamp_ms() as i64);
            now.as_millis().saturating_sub(since) < delay && !NEVER_TOO_FRESH.contains(&source)
        });
    }

    pub(super) fn by_deletion_mark(&self, view: &mut BucketView, now: Timestamp) {
        let Some(delay) = self.ignore_marked_after else { return };
        let is_old = |(key, mark): (&(MarkKind, Ulid), &crate::marks::Mark)| {
            (key.0 == MarkKind::Deletion && mark.age(now) > delay).then_some(key.1)
        };
        let gone: BTreeSet<Ulid> = view.marks.iter().filter_map(is_old).collect();
        drop_blocks(view, BlockState::MarkedForDeletion, |block, _| gone.contains(&block));
    }

    /// Returns the number of removed labels.
    pub(super) fn remove_replica_labels(&self, view: &mut BucketView) -> usize {
        let Some(first) = self.replica_labels.first().filter(|_| self.removes_replica_labels) else {
            return 0;
        };
        let mut removed = 0;
        for (block, meta) in &mut view.blocks {
            let Some(thanos) = &meta.thanos else { continue };
            let mut labels = thanos.labels.clone();
            labels.retain(|name, _| !self.replica_labels.contains(name));
            removed += thanos.labels.len() - labels.len();
            if labels.is_empty() {
                tracing::warn!(%block, "block has replica labels only and gets {first}={NO_LABELS_LEFT:?}");
                labels.insert(first.clone(), NO_LABELS_LEFT.to_owned());
            }
            if labels != thanos.labels {
                let thanos = ThanosMeta { labels, ..thanos.clone() };
                *meta = Arc::new(BlockMeta { thanos: Some(thanos), ..BlockMeta::clone(meta) });
            }
        }
        removed
    }

    /// In each group, blocks are visited from most to fewest sources. A block is dropped if a kept one has all its sources.
    pub(super) fn deduplicate(&self, view: &mut BucketView) {
        if !self.deduplicates {
            return;
        }
        type BlockGroup = (i64, Vec<(String, String)>);
        let mut groups: BTreeMap<BlockGroup, Vec<&Arc<BlockMeta>>> = BTreeMap::new();
        for meta in view.blocks.values() {
            let resolution = meta.thanos.as_ref().map_or(0, |thanos| thanos.downsample.resolution_millis);
            let labels = external_labels(meta).map(|(name, value)| (name.clone(), value.clone())).collect();
            groups.entry((resolution, labels)).or_default().push(meta);
        }
        let duplicates: BTreeSet<Ulid> =
            groups.into_values().flat_map(covered_blocks).map(|(block, _)| block).collect();
        drop_blocks(view, BlockState::Duplicate, |block, _| duplicates.contains(&block));
        view.duplicates = duplicates;
    }
}

/// The blocks of a group whose sources are all in another block of the group, each with the block that is kept for it. The blocks
/// of a group have the same external labels, without replica labels, and the same resolution.
pub fn covered_blocks(mut group: Vec<&Arc<BlockMeta>>) -> Vec<(Ulid, Ulid)> {
    group.sort_by_key(|meta| (std::cmp::Reverse(meta.compaction.sources.len()), meta.ulid));
    let mut kept_ids: Vec<Ulid> = Vec::new();
    // The kept blocks of each source. Few blocks share a source, so this is faster than a search through all kept blocks.
    let mut holders: BTreeMap<Ulid, Vec<usize>> = BTreeMap::new();
    let mut duplicates = Vec::new();
    for meta in group {
        let sources: BTreeSet<Ulid> = meta.compaction.sources.iter().copied().collect();
        let cover = match sources.first() {
            // As in Thanos: a block without sources is covered by any kept block.
            None => kept_ids.first(),
            Some(first) => holders.get(first).into_iter().flatten().find_map(|candidate| {
                let holds = |source| holders.get(source).is_some_and(|holders| holders.contains(candidate));
                sources.iter().all(holds).then(|| &kept_ids[*candidate])
            }),
        };
        if let Some(cover) = cover {
            duplicates.push((meta.ulid, *cover));
        } else {
            for source in sources {
                holders.entry(source).or_default().push(kept_ids.len());
            }
            kept_ids.push(meta.ulid);
        }
    }
    duplicates
}

fn external_labels(meta: &BlockMeta) -> impl Iterator<Item = (&String, &String)> {
    meta.thanos.iter().flat_map(|thanos| &thanos.labels)
}

/// When a block was uploaded, in milliseconds; `None` if the meta has no upload time.
fn uploaded(meta: &BlockMeta) -> Option<i64> {
    let text = meta.thanos.as_ref().map(|thanos| thanos.upload_time.as_str())?;
    let at = OffsetDateTime::parse(text, &Rfc3339).ok().filter(|at| at.year() > 1)?;
    i64::try_from(at.unix_timestamp_nanos().div_euclid(1_000_000)).ok()
}

fn drop_blocks(
    view: &mut BucketView,
    state: BlockState,
    mut is_dropped: impl FnMut(Ulid, &BlockMeta) -> bool,
) {
    let before = view.blocks.len();
    view.blocks.retain(|block, meta| !is_dropped(*block, meta));
    view.count(state, before - view.blocks.len());
}
