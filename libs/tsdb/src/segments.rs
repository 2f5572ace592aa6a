//! Chunk segments: the files of `chunks/`, which contain the samples.
//!
//! ```text
//! be32 85bd40dd, u8 1, 3 × 0, then records:  uvarint size, u8 encoding, data, crc of encoding and data
//! ```

mod writer;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use crate::cursor::ByteCursor;
use crate::error::{BlockError, BlockLocation, BlockPart, BlockProblem};
use crate::read::first_read_bytes;
use crate::{Chunk, ChunkMeta, ChunkRef, Encoding, ReadAt};

pub(crate) use writer::SegmentWriter;

pub(crate) const MAGIC: u32 = 0x85BD_40DD;
pub(crate) const VERSION: u8 = 1;
/// Bytes of a segment's header.
pub(crate) const HEADER_BYTES: u64 = 8;
/// This much is read at once when all chunks are read in order.
const AHEAD_BYTES: u64 = 1 << 20;
/// Chunks are read together if at most this many bytes are between the beginnings of two ...
const GAP_BYTES: u64 = 16 << 10;
/// ... and up to this number.
const TOGETHER_CHUNKS: usize = 128;
/// Bytes of the record of a chunk around its data: length, encoding, checksum.
const AROUND_BYTES: u64 = 10;
/// The most bytes that the length of a record takes.
const MAX_LENGTH_BYTES: usize = 5;

/// The segments of a block, opened for reading.
pub(crate) struct Segments {
    place: BlockLocation,
    files: Vec<Segment>,
    /// The length of a record is known only after its beginning is read. This much of one is read at first.
    record_bytes: u64,
}

struct Segment {
    file: Arc<dyn ReadAt>,
    /// Whether the header was checked.
    is_checked: AtomicBool,
}

/// A part of a segment that was read.
#[derive(Default)]
pub(crate) struct ReadAhead {
    segment: u32,
    offset: u64,
    bytes: Bytes,
}

impl ReadAhead {
    /// The bytes of `segment` from `offset` on, if they are in memory.
    fn from(&self, segment: u32, offset: u64) -> Option<Bytes> {
        let at = usize::try_from(offset.checked_sub(self.offset)?).ok()?;
        (segment == self.segment && at < self.bytes.len()).then(|| self.bytes.slice(at..))
    }
}

/// The record of a chunk.
struct ChunkRecord {
    encoding: Encoding,
    data: Bytes,
    /// Bytes of the record.
    length: u64,
}

impl Segments {
    pub(crate) fn new(block: &Arc<str>, files: Vec<Arc<dyn ReadAt>>) -> Self {
        let files = files.into_iter().map(|file| Segment { file, is_checked: AtomicBool::new(false) });
        let place = BlockLocation::new(block, BlockPart::Directory);
        Self { place, files: files.collect(), record_bytes: first_read_bytes(None) }
    }

    /// The same segments, of which the largest chunk is known to have `largest_chunk_bytes`.
    pub(crate) fn with_largest_chunk(self, largest_chunk_bytes: Option<u64>) -> Self {
        let record = largest_chunk_bytes.map(|bytes| bytes.saturating_add(AROUND_BYTES));
        Self { record_bytes: first_read_bytes(record), ..self }
    }

    /// The same segments, whose headers are not checked: each chunk has a checksum of its own.
    pub(crate) fn without_header_checks(self) -> Self {
        self.files.iter().for_each(|segment| segment.is_checked.store(true, Ordering::Relaxed));
        self
    }

    pub(crate) fn count(&self) -> usize {
        self.files.len()
    }

    pub(crate) fn size_bytes(&self, segment: u32) -> u64 {
        self.files.get(segment as usize).map_or(0, |segment| segment.file.size_bytes())
    }

    pub(crate) fn place(&self, segment: u32) -> BlockLocation {
        self.place.at(BlockPart::Segment(segment))
    }

    /// The segment with this number.
    fn file(&self, number: u32) -> Result<&Segment, BlockError> {
        self.files.get(number as usize).ok_or_else(|| {
            self.place(number).contradiction(
                None,
                format!("the index refers to it, but the block has {} segments", self.files.len()),
            )
        })
    }

    /// The segment with this number, with its header checked.
    fn segment(&self, number: u32) -> Result<&dyn ReadAt, BlockError> {
        let segment = self.file(number)?;
        if !segment.is_checked.load(Ordering::Relaxed) {
            let range = self.header_range(number)?;
            let header = segment.file.read_at(range).map_err(|error| self.place(number).io(0, error))?;
            self.check(number, &header)?;
        }
        Ok(&*segment.file)
    }

    /// The range of the header of a segment.
    fn header_range(&self, number: u32) -> Result<Range<u64>, BlockError> {
        let size = self.file(number)?.file.size_bytes();
        if size < HEADER_BYTES {
            return Err(self.place(number).truncated(0, HEADER_BYTES, size));
        }
        Ok(0..HEADER_BYTES)
    }

    /// Checks the bytes of the header of a segment.
    fn check(&self, number: u32, header: &[u8]) -> Result<(), BlockError> {
        let place = self.place(number);
        place.check_magic(ByteCursor::new(header).be32(), MAGIC, "a chunk segment")?;
        match header.get(4) {
            Some(&VERSION) => self.file(number)?.is_checked.store(true, Ordering::Relaxed),
            other => return Err(place.version(other.copied().unwrap_or(0), VERSION)),
        }
        Ok(())
    }

    /// Checks the header of a segment.
    pub(crate) fn check_header(&self, number: u32) -> Result<(), BlockError> {
        self.segment(number).map(|_| ())
    }

    /// The chunks at these places, in their order. Neighbours are read together.
    pub(crate) fn read(&self, metas: &[ChunkMeta]) -> Result<Vec<Chunk>, BlockError> {
        let mut out = Vec::with_capacity(metas.len());
        for of_segment in metas.chunk_by(|a, b| a.reference.segment() == b.reference.segment()) {
            let near = |a: &ChunkMeta, b: &ChunkMeta| {
                (a.reference.offset()..=a.reference.offset() + GAP_BYTES).contains(&b.reference.offset())
            };
            let runs: Vec<&[ChunkMeta]> =
                of_segment.chunk_by(near).flat_map(|run| run.chunks(TOGETHER_CHUNKS)).collect();
            let Some(segment) = of_segment.first().map(|meta| meta.reference.segment()) else { continue };
            let windows = self.windows(segment, &runs)?;
            for (run, window) in runs.into_iter().zip(windows) {
                let start = run.first().map_or(0, |meta| meta.reference.offset());
                for meta in run {
                    out.push(self.chunk(meta, &window, start)?);
                }
            }
        }
        Ok(out)
    }

    /// Reads the bytes of each run of neighbours of one segment, and its header with them if it was not checked before.
    fn windows(&self, segment: u32, runs: &[&[ChunkMeta]]) -> Result<Vec<Bytes>, BlockError> {
        let is_checked = self.file(segment)?.is_checked.load(Ordering::Relaxed);
        let header = if is_checked { None } else { Some(self.header_range(segment)?) };
        let of_runs = runs.iter().map(|run| {
            let offset = |meta: Option<&ChunkMeta>| meta.map_or(0, |meta| meta.reference.offset());
            self.within(segment, offset(run.first())..offset(run.last()) + self.record_bytes)
        });
        let ranges = header.map(Ok).into_iter().chain(of_runs).collect::<Result<Vec<_>, _>>()?;
        let start = runs.first().and_then(|run| run.first()).map(|meta| meta.reference.offset());
        let read = self.file(segment)?.file.read_many(&ranges);
        let mut windows = read.map_err(|error| self.place(segment).io(start, error))?;
        if !is_checked && !windows.is_empty() {
            let header = windows.remove(0);
            self.check(segment, &header)?;
        }
        Ok(windows)
    }

    /// Where the record at `reference` ends. Reads only its length.
    pub(crate) fn record_end(&self, reference: ChunkRef) -> Result<u64, BlockError> {
        let (segment, offset) = (reference.segment(), reference.offset());
        let bytes = self.window(segment, offset..offset + MAX_LENGTH_BYTES as u64)?;
        let (head, data) = self.lengths(segment, offset, &bytes)?;
        Ok(offset + head + data)
    }

    /// The bytes of `range`, cut at the end of the segment.
    fn window(&self, segment: u32, range: Range<u64>) -> Result<Bytes, BlockError> {
        let range = self.within(segment, range)?;
        let start = range.start;
        self.segment(segment)?.read_at(range).map_err(|error| self.place(segment).io(start, error))
    }

    /// `range`, cut at the end of the segment.
    fn within(&self, segment: u32, range: Range<u64>) -> Result<Range<u64>, BlockError> {
        let size = self.file(segment)?.file.size_bytes();
        if range.start < HEADER_BYTES || range.start >= size {
            let what = format!("the index has a chunk here, but the segment has {size} bytes");
            return Err(self.place(segment).contradiction(range.start, what));
        }
        Ok(range.start..range.end.min(size))
    }

    fn chunk(&self, meta: &ChunkMeta, window: &Bytes, start: u64) -> Result<Chunk, BlockError> {
        let (segment, offset) = (meta.reference.segment(), meta.reference.offset());
        // The window ends with the segment. A damaged index may have chunks after that.
        let at = (offset - start) as usize;
        let bytes = if at < window.len() {
            window.slice(at..)
        } else {
            self.window(segment, offset..offset + self.record_bytes)?
        };
        let record = self.record(segment, offset, bytes)?;
        let chunk = Chunk { range: meta.range, encoding: record.encoding, data: record.data };
        if let Some(at) = chunk.first_timestamp()
            && !meta.range.contains(at)
        {
            let (min, max) = (meta.range.min, meta.range.max);
            return Err(self.place(segment).error(offset, BlockProblem::ChunkTimes { at, min, max }));
        }
        Ok(chunk)
    }

    /// The chunk at `meta` and the size of its record. It is taken from `ahead`, the bytes that were read last, if it is there;
    /// otherwise a large range is read, for the chunks that follow.
    pub(crate) fn read_record(
        &self,
        meta: &ChunkMeta,
        ahead: &mut ReadAhead,
    ) -> Result<(Chunk, u64), BlockError> {
        let (segment, offset) = (meta.reference.segment(), meta.reference.offset());
        let held = ahead.from(segment, offset);
        let is_whole = held
            .as_ref()
            .and_then(|bytes| {
                self.lengths(segment, offset, bytes).ok().map(|(head, data)| (bytes, head + data))
            })
            .is_some_and(|(bytes, length)| length <= bytes.len() as u64);
        let bytes = match held.filter(|_| is_whole) {
            Some(bytes) => bytes,
            None => {
                let bytes = self.window(segment, offset..offset + AHEAD_BYTES)?;
                *ahead = ReadAhead { segment, offset, bytes: bytes.clone() };
                bytes
            }
        };
        let record = self.record(segment, offset, bytes)?;
        Ok((Chunk { range: meta.range, encoding: record.encoding, data: record.data }, record.length))
    }

    /// The record that begins with `bytes`. More bytes are read if these are too few.
    fn record(&self, segment: u32, offset: u64, mut bytes: Bytes) -> Result<ChunkRecord, BlockError> {
        let (head, data) = self.lengths(segment, offset, &bytes)?;
        let length = head + data;
        let place = self.place(segment);
        if length > bytes.len() as u64 {
            let left = self.size_bytes(segment) - offset;
            if length > left {
                return Err(place.truncated(offset, length, left));
            }
            bytes = self.window(segment, offset..offset + length)?;
        }
        let record = bytes.slice(head as usize..length as usize);
        let (covered, checksum) = record.split_at(record.len() - 4);
        let expected = ByteCursor::new(checksum).be32().unwrap_or(0);
        place.check(offset, expected, crc32c::crc32c(covered))?;
        let encoding = Encoding::from_byte(covered[0])
            .ok_or_else(|| place.malformed(offset, format!("chunk encoding {} is unknown", covered[0])))?;
        Ok(ChunkRecord { encoding, data: record.slice(1..record.len() - 4), length })
    }

    /// The number of bytes of the length of a record, and of what follows it.
    fn lengths(&self, segment: u32, offset: u64, bytes: &[u8]) -> Result<(u64, u64), BlockError> {
        let mut cursor = ByteCursor::new(&bytes[..bytes.len().min(MAX_LENGTH_BYTES)]);
        let data = cursor
            .uvarint()
            .filter(|&length| length <= u64::from(u32::MAX))
            .ok_or_else(|| self.place(segment).malformed(offset, "no chunk begins here"))?;
        Ok((cursor.at() as u64, data + 5))
    }
}
