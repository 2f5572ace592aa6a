//! Which deletions hold for which blocks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{Labels, Matcher, TimeRange};
use tsdb::{BlockMeta, Ulid};

use crate::deletions::deletion::Deletion;
use crate::deletions::mark::TombstonesMark;

/// The deletions that hold for one block and are not done there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockDeletions {
    /// Each with the matchers that are left for the series of the block.
    all: Vec<(Arc<Deletion>, Vec<Matcher>)>,
}

impl BlockDeletions {
    /// Those of `deletions` that concern a block.
    pub fn of<'a>(deletions: impl IntoIterator<Item = &'a Arc<Deletion>>, meta: &BlockMeta) -> Self {
        let (external, times) = (external_labels(meta), times(meta));
        let concerning =
            |deletion: &Arc<Deletion>| Some((Arc::clone(deletion), deletion.matchers_for(&external, times)?));
        Self { all: deletions.into_iter().filter_map(concerning).collect() }
    }

    /// Whether nothing is deleted.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The deletions.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Deletion>> {
        self.all.iter().map(|(deletion, _)| deletion)
    }

    /// The deletions with the matchers that are left for the series of the block.
    pub fn with_matchers(&self) -> impl Iterator<Item = (&Arc<Deletion>, &[Matcher])> {
        self.all.iter().map(|(deletion, matchers)| (deletion, matchers.as_slice()))
    }

    /// The deleted times of a series with these labels, without external ones, in any order.
    pub fn of_series<'a>(&'a self, labels: &'a Labels) -> impl Iterator<Item = TimeRange> + 'a {
        let selects = |matchers: &[Matcher]| matchers.iter().all(|matcher| matcher.matches_labels(labels));
        self.all.iter().filter(move |(_, matchers)| selects(matchers)).map(|(deletion, _)| deletion.range)
    }
}

/// The ids of the deletions that are done in a block.
pub fn applied(meta: &BlockMeta) -> BTreeSet<&str> {
    let entries = meta.thanos.iter().flat_map(|thanos| &thanos.rewrites);
    let lists = entries.filter_map(|entry| entry.get("deletions_applied")?.as_array()).flatten();
    lists.filter_map(|deletion| deletion.get("request_id")?.as_str()).collect()
}

/// What holds for each of the blocks, by the marks of all blocks. Blocks without deletions are left out.
pub fn effective<'a>(
    marks: &BTreeMap<Ulid, TombstonesMark>,
    metas: impl IntoIterator<Item = &'a Arc<BlockMeta>>,
) -> BTreeMap<Ulid, Arc<BlockDeletions>> {
    if marks.is_empty() {
        return BTreeMap::new();
    }
    let metas: Vec<&Arc<BlockMeta>> = metas.into_iter().collect();
    let mut by_source: BTreeMap<Ulid, Vec<&TombstonesMark>> =
        marks.values().map(|mark| (mark.block, vec![mark])).collect();
    for meta in &metas {
        let Some(mark) = marks.get(&meta.ulid) else { continue };
        for source in meta.compaction.sources.iter().filter(|source| **source != meta.ulid) {
            by_source.entry(*source).or_default().push(mark);
        }
    }
    let of_block = |meta: &&Arc<BlockMeta>| {
        let own = std::iter::once(&meta.ulid).chain(&meta.compaction.sources);
        let marks: BTreeMap<Ulid, &TombstonesMark> =
            own.filter_map(|id| by_source.get(id)).flatten().map(|mark| (mark.block, *mark)).collect();
        if marks.is_empty() {
            return None;
        }
        let done = applied(meta);
        let mut seen = BTreeSet::new();
        let open = marks.values().flat_map(|mark| &mark.deletions);
        let open = open.filter(|deletion| !done.contains(&*deletion.id) && seen.insert(&*deletion.id));
        let deletions = BlockDeletions::of(open, meta);
        (!deletions.is_empty()).then(|| (meta.ulid, Arc::new(deletions)))
    };
    metas.iter().filter_map(of_block).collect()
}

/// The external labels of a block; none where they are not valid.
fn external_labels(meta: &BlockMeta) -> Labels {
    let pairs = meta.thanos.iter().flat_map(|thanos| &thanos.labels);
    Labels::from_pairs(pairs).unwrap_or_else(|_| Labels::empty())
}

/// The instants of which a block may have samples. The end in `meta.json` is exclusive.
fn times(meta: &BlockMeta) -> TimeRange {
    TimeRange::new(meta.min_time, meta.max_time.offset_millis(-1))
}
