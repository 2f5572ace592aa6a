//! What can be wrong: with a chunk or a sample for it, and with a block.

mod block;
mod chunk;

pub(crate) use block::BlockLocation;
pub use block::{BlockError, BlockPart, BlockProblem};
pub use chunk::{AppendError, ChunkError, ChunkProblem};
