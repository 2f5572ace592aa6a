//! Floats in XOR chunks: Facebook's Gorilla with wider timestamps.
//!
//! ```text
//! be16 number of samples
//! sample 0    varint t                uint64 bits of v
//! sample 1    uvarint t1 - t0         value
//! sample n    delta of delta          value
//!
//! delta of delta   0                                     0
//!                  10 + 14 bits, 110 + 17, 1110 + 20     in the asymmetric form of `bits::signed`
//!                  1111 + 64 bits
//! value            0                                     as before
//!                  10 + bits                             XOR with the value before, window as before
//!                  11 + 5 bits L + 6 bits S + S bits     XOR in a new window: L leading zeros, S bits (0 means 64)
//! ```
//!
//! Specified by `tsdb/chunkenc/xor.go` of Prometheus. Bits after the last sample are ignored: old writers left an extra
//! byte.

use bytes::Bytes;
use model::{TimeRange, Timestamp};

use crate::bits::{BitReader, BitWriter, fits_signed, signed};
use crate::error::{AppendError, ChunkError, ChunkProblem};
use crate::{Chunk, Encoding};

/// Bytes of the header: the number of samples.
const HEADER_BYTES: usize = 2;

/// The window of the meaningful bits of a value. Later values may reuse it.
#[derive(Clone, Copy)]
pub(crate) struct XorWindow {
    /// Meaningful bits, 1 to 64.
    significant: u32,
    /// Zeros below them; both together are at most 64.
    trailing: u32,
}

impl XorWindow {
    /// The window of a reader before it has read one.
    pub(crate) const WHOLE: Self = Self { significant: 64, trailing: 0 };

    /// Bits that describe a window.
    pub(crate) const BITS: u32 = 11;

    /// The window that the first [`XorWindow::BITS`] of `head` describe.
    #[inline(always)]
    pub(crate) fn read(head: u64) -> Result<Self, ChunkProblem> {
        let leading = (head >> 59) as u32;
        // 64 does not fit into six bits and 0 does not occur, so 0 means 64.
        let significant = match ((head >> 53) & 0x3f) as u32 {
            0 => 64,
            bits => bits,
        };
        if leading + significant > 64 {
            return Err(ChunkProblem::ValueWindow { leading, significant });
        }
        Ok(Self { significant, trailing: 64 - leading - significant })
    }

    /// Reads the bits within the window after skipping `before` bits. `head` begins with them, as many as fit.
    #[inline(always)]
    pub(crate) fn read_xor_at(self, reader: &mut BitReader<'_>, head: u64, before: u32) -> u64 {
        if before + self.significant <= BitReader::PEEKED {
            reader.skip(before + self.significant);
            return head >> (64 - self.significant) << self.trailing;
        }
        reader.skip(before);
        reader.read(self.significant) << self.trailing
    }

    /// Writes `delta`, which is not 0: after the prefix `reuse` if it fits into the last window, otherwise after the prefix
    /// `new` with a new window. Prefixes are bits and their number. `window` is none before the first value.
    #[inline]
    pub(crate) fn write_xor(
        window: &mut Option<Self>,
        writer: &mut BitWriter,
        delta: u64,
        reuse: (u64, u32),
        new: (u64, u32),
    ) {
        let leading = delta.leading_zeros().min(31);
        let trailing = delta.trailing_zeros();
        if let Some(Self { significant, trailing: kept }) = *window
            && leading >= 64 - significant - kept
            && trailing >= kept
        {
            writer.write(reuse.0, reuse.1);
            return writer.write(delta >> kept, significant);
        }
        let significant = 64 - leading - trailing;
        let described = new.0 << Self::BITS | u64::from(leading << 6 | significant & 0x3f);
        writer.write(described, new.1 + Self::BITS);
        writer.write(delta >> trailing, significant);
        *window = Some(Self { significant, trailing });
    }
}

/// Reads a value: the bits that differ from those of the value before it.
#[inline(always)]
pub(crate) fn read_xor(reader: &mut BitReader<'_>, window: &mut XorWindow) -> Result<u64, ChunkProblem> {
    let head = reader.peek();
    read_xor_at(reader, head, 0, window)
}

/// Reads a value whose first bits are those of `head`, left-aligned, after skipping `before` bits.
#[inline(always)]
fn read_xor_at(
    reader: &mut BitReader<'_>,
    head: u64,
    before: u32,
    window: &mut XorWindow,
) -> Result<u64, ChunkProblem> {
    if head >> 63 == 0 {
        reader.skip(before + 1);
        return Ok(0);
    }
    if head >> 62 == 0b10 {
        return Ok(window.read_xor_at(reader, head << 2, before + 2));
    }
    *window = XorWindow::read(head << 2)?;
    Ok(window.read_xor_at(reader, head << (2 + XorWindow::BITS), before + 2 + XorWindow::BITS))
}

/// Writes a value whose XOR with the one before it is `delta`. `window` is none before the first window is written.
#[inline]
pub(crate) fn write_xor(writer: &mut BitWriter, delta: u64, window: &mut Option<XorWindow>) {
    if delta == 0 {
        return writer.write(0, 1);
    }
    XorWindow::write_xor(window, writer, delta, (0b10, 2), (0b11, 2));
}

/// Appends the samples of an XOR chunk's payload to `timestamps` (milliseconds) and `values`.
///
/// Timestamps are not checked: arithmetic wraps, and they may not ascend.
///
/// # Errors
/// When the payload is damaged; both lists are then unchanged.
pub(crate) fn decode(
    data: &[u8],
    timestamps: &mut Vec<i64>,
    values: &mut Vec<f64>,
) -> Result<(), ChunkError> {
    let (old_timestamps, old_values) = (timestamps.len(), values.len());
    let mut reader = BitReader::new(data, HEADER_BYTES);
    decode_from(&mut reader, data, timestamps, values).map_err(|problem| {
        timestamps.truncate(old_timestamps);
        values.truncate(old_values);
        ChunkError { encoding: Encoding::Xor, size_bytes: data.len(), offset: reader.offset(), problem }
    })
}

fn decode_from(
    reader: &mut BitReader<'_>,
    data: &[u8],
    timestamps: &mut Vec<i64>,
    values: &mut Vec<f64>,
) -> Result<(), ChunkProblem> {
    let samples = crate::chunk::sample_count(Encoding::Xor, data).ok_or(ChunkProblem::Header)?;
    if samples == 0 {
        return Ok(());
    }
    // Nine bytes for the first sample, nine bits for the second, two for each that follows: with this check the
    // lists never grow by more than a small multiple of the payload.
    if reader.left() < 72 + (samples > 1) as usize * 9 + samples.saturating_sub(2) * 2 {
        return Err(ChunkProblem::Truncated { samples });
    }
    let mut t = reader.read_varint().ok_or(ChunkProblem::Timestamp)?;
    let mut v = reader.read(64);
    timestamps.push(t);
    values.push(f64::from_bits(v));
    if samples > 1 {
        let mut delta = reader.read_uvarint().ok_or(ChunkProblem::Timestamp)? as i64;
        let mut window = XorWindow::WHOLE;
        t = t.wrapping_add(delta);
        v ^= read_xor(reader, &mut window)?;
        timestamps.push(t);
        values.push(f64::from_bits(v));

        let start = timestamps.len();
        timestamps.resize(start + samples - 2, 0);
        let start_values = values.len();
        values.resize(start_values + samples - 2, 0.0);
        for (timestamp, value) in timestamps[start..].iter_mut().zip(&mut values[start_values..]) {
            // One peek at the stream covers both: at most 24 bits for the timestamp, 13 for the value.
            let head = reader.peek();
            if head >> 63 == 0 {
                v ^= read_xor_at(reader, head << 1, 1, &mut window)?;
            } else if head >> 62 == 0b10 {
                delta = delta.wrapping_add(signed((head << 2) >> (64 - 14), 14));
                v ^= read_xor_at(reader, head << 16, 16, &mut window)?;
            } else if head >> 61 == 0b110 {
                delta = delta.wrapping_add(signed((head << 3) >> (64 - 17), 17));
                v ^= read_xor_at(reader, head << 20, 20, &mut window)?;
            } else if head >> 60 == 0b1110 {
                delta = delta.wrapping_add(signed((head << 4) >> (64 - 20), 20));
                v ^= read_xor_at(reader, head << 24, 24, &mut window)?;
            } else {
                reader.skip(4);
                delta = delta.wrapping_add(reader.read(64) as i64);
                v ^= read_xor(reader, &mut window)?;
            }
            t = t.wrapping_add(delta);
            *timestamp = t;
            *value = f64::from_bits(v);
        }
    }
    if reader.is_overrun() { Err(ChunkProblem::Truncated { samples }) } else { Ok(()) }
}

/// Builds an XOR chunk sample by sample.
///
/// ```
/// let mut encoder = tsdb::XorEncoder::new();
/// encoder.append(model::Sample::new(1_000, 1.5))?;
/// encoder.append(model::Sample::new(2_000, 1.5))?;
/// let chunk = encoder.finish().expect("two samples were appended");
/// let (mut timestamps, mut values) = (Vec::new(), Vec::new());
/// chunk.decode_floats(&mut timestamps, &mut values)?;
/// assert_eq!((timestamps, values), (vec![1_000, 2_000], vec![1.5, 1.5]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct XorEncoder {
    writer: BitWriter,
    samples: u16,
    first: Timestamp,
    t: i64,
    delta: i64,
    v: u64,
    window: Option<XorWindow>,
}

impl Default for XorEncoder {
    fn default() -> Self {
        Self::new()
    }
}

impl XorEncoder {
    /// An encoder without samples.
    pub fn new() -> Self {
        Self {
            writer: BitWriter::after(&[0; HEADER_BYTES]),
            samples: 0,
            first: Timestamp::EPOCH,
            t: 0,
            delta: 0,
            v: 0,
            window: None,
        }
    }

    /// Number of samples so far.
    pub fn len(&self) -> usize {
        usize::from(self.samples)
    }

    /// Whether there is no sample yet.
    pub fn is_empty(&self) -> bool {
        self.samples == 0
    }

    /// The time of the last sample; the epoch without samples.
    pub(crate) fn last_time(&self) -> Timestamp {
        Timestamp::from_millis(self.t)
    }

    /// Bytes of the payload so far.
    pub fn size_bytes(&self) -> usize {
        self.writer.size_bytes()
    }

    /// Appends a sample.
    ///
    /// # Errors
    /// When the chunk is full or the sample is not later than the last one; the chunk is unchanged.
    pub fn append(&mut self, sample: model::Sample) -> Result<(), AppendError> {
        if self.samples > 0 && sample.timestamp.as_millis() <= self.t {
            return Err(self.out_of_order(sample));
        }
        self.append_repeating(sample)
    }

    /// Appends a sample that may have the time of the last one. Only counter aggregates have such samples: the last one repeats
    /// a time and is the last raw value.
    ///
    /// # Errors
    /// When the chunk is full or the sample is earlier than the last one; the chunk is unchanged.
    pub fn append_repeating(&mut self, sample: model::Sample) -> Result<(), AppendError> {
        let (t, v) = (sample.timestamp.as_millis(), sample.value.to_bits());
        if self.samples == u16::MAX {
            return Err(AppendError::Full);
        }
        if self.samples > 0 && t < self.t {
            return Err(self.out_of_order(sample));
        }
        let delta = t.wrapping_sub(self.t);
        match self.samples {
            0 => {
                self.first = sample.timestamp;
                self.writer.write_varint(t);
                self.writer.write(v, 64);
            }
            1 => {
                self.writer.write_uvarint(delta as u64);
                write_xor(&mut self.writer, v ^ self.v, &mut self.window);
                self.delta = delta;
            }
            _ => {
                write_delta_of_delta(&mut self.writer, delta.wrapping_sub(self.delta));
                write_xor(&mut self.writer, v ^ self.v, &mut self.window);
                self.delta = delta;
            }
        }
        (self.t, self.v) = (t, v);
        self.samples += 1;
        Ok(())
    }

    fn out_of_order(&self, sample: model::Sample) -> AppendError {
        AppendError::OutOfOrder { at: sample.timestamp, last: Timestamp::from_millis(self.t) }
    }

    /// The chunk with all samples; none without samples.
    pub fn finish(self) -> Option<Chunk> {
        (self.samples > 0).then(|| Chunk {
            range: TimeRange::new(self.first, Timestamp::from_millis(self.t)),
            encoding: Encoding::Xor,
            data: Bytes::from(self.writer.finish(&self.samples.to_be_bytes())),
        })
    }
}

fn write_delta_of_delta(writer: &mut BitWriter, dod: i64) {
    if dod == 0 {
        return writer.write(0, 1);
    }
    for (prefix, prefix_bits, bits) in [(0b10, 2, 14), (0b110, 3, 17), (0b1110, 4, 20)] {
        if fits_signed(dod, bits) {
            writer.write(prefix, prefix_bits);
            return writer.write(dod as u64, bits);
        }
    }
    writer.write(0b1111, 4);
    writer.write(dod as u64, 64);
}

#[cfg(test)]
mod tests;
