//! Marks in the log of out-of-order samples: the samples of a series up to the mark are in a chunk.
//!
//! ```text
//! 5  marks    be64 ref, be64 file << 32 | offset of the chunk          repeated
//! ```
//!
//! A place of 0 is no chunk: the series had no samples that waited for one.

use tsdb::ByteCursor;

/// The kind of records of marks.
pub(crate) const MARKERS: u8 = 5;

/// The samples of a series so far are in chunks up to this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LoggedMarker {
    pub(crate) reference: u64,
    /// Where the chunk is.
    pub(crate) place: u64,
}

/// The record of these marks.
pub(crate) fn marker_record(markers: &[LoggedMarker]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + markers.len() * 16);
    out.push(MARKERS);
    for marker in markers {
        out.extend_from_slice(&marker.reference.to_be_bytes());
        out.extend_from_slice(&marker.place.to_be_bytes());
    }
    out
}

pub(crate) fn parse_markers(cursor: &mut ByteCursor<'_>) -> Option<Vec<LoggedMarker>> {
    let mut out = Vec::with_capacity(cursor.left() / 16);
    while !cursor.is_empty() {
        out.push(LoggedMarker { reference: cursor.be64()?, place: cursor.be64()? });
    }
    Some(out)
}
