//! A chunk: the compressed samples of one series over a stretch of time.

use bytes::Bytes;
use model::TimeRange;

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
