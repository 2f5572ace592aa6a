//! The bytes of chunk files, in the format of Prometheus (`tsdb/chunks/head_chunks.go`).
//!
//! ```text
//! chunks_head/000003     be32 magic, byte 1, three zeros, then chunks; at most 128 MiB
//! chunk                  be64 series, be64 min time, be64 max time, byte encoding (bit 7: out of order),
//!                        uvarint length, data, be32 CRC-32C of all of this
//! ```

use bytes::Bytes;
use model::{TimeRange, Timestamp};
use tsdb::{ByteCursor, Chunk, Encoding, put_bytes};

const MAGIC: u32 = 0x0130_BC91;
pub(crate) const HEADER: [u8; 8] = [0x01, 0x30, 0xBC, 0x91, 1, 0, 0, 0];
const OUT_OF_ORDER: u8 = 0x80;

/// A number that no series has.
pub(crate) const NO_SERIES: u64 = 0;

/// Where a chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkPlace {
    pub(crate) file: u32,
    pub(crate) offset: u32,
    /// Bytes with header and checksum.
    pub(crate) length: u32,
}

/// A chunk of a series in a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoredChunk {
    pub(crate) range: TimeRange,
    pub(crate) place: ChunkPlace,
}

impl ChunkPlace {
    /// Its number in the log of out-of-order samples.
    pub(crate) fn number(self) -> u64 {
        u64::from(self.file) << 32 | u64::from(self.offset)
    }
}

/// A chunk that was found in a file.
#[derive(Clone, Debug)]
pub(crate) struct FoundChunk {
    /// The number of its series in the log.
    pub(crate) series: u64,
    pub(crate) range: TimeRange,
    pub(crate) place: ChunkPlace,
    pub(crate) is_out_of_order: bool,
}

impl FoundChunk {
    /// Whether it is out of order, and its samples are in a block.
    pub(crate) fn is_forgotten(&self) -> bool {
        self.is_out_of_order && self.series == NO_SERIES
    }
}

/// Appends a chunk.
pub(crate) fn put_chunk(out: &mut Vec<u8>, series: u64, chunk: &Chunk, is_late: bool) {
    let begin = out.len();
    out.extend_from_slice(&series.to_be_bytes());
    out.extend_from_slice(&chunk.range.min.as_millis().to_be_bytes());
    out.extend_from_slice(&chunk.range.max.as_millis().to_be_bytes());
    out.push(chunk.encoding.byte() | if is_late { OUT_OF_ORDER } else { 0 });
    put_bytes(out, &chunk.data);
    let checksum = crc32c::crc32c(&out[begin..]);
    out.extend_from_slice(&checksum.to_be_bytes());
}

/// A chunk that was read.
pub(crate) struct ParsedChunk {
    series: u64,
    pub(crate) chunk: Chunk,
    is_out_of_order: bool,
}

/// Why a chunk cannot be read.
pub(crate) enum Unreadable {
    Damaged,
    /// Its encoding is not known, although its checksum matches.
    Newer(u8),
}

/// The chunk at the begin of `bytes` and its length.
pub(crate) fn parse_chunk(bytes: &[u8]) -> Result<(ParsedChunk, usize), Unreadable> {
    let (series, range, encoding, data, length) = parse_fields(bytes).ok_or(Unreadable::Damaged)?;
    let known = Encoding::from_byte(encoding & !OUT_OF_ORDER).ok_or(Unreadable::Newer(encoding))?;
    let chunk = Chunk { range, encoding: known, data: Bytes::copy_from_slice(data) };
    Ok((ParsedChunk { series, chunk, is_out_of_order: encoding & OUT_OF_ORDER != 0 }, length))
}

/// Series, times, encoding, data and length of a chunk whose checksum matches.
fn parse_fields(bytes: &[u8]) -> Option<(u64, TimeRange, u8, &[u8], usize)> {
    let mut cursor = ByteCursor::new(bytes);
    let series = cursor.be64()?;
    let [min, max] = [cursor.be64()?, cursor.be64()?].map(|time| Timestamp::from_millis(time as i64));
    let encoding = cursor.take(1)?[0];
    let data = cursor.bytes()?;
    let end = cursor.at();
    let is_whole = cursor.be32()? == crc32c::crc32c(&bytes[..end]);
    is_whole.then(|| (series, TimeRange::new(min, max), encoding, data, cursor.at()))
}

/// Appends the chunks of a file and returns where the first damage begins, or its length. Zeros at the end are no chunk: a
/// crash can leave them.
///
/// # Errors
/// What is not known, because a later version wrote it.
pub(crate) fn parse_file(file: u32, bytes: &[u8], out: &mut Vec<FoundChunk>) -> Result<usize, String> {
    let mut cursor = ByteCursor::new(bytes);
    if cursor.be32() != Some(MAGIC) {
        return Ok(0);
    }
    match cursor.take(4) {
        Some(rest) if *rest == HEADER[4..] => {}
        // A flipped bit does not change what follows.
        Some([version, 0, 0, 0])
            if *version > HEADER[4] && parse_fields(&bytes[HEADER.len()..]).is_none() =>
        {
            return Err(format!("version {version} of the file"));
        }
        _ => return Ok(0),
    }
    let mut at = HEADER.len();
    while at < bytes.len() {
        let (found, length) = match parse_chunk(&bytes[at..]) {
            Ok(found) => found,
            Err(Unreadable::Damaged) => return Ok(at),
            Err(Unreadable::Newer(encoding)) => return Err(format!("encoding {encoding} of a chunk")),
        };
        let (Ok(offset), Ok(place_length)) = (u32::try_from(at), u32::try_from(length)) else {
            return Ok(at);
        };
        out.push(FoundChunk {
            series: found.series,
            range: found.chunk.range,
            place: ChunkPlace { file, offset, length: place_length },
            is_out_of_order: found.is_out_of_order,
        });
        at += length;
    }
    Ok(at)
}
