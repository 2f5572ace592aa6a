//! Errors of chunks, and of samples that are added to one.

use model::Timestamp;

use crate::chunk::{Aggregate, Encoding};

/// A chunk that cannot be decoded: names its encoding, its size and where decoding stopped.
///
/// A chunk is decoded whole or not at all. Decoding again does not help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{encoding} chunk of {size_bytes} bytes is damaged near byte {offset}: {problem}")]
pub struct ChunkError {
    /// How the chunk claims to be encoded.
    pub encoding: Encoding,
    /// Size of its payload.
    pub size_bytes: usize,
    /// Byte of the payload at which the problem was noticed, from 0.
    pub offset: usize,
    /// What is wrong.
    pub problem: ChunkProblem,
}

/// What is wrong inside a chunk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkProblem {
    /// The payload is shorter than its header.
    #[error("the header is incomplete")]
    Header,
    /// The payload ends before the samples that the header announces.
    #[error("it ends before the last of its {samples} samples")]
    Truncated {
        /// Samples that the header announces.
        samples: usize,
    },
    /// A variable-length integer has more than 64 bits.
    #[error("a timestamp has more than 64 bits")]
    Timestamp,
    /// A value's window of meaningful bits does not fit 64 bits.
    #[error("a value has {leading} leading zeros and {significant} significant bits, together more than 64")]
    ValueWindow {
        /// Leading zeros.
        leading: u32,
        /// Significant bits.
        significant: u32,
    },
    /// A sample is not later than the one before it, so the chunk cannot be encoded again.
    #[error("its timestamps do not ascend")]
    Order,
    /// The histogram schema does not exist.
    #[error("histogram schema {0} is unknown")]
    Schema(i64),
    /// A span's length or offset has more than 32 bits, or spans describe more buckets than there can be.
    #[error("the histogram's spans are longer than the chunk")]
    Spans,
    /// The length of an aggregate is invalid, or greater than the rest of the chunk.
    #[error("the aggregate {0} is longer than the rest of the chunk")]
    AggregateLength(Aggregate),
    /// An aggregate has an unknown encoding.
    #[error("the aggregate {aggregate} has the unknown encoding {encoding}")]
    AggregateEncoding {
        /// Which aggregate.
        aggregate: Aggregate,
        /// The byte of its encoding.
        encoding: u8,
    },
    /// The chunk contains another kind of samples than the caller asked for.
    #[error("it contains {holds}, expected {wanted}")]
    Kind {
        /// What it contains.
        holds: &'static str,
        /// What the caller asked for.
        wanted: &'static str,
    },
}

/// A sample that cannot be added to a chunk. The caller starts a new chunk, or drops the sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The chunk has as many samples as its header can count: 65,535, or 16,383 histograms with start timestamps.
    #[error("the chunk has as many samples as it can count; start a new chunk")]
    Full,
    /// The sample is not later than the one before it.
    #[error("sample at {at} is not after the last one at {last}")]
    OutOfOrder {
        /// Time of the rejected sample.
        at: Timestamp,
        /// Time of the last sample.
        last: Timestamp,
    },
    /// The layout of the histogram differs from that of the chunk, or its encoding cannot store the histogram.
    #[error("the histogram does not fit the chunk: {0}; start a new chunk")]
    Layout(&'static str),
    /// The encoding stores the other kind of samples.
    #[error("{encoding} chunk: the sample is {sample}, expected {}", encoding.content())]
    Encoding {
        /// The encoding that the caller asked for.
        encoding: Encoding,
        /// The kind of the sample.
        sample: &'static str,
    },
}
