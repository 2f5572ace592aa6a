//! What the compactor sees of a bucket: the blocks that it may merge, and those that it leaves alone, with the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bucket::bucket_index::BucketContent;
use bucket::deletions::{BlockDeletions, TombstonesMark};
use bucket::marks::{Mark, MarkKind};
use bucket::{BucketView, FetchError, Fetcher, covered_blocks};
use model::{Labels, Timestamp};
use tsdb::{BlockMeta, Ulid};

use crate::group::{GroupKey, by_group, coarser, external_labels, resolution};

/// The blocks of a bucket, and what is known about them.
#[derive(Clone, Debug, Default)]
pub(crate) struct CompactorView {
    /// The blocks to work on: whole, not marked for deletion, not covered by another one.
    pub(crate) blocks: Vec<Arc<BlockMeta>>,
    /// Blocks whose sources are all in another block, with that block.
    pub(crate) covered: Vec<(Arc<BlockMeta>, Ulid)>,
    /// Deletion marks.
    pub(crate) marked: BTreeMap<Ulid, Mark>,
    /// The metas of marked blocks, if they still have one.
    pub(crate) marked_blocks: BTreeMap<Ulid, Arc<BlockMeta>>,
    /// Blocks with a no-compact mark, and with a no-downsample mark.
    pub(crate) no_compact: BTreeSet<Ulid>,
    pub(crate) no_downsample: BTreeSet<Ulid>,
    /// Deletions of series that hold for these blocks and are not done there.
    pub(crate) deletions: BTreeMap<Ulid, Arc<BlockDeletions>>,
    /// The marks that request them.
    pub(crate) tombstones: BTreeMap<Ulid, TombstonesMark>,
    /// What the bucket contains before all filters, for its index.
    pub(crate) content: Option<Arc<BucketContent>>,
    /// Uploads that are not complete.
    pub(crate) partial: BTreeSet<Ulid>,
    /// Blocks whose `meta.json` cannot be used.
    pub(crate) corrupt: BTreeMap<Ulid, String>,
    /// Blocks that are not worked on, because of their labels or their resolution.
    pub(crate) refused: BTreeMap<Ulid, String>,
}

impl CompactorView {
    /// Fetches the view. `required` are the labels that each block must have. Relative times count from `now`.
    ///
    /// # Errors
    /// An incomplete view is an error: nothing is decided by it.
    pub(crate) async fn fetch(
        fetcher: &Fetcher,
        required: &Labels,
        replica_labels: &[String],
        now: Timestamp,
    ) -> Result<Self, FetchError> {
        Ok(Self::new(fetcher.fetch(now).await?, required, replica_labels))
    }

    fn new(fetched: BucketView, required: &Labels, replica_labels: &[String]) -> Self {
        let BucketView { blocks, partial, corrupt, marks, deletions, tombstones, content, .. } = fetched;
        let mut view = Self { partial, corrupt, deletions, tombstones, content, ..Self::default() };
        for ((kind, block), mark) in marks {
            match kind {
                MarkKind::Deletion => _ = view.marked.insert(block, mark),
                MarkKind::NoCompact => _ = view.no_compact.insert(block),
                MarkKind::NoDownsample => _ = view.no_downsample.insert(block),
            }
        }
        let mut usable = Vec::new();
        for (id, meta) in blocks {
            if view.marked.contains_key(&id) {
                view.marked_blocks.insert(id, meta);
            } else if let Some(reason) = refusal(&meta, required) {
                view.refused.insert(id, reason);
            } else {
                usable.push(meta);
            }
        }
        let mut covers: BTreeMap<Ulid, Ulid> = BTreeMap::new();
        for group in by_group(&usable, replica_labels).into_values() {
            covers.extend(covered_blocks(group.iter().collect()));
        }
        for meta in usable {
            match covers.get(&meta.ulid) {
                Some(cover) => view.covered.push((meta, *cover)),
                None => view.blocks.push(meta),
            }
        }
        let blocks: BTreeSet<Ulid> = view.blocks.iter().map(|meta| meta.ulid).collect();
        view.deletions.retain(|block, _| blocks.contains(block));
        view
    }

    /// Leaves blocks alone that `removed_at` says were removed and that are there again without a mark.
    pub(crate) fn refuse_removed(&mut self, removed_at: impl Fn(Ulid) -> Option<Timestamp>) {
        let mut refused = BTreeMap::new();
        let mut is_kept = |meta: &Arc<BlockMeta>| {
            let removed = removed_at(meta.ulid);
            if let Some(at) = removed {
                let at = crate::history::rfc3339(at);
                let reason = format!(
                    "it was removed at {at} and is there again; remove it, or keep it: after seven days it is used like others"
                );
                refused.insert(meta.ulid, reason);
            }
            removed.is_none()
        };
        self.blocks.retain(&mut is_kept);
        self.covered.retain(|(meta, _)| is_kept(meta));
        self.refused.append(&mut refused);
    }

    /// The blocks of one group, sorted by time.
    pub(crate) fn group(&self, key: &GroupKey, replica_labels: &[String]) -> Vec<Arc<BlockMeta>> {
        by_group(&self.blocks, replica_labels).remove(key).unwrap_or_default()
    }
}

/// Why a block is left alone; none if it is worked on.
fn refusal(meta: &BlockMeta, required: &Labels) -> Option<String> {
    let labels = external_labels(meta);
    for label in required {
        match labels.get(label.name) {
            Some(value) if value == label.value => {}
            Some(value) => {
                return Some(format!(
                    "its label {} is {value:?}, its bucket requires {:?}",
                    label.name, label.value
                ));
            }
            None => return Some(format!("it has no label {}, which its bucket requires", label.name)),
        }
    }
    let millis = resolution(meta);
    let is_known = millis == 3_600_000 || coarser(millis).is_some();
    (!is_known).then(|| format!("its resolution is {millis} ms, expected 0, 300000 or 3600000"))
}

/// The times of the window for messages: `from` to `to`.
pub(crate) fn times(min: Timestamp, max: Timestamp) -> String {
    format!("{} to {}", crate::history::rfc3339(min), crate::history::rfc3339(max))
}
