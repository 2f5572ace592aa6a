//! Prometheus' storage formats: the chunks that hold a series' samples.
//!
//! Bytes in, samples out, and back; no files, no clock, no async. Bytes are taken to be foreign: whatever they are,
//! a decoder ends with samples or with a [`ChunkError`], in time and memory proportional to their number.
//!
//! Decoding floats is the hot path of a query, so it works on whole chunks into plain vectors
//! ([`Chunk::decode_floats`]).

mod aggregates;
mod bits;
mod chunk;
mod error;
mod histogram;
mod meta;
#[cfg(test)]
mod random;
mod read;
mod starts;
mod transcode;
mod varbit;
mod xor;
mod xor2;

pub use aggregates::Aggregates;
pub use chunk::{Chunk, Encoding};
pub use error::{AppendError, ChunkError, ChunkProblem};
pub use histogram::HistogramEncoder;
pub use meta::{
    BlockDesc, BlockMeta, BlockStats, Compaction, Downsample, FileHash, FileMeta, IndexStats, META_FILE,
    MetaError, ThanosMeta, parse_block_id,
};
pub use read::{LocalFile, ReadAt};
pub use ulid::Ulid;
pub use xor::XorEncoder;
pub use xor2::Xor2Encoder;
