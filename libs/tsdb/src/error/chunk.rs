//! What can be wrong with a chunk, or with a sample for it.

use model::Timestamp;

use crate::chunk::{Aggregate, Encoding};

/// A chunk that cannot be read: names its encoding, its size and where reading stopped.
///
/// A chunk is read whole or not at all; there is nothing to retry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{encoding} chunk of {size_bytes} bytes is damaged near byte {offset}: {problem}")]
pub struct ChunkError {
    /// How the chunk claims to be encoded.
    pub encoding: Encoding,
    /// Size of its payload.
    pub size_bytes: usize,
    /// Byte of the payload at which the problem was noticed, from 0.
    pub offset: usize,
    /// What is wrong there.
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
    /// A sample is not later than the one before it, where the chunk has to be written anew.
    #[error("its timestamps do not ascend")]
    Order,
    /// The histogram schema does not exist.
    #[error("histogram schema {0} is unknown")]
    Schema(i64),
    /// A span's length or offset has more than 32 bits, or spans describe more buckets than there can be.
    #[error("the histogram's spans are longer than the chunk")]
    Spans,
    /// An aggregate's length is none, or leads past the end.
    #[error("the aggregate {0} is longer than the rest of the chunk")]
    AggregateLength(Aggregate),
    /// An aggregate is encoded as no aggregate is.
    #[error("the aggregate {aggregate} has the unknown encoding {encoding}")]
    AggregateEncoding {
        /// Which of them.
        aggregate: Aggregate,
        /// The byte that names its encoding.
        encoding: u8,
    },
    /// The chunk holds the other kind of samples than was asked for.
    #[error("it contains {holds}, expected {wanted}")]
    Kind {
        /// What it holds.
        holds: &'static str,
        /// What was asked for.
        wanted: &'static str,
    },
}

/// A sample that an encoder does not take; the caller starts a new chunk, or drops it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The chunk holds as many samples as its header can count: 65,535, or 16,383 histograms with start timestamps.
    #[error("the chunk has as many samples as it can count; start a new chunk")]
    Full,
    /// The sample is not later than the one before it.
    #[error("sample at {at} is not after the last one at {last}")]
    OutOfOrder {
        /// Time of the refused sample.
        at: Timestamp,
        /// Time of the last sample.
        last: Timestamp,
    },
    /// The histogram's layout differs from that of the chunk, or the chunk's kind cannot hold it.
    #[error("the histogram does not fit the chunk: {0}; start a new chunk")]
    Layout(&'static str),
    /// The encoding holds the other kind of samples.
    #[error("a {encoding} chunk takes {}, not {sample}", encoding.content())]
    Encoding {
        /// How the sample was to be encoded.
        encoding: Encoding,
        /// What was to be encoded.
        sample: &'static str,
    },
}
