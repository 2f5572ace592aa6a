//! Views of a database: each has every sample, while blocks are cut off the head.

use std::sync::Arc;

use model::TimeRange;

use crate::database::{Database, LocalBlock};
use crate::head::Head;

/// A database at one time: its blocks, and its head.
///
/// While it exists, the head keeps the samples of blocks that were cut later, for at most two minutes. Samples of blocks may also be
/// in the head with equal values, and out-of-order samples are in the chunks of a series in the head, but in blocks of their own.
pub struct DatabaseView {
    database: Arc<Database>,
    blocks: Vec<Arc<LocalBlock>>,
    generation: Arc<u64>,
}

impl Database {
    /// What the database has in a range at this time, to be read step by step.
    pub fn view(self: &Arc<Self>, range: TimeRange) -> DatabaseView {
        // In this order: a block that is cut meanwhile is in the list, or the head keeps its samples.
        let generation = self.views.enter();
        DatabaseView { database: Arc::clone(self), blocks: self.blocks(range), generation }
    }
}

impl DatabaseView {
    /// The head. A reader calls [`DatabaseView::is_whole`] after it has read.
    pub fn head(&self) -> &Head {
        self.database.head()
    }

    /// The blocks with samples in the range of the view, by min time.
    pub fn blocks(&self) -> &[Arc<LocalBlock>] {
        &self.blocks
    }

    /// Whether the head still had all samples that are in none of the blocks. If not, what was read since it last did may lack samples:
    /// the view has existed for too long.
    pub fn is_whole(&self) -> bool {
        self.database.views.are_whole(*self.generation)
    }
}
