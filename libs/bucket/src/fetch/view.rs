//! What a fetch of a bucket returns: the blocks, their marks, and what could not be read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tsdb::{BlockMeta, Ulid};

use crate::bucket_index::BucketContent;
use crate::deletions::{BlockDeletions, TombstonesMark};
use crate::error::BucketError;
use crate::marks::{Mark, MarkKind};

/// The blocks of a bucket that pass the filters, and the blocks that could not be used.
#[derive(Clone, Debug, Default)]
pub struct BucketView {
    /// The blocks that pass the filters.
    pub blocks: BTreeMap<Ulid, Arc<BlockMeta>>,
    /// Blocks without a `meta.json`: their upload or removal is running, or was abandoned.
    pub partial: BTreeSet<Ulid>,
    /// Blocks whose `meta.json` cannot be used, or has the id of another block, or whose deletions of series cannot be read, with the
    /// reason. A person should look at
    /// them; a program must not delete them.
    pub corrupt: BTreeMap<Ulid, String>,
    /// Blocks whose meta or mark could not be read, with the reason. Empty in a complete view.
    pub failed: BTreeMap<Ulid, String>,
    /// Marks of the requested kinds, of all blocks that passed the filters for time, shard and age.
    pub marks: BTreeMap<(MarkKind, Ulid), Mark>,
    /// Marks of the requested kinds that exist and cannot be used, with the reason. They have no effect.
    pub unusable_marks: BTreeMap<(MarkKind, Ulid), String>,
    /// Deletions of series that hold for blocks in [`BucketView::blocks`] and are not done there: their readers mask them.
    pub deletions: BTreeMap<Ulid, Arc<BlockDeletions>>,
    /// The marks that request deletions, of all blocks, also of those that are not in the bucket any more.
    pub tombstones: BTreeMap<Ulid, TombstonesMark>,
    /// Blocks whose sources are all in another block; not in [`BucketView::blocks`].
    pub duplicates: BTreeSet<Ulid>,
    /// What the bucket contains before the filters, if the options say that it is kept.
    pub content: Option<Arc<BucketContent>>,
    /// Number of blocks by state, as in the metric `thanos_blocks_meta_synced`.
    pub counts: BTreeMap<BlockState, usize>,
}

/// Why there is no view, or no complete one.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The blocks could not be listed.
    #[error(transparent)]
    Listing(#[from] BucketError),
    /// The meta or a mark of some blocks could not be read. The incomplete view may be used to serve queries, but never to
    /// decide what to delete.
    #[error("incomplete view of the bucket: {} of {} blocks could not be read; the first error: {}",
        view.failed.len(), view.failed.len() + view.blocks.len(),
        view.failed.values().next().map_or("", String::as_str))]
    Incomplete {
        /// What could be read.
        view: Box<BucketView>,
    },
}

impl BucketView {
    /// Adds to the count of a state.
    pub(super) fn count(&mut self, state: BlockState, blocks: usize) {
        *self.counts.entry(state).or_default() += blocks;
    }
}

/// The state of a block in a view. A block has one state, except that blocks with marks against compaction or downsampling
/// are counted in addition to [`BlockState::Loaded`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "`label` names the states, which are those of Thanos")]
pub enum BlockState {
    Corrupt,
    NoMeta,
    Loaded,
    TooFresh,
    Failed,
    LabelExcluded,
    TimeExcluded,
    Duplicate,
    MarkedForDeletion,
    MarkedForNoCompaction,
    MarkedForNoDownsample,
}

pub(super) const STATES: [(BlockState, &str); 11] = [
    (BlockState::Corrupt, "corrupted-meta-json"),
    (BlockState::NoMeta, "no-meta-json"),
    (BlockState::Loaded, "loaded"),
    (BlockState::TooFresh, "too-fresh"),
    (BlockState::Failed, "failed"),
    (BlockState::LabelExcluded, "label-excluded"),
    (BlockState::TimeExcluded, "time-excluded"),
    (BlockState::Duplicate, "duplicate"),
    (BlockState::MarkedForDeletion, "marked-for-deletion"),
    (BlockState::MarkedForNoCompaction, "marked-for-no-compact"),
    (BlockState::MarkedForNoDownsample, "marked-for-no-downsample"),
];

impl BlockState {
    /// The value of the label `state`.
    pub fn label(self) -> &'static str {
        STATES[self as usize].1
    }
}
