//! Which blocks concern a caller. The methods are applied in the order in which they stand here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use model::{LabelsBuilder, Relabeling, Timestamp};
use runtime::TimeArg;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tsdb::{BlockMeta, ThanosMeta, Ulid};

use crate::fetch::{BlockState, View};
use crate::marks::MarkKind;

/// The label that stands for a block's id in rules of selection.
const BLOCK_ID_LABEL: &str = "__block_id";
/// Producers whose blocks replace others and are therefore seen at once.
const NEVER_TOO_FRESH: [&str; 3] = ["bucket.repair", "compactor", "compactor.repair"];
/// The value of the first replica label where removing them would leave a block without labels.
const NO_LABELS_LEFT: &str = "deduped";

/// Which blocks concern a caller; the default lets all of them through.
#[derive(Clone, Debug, Default)]
pub struct Filters {
    /// Only blocks that reach into this time, both ends included.
    pub time: Option<(TimeArg, TimeArg)>,
    /// Only blocks whose labels, with `__block_id`, these rules keep; see [`parse_selector`](super::parse_selector).
    pub selector: Relabeling,
    /// Labels that tell replicas apart: not shown to the selector, so that replicas stay together.
    pub replica_labels: Vec<String>,
    /// Only blocks that were uploaded at least this long ago, so that a store that lists late is not believed
    /// too early. Blocks of a compactor or a repair are let through.
    pub consistency_delay: Duration,
    /// Leaves out blocks that have been marked for deletion for longer than this; `None` reads no marks.
    pub ignore_marked_after: Option<Duration>,
    /// Removes [`Filters::replica_labels`] from the metas in the view.
    pub removes_replica_labels: bool,
    /// Leaves out blocks whose sources are all in another block of the same labels and resolution.
    pub deduplicates: bool,
}

impl Filters {
    pub(super) fn by_time(&self, view: &mut View, now: Timestamp) {
        let Some((min, max)) = self.time else { return };
        let (min, max) = (min.at(now), max.at(now));
        drop_blocks(view, BlockState::TimeExcluded, |_, meta| meta.max_time < min || meta.min_time > max);
    }

    pub(super) fn by_shard(&self, view: &mut View) {
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

    pub(super) fn by_age(&self, view: &mut View, now: Timestamp) {
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

    pub(super) fn by_deletion_mark(&self, view: &mut View, now: Timestamp) {
        let Some(delay) = self.ignore_marked_after else { return };
        let is_old = |(key, mark): (&(MarkKind, Ulid), &crate::marks::Mark)| {
            (key.0 == MarkKind::Deletion && mark.age(now) > delay).then_some(key.1)
        };
        let gone: BTreeSet<Ulid> = view.marks.iter().filter_map(is_old).collect();
        drop_blocks(view, BlockState::MarkedForDeletion, |block, _| gone.contains(&block));
    }

    /// Says how many labels were removed.
    pub(super) fn remove_replica_labels(&self, view: &mut View) -> usize {
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
                tracing::warn!(
                    "block {block} has no labels but those of replicas: it becomes {first}={NO_LABELS_LEFT:?}"
                );
                labels.insert(first.clone(), NO_LABELS_LEFT.to_owned());
            }
            if labels != thanos.labels {
                let thanos = ThanosMeta { labels, ..thanos.clone() };
                *meta = Arc::new(BlockMeta { thanos: Some(thanos), ..BlockMeta::clone(meta) });
            }
        }
        removed
    }

    /// By group: blocks with most sources first, each of which covers those whose sources it has.
    pub(super) fn deduplicate(&self, view: &mut View) {
        if !self.deduplicates {
            return;
        }
        type Group = (i64, Vec<(String, String)>);
        let mut groups: BTreeMap<Group, Vec<&Arc<BlockMeta>>> = BTreeMap::new();
        for meta in view.blocks.values() {
            let resolution = meta.thanos.as_ref().map_or(0, |thanos| thanos.downsample.resolution_millis);
            let labels = external_labels(meta).map(|(name, value)| (name.clone(), value.clone())).collect();
            groups.entry((resolution, labels)).or_default().push(meta);
        }
        let duplicates: BTreeSet<Ulid> = groups.into_values().flat_map(covered).collect();
        drop_blocks(view, BlockState::Duplicate, |block, _| duplicates.contains(&block));
        view.duplicates = duplicates;
    }
}

/// The blocks of a group that others of it cover.
fn covered(mut group: Vec<&Arc<BlockMeta>>) -> Vec<Ulid> {
    group.sort_by_key(|meta| (std::cmp::Reverse(meta.compaction.sources.len()), meta.ulid));
    // Which of the kept blocks hold a source. Few blocks share one, so this is no search through all of them.
    let mut holders: BTreeMap<Ulid, Vec<usize>> = BTreeMap::new();
    let mut kept = 0;
    let mut duplicates = Vec::new();
    for meta in group {
        let sources: BTreeSet<Ulid> = meta.compaction.sources.iter().copied().collect();
        let is_covered = match sources.first() {
            // As in Thanos: the empty set is in every set, once there is one.
            None => kept > 0,
            Some(first) => holders.get(first).is_some_and(|candidates| {
                candidates.iter().any(|candidate| {
                    let holds =
                        |source| holders.get(source).is_some_and(|holders| holders.contains(candidate));
                    sources.iter().all(holds)
                })
            }),
        };
        if is_covered {
            duplicates.push(meta.ulid);
        } else {
            for source in sources {
                holders.entry(source).or_default().push(kept);
            }
            kept += 1;
        }
    }
    duplicates
}

fn external_labels(meta: &BlockMeta) -> impl Iterator<Item = (&String, &String)> {
    meta.thanos.iter().flat_map(|thanos| &thanos.labels)
}

/// When a block was uploaded, in milliseconds; `None` where the meta does not tell.
fn uploaded(meta: &BlockMeta) -> Option<i64> {
    let text = meta.thanos.as_ref().map(|thanos| thanos.upload_time.as_str())?;
    let at = OffsetDateTime::parse(text, &Rfc3339).ok().filter(|at| at.year() > 1)?;
    i64::try_from(at.unix_timestamp_nanos().div_euclid(1_000_000)).ok()
}

fn drop_blocks(view: &mut View, state: BlockState, mut is_dropped: impl FnMut(Ulid, &BlockMeta) -> bool) {
    let before = view.blocks.len();
    view.blocks.retain(|block, meta| !is_dropped(*block, meta));
    view.count(state, before - view.blocks.len());
}
