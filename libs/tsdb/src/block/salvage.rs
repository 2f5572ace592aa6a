//! Reads what can be read of a damaged block.
//!
//! ```text
//! needed      meta.json, and of the index: header, table of contents, symbols
//! not needed  postings lists and their table, headers of segments, other chunks, counts that agree
//! ```
//! Series and chunks have checksums of their own, so what is found is what was written. The caller has to put it in order.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::{BlockError, BlockLocation, BlockPart, BlockProblem};
use crate::files::{CHUNKS_DIR, INDEX_FILE};
use crate::index::IndexSalvage;
use crate::meta::{BlockMeta, META_FILE, parse_block_id};
use crate::segments::{ReadAhead, Segments};
use crate::tombstones::{TOMBSTONES_FILE, Tombstones};
use crate::{Chunk, ChunkMeta, LocalFile, ReadAt, SalvagedSeries};

/// Files with a greater number are not segments of a block: that would be 32 TiB.
const MAX_SEGMENTS: u32 = 1 << 16;

/// A damaged block in a directory, opened to read what can be read.
pub struct BlockSalvage {
    name: Arc<str>,
    meta: BlockMeta,
    index: IndexSalvage,
    segments: Segments,
    tombstones: Tombstones,
    ahead: ReadAhead,
}

impl BlockSalvage {
    /// Opens the block in directory `dir`.
    ///
    /// # Errors
    /// When nothing can be read: `meta.json`, or header, table of contents or symbols of the index cannot be read. Also when
    /// tombstones exist and cannot be read, because deleted samples would appear again.
    pub fn open(dir: &Path) -> Result<Self, BlockError> {
        let named = dir.file_name().and_then(|name| name.to_str()).and_then(parse_block_id);
        let name: Arc<str> = named.map_or_else(|| dir.display().to_string(), |id| id.to_string()).into();
        let place = |part| BlockLocation::new(&name, part);
        let bytes = fs::read(dir.join(META_FILE)).map_err(|error| place(BlockPart::Meta).io(None, error))?;
        let meta = BlockMeta::parse(&bytes)
            .map_err(|error| place(BlockPart::Meta).error(None, BlockProblem::Meta(error)))?;
        let index = LocalFile::open(&dir.join(INDEX_FILE))
            .map_err(|error| place(BlockPart::IndexHeader).io(None, error))?;
        let index = IndexSalvage::open(&name, Arc::new(index))?;
        let segments = Segments::new(&name, segments(&place(BlockPart::Directory), dir)?);
        let tombstones = match fs::read(dir.join(TOMBSTONES_FILE)) {
            Ok(bytes) => Tombstones::parse(&place(BlockPart::Tombstones), &bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Tombstones::none(),
            Err(error) => return Err(place(BlockPart::Tombstones).io(None, error)),
        };
        let segments = segments.without_header_checks();
        Ok(Self { name, meta, index, segments, tombstones, ahead: ReadAhead::default() })
    }

    /// The content of `meta.json`. Its counts may be wrong.
    pub fn meta(&self) -> &BlockMeta {
        &self.meta
    }

    /// The deleted intervals. Some may be of series that the block does not have.
    pub fn tombstones(&self) -> &Tombstones {
        &self.tombstones
    }

    /// All series that can be read, in the order of the file, which may not be that of their labels; several may have the same
    /// labels. The errors are runs of bytes in which no series can be read; their number is not the number of lost series.
    ///
    /// Memory: the part of the index that has the series, and all series.
    ///
    /// # Errors
    /// When the index cannot be read from disk.
    pub fn series(&self) -> Result<(Vec<SalvagedSeries>, Vec<BlockError>), BlockError> {
        let (mut series, mut unread) = (Vec::new(), Vec::new());
        self.index.for_each(&mut |found| match found {
            Ok(found) => series.push(found),
            Err(error) => unread.push(error),
        })?;
        Ok((series, unread))
    }

    /// The chunk with this entry in the index. Only its checksum is checked: its samples may have other times than the index
    /// has, or may not be decodable.
    ///
    /// # Errors
    /// When the chunk cannot be read or has another checksum.
    pub fn chunk(&mut self, meta: &ChunkMeta) -> Result<Chunk, BlockError> {
        let segment = meta.reference.segment();
        if self.segments.size_bytes(segment) == 0 {
            let what = "the segment is missing or empty";
            return Err(self.segments.place(segment).malformed(meta.reference.offset(), what));
        }
        self.segments.read_record(meta, &mut self.ahead).map(|(chunk, _)| chunk)
    }

    /// Size of segment `number`, counted from 0, in bytes; 0 if it is missing.
    pub fn segment_bytes(&self, number: u32) -> u64 {
        self.segments.size_bytes(number)
    }

    /// The name of the block in errors.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The segments of the block in `dir`, in the order of their numbers. A missing one is empty.
fn segments(place: &BlockLocation, dir: &Path) -> Result<Vec<Arc<dyn ReadAt>>, BlockError> {
    let entries = match fs::read_dir(dir.join(CHUNKS_DIR)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(place.io(None, error)),
    };
    let mut files: BTreeMap<u32, Arc<dyn ReadAt>> = BTreeMap::new();
    for entry in entries {
        let entry = entry.map_err(|error| place.io(None, error))?;
        let number = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        if let Some(number) = number.filter(|number| (1..=MAX_SEGMENTS).contains(number)) {
            let file = LocalFile::open(&entry.path());
            files.insert(number, Arc::new(file.map_err(|error| place.io(None, error))?));
        }
    }
    let last = files.keys().next_back().copied().unwrap_or(0);
    let file = |number| files.remove(&number).unwrap_or_else(|| Arc::new(MissingFile));
    Ok((1..=last).map(file).collect())
}

/// A segment that does not exist.
struct MissingFile;

impl ReadAt for MissingFile {
    fn size_bytes(&self) -> u64 {
        0
    }

    fn read_at(&self, _: Range<u64>) -> io::Result<Bytes> {
        Err(io::ErrorKind::NotFound.into())
    }
}

impl std::fmt::Debug for BlockSalvage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockSalvage").field("name", &self.name).finish_non_exhaustive()
    }
}
