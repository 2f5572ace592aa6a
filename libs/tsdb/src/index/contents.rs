//! The two ends of an index: its header and its table of contents.

use std::ops::Range;
use std::sync::Arc;

use ulid::Ulid;

use crate::ReadAt;
use crate::cursor::ByteCursor;
use crate::error::{BlockError, BlockLocation, BlockPart};

pub(crate) const MAGIC: u32 = 0xBAAA_D700;
/// Bytes of magic number and version.
pub(crate) const HEADER_BYTES: u64 = 5;
/// Bytes of the table of contents, its checksum included.
pub(crate) const CONTENTS_BYTES: u64 = 52;

/// The version of the format of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexVersion {
    /// Symbols and series are referred to by their offset; the postings offset table may be unsorted.
    V1,
    /// Symbols are referred to by their number, series by a sixteenth of their offset. Version 3 is read like version 2.
    V2,
}

/// Where the sections of an index begin, without the two label tables, which are no longer written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contents {
    pub(crate) symbols: u64,
    pub(crate) series: u64,
    /// Where the section after the series begins: postings, or a label table of an older program.
    pub(crate) series_end: u64,
    pub(crate) postings: u64,
    pub(crate) postings_table: u64,
}

/// Where an index has the parts that lookups need: symbols, postings offset table and table of contents. The index header that a
/// store keeps is a copy of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexSections {
    /// The version of the format.
    pub version: IndexVersion,
    /// The symbols section, with its length and checksum.
    pub symbols: Range<u64>,
    /// The postings offset table with all that follows it, up to the end of the file.
    pub postings_table: Range<u64>,
}

impl IndexSections {
    /// Reads header and table of contents of the index of a block, and nothing else.
    ///
    /// # Errors
    /// When the file cannot be read, is not an index, or its table of contents is damaged.
    pub fn read(block: Ulid, index: &Arc<dyn ReadAt>) -> Result<Self, BlockError> {
        let place = BlockLocation::new(&Arc::from(block.to_string()), BlockPart::IndexHeader);
        let (version, contents) = read(&place, index)?;
        let postings_table = contents.postings_table..index.size_bytes();
        Ok(Self { version, symbols: contents.symbols..contents.series, postings_table })
    }

    /// The first bytes of an index of a version: magic number and version.
    pub fn header(version: IndexVersion) -> [u8; HEADER_BYTES as usize] {
        let [a, b, c, d] = MAGIC.to_be_bytes();
        [a, b, c, d, if version == IndexVersion::V1 { 1 } else { 2 }]
    }
}

/// Reads header and table of contents.
pub(super) fn read(
    place: &BlockLocation,
    file: &Arc<dyn ReadAt>,
) -> Result<(IndexVersion, Contents), BlockError> {
    let size = file.size_bytes();
    if size < HEADER_BYTES + CONTENTS_BYTES {
        return Err(place.truncated(0, HEADER_BYTES + CONTENTS_BYTES, size));
    }
    let at = size - CONTENTS_BYTES;
    let ends = file.read_many(&[0..HEADER_BYTES, at..size]).map_err(|error| place.io(None, error))?;
    let [header, bytes] = ends.as_slice() else { return Err(place.truncated(0, HEADER_BYTES, 0)) };
    place.check_magic(ByteCursor::new(header).be32(), MAGIC, "an index file")?;
    let version = match header[4] {
        1 => IndexVersion::V1,
        2 | 3 => IndexVersion::V2,
        other => return Err(place.version(other, 3)),
    };

    let place = place.at(BlockPart::TableOfContents);
    let (offsets, checksum) = bytes.split_at(48);
    let expected = ByteCursor::new(checksum).be32().unwrap_or(0);
    place.check(at, expected, crc32c::crc32c(offsets))?;
    let mut cursor = ByteCursor::new(offsets);
    let mut next = || cursor.be64().unwrap_or(0);
    let (symbols, series, label_values, label_table, postings, postings_table) =
        (next(), next(), next(), next(), next(), next());
    for (name, offset) in [
        ("symbols", symbols),
        ("series", series),
        ("postings", postings),
        ("postings offset table", postings_table),
    ] {
        if offset < HEADER_BYTES || offset > at {
            return Err(
                place.malformed(at, format!("{name} at byte {offset}, outside of the file of {size} bytes"))
            );
        }
    }
    if symbols > series || series > postings || postings > postings_table {
        return Err(place.malformed(at, "the sections are out of order"));
    }
    let after = [label_values, label_table].into_iter().filter(|offset| (series..postings).contains(offset));
    let series_end = after.min().unwrap_or(postings);
    Ok((version, Contents { symbols, series, series_end, postings, postings_table }))
}
