//! What a chunk holds: its samples, whatever their encoding.

use std::sync::Arc;

use model::{FloatHistogram, Timestamp};

use crate::aggregates::Aggregates;
use crate::chunk::{Chunk, Encoding, UNKNOWN_START, sample_count};
use crate::cursor::ByteCursor;
use crate::error::{ChunkError, ChunkProblem};
use crate::{histogram, xor, xor2};

impl Chunk {
    /// Number of samples that the header announces, at most 65,535; 0 where there is no whole header. Of aggregates, the
    /// number of counts.
    pub fn sample_count(&self) -> usize {
        match self.encoding {
            Encoding::Aggregates => self.aggregates().map_or(0, |aggregates| aggregates.sample_count()),
            encoding => sample_count(encoding, &self.data).unwrap_or(0),
        }
    }

    /// Memory that the samples take once they are decoded, in bytes, as far as the header tells; never more than a small
    /// multiple of what the payload could hold. Of aggregates, that of all parts.
    pub fn decoded_bytes(&self) -> usize {
        match self.encoding {
            Encoding::Aggregates => self
                .aggregates()
                .map_or(0, |aggregates| aggregates.parts().flatten().map(Self::decoded_bytes).sum()),
            encoding if encoding.holds_floats() => {
                // A sample takes at least one bit.
                self.sample_count().min(self.data.len() * 8) * size_of::<(i64, f64)>()
            }
            encoding => histogram::decoded_bytes(encoding, &self.data),
        }
    }

    /// Appends the samples of a chunk of floats to `timestamps` (milliseconds since the epoch) and `values`.
    ///
    /// Timestamps are as the chunk has them: a damaged one may have times that do not ascend or lie outside
    /// [`Chunk::range`].
    ///
    /// # Errors
    /// When the payload is damaged or holds no floats. Nothing was appended then.
    pub fn decode_floats(&self, timestamps: &mut Vec<i64>, values: &mut Vec<f64>) -> Result<(), ChunkError> {
        match self.encoding {
            Encoding::Xor => xor::decode(&self.data, timestamps, values),
            Encoding::Xor2 => xor2::decode(&self.data, timestamps, values, None),
            _ => Err(self.wrong_kind("floats")),
        }
    }

    /// Like [`Chunk::decode_floats`], with the time at which each sample's counter began, in milliseconds since the
    /// epoch; 0 where it is unknown.
    ///
    /// `starts` is empty as long as no start is known, and otherwise as long as `timestamps`; it comes and goes that way.
    /// A chunk without start timestamps costs nothing more than [`Chunk::decode_floats`].
    ///
    /// # Errors
    /// As [`Chunk::decode_floats`].
    pub fn decode_floats_with_starts(
        &self,
        timestamps: &mut Vec<i64>,
        values: &mut Vec<f64>,
        starts: &mut Vec<i64>,
    ) -> Result<(), ChunkError> {
        let before = starts.len();
        match self.encoding {
            Encoding::Xor2 => xor2::decode(&self.data, timestamps, values, Some(&mut *starts))?,
            _ => self.decode_floats(timestamps, values)?,
        }
        settle_starts(starts, before, timestamps.len());
        Ok(())
    }

    /// Appends the samples of a chunk of histograms to `out`, with their times in milliseconds since the epoch.
    ///
    /// Integer histograms come out as float ones. The reset hint is that of Prometheus: gauge for all samples of a
    /// gauge chunk, otherwise unknown for the first sample and no reset for the others. Times are as in
    /// [`Chunk::decode_floats`]; histograms fit their spans, but otherwise are as foreign as the chunk
    /// ([`FloatHistogram::validate`]).
    ///
    /// # Errors
    /// When the payload is damaged or holds no histograms. Nothing was appended then.
    pub fn decode_histograms(&self, out: &mut Vec<(i64, Arc<FloatHistogram>)>) -> Result<(), ChunkError> {
        match self.encoding {
            encoding if encoding.holds_histograms() => histogram::decode(encoding, &self.data, out, None),
            _ => Err(self.wrong_kind("histograms")),
        }
    }

    /// Like [`Chunk::decode_histograms`], with start timestamps as in [`Chunk::decode_floats_with_starts`].
    ///
    /// # Errors
    /// As [`Chunk::decode_histograms`].
    pub fn decode_histograms_with_starts(
        &self,
        out: &mut Vec<(i64, Arc<FloatHistogram>)>,
        starts: &mut Vec<i64>,
    ) -> Result<(), ChunkError> {
        let before = starts.len();
        match self.encoding {
            encoding if encoding.holds_histograms() => {
                histogram::decode(encoding, &self.data, out, Some(&mut *starts))?;
            }
            _ => return Err(self.wrong_kind("histograms")),
        }
        settle_starts(starts, before, out.len());
        Ok(())
    }

    /// The aggregates of a chunk of a downsampled block. Each claims the range of the whole.
    ///
    /// # Errors
    /// When the payload is damaged or holds no aggregates. The aggregates themselves are not decoded.
    pub fn aggregates(&self) -> Result<Aggregates, ChunkError> {
        match self.encoding {
            Encoding::Aggregates => Aggregates::decode(self),
            _ => Err(self.wrong_kind("aggregates")),
        }
    }

    /// Time of the first sample, or of the first window of aggregates, told by the beginning of the payload; none where
    /// there is none to read.
    pub(crate) fn first_timestamp(&self) -> Option<Timestamp> {
        let float = |header: usize| ByteCursor::new(self.data.get(header..)?).varint();
        let millis = match self.encoding {
            Encoding::Xor => float(2),
            Encoding::Xor2 => float(3),
            // A part is never of aggregates itself.
            Encoding::Aggregates => return self.aggregates().ok()?.count?.first_timestamp(),
            encoding => histogram::first_timestamp(encoding, &self.data),
        };
        millis.map(Timestamp::from_millis)
    }

    pub(crate) fn wrong_kind(&self, wanted: &'static str) -> ChunkError {
        let problem = ChunkProblem::Kind { holds: self.encoding.content(), wanted };
        ChunkError { encoding: self.encoding, size_bytes: self.data.len(), offset: 0, problem }
    }
}

/// Makes the starts as many as samples, or none where none is known. `before` is how many they were.
fn settle_starts(starts: &mut Vec<i64>, before: usize, samples: usize) {
    // A chunk of more than 127 samples tells starts even where all are unknown.
    if before == 0 && starts.iter().all(|start| *start == UNKNOWN_START) {
        starts.clear();
    } else {
        starts.resize(samples, UNKNOWN_START);
    }
}
