//! Series between stores and queries: the merge of sorted streams, the deduplication of replicas, and the samples of chunks.
//!
//! No clock, no I/O, no async: callers pass data in and take results out, so that async and blocking callers share the
//! code.
//!
//! Sorted streams of [`Series`] enter a [`Merge`], which groups the chunks that all inputs have for one label set. A store
//! that queries other stores passes them on as one series ([`MergedSeries::into_series`]). A query takes them as the replicas
//! of one series ([`MergedSeries::into_selected`]) and decodes them to [`Samples`] on the thread that evaluates the series
//! ([`SelectedSeries::decode`]).
//!
//! A block that is written again needs more than a query does: [`decode_chunk`] and [`encode_chunks`] keep the encoding of
//! each sample, [`join_chunks`] joins chunks that overlap, and [`compact_chunks`] makes one series of what several blocks and
//! replicas have of it. [`Downsampler`] makes the chunks of downsampled blocks. [`AggrChunk::from_block`] is what a store sends of a
//! chunk.

mod chain;
mod compact;
mod counter;
mod covered;
mod damage;
mod decode;
mod dedup;
mod deleted;
mod downsample;
mod error;
mod group;
mod join;
mod merge;
mod mixed;
mod overlap;
mod penalty;
mod producer;
mod reorder;
mod samples;
mod selected;
mod sorter;
mod stored;
#[cfg(test)]
mod testing;
mod timeline;
mod types;

pub use compact::{CompactedChunks, ReplicaRule, compact_chunks};
pub use deleted::DeletedTimes;
pub use downsample::{DownsampleError, DownsampleProblem, Downsampler};
pub use error::{DecodeError, DecodeProblem};
pub use join::{ChunkJoinError, JoinedChunks, join_chunks, unite_chunks};
pub use merge::{Contribution, Merge, MergeError, MergedSeries, Step};
pub use producer::Producer;
pub use reorder::{OutOfOrder, Reorder};
pub use samples::Samples;
pub use selected::{DecodeOptions, Dedup, SelectedSeries};
pub use sorter::{SeriesSorter, SorterFull};
pub use stored::{ChunkSample, ChunkSampleValue, decode_chunk, encode_chunks};
/// Which aggregate a query reads or a store sends: part of [`AggrChunk`] and [`DecodeOptions`].
pub use tsdb::Aggregate;
pub use types::{AggrChunk, Series};
