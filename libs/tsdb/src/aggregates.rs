//! The chunks of downsampled blocks: the aggregates of a range of time, each a chunk of its own.
//!
//! ```text
//! count, sum, min, max, counter, each:
//!   uvarint  length of the data; 0: there is no such aggregate, and nothing follows
//!   byte     encoding
//!   data
//! ```
//!
//! There is no checksum inside; the segment has one for the whole chunk. Specified by `pkg/compact/downsample/aggr.go` of
//! Thanos. The reader of Thanos needs one byte more than there is after an absent aggregate, so that it reports a damaged
//! chunk when the counter is asked for and absent. We read such a chunk, and write what Thanos writes. Bytes after the last
//! aggregate are ignored, as in Thanos.

use bytes::Bytes;
use model::TimeRange;

use crate::chunk::{Aggregate, Chunk, Encoding, sample_count};
use crate::error::{ChunkError, ChunkProblem};

/// The aggregates of a downsampled series in one range of time.
///
/// For floats, all five are XOR chunks. For native histograms, the count is an XOR chunk, sum and counter are float
/// histograms, and min and max are absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aggregates {
    /// Number of raw samples in each window.
    pub count: Option<Chunk>,
    /// Sum of the raw samples in each window.
    pub sum: Option<Chunk>,
    /// Least raw sample in each window.
    pub min: Option<Chunk>,
    /// Greatest raw sample in each window.
    pub max: Option<Chunk>,
    /// The counter with resets applied. Its last two samples have the same time; the last one is the last raw value.
    pub counter: Option<Chunk>,
}

impl Aggregates {
    /// Splits a chunk into its parts, which share its bytes.
    pub(crate) fn decode(chunk: &Chunk) -> Result<Self, ChunkError> {
        let mut rest = chunk.data.clone();
        let mut parts = [const { None }; 5];
        for (part, aggregate) in parts.iter_mut().zip(Aggregate::STORED) {
            *part = take_part(&mut rest, aggregate, chunk.range).map_err(|problem| ChunkError {
                encoding: Encoding::Aggregates,
                size_bytes: chunk.data.len(),
                offset: chunk.data.len() - rest.len(),
                problem,
            })?;
        }
        let [count, sum, min, max, counter] = parts;
        Ok(Self { count, sum, min, max, counter })
    }

    /// Puts the parts into one chunk that claims `range`. In a downsampled block, that is from the end of the first window to
    /// the end of the last one; the first sample of the counter may be before it.
    pub fn encode(&self, range: TimeRange) -> Chunk {
        let mut data = Vec::with_capacity(self.parts().flatten().map(|part| part.data.len() + 4).sum());
        for part in self.parts() {
            let mut length = part.map_or(0, |part| part.data.len());
            while length >= 0x80 {
                data.push(length as u8 | 0x80);
                length >>= 7;
            }
            data.push(length as u8);
            if let Some(part) = part.filter(|part| !part.data.is_empty()) {
                data.push(part.encoding.byte());
                data.extend_from_slice(&part.data);
            }
        }
        Chunk { range, encoding: Encoding::Aggregates, data: Bytes::from(data) }
    }

    /// Number of windows, which is the number of counts; 0 without counts.
    pub fn sample_count(&self) -> usize {
        self.count.as_ref().and_then(|count| sample_count(count.encoding, &count.data)).unwrap_or(0)
    }

    /// One of the aggregates; none when it is absent, and for [`Aggregate::Raw`], which no such chunk has.
    pub fn get(&self, aggregate: Aggregate) -> Option<&Chunk> {
        match aggregate {
            Aggregate::Raw => None,
            Aggregate::Count => self.count.as_ref(),
            Aggregate::Sum => self.sum.as_ref(),
            Aggregate::Min => self.min.as_ref(),
            Aggregate::Max => self.max.as_ref(),
            Aggregate::Counter => self.counter.as_ref(),
        }
    }

    /// The five parts in the order in which they are stored.
    pub(crate) fn parts(&self) -> impl Iterator<Item = Option<&Chunk>> {
        Aggregate::STORED.into_iter().map(|aggregate| self.get(aggregate))
    }
}

/// Reads one part from the front of `rest`.
fn take_part(
    rest: &mut Bytes,
    aggregate: Aggregate,
    range: TimeRange,
) -> Result<Option<Chunk>, ChunkProblem> {
    let length = take_length(rest).ok_or(ChunkProblem::AggregateLength(aggregate))?;
    if length == 0 {
        return Ok(None);
    }
    let Some(&byte) = rest.first().filter(|_| length < rest.len()) else {
        return Err(ChunkProblem::AggregateLength(aggregate));
    };
    let encoding = Encoding::from_byte(byte).filter(|encoding| *encoding != Encoding::Aggregates);
    let encoding = encoding.ok_or(ChunkProblem::AggregateEncoding { aggregate, encoding: byte })?;
    let mut data = rest.split_to(1 + length);
    Ok(Some(Chunk { range, encoding, data: data.split_off(1) }))
}

/// Reads a LEB128 number from the front of `rest`; none when it has no end, or is longer than any chunk.
fn take_length(rest: &mut Bytes) -> Option<usize> {
    let digits = rest.iter().take(5).position(|byte| byte & 0x80 == 0)? + 1;
    let digits = rest.split_to(digits);
    digits
        .iter()
        .rev()
        .try_fold(0usize, |length, digit| length.checked_mul(0x80)?.checked_add(usize::from(digit & 0x7f)))
}

#[cfg(test)]
mod tests;
