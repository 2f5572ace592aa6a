//! The entry of a series: its labels, and where its chunks are.

use std::ops::Range;

use model::{Labels, TimeRange, Timestamp};

use crate::cursor::ByteCursor;
use crate::error::{BlockError, BlockLocation};
use crate::index::contents::IndexVersion;
use crate::reference::{ChunkMeta, ChunkRef, SeriesRef};

impl SeriesRef {
    /// Offset of the entry in the file.
    pub(crate) fn offset(self, version: IndexVersion) -> u64 {
        match version {
            IndexVersion::V1 => u64::from(self.0),
            IndexVersion::V2 => u64::from(self.0) * 16,
        }
    }
}

/// A series in the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesEntry {
    /// Its place in the index.
    pub reference: SeriesRef,
    /// Its labels.
    pub labels: Labels,
    /// Its chunks in the order of the index, which is by time unless the index is damaged.
    pub chunks: Vec<ChunkMeta>,
}

/// An entry whose symbols are not looked up yet.
#[derive(Debug, Default)]
pub(crate) struct RawEntry {
    /// References of names and values.
    pub(crate) labels: Vec<(u64, u64)>,
    pub(crate) chunks: Vec<ChunkMeta>,
    /// Bytes of the entry without its length and checksum.
    pub(crate) size_bytes: u64,
}

/// The range of the body of an entry within `bytes`, which begin with the entry. The error is the number of bytes that are
/// needed when there are too few, and none when no entry begins here.
pub(crate) fn body(bytes: &[u8]) -> Result<Range<usize>, Option<u64>> {
    let mut cursor = ByteCursor::new(bytes);
    // Fewer than ten bytes may be an incomplete length.
    let length = cursor.uvarint().ok_or(if bytes.len() < 10 { Some(10) } else { None })?;
    let start = cursor.at();
    let needed = length.checked_add(start as u64 + 4).ok_or(None)?;
    if needed > bytes.len() as u64 {
        return Err(Some(needed));
    }
    Ok(start..start + length as usize)
}

/// Reads an entry into `entry`. `bytes` begin at `offset` of the file and contain the whole entry; `range` is the range of
/// its body.
pub(crate) fn read(
    place: &BlockLocation,
    offset: u64,
    bytes: &[u8],
    range: Range<usize>,
    entry: &mut RawEntry,
) -> Result<(), BlockError> {
    let body = &bytes[range.clone()];
    let expected = ByteCursor::new(&bytes[range.end..]).be32().unwrap_or(0);
    place.check(offset, expected, crc32c::crc32c(body))?;
    decode(body, entry).ok_or_else(|| place.malformed(offset, "the entry of the series cannot be decoded"))
}

fn decode(body: &[u8], entry: &mut RawEntry) -> Option<()> {
    entry.labels.clear();
    entry.chunks.clear();
    entry.size_bytes = body.len() as u64;
    let mut cursor = ByteCursor::new(body);
    let labels = cursor.uvarint()?;
    for _ in 0..labels {
        // Memory is allocated only after the bytes are read.
        entry.labels.push((cursor.uvarint()?, cursor.uvarint()?));
    }
    let chunks = cursor.uvarint()?;
    let (mut last, mut reference) = (0i64, 0u64);
    for index in 0..chunks {
        let min = if index == 0 { cursor.varint()? } else { last.wrapping_add(cursor.uvarint()? as i64) };
        last = min.wrapping_add(cursor.uvarint()? as i64);
        reference =
            if index == 0 { cursor.uvarint()? } else { reference.wrapping_add_signed(cursor.varint()?) };
        let range = TimeRange::new(Timestamp::from_millis(min), Timestamp::from_millis(last));
        entry.chunks.push(ChunkMeta { reference: ChunkRef(reference), range });
    }
    cursor.is_empty().then_some(())
}
