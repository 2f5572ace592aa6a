//! Native histograms in chunks: integer ones (encoding 2) and float ones (encoding 3), and both with start timestamps
//! (encodings 5 and 6).
//!
//! ```text
//! without start timestamps
//! be16 number of samples
//! byte  kind of counter: 00 unknown, 01 not reset, 10 reset, 11 gauge in the top two bits
//!
//! with start timestamps
//! be16  kind of counter in the top two bits, number of samples in the other fourteen
//! byte  header of the start timestamps
//!
//! bits  layout: zero threshold, schema, positive spans, negative spans, [custom bounds]
//! bits  samples: t, count, zero count, sum, positive buckets, negative buckets, [start]
//! ```
//!
//! | field | integer, first | integer, later | float, first | float, later |
//! |---|---|---|---|---|
//! | t | varbit | varbit, delta of delta | varbit | varbit, delta of delta |
//! | count, zero count | unsigned varbit | varbit, delta of delta | 64 bits | XOR |
//! | sum | 64 bits | XOR | 64 bits | XOR |
//! | bucket | varbit, delta to the bucket before | varbit, delta of delta of that | 64 bits, absolute | XOR |
//!
//! "Delta of delta" starts from a delta of 0, so the second sample stores the delta itself. Each XOR field has its
//! own window. A staleness marker that is not the first sample has no buckets. Starts are those of
//! [`starts`](crate::starts).
//!
//! Specified by `tsdb/chunkenc/{histogram,float_histogram,histogram_meta,histogram_st,float_histogram_st}.go` of
//! Prometheus 3.14.

mod decode;
mod encode;
mod layout;
mod shared;
mod strip;

pub(crate) use decode::{decode, decoded_bytes, first_timestamp};
pub use encode::HistogramEncoder;
pub(crate) use shared::{Continuation, SharedBuckets};
pub(crate) use strip::strip_starts;

/// Bytes of the header: the number of samples, the kind of counter, and the header of the start timestamps.
const HEADER_BYTES: usize = 3;

/// The bits of a byte for the kind of counter.
const KIND_OF_COUNTER: u8 = 0b1100_0000;

/// Kind of counter for gauge histograms: in the header's third byte, or with start timestamps in its first.
const GAUGE: u8 = 0b1100_0000;

/// Kind of counter for a chunk that starts with a counter reset.
const RESET: u8 = 0b1000_0000;

/// Kind of counter for a chunk that does not start with a counter reset.
const NOT_RESET: u8 = 0b0100_0000;

#[cfg(test)]
mod tests;
