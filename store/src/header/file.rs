//! The file of an index header.
//!
//! ```text
//! <data-dir>/<ULID>/index-header
//!    0  be32 magic BAAAD792, u8 1, u8 version of the index
//!    6  be64 offset of the postings offset table in the index
//!   14  the symbols section of the index, with its length and checksum
//!       the index from its postings offset table to its end, table of contents included
//!  -20  be64 offset of the symbols in this file: 14, be64 offset of the table in this file, be32 crc of these 16 bytes
//! ```
//!
//! The format is that of Thanos (`pkg/block/indexheader/binary_reader.go`), so that a data folder of Thanos can be used. All of its
//! content is covered by the checksums of the sections, which the index reader checks each time it opens a block.

use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tsdb::{IndexSections, IndexVersion, LocalFile, ReadAt};

const MAGIC: u32 = 0xBAAA_D792;
const FORMAT_VERSION: u8 = 1;
/// Where the copy of the symbols begins in the header ...
const SYMBOLS_AT: u64 = 14;
/// ... and the original in the index: after magic number and version.
pub(super) const INDEX_SYMBOLS_AT: u64 = 5;
const TRAILER_BYTES: u64 = 20;
/// Bytes that are copied at once.
const COPY_BYTES: u64 = 4 << 20;
/// Ranges that are read at once.
const COPIES_AT_ONCE: usize = 4;

/// Why a header was not written.
pub(super) enum WriteError {
    /// The index in the bucket cannot be read.
    Index(io::Error),
    /// The file cannot be written.
    Disk(io::Error),
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

/// The size of the header of an index.
pub(super) fn size_bytes(sections: &IndexSections) -> u64 {
    let length = |range: &Range<u64>| range.end - range.start;
    SYMBOLS_AT + length(&sections.symbols) + length(&sections.postings_table) + TRAILER_BYTES
}

/// Writes a header.
pub(super) fn write(
    path: &Path,
    index: &Arc<dyn ReadAt>,
    sections: &IndexSections,
) -> Result<(), WriteError> {
    let mut file = io::BufWriter::new(File::create(path)?);
    file.write_all(&MAGIC.to_be_bytes())?;
    file.write_all(&[FORMAT_VERSION, if sections.version == IndexVersion::V1 { 1 } else { 2 }])?;
    file.write_all(&sections.postings_table.start.to_be_bytes())?;
    let table_at = SYMBOLS_AT + (sections.symbols.end - sections.symbols.start);
    let pieces: Vec<Range<u64>> = pieces(&sections.symbols).chain(pieces(&sections.postings_table)).collect();
    for at_once in pieces.chunks(COPIES_AT_ONCE) {
        for bytes in index.read_many(at_once).map_err(WriteError::Index)? {
            file.write_all(&bytes)?;
        }
    }
    let mut trailer = [0; 16];
    trailer[..8].copy_from_slice(&SYMBOLS_AT.to_be_bytes());
    trailer[8..].copy_from_slice(&table_at.to_be_bytes());
    file.write_all(&trailer)?;
    file.write_all(&crc32c::crc32c(&trailer).to_be_bytes())?;
    Ok(file.flush()?)
}

fn pieces(range: &Range<u64>) -> impl Iterator<Item = Range<u64>> + use<> {
    let end = range.end;
    range.clone().step_by(COPY_BYTES as usize).map(move |start| start..(start + COPY_BYTES).min(end))
}

/// An index in a bucket with a header on disk.
pub(super) struct HeaderedIndex {
    index: Arc<dyn ReadAt>,
    file: LocalFile,
    start: [u8; INDEX_SYMBOLS_AT as usize],
    /// The ranges of the index that the header has, each with its offset in the header.
    copies: [(Range<u64>, u64); 2],
}

impl HeaderedIndex {
    pub(super) fn open(path: &Path, index: &Arc<dyn ReadAt>) -> io::Result<Self> {
        let damaged =
            |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", path.display()));
        let file = LocalFile::open(path)?;
        let size = file.size_bytes();
        if size < SYMBOLS_AT + TRAILER_BYTES {
            return Err(damaged("the file is too short"));
        }
        let head = file.read_at(0..SYMBOLS_AT)?;
        let trailer = file.read_at(size - TRAILER_BYTES..size)?;
        if be32(&head) != MAGIC || head[4] != FORMAT_VERSION {
            return Err(damaged("it is not an index header of version 1"));
        }
        if be32(&trailer[16..]) != crc32c::crc32c(&trailer[..16]) {
            return Err(damaged("the checksum is wrong"));
        }
        let version = match head[5] {
            1 => IndexVersion::V1,
            2 => IndexVersion::V2,
            _ => return Err(damaged("the version of the index is unknown")),
        };
        let (symbols_at, table_at, index_table) = (be64(&trailer), be64(&trailer[8..]), be64(&head[6..]));
        if symbols_at != SYMBOLS_AT || !(SYMBOLS_AT..=size - TRAILER_BYTES).contains(&table_at) {
            return Err(damaged("the offsets are wrong"));
        }
        let table_bytes = size - TRAILER_BYTES - table_at;
        if index_table.checked_add(table_bytes) != Some(index.size_bytes()) {
            return Err(damaged("it is not the header of this index"));
        }
        let symbols = INDEX_SYMBOLS_AT..INDEX_SYMBOLS_AT + (table_at - SYMBOLS_AT);
        let copies = [(symbols, SYMBOLS_AT), (index_table..index.size_bytes(), table_at)];
        Ok(Self { index: Arc::clone(index), file, start: IndexSections::header(version), copies })
    }

    /// Bytes of the file.
    pub(super) fn header_bytes(&self) -> u64 {
        self.file.size_bytes()
    }

    /// The bytes of `range`, if the header has them.
    fn copied(&self, range: &Range<u64>) -> Option<io::Result<Bytes>> {
        let start_bytes = self.start.len() as u64;
        if range.end <= start_bytes && range.start <= range.end {
            return Some(Ok(Bytes::copy_from_slice(&self.start[range.start as usize..range.end as usize])));
        }
        let (of_index, at) = self
            .copies
            .iter()
            .find(|(of_index, _)| of_index.start <= range.start && range.end <= of_index.end)?;
        let at = at + (range.start - of_index.start);
        Some(self.file.read_at(at..at + (range.end - range.start)))
    }
}

impl ReadAt for HeaderedIndex {
    fn size_bytes(&self) -> u64 {
        self.index.size_bytes()
    }

    fn read_at(&self, range: Range<u64>) -> io::Result<Bytes> {
        self.copied(&range).unwrap_or_else(|| self.index.read_at(range))
    }

    fn read_many(&self, ranges: &[Range<u64>]) -> io::Result<Vec<Bytes>> {
        let copied: Vec<Option<io::Result<Bytes>>> = ranges.iter().map(|range| self.copied(range)).collect();
        let rest = ranges.iter().zip(&copied).filter(|(_, copied)| copied.is_none());
        let rest: Vec<Range<u64>> = rest.map(|(range, _)| range.clone()).collect();
        let mut rest = if rest.is_empty() { Vec::new() } else { self.index.read_many(&rest)? }.into_iter();
        let short = || io::Error::other("internal error: a read returned fewer ranges than requested");
        copied.into_iter().map(|copied| copied.unwrap_or_else(|| rest.next().ok_or_else(short))).collect()
    }
}

fn be32(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

fn be64(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}
