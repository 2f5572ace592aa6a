//! Floats in XOR2 chunks: like XOR, with one prefix for timestamp and value, short staleness markers, and start timestamps.
//!
//! ```text
//! be16 number of samples, byte: header of the start timestamps
//! sample 0    varint t                uint64 bits of v     [start]
//! sample 1    uvarint t1 - t0         V                    [start]
//! sample n    prefix                                       [start]
//!
//! prefix      0                       delta of delta 0, value as before
//!             10                      delta of delta 0, W
//!             110 + 13 bits, V        delta of delta in two's complement
//!             1110 + 20 bits, V
//!             11110 + 64 bits, V
//!             11111                   delta of delta 0, staleness marker
//! V           0                       value as before
//!             10 + bits               XOR with the value before, window as before
//!             110 + window            XOR in a new window: 5 bits L, 6 bits S (0 means 64), S bits
//!             111                     staleness marker
//! W           0 + bits, 1 + window    like 10 and 110 of V
//! ```
//!
//! "The value before" is the last that is not a staleness marker; 0.0 if there is none. Starts are those of
//! [`starts`](crate::starts). Specified by `tsdb/chunkenc/xor2.go` of Prometheus 3.14.

use bytes::Bytes;
use model::{Sample, TimeRange, Timestamp, is_stale_nan, stale_nan};

use crate::bits::{BitReader, BitWriter};
use crate::error::{AppendError, ChunkError, ChunkProblem};
use crate::starts::{StartReader, StartWriter};
use crate::xor::XorWindow;
use crate::{Chunk, Encoding};

/// Bytes of the header: the number of samples and what is known of their start timestamps.
const HEADER_BYTES: usize = 3;

/// Appends the samples of an XOR2 chunk's payload to `timestamps` (milliseconds) and `values`, and their start timestamps
/// to `starts` where the chunk has any; `starts` is filled up to `timestamps` before.
///
/// # Errors
/// When the payload is damaged; all lists are then unchanged.
pub(crate) fn decode(
    data: &[u8],
    timestamps: &mut Vec<i64>,
    values: &mut Vec<f64>,
    starts: Option<&mut Vec<i64>>,
) -> Result<(), ChunkError> {
    let (old_timestamps, old_values) = (timestamps.len(), values.len());
    let mut reader = BitReader::new(data, HEADER_BYTES);
    let mut lists = DecodedFloats { timestamps, values, starts };
    let old_starts = lists.starts.as_ref().map_or(0, |starts| starts.len());
    decode_from(&mut reader, data, &mut lists).map_err(|problem| {
        lists.timestamps.truncate(old_timestamps);
        lists.values.truncate(old_values);
        if let Some(starts) = lists.starts {
            starts.truncate(old_starts);
        }
        ChunkError { encoding: Encoding::Xor2, size_bytes: data.len(), offset: reader.offset(), problem }
    })
}

/// The lists that decoded samples are appended to.
struct DecodedFloats<'a> {
    timestamps: &'a mut Vec<i64>,
    values: &'a mut Vec<f64>,
    starts: Option<&'a mut Vec<i64>>,
}

fn decode_from(
    reader: &mut BitReader<'_>,
    data: &[u8],
    out: &mut DecodedFloats<'_>,
) -> Result<(), ChunkProblem> {
    let (Some(samples), Some(&header)) =
        (crate::chunk::sample_count(Encoding::Xor2, data), data.get(HEADER_BYTES - 1))
    else {
        return Err(ChunkProblem::Header);
    };
    if samples == 0 {
        return Ok(());
    }
    // Nine bytes for the first sample, nine bits for the second, one for each that follows: with this check the lists
    // never grow by more than a multiple of the payload.
    if reader.left() < 72 + (samples > 1) as usize * 9 + samples.saturating_sub(2) {
        return Err(ChunkProblem::Truncated { samples });
    }
    let starts = StartReader::new(header);
    if starts.has_any() {
        if let Some(list) = &mut out.starts {
            list.resize(out.timestamps.len(), crate::chunk::UNKNOWN_START);
            list.reserve(samples);
        }
        decode_samples::<true>(reader, samples, starts, out)?;
    } else {
        decode_samples::<false>(reader, samples, starts, out)?;
    }
    if reader.is_overrun() { Err(ChunkProblem::Truncated { samples }) } else { Ok(()) }
}

/// Reads the samples of a chunk, with or without start timestamps.
fn decode_samples<const STARTS: bool>(
    reader: &mut BitReader<'_>,
    samples: usize,
    mut starts: StartReader,
    out: &mut DecodedFloats<'_>,
) -> Result<(), ChunkProblem> {
    let mut t = reader.read_varint().ok_or(ChunkProblem::Timestamp)?;
    let first = f64::from_bits(reader.read(64));
    out.timestamps.push(t);
    out.values.push(first);
    if STARTS {
        let start = starts.first(reader, t)?;
        out.starts.iter_mut().for_each(|list| list.push(start));
    }
    if samples == 1 {
        return Ok(());
    }
    let mut delta = reader.read_uvarint().ok_or(ChunkProblem::Timestamp)? as i64;
    let baseline = if is_stale_nan(first) { 0 } else { first.to_bits() };
    let mut value = LastValue { baseline, window: XorWindow::WHOLE };
    let head = reader.peek();
    let second = value.read(reader, head, 0)?;
    let first_t = t;
    t = t.wrapping_add(delta);
    out.timestamps.push(t);
    out.values.push(f64::from_bits(second));
    if STARTS {
        let start = starts.next(reader, 1, first_t);
        out.starts.iter_mut().for_each(|list| list.push(start));
    }

    let start_at = out.timestamps.len();
    out.timestamps.resize(start_at + samples - 2, 0);
    let start_values = out.values.len();
    out.values.resize(start_values + samples - 2, 0.0);
    let places = out.timestamps[start_at..].iter_mut().zip(&mut out.values[start_values..]);
    for (index, (timestamp, slot)) in (2..).zip(places) {
        // One peek at the stream covers all forms but the longest: at most 24 bits, and 14 of the value.
        let head = reader.peek();
        let bits = if head >> 63 == 0 {
            reader.skip(1);
            value.baseline
        } else if head >> 62 == 0b10 {
            value.read_changed(reader, head << 2, 2)?
        } else if head >> 61 == 0b110 {
            delta = delta.wrapping_add((head << 3) as i64 >> (64 - 13));
            value.read(reader, head << 16, 16)?
        } else if head >> 60 == 0b1110 {
            delta = delta.wrapping_add((head << 4) as i64 >> (64 - 20));
            value.read(reader, head << 24, 24)?
        } else if head >> 59 == 0b11110 {
            reader.skip(5);
            delta = delta.wrapping_add(reader.read(64) as i64);
            let head = reader.peek();
            value.read(reader, head, 0)?
        } else {
            reader.skip(5);
            stale_nan().to_bits()
        };
        let before = t;
        t = t.wrapping_add(delta);
        (*timestamp, *slot) = (t, f64::from_bits(bits));
        if STARTS {
            let start = starts.next(reader, index, before);
            out.starts.iter_mut().for_each(|list| list.push(start));
        }
    }
    Ok(())
}

/// The state that the next value is encoded with.
struct LastValue {
    /// Bits of the last value that is not a staleness marker.
    baseline: u64,
    window: XorWindow,
}

impl LastValue {
    /// Reads a value of form V, whose first bits are those of `head`, left-aligned, after skipping `before` bits.
    #[inline(always)]
    fn read(&mut self, reader: &mut BitReader<'_>, head: u64, before: u32) -> Result<u64, ChunkProblem> {
        if head >> 63 == 0 {
            reader.skip(before + 1);
            Ok(self.baseline)
        } else if head >> 62 == 0b10 {
            Ok(self.read_bits(reader, head << 2, before + 2))
        } else if head >> 61 == 0b110 {
            self.window = XorWindow::read(head << 3)?;
            Ok(self.read_bits(reader, head << (3 + XorWindow::BITS), before + 3 + XorWindow::BITS))
        } else {
            reader.skip(before + 3);
            Ok(stale_nan().to_bits())
        }
    }

    /// Reads a value of form W in the same way.
    #[inline(always)]
    fn read_changed(
        &mut self,
        reader: &mut BitReader<'_>,
        head: u64,
        before: u32,
    ) -> Result<u64, ChunkProblem> {
        if head >> 63 == 0 {
            return Ok(self.read_bits(reader, head << 1, before + 1));
        }
        self.window = XorWindow::read(head << 1)?;
        Ok(self.read_bits(reader, head << (1 + XorWindow::BITS), before + 1 + XorWindow::BITS))
    }

    /// Reads the bits within the window, with which `head` begins, after skipping `before` bits.
    #[inline(always)]
    fn read_bits(&mut self, reader: &mut BitReader<'_>, head: u64, before: u32) -> u64 {
        self.baseline ^= self.window.read_xor_at(reader, head, before);
        self.baseline
    }
}

/// Builds an XOR2 chunk sample by sample.
///
/// ```
/// use model::{Sample, Timestamp};
///
/// let mut encoder = tsdb::Xor2Encoder::new();
/// encoder.append(Sample::new(1_000, 1.5), Timestamp::from_millis(400))?;
/// encoder.append(Sample::new(2_000, 2.5), Timestamp::from_millis(400))?;
/// let chunk = encoder.finish().expect("two samples were appended");
/// let (mut timestamps, mut values, mut starts) = (Vec::new(), Vec::new(), Vec::new());
/// chunk.decode_floats_with_starts(&mut timestamps, &mut values, &mut starts)?;
/// assert_eq!((timestamps, values, starts), (vec![1_000, 2_000], vec![1.5, 2.5], vec![400, 400]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Xor2Encoder {
    writer: BitWriter,
    starts: StartWriter,
    samples: u16,
    first: Timestamp,
    t: i64,
    delta: i64,
    baseline: u64,
    window: Option<XorWindow>,
}

impl Default for Xor2Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Xor2Encoder {
    /// An encoder without samples.
    pub fn new() -> Self {
        Self {
            writer: BitWriter::after(&[0; HEADER_BYTES]),
            starts: StartWriter::default(),
            samples: 0,
            first: Timestamp::EPOCH,
            t: 0,
            delta: 0,
            baseline: 0,
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

    /// Appends a sample whose counter began at `start`; the epoch means that the start is unknown.
    ///
    /// # Errors
    /// When the chunk is full or the sample is not later than the last one; the chunk is unchanged.
    pub fn append(&mut self, sample: Sample, start: Timestamp) -> Result<(), AppendError> {
        let t = sample.timestamp.as_millis();
        if self.samples == u16::MAX {
            return Err(AppendError::Full);
        }
        if self.samples > 0 && t <= self.t {
            return Err(AppendError::OutOfOrder {
                at: sample.timestamp,
                last: Timestamp::from_millis(self.t),
            });
        }
        let delta = t.wrapping_sub(self.t);
        match self.samples {
            0 => {
                self.first = sample.timestamp;
                self.writer.write_varint(t);
                self.writer.write(sample.value.to_bits(), 64);
            }
            1 => {
                self.writer.write_uvarint(delta as u64);
                self.write_value(sample.value);
                self.delta = delta;
            }
            _ => {
                self.write_joint(delta.wrapping_sub(self.delta), sample.value);
                self.delta = delta;
            }
        }
        let before = std::mem::replace(&mut self.t, t);
        self.starts.write(&mut self.writer, usize::from(self.samples), t, before, start.as_millis());
        if !is_stale_nan(sample.value) {
            self.baseline = sample.value.to_bits();
        }
        self.samples += 1;
        Ok(())
    }

    /// Writes prefix, delta of delta and value.
    fn write_joint(&mut self, dod: i64, value: f64) {
        let writer = &mut self.writer;
        if dod == 0 {
            let changed = value.to_bits() ^ self.baseline;
            if is_stale_nan(value) {
                writer.write(0b11111, 5);
            } else if changed == 0 {
                writer.write(0, 1);
            } else {
                writer.write(0b10, 2);
                XorWindow::write_xor(&mut self.window, writer, changed, (0b0, 1), (0b1, 1));
            }
            return;
        }
        if (-4_096..=4_095).contains(&dod) {
            writer.write(0b110 << 13 | (dod as u64 & 0x1fff), 16);
        } else if (-524_288..=524_287).contains(&dod) {
            writer.write(0b1110 << 20 | (dod as u64 & 0xf_ffff), 24);
        } else {
            writer.write(0b11110, 5);
            writer.write(dod as u64, 64);
        }
        self.write_value(value);
    }

    /// Writes a value in form V.
    fn write_value(&mut self, value: f64) {
        let changed = value.to_bits() ^ self.baseline;
        if is_stale_nan(value) {
            self.writer.write(0b111, 3);
        } else if changed == 0 {
            self.writer.write(0, 1);
        } else {
            XorWindow::write_xor(&mut self.window, &mut self.writer, changed, (0b10, 2), (0b110, 3));
        }
    }

    /// The chunk with all samples; none without samples.
    pub fn finish(self) -> Option<Chunk> {
        let [high, low] = self.samples.to_be_bytes();
        let header = [high, low, self.starts.header()];
        (self.samples > 0).then(|| Chunk {
            range: TimeRange::new(self.first, Timestamp::from_millis(self.t)),
            encoding: Encoding::Xor2,
            data: Bytes::from(self.writer.finish(&header)),
        })
    }
}

#[cfg(test)]
mod tests;
