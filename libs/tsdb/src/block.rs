//! A block: many series in one range of time, immutable.
//!
//! ```text
//! select     series that match, with their chunks     verify     everything, against everything
//! ties       whether files belong together            (this)     the parts together
//! salvage    what can be read of a damaged block
//! ```

mod salvage;
mod select;
mod ties;
mod verify;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use model::{Matcher, TimeRange};
use ulid::Ulid;

use crate::error::{BlockError, BlockLocation, BlockPart, BlockProblem};
use crate::files::{CHUNKS_DIR, INDEX_FILE, segment_file_name};
use crate::meta::{BlockMeta, META_FILE, parse_block_id};
use crate::segments::Segments;
use crate::tombstones::{TOMBSTONES_FILE, Tombstones};
use crate::{Chunk, ChunkMeta, Index, IndexMemory, LocalFile, Postings, ReadAt};

pub use salvage::BlockSalvage;
pub use select::{BlockSelection, BlockSeries};
pub use verify::{Verification, VerifyEvent, verify_dir};

/// A block, opened for reading: a local directory, or parts in another place, such as a bucket. Shared between threads.
///
/// Everything that is read is checked against its checksum. The parts are compared with each other as far as the format
/// allows: the id, the number of series and of tombstones, listed sizes, the ends of segments, the times of chunks.
///
/// ```no_run
/// let block = tsdb::Block::open("data/01DXXFZDYD1MQW6079WK0K6EDQ".as_ref())?;
/// for series in block.select(&[model::Matcher::equal("job", "api")], model::TimeRange::ALL)? {
///     let series = series?;
///     println!("{} {:?}", series.labels, block.chunks(&series.chunks)?);
/// }
/// # Ok::<(), tsdb::BlockError>(())
/// ```
pub struct Block {
    name: Arc<str>,
    meta: BlockMeta,
    index: Index,
    segments: Segments,
    /// `None` where the block has no such file.
    tombstones: Option<Tombstones>,
    /// Whether the segments were compared with the index.
    is_tied: AtomicBool,
}

/// The parts of a block: local files, or objects of a bucket.
pub struct BlockParts {
    /// The content of `meta.json`.
    pub meta: BlockMeta,
    /// `index`.
    pub index: Arc<dyn ReadAt>,
    /// The files of `chunks/`, in the order of their names. Without them only the index can be read.
    pub segments: Vec<Arc<dyn ReadAt>>,
    /// `tombstones`, if the block has that file.
    pub tombstones: Option<Arc<dyn ReadAt>>,
    /// What to keep of the index in memory.
    pub index_memory: IndexMemory,
}

impl Block {
    /// Opens the block in directory `dir`.
    ///
    /// # Errors
    /// When a file is missing, cannot be read or is damaged, or the files are not from one block. A directory whose name is a
    /// ULID must have the id in `meta.json`; a directory with another name may contain any block.
    pub fn open(dir: &Path) -> Result<Self, BlockError> {
        let block = Self::load(dir)?;
        block.check_meta()?;
        Ok(block)
    }

    /// Opens block `id` from its parts.
    ///
    /// # Errors
    /// When a part cannot be read or is damaged, or the parts are not from one block.
    pub fn from_parts(id: Ulid, parts: BlockParts) -> Result<Self, BlockError> {
        let block = Self::assemble(Arc::from(id.to_string()), parts)?;
        if block.meta.ulid != id {
            let what =
                format!("the id is {}, expected {id}; the file belongs to another block", block.meta.ulid);
            return Err(block.place(BlockPart::Meta).contradiction(None, what));
        }
        block.check_meta()?;
        Ok(block)
    }

    /// Opens the files of a block without comparing them with each other.
    fn load(dir: &Path) -> Result<Self, BlockError> {
        let named = dir.file_name().and_then(|name| name.to_str()).and_then(parse_block_id);
        let name: Arc<str> = named.map_or_else(|| dir.display().to_string(), |id| id.to_string()).into();
        let place = |part| BlockLocation::new(&name, part);
        if !dir.is_dir() {
            let what = if dir.exists() { "is not a directory" } else { "does not exist" };
            let error =
                std::io::Error::new(std::io::ErrorKind::NotFound, format!("{} {what}", dir.display()));
            return Err(place(BlockPart::Directory).io(None, error));
        }
        let open = |part, path: &str| -> Result<Arc<dyn ReadAt>, BlockError> {
            let file = LocalFile::open(&dir.join(path)).map_err(|error| place(part).io(None, error))?;
            Ok(Arc::new(file))
        };
        let bytes = std::fs::read(dir.join(META_FILE)).map_err(|e| place(BlockPart::Meta).io(None, e))?;
        let meta = BlockMeta::parse(&bytes)
            .map_err(|error| place(BlockPart::Meta).error(None, BlockProblem::Meta(error)))?;
        if let Some(id) = named
            && meta.ulid != id
        {
            let what = format!("the id is {}, but the directory is named {id}", meta.ulid);
            return Err(place(BlockPart::Meta).contradiction(None, what));
        }
        let index = open(BlockPart::IndexHeader, INDEX_FILE)?;
        let segments = segment_files(&place(BlockPart::Directory), &dir.join(CHUNKS_DIR))?;
        let segments = (0..segments)
            .map(|number| {
                open(BlockPart::Segment(number), &format!("{CHUNKS_DIR}/{}", segment_file_name(number)))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let tombstones = match open(BlockPart::Tombstones, TOMBSTONES_FILE) {
            Ok(file) => Some(file),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        let index_memory = IndexMemory::default();
        Self::assemble(name, BlockParts { meta, index, segments, tombstones, index_memory })
    }

    fn assemble(name: Arc<str>, parts: BlockParts) -> Result<Self, BlockError> {
        let BlockParts { meta, index, segments, tombstones, index_memory } = parts;
        let largest = meta.thanos.as_ref().map(|thanos| &thanos.index_stats);
        let index = Index::open_named(&name, index, index_memory)?
            .with_largest_entry(largest.and_then(|stats| stats.series_max_size));
        let segments =
            Segments::new(&name, segments).with_largest_chunk(largest.and_then(|stats| stats.chunk_max_size));
        let place = BlockLocation::new(&name, BlockPart::Tombstones);
        let parse = |file: Arc<dyn ReadAt>| {
            let bytes = file.read_at(0..file.size_bytes()).map_err(|error| place.io(0, error))?;
            Tombstones::parse(&place, &bytes)
        };
        let tombstones = tombstones.map(parse).transpose()?;
        Ok(Self { name, meta, index, segments, tombstones, is_tied: AtomicBool::new(false) })
    }

    /// The content of `meta.json`.
    pub fn meta(&self) -> &BlockMeta {
        &self.meta
    }

    /// Its index.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The intervals that were deleted since the block was written.
    pub fn tombstones(&self) -> &Tombstones {
        static NONE: Tombstones = Tombstones::none();
        self.tombstones.as_ref().unwrap_or(&NONE)
    }

    /// The series that satisfy all of `matchers` and have chunks that overlap `range`, in the order of their labels.
    ///
    /// # Errors
    /// When a part of the index that is needed is damaged or cannot be read. The iterator gives an error for each series that
    /// cannot be read, and continues with the next one.
    pub fn select(&self, matchers: &[Matcher], range: TimeRange) -> Result<BlockSelection<'_>, BlockError> {
        let postings = self.index.matching(matchers)?;
        Ok(BlockSelection::new(self, postings, range))
    }

    /// The series of `postings` that have chunks which overlap `range`, in the order of their labels. Use it to select in parts,
    /// with [`Index::matching_lazily`] and [`Postings::slice`].
    ///
    /// The iterator gives an error for each series that cannot be read, and continues with the next one.
    pub fn select_from(&self, postings: Postings, range: TimeRange) -> BlockSelection<'_> {
        BlockSelection::new(self, postings, range)
    }

    /// The chunk with this entry in the index.
    ///
    /// # Errors
    /// As [`Block::chunks`].
    pub fn chunk(&self, meta: &ChunkMeta) -> Result<Chunk, BlockError> {
        let mut chunks = self.chunks(std::slice::from_ref(meta))?;
        chunks.pop().ok_or_else(|| self.place(BlockPart::Directory).malformed(None, "no chunk was read"))
    }

    /// The chunks of a series, in their order; neighbours are read together.
    ///
    /// Their checksums are checked, but they are not decoded. A chunk whose first sample is outside of the range in the index
    /// is an error.
    ///
    /// # Errors
    /// When a chunk is not where the index has it, is damaged or cannot be read, or the segments are not from the block of the
    /// index.
    pub fn chunks(&self, metas: &[ChunkMeta]) -> Result<Vec<Chunk>, BlockError> {
        if !self.is_tied.load(Ordering::Relaxed) {
            self.check_segments()?;
            self.is_tied.store(true, Ordering::Relaxed);
        }
        self.segments.read(metas)
    }

    fn place(&self, part: BlockPart) -> BlockLocation {
        BlockLocation::new(&self.name, part)
    }
}

impl std::fmt::Debug for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Block").field("name", &self.name).field("meta", &self.meta).finish_non_exhaustive()
    }
}

/// Number of segments in `dir`. Their names count from 1 without gaps.
fn segment_files(place: &BlockLocation, dir: &Path) -> Result<u32, BlockError> {
    let in_chunks = |error: std::io::Error| {
        place.io(None, std::io::Error::new(error.kind(), format!("{CHUNKS_DIR}: {error}")))
    };
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(in_chunks)? {
        let name = entry.map_err(in_chunks)?.file_name();
        // A file with another name is not a segment, as in Prometheus.
        if let Some(number) = name.to_str().and_then(|name| name.parse::<u32>().ok()) {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    let gap = numbers.iter().zip(1..).find(|(found, expected)| **found != *expected);
    if let Some((_, expected)) = gap {
        return Err(place.malformed(None, format!("{CHUNKS_DIR}/{expected:06} is missing")));
    }
    // There are no gaps, so the last number is the count.
    Ok(numbers.last().copied().unwrap_or(0))
}

#[cfg(test)]
mod faults;
#[cfg(test)]
mod tests;
