//! Decodes chunks of every encoding.

use std::sync::Arc;

use model::{FloatHistogram, Timestamp};

use crate::aggregates::Aggregates;
use crate::chunk::{Chunk, Encoding, MAX_ST_HISTOGRAMS, UNKNOWN_START, sample_count};
use crate::cursor::ByteCursor;
use crate::error::{ChunkError, ChunkProblem};
use crate::{histogram, xor, xor2};

impl Chunk {
    /// Number of samples that the header announces, at most 65,535; 0 when the header is incomplete. For aggregates, the
    /// number of counts.
    pub fn sample_count(&self) -> usize {
        match self.encoding {
            Encoding::Aggregates => self.aggregates().map_or(0, |aggregates| aggregates.sample_count()),
            encoding => sample_count(encoding, &self.data).unwrap_or(0),
        }
    }

    /// Memory of the decoded samples in bytes, estimated from the header; never more than a small multiple of what the payload
    /// can contain. For aggregates, that of all parts.
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
    /// Timestamps are not checked: a damaged chunk may have times that do not ascend or are outside of [`Chunk::range`].
    ///
    /// # Errors
    /// When the payload is damaged or does not contain floats. Nothing is appended then.
    pub fn decode_floats(&self, timestamps: &mut Vec<i64>, values: &mut Vec<f64>) -> Result<(), ChunkError> {
        match self.encoding {
            Encoding::Xor => xor::decode(&self.data, timestamps, values),
            Encoding::Xor2 => xor2::decode(&self.data, timestamps, values, None),
            _ => Err(self.wrong_kind("floats")),
        }
    }

    /// Like [`Chunk::decode_floats`], with the time at which the counter of each sample began, in milliseconds since the
    /// epoch; 0 where it is unknown.
    ///
    /// `starts` is empty as long as no start is known; otherwise it has as many entries as `timestamps`, before and after
    /// the call. A chunk without start timestamps costs no more than with [`Chunk::decode_floats`].
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
    /// Integer histograms are returned as float histograms. The reset hint is that of Prometheus: gauge for all samples of a
    /// gauge chunk, otherwise unknown for the first sample and no reset for the others. Times are not checked, as in
    /// [`Chunk::decode_floats`]. Histograms fit their spans, but are not checked otherwise
    /// ([`FloatHistogram::validate`]).
    ///
    /// # Errors
    /// When the payload is damaged or does not contain histograms. Nothing is appended then.
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

    /// The chunk up to the first sample that cannot be decoded; `None` if not even one can be, and for aggregates.
    ///
    /// The range stays that of this chunk. The payload has bytes after its last sample, so encode the samples again.
    pub fn readable_part(&self) -> Option<Self> {
        if self.encoding == Encoding::Aggregates {
            return None;
        }
        let with = |count: usize| -> Option<Self> {
            let mut data = self.data.to_vec();
            // The top two bits of histograms with start timestamps are not part of the count.
            let mask = match self.encoding {
                Encoding::HistogramSt | Encoding::FloatHistogramSt => MAX_ST_HISTOGRAMS as u16,
                _ => u16::MAX,
            };
            let header = data.first_chunk_mut::<2>()?;
            let kept = u16::from_be_bytes(*header) & !mask;
            *header = (kept | u16::try_from(count).ok()?).to_be_bytes();
            let part = Self { data: data.into(), ..self.clone() };
            let decodes = if self.encoding.holds_floats() {
                part.decode_floats(&mut Vec::new(), &mut Vec::new()).is_ok()
            } else {
                part.decode_histograms(&mut Vec::new()).is_ok()
            };
            decodes.then_some(part)
        };
        // `low` samples can be decoded, `high` cannot.
        let (mut low, mut high, mut found) = (0, self.sample_count() + 1, None);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match with(middle) {
                Some(part) => (low, found) = (middle, Some(part)),
                None => high = middle,
            }
        }
        found
    }

    /// The aggregates of a chunk of a downsampled block. Each claims the range of the whole chunk.
    ///
    /// # Errors
    /// When the payload is damaged or does not contain aggregates. The aggregates themselves are not decoded.
    pub fn aggregates(&self) -> Result<Aggregates, ChunkError> {
        match self.encoding {
            Encoding::Aggregates => Aggregates::decode(self),
            _ => Err(self.wrong_kind("aggregates")),
        }
    }

    /// Time of the first sample, or of the first window of aggregates, read from the beginning of the payload; none when it
    /// cannot be read.
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

/// Gives `starts` as many entries as there are samples, or none if no start is known. `before` is its length before.
fn settle_starts(starts: &mut Vec<i64>, before: usize, samples: usize) {
    // A chunk of more than 127 samples has starts even if all are unknown.
    if before == 0 && starts.iter().all(|start| *start == UNKNOWN_START) {
        starts.clear();
    } else {
        starts.resize(samples, UNKNOWN_START);
    }
}
