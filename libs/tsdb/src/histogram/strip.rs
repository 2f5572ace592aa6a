//! Removes start timestamps from histogram chunks.

use crate::Encoding;
use crate::bits::{BitReader, BitWriter};
use crate::error::{ChunkError, ChunkProblem};
use crate::histogram::decode::{FloatReader, IntegerReader, NumbersReader};
use crate::histogram::layout::Layout;
use crate::histogram::{HEADER_BYTES, KIND_OF_COUNTER};
use crate::starts::StartReader;
use crate::varbit::read_signed;

/// The payload of a histogram chunk without its start timestamps. All other bits are copied, so nothing else changes.
pub(crate) fn strip_starts(encoding: Encoding, data: &[u8]) -> Result<Vec<u8>, ChunkError> {
    let mut reader = BitReader::new(data, HEADER_BYTES);
    let strip = match encoding {
        Encoding::HistogramSt => strip::<IntegerReader>,
        _ => strip::<FloatReader>,
    };
    strip(&mut reader, encoding, data).map_err(|problem| ChunkError {
        encoding,
        size_bytes: data.len(),
        offset: reader.offset(),
        problem,
    })
}

fn strip<N: NumbersReader>(
    reader: &mut BitReader<'_>,
    encoding: Encoding,
    data: &[u8],
) -> Result<Vec<u8>, ChunkProblem> {
    let (Some(samples), Some(&[counter, _, starts])) =
        (crate::chunk::sample_count(encoding, data), data.first_chunk::<HEADER_BYTES>())
    else {
        return Err(ChunkProblem::Header);
    };
    let [high, low] = (samples as u16).to_be_bytes();
    let header = [high, low, counter & KIND_OF_COUNTER];
    let mut writer = BitWriter::after(&header);
    if samples == 0 {
        return Ok(writer.finish(&header));
    }
    let mut starts = StartReader::new(starts);
    let mut kept_from = reader.clone();
    let layout = Layout::read(reader)?;
    let (positive, negative) = layout.buckets();
    let t = read_signed(reader);
    let mut numbers = N::first(reader, positive, negative);
    for index in 0..samples {
        if index > 0 {
            read_signed(reader);
            numbers.next(reader)?;
        }
        // The number of reads between two of these checks is bounded by the layout, which is bounded by the chunk.
        if reader.is_overrun() {
            return Err(ChunkProblem::Truncated { samples });
        }
        writer.copy(&mut kept_from, reader);
        // Only the place of the start matters, not its value, so the time of the sample before is not needed.
        match index {
            0 => drop(starts.first(reader, t)?),
            _ => drop(starts.next(reader, index, t)),
        }
        kept_from = reader.clone();
    }
    if reader.is_overrun() { Err(ChunkProblem::Truncated { samples }) } else { Ok(writer.finish(&header)) }
}
