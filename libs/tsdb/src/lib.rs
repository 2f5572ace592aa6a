//! Prometheus' storage formats: blocks, and the chunks in them with the samples of series.
//!
//! No database, no clock, no network, no async: bytes come from a [`ReadAt`], which is a local file or ranges of an object.
//! Bytes are not trusted: reading gives what was written or an error that names the part and the byte ([`BlockError`],
//! [`ChunkError`]), in time and memory proportional to the size of the input.
//!
//! [`Block`] opens a block, selects series and reads chunks. [`Index`] is the part of it that finds series by their labels.
//! [`BlockSalvage`] reads what can be read of a damaged block.
//! [`BlockWriter`] writes a block, and [`Workload`] generates one. Decoding floats is the hot path of a query, so it decodes
//! whole chunks into plain vectors ([`Chunk::decode_floats`]). [`ChunkBuilder`] makes chunks of samples.
//!
//! The modules in layers, each uses only those above it:
//!
//! ```text
//! bytes    cursor bits varbit mix read
//! types    chunk reference files meta error
//! chunks   starts, xor xor2 histogram aggregates, decode, transcode builder open
//! blocks   postings tombstones, index segments, block writer, generate
//! ```

mod aggregates;
mod bits;
mod block;
mod builder;
mod chunk;
mod cursor;
mod decode;
mod error;
mod files;
mod generate;
mod histogram;
mod index;
mod meta;
mod mix;
mod open;
mod postings;
#[cfg(test)]
mod random;
mod read;
mod reference;
mod segments;
mod starts;
mod tombstones;
mod transcode;
mod varbit;
mod writer;
mod xor;
mod xor2;

pub use aggregates::Aggregates;
pub use block::{
    Block, BlockParts, BlockSalvage, BlockSelection, BlockSeries, Verification, VerifyEvent, verify_dir,
};
pub use builder::ChunkBuilder;
pub use chunk::{Aggregate, Chunk, Encoding, SAMPLES_PER_CHUNK};
pub use cursor::{ByteCursor, put_bytes, put_uvarint, put_varint};
pub use error::{AppendError, BlockError, BlockPart, BlockProblem, ChunkError, ChunkProblem};
pub use files::{CHUNKS_DIR, INDEX_FILE};
pub use generate::{GenerateError, Workload};
pub use histogram::HistogramEncoder;
pub use index::{Index, IndexMemory, IndexSections, IndexVersion, SalvagedSeries, SeriesEntry, SeriesScan};
pub use meta::{
    BlockDesc, BlockMeta, BlockStats, Compaction, Downsample, FileHash, FileMeta, IndexStats, META_FILE,
    MetaError, ThanosMeta, parse_block_id,
};
pub use open::OpenChunk;
pub use postings::Postings;
pub use read::{LocalFile, ReadAt};
pub use reference::{ChunkMeta, ChunkRef, SeriesRef};
pub use tombstones::{TOMBSTONES_FILE, Tombstones};
pub use ulid::Ulid;
pub use writer::{BlockOptions, BlockWriter, UNFINISHED_SUFFIX, WriteError};
pub use xor::XorEncoder;
pub use xor2::Xor2Encoder;
