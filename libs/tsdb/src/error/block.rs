//! Errors of blocks.

use std::fmt;
use std::io;
use std::sync::Arc;

use model::Timestamp;

use crate::error::chunk::ChunkError;
use crate::meta::MetaError;

/// A part of a block, as an error names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BlockPart {
    /// The directory itself.
    Directory,
    /// `meta.json`.
    Meta,
    /// Magic number and version of `index`.
    IndexHeader,
    /// The table of contents at the end of `index`.
    TableOfContents,
    /// The symbols of `index`.
    Symbols,
    /// The entries of series in `index`.
    Series,
    /// The postings lists of `index`.
    Postings,
    /// The postings offset table of `index`.
    PostingsTable,
    /// A file of `chunks/`, counted from 0 as in references. Its name is one higher.
    Segment(u32),
    /// `tombstones`.
    Tombstones,
}

impl fmt::Display for BlockPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Directory => "directory",
            Self::Meta => "meta.json",
            Self::IndexHeader => "index, header",
            Self::TableOfContents => "index, table of contents",
            Self::Symbols => "index, symbols",
            Self::Series => "index, series",
            Self::Postings => "index, postings",
            Self::PostingsTable => "index, postings offset table",
            Self::Segment(number) => return write!(f, "chunks/{:06}", u64::from(*number) + 1),
            Self::Tombstones => "tombstones",
        })
    }
}

/// A block, or a part of it, that cannot be read: names the block, the part, the byte in its file, and the problem.
///
/// Other parts of the block can still be read.
#[derive(Debug, thiserror::Error)]
#[error("block {block}: {}{problem}", Place(.part, *.offset, .series, .problem))]
pub struct BlockError {
    /// The block's id, or its path where it has none.
    pub block: Arc<str>,
    /// Which part.
    pub part: BlockPart,
    /// Byte in the file of the part, from 0; `None` when the problem concerns the whole part.
    pub offset: Option<u64>,
    /// The series whose chunk it is, where that is known.
    pub series: Option<Box<str>>,
    /// What is wrong.
    #[source]
    pub problem: BlockProblem,
}

struct KnownVersions(u8);

impl fmt::Display for KnownVersions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => f.write_str("1"),
            newest => write!(f, "1 to {newest}"),
        }
    }
}

/// The place of a problem, with a colon. The text of a problem of `meta.json` begins with its name already.
struct Place<'a>(&'a BlockPart, Option<u64>, &'a Option<Box<str>>, &'a BlockProblem);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.3 {
            BlockProblem::Meta(_) => Ok(()),
            _ => write!(f, "{}{}{}: ", self.0, Offset(self.1), OfSeries(self.2)),
        }
    }
}

struct Offset(Option<u64>);

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |offset| write!(f, " at byte {offset}"))
    }
}

struct OfSeries<'a>(&'a Option<Box<str>>);

impl fmt::Display for OfSeries<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |series| write!(f, ", series {series}"))
    }
}

/// What is wrong with a part of a block.
#[derive(Debug, thiserror::Error)]
pub enum BlockProblem {
    /// The bytes cannot be read. The block may be undamaged.
    #[error("{0}")]
    Io(io::Error),
    /// The bytes are not those that were written.
    #[error("checksum is {found:08x}, expected {expected:08x}; the file is damaged")]
    Checksum {
        /// The checksum in the file.
        expected: u32,
        /// The checksum of the bytes.
        found: u32,
    },
    /// The file ends too early, or a length is too great.
    #[error("{needed} bytes are needed, but {present} are left; the file is truncated or damaged")]
    Truncated {
        /// Bytes that are needed.
        needed: u64,
        /// Bytes up to the end of the part.
        present: u64,
    },
    /// The file has a version that this program does not read.
    #[error("version is {found}, expected {}", KnownVersions(*.newest))]
    Version {
        /// The version of the file.
        found: u8,
        /// The newest version that is read.
        newest: u8,
    },
    /// The bytes are not in the format.
    #[error("{0}")]
    Malformed(String),
    /// The file contradicts another file of the block.
    #[error("{0}")]
    Contradiction(String),
    /// A chunk that cannot be decoded.
    #[error("{0}")]
    Chunk(ChunkError),
    /// The samples of a chunk are not in the range that the index has for it.
    #[error(
        "the first or last sample of the chunk is at {at}, but the index has the chunk from {min} to {max}"
    )]
    ChunkTimes {
        /// Time of the sample.
        at: Timestamp,
        /// Time of the first sample in the index.
        min: Timestamp,
        /// Time of the last sample in the index.
        max: Timestamp,
    },
    /// `meta.json` cannot be used.
    #[error("{0}")]
    Meta(MetaError),
}

impl BlockError {
    /// Whether the block is damaged. If not, its bytes could not be read, and a retry may help.
    pub fn is_damage(&self) -> bool {
        match &self.problem {
            BlockProblem::Io(error) => matches!(error.kind(), io::ErrorKind::UnexpectedEof),
            _ => true,
        }
    }

    /// Whether a file of the block does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(&self.problem, BlockProblem::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

/// A part of a block. Makes errors that name it.
#[derive(Clone, Debug)]
pub(crate) struct BlockLocation {
    pub(crate) block: Arc<str>,
    pub(crate) part: BlockPart,
}

impl BlockLocation {
    pub(crate) fn new(block: &Arc<str>, part: BlockPart) -> Self {
        Self { block: block.clone(), part }
    }

    pub(crate) fn at(&self, part: BlockPart) -> Self {
        Self { block: self.block.clone(), part }
    }

    pub(crate) fn error(&self, offset: impl Into<Option<u64>>, problem: BlockProblem) -> BlockError {
        BlockError {
            block: self.block.clone(),
            part: self.part,
            offset: offset.into(),
            series: None,
            problem,
        }
    }

    /// The version byte of a file, which follows its magic number, is not one that is read.
    pub(crate) fn version(&self, found: u8, newest: u8) -> BlockError {
        self.error(4, BlockProblem::Version { found, newest })
    }

    pub(crate) fn malformed(&self, offset: impl Into<Option<u64>>, what: impl Into<String>) -> BlockError {
        self.error(offset, BlockProblem::Malformed(what.into()))
    }

    pub(crate) fn contradiction(
        &self,
        offset: impl Into<Option<u64>>,
        what: impl Into<String>,
    ) -> BlockError {
        self.error(offset, BlockProblem::Contradiction(what.into()))
    }

    pub(crate) fn truncated(&self, offset: u64, needed: u64, present: u64) -> BlockError {
        self.error(offset, BlockProblem::Truncated { needed, present })
    }

    pub(crate) fn io(&self, offset: impl Into<Option<u64>>, error: io::Error) -> BlockError {
        self.error(offset, BlockProblem::Io(error))
    }

    /// Compares the magic number at the beginning of a file. `file` is the kind of file that is expected, with its article.
    pub(crate) fn check_magic(
        &self,
        found: Option<u32>,
        expected: u32,
        file: &str,
    ) -> Result<(), BlockError> {
        match found.unwrap_or(0) {
            found if found == expected => Ok(()),
            found => Err(self.malformed(
                0,
                format!("magic number is {found:#010x}, expected {expected:#010x}; the file is damaged, or is not {file}"),
            )),
        }
    }

    /// Compares the checksum in the file with that of the bytes at `offset`.
    pub(crate) fn check(&self, offset: u64, expected: u32, found: u32) -> Result<(), BlockError> {
        if expected == found {
            return Ok(());
        }
        Err(self.error(offset, BlockProblem::Checksum { expected, found }))
    }
}
