//! A chunk: the compressed samples of one series over a stretch of time.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use model::{FloatHistogram, TimeRange};

use crate::error::{ChunkError, ChunkProblem};
use crate::{histogram, xor};

/// How a chunk's bytes are to be read. The discriminants are Prometheus' own (`chunkenc.Encoding`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Encoding {
    /// Gorilla-style XOR of floats.
    Xor = 1,
    /// Native histograms with integer counts.
    Histogram = 2,
    /// Native histograms with float counts.
    FloatHistogram = 3,
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Encoding::Xor => "XOR",
            Encoding::Histogram => "histogram",
            Encoding::FloatHistogram => "float histogram",
        })
    }
}

/// The compressed samples of one series, still encoded.
///
/// `data` is the chunk's payload as it lies in a block or on the wire: no length, no encoding byte, no checksum.
/// The range is the claim of whoever made the chunk; samples are trimmed against requests, never against it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// First and last sample, both included.
    pub range: TimeRange,
    /// How to read `data`.
    pub encoding: Encoding,
    /// The payload; shared, never copied on its way through.
    pub data: Bytes,
}

impl Chunk {
    /// Number of samples that the header announces, at most 65,535; 0 where there is no whole header.
    pub fn sample_count(&self) -> usize {
        sample_count(&self.data).unwrap_or(0)
    }

    /// Appends the samples of a chunk of floats to `timestamps` (milliseconds since the epoch) and `values`.
    ///
    /// Timestamps are as the chunk has them: a damaged one may have times that do not ascend or lie outside
    /// [`Chunk::range`].
    ///
    /// # Errors
    /// When the payload is damaged or holds histograms. Nothing was appended then.
    pub fn decode_floats(&self, timestamps: &mut Vec<i64>, values: &mut Vec<f64>) -> Result<(), ChunkError> {
        match self.encoding {
            Encoding::Xor => xor::decode(&self.data, timestamps, values),
            Encoding::Histogram | Encoding::FloatHistogram => Err(self.wrong_kind("histograms", "floats")),
        }
    }

    /// Appends the samples of a chunk of histograms to `out`, with their times in milliseconds since the epoch.
    ///
    /// Integer histograms come out as float ones. The reset hint is that of Prometheus: gauge for all samples of a
    /// gauge chunk, otherwise unknown for the first sample and no reset for the others. Times are as in
    /// [`Chunk::decode_floats`]; histograms fit their spans, but otherwise are as foreign as the chunk
    /// ([`FloatHistogram::validate`]).
    ///
    /// # Errors
    /// When the payload is damaged or holds floats. Nothing was appended then.
    pub fn decode_histograms(&self, out: &mut Vec<(i64, Arc<FloatHistogram>)>) -> Result<(), ChunkError> {
        match self.encoding {
            Encoding::Xor => Err(self.wrong_kind("floats", "histograms")),
            Encoding::Histogram => histogram::decode_integer(&self.data, out),
            Encoding::FloatHistogram => histogram::decode_float(&self.data, out),
        }
    }

    fn wrong_kind(&self, holds: &'static str, wanted: &'static str) -> ChunkError {
        let problem = ChunkProblem::Kind { holds, wanted };
        ChunkError { encoding: self.encoding, size_bytes: self.data.len(), offset: 0, problem }
    }
}

/// Number of samples that the header of a payload announces, whatever its encoding.
pub(crate) fn sample_count(data: &[u8]) -> Option<usize> {
    data.first_chunk().map(|count| usize::from(u16::from_be_bytes(*count)))
}
