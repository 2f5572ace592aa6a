//! Native histograms in chunks: integer ones (encoding 2) and float ones (encoding 3).
//!
//! ```text
//! be16 number of samples
//! byte  kind of counter: 00 unknown, 01 not reset, 10 reset, 11 gauge in the top two bits
//! bits  layout: zero threshold, schema, positive spans, negative spans, [custom bounds]
//! bits  samples: t, count, zero count, sum, positive buckets, negative buckets
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
//! own window. A staleness marker that is not the first sample ends after its sum.
//!
//! Specified by `tsdb/chunkenc/{histogram,float_histogram,histogram_meta}.go` of Prometheus.

mod decode;
mod encode;
mod layout;

pub(crate) use decode::{decode_float, decode_integer};
pub use encode::HistogramEncoder;

/// Bytes of the header: the number of samples and the kind of counter.
const HEADER_BYTES: usize = 3;

/// Value of the header's third byte for gauge histograms.
const GAUGE: u8 = 0b1100_0000;

/// Value of the header's third byte for a chunk that starts with a counter reset.
const RESET: u8 = 0b1000_0000;

/// Value of the header's third byte for a chunk that does not start with a counter reset.
const NOT_RESET: u8 = 0b0100_0000;

#[cfg(test)]
mod tests;
