//! The write-ahead log, in the format of Prometheus (`tsdb/wlog` and `tsdb/record`).
//!
//! ```text
//! wal/00000007                  a segment: pages of 32 KiB, at most 128 MiB
//! wal/checkpoint.00000004/      what segments up to 4 contained and is still needed, in segments of its own
//! wbl/00000002                  a segment of out-of-order samples; their series are in wal/
//!
//! page       fragments; where no header fits, and after a fragment of type 0, zeros up to its end
//! fragment   byte type, be16 length, be32 CRC-32C of the data, data
//! type       bits 0-2: 1 a whole record, 2 its first part, 3 a middle one, 4 the last one; bit 3 snappy, bit 4 zstd
//! record     byte kind, then entries ([`record`])
//! ```
//!
//! A record does not cross segments. It is compressed as a whole, then cut into fragments. The first record that cannot be
//! read ends its segment: what lies behind it cannot be found.

pub(crate) mod buffered;
pub(crate) mod checkpoint;
pub(crate) mod exemplar;
pub(crate) mod follow;
mod histogram;
mod labels;
pub(crate) mod marker;
pub(crate) mod reader;
pub(crate) mod record;
pub(crate) mod segments;
pub(crate) mod writer;

/// Bytes of a page.
const PAGE_BYTES: usize = 32 << 10;

/// Bytes before the data of a fragment: type, length, checksum.
const HEADER_BYTES: usize = 7;

/// Most bytes of a segment.
const SEGMENT_BYTES: usize = 128 << 20;

/// Bit of the type: the record is compressed with snappy, as a block.
const SNAPPY: u8 = 1 << 3;

/// Bit of the type: the record is compressed with zstd.
const ZSTD: u8 = 1 << 4;
