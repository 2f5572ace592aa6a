//! Prometheus' storage formats: the chunks that hold a series' samples.
//!
//! Bytes in, samples out, and back; no files, no clock, no async.

mod chunk;

pub use chunk::{Chunk, Encoding};
