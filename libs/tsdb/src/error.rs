//! Errors of chunks and of blocks.

mod block;
mod chunk;

pub(crate) use block::BlockLocation;
pub use block::{BlockError, BlockPart, BlockProblem};
pub use chunk::{AppendError, ChunkError, ChunkProblem};
