//! Index headers: copies of the parts of an index that lookups need, in the data folder.
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
//!
//! Headers are a cache: one that is damaged, or was deleted, is built again, from ranges of the index.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tsdb::{BlockError, IndexSections, IndexVersion, LocalFile, ReadAt, Ulid};

const MAGIC: u32 = 0xBAAA_D792;
const FORMAT_VERSION: u8 = 1;
/// Where the copy of the symbols begins in the header ...
const SYMBOLS_AT: u64 = 14;
/// ... and the original in the index: after magic number and version.
const INDEX_SYMBOLS_AT: u64 = 5;
const TRAILER_BYTES: u64 = 20;
/// The name of the file in the folder of a block.
const FILE: &str = "index-header";
/// Bytes that are copied at once.
const COPY_BYTES: u64 = 4 << 20;
/// Ranges that are read at once.
const COPIES_AT_ONCE: usize = 4;

/// The index headers in the data folder.
pub(crate) struct HeaderFolder {
    root: PathBuf,
    limit_bytes: u64,
    files: Mutex<BTreeMap<Ulid, HeaderUse>>,
    /// Counts uses, so that their order is known.
    uses: AtomicU64,
    /// Whether the last header could not be written; logged once until one could.
    is_failing: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
struct HeaderUse {
    size_bytes: u64,
    last: u64,
}

impl HeaderFolder {
    /// The headers in `root`, of which at most `limit_bytes` are kept. Those of an earlier run are found.
    ///
    /// # Errors
    /// When the folder cannot be created or listed.
    pub(crate) fn open(root: &Path, limit_bytes: u64) -> io::Result<Self> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", root.display()));
        fs::create_dir_all(root).map_err(named)?;
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(root).map_err(named)? {
            let entry = entry.map_err(named)?;
            let block = entry.file_name().to_str().and_then(tsdb::parse_block_id);
            let header = entry.path().join(FILE);
            if let (Some(block), Ok(metadata)) = (block, fs::metadata(&header)) {
                files.insert(block, HeaderUse { size_bytes: metadata.len(), last: 0 });
            }
        }
        Ok(Self {
            root: root.to_owned(),
            limit_bytes,
            files: Mutex::new(files),
            uses: AtomicU64::new(1),
            is_failing: AtomicBool::new(false),
        })
    }

    /// The index of a block, whose lookups read the header on disk; it is built if there is none. `index` is the file in the
    /// bucket, and `direct` is the same file without a cache.
    ///
    /// Where no header can be written, such as on a full disk, it is `index` itself.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub(crate) fn index(
        &self,
        block: Ulid,
        index: Arc<dyn ReadAt>,
        direct: &Arc<dyn ReadAt>,
    ) -> Result<Arc<dyn ReadAt>, BlockError> {
        if let Some(header) = self.load(block, &index) {
            return Ok(header);
        }
        let sections = IndexSections::read(block, direct)?;
        if sections.symbols.start != INDEX_SYMBOLS_AT {
            // No program writes this. The format of a header cannot express it.
            return Ok(index);
        }
        match self.build(block, direct, &sections) {
            Ok(()) => {
                self.is_failing.store(false, Ordering::Relaxed);
                Ok(self.load(block, &index).unwrap_or(index))
            }
            Err(BuildError::Index(error)) => Err(tsdb_error(block, error)),
            Err(BuildError::Disk(error)) => {
                if !self.is_failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%block, %error, "index headers cannot be written and indexes are read from the bucket");
                }
                Ok(index)
            }
        }
    }

    /// Removes the header of a block, because it is damaged or its block is gone.
    pub(crate) fn discard(&self, block: Ulid) {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).remove(&block);
        self.remove(block);
    }

    /// Removes the headers of all blocks but those that `is_known`.
    pub(crate) fn keep_only(&self, is_known: impl Fn(Ulid) -> bool) {
        let gone: Vec<Ulid> = {
            let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
            files.keys().copied().filter(|block| !is_known(*block)).collect()
        };
        gone.into_iter().for_each(|block| self.discard(block));
    }

    /// Bytes of all headers.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).values().map(|file| file.size_bytes).sum()
    }

    fn path(&self, block: Ulid) -> PathBuf {
        self.root.join(block.to_string()).join(FILE)
    }

    fn remove(&self, block: Ulid) {
        let path = self.path(block);
        // It is a cache: what cannot be removed now is removed later, or found to be damaged.
        let _ = fs::remove_file(&path);
        let _ = path.parent().map(fs::remove_dir);
    }

    fn load(&self, block: Ulid, index: &Arc<dyn ReadAt>) -> Option<Arc<dyn ReadAt>> {
        match HeaderedIndex::open(&self.path(block), index) {
            Ok(header) => {
                self.note_use(block, header.file.size_bytes());
                Some(Arc::new(header))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(%block, %error, "index header is damaged and is built again");
                self.discard(block);
                None
            }
        }
    }

    fn build(
        &self,
        block: Ulid,
        index: &Arc<dyn ReadAt>,
        sections: &IndexSections,
    ) -> Result<(), BuildError> {
        let path = self.path(block);
        let Some(folder) = path.parent() else { return Ok(()) };
        fs::create_dir_all(folder)?;
        let unfinished = folder.join(format!("{FILE}.tmp"));
        let size_bytes = write(&unfinished, index, sections).inspect_err(|_| {
            let _ = fs::remove_file(&unfinished);
            let _ = fs::remove_dir(folder);
        })?;
        fs::rename(&unfinished, &path)?;
        self.note_use(block, size_bytes);
        Ok(())
    }

    /// Notes that a header was used, and removes those that were not used for the longest time if there is too much.
    fn note_use(&self, block: Ulid, size_bytes: u64) {
        let last = self.uses.fetch_add(1, Ordering::Relaxed);
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.insert(block, HeaderUse { size_bytes, last });
        let mut total: u64 = files.values().map(|file| file.size_bytes).sum();
        while total > self.limit_bytes && files.len() > 1 {
            let oldest = files.iter().filter(|(other, _)| **other != block).min_by_key(|(_, file)| file.last);
            let Some((oldest, file)) = oldest.map(|(oldest, file)| (*oldest, *file)) else { break };
            files.remove(&oldest);
            total -= file.size_bytes;
            // A block that is open has the file open, and keeps it.
            self.remove(oldest);
        }
    }
}

/// Why a header was not built.
enum BuildError {
    /// The index in the bucket cannot be read.
    Index(io::Error),
    /// The file cannot be written.
    Disk(io::Error),
}

impl From<io::Error> for BuildError {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

fn tsdb_error(block: Ulid, error: io::Error) -> BlockError {
    BlockError {
        block: block.to_string().into(),
        part: tsdb::BlockPart::IndexHeader,
        offset: None,
        series: None,
        problem: tsdb::BlockProblem::Io(error),
    }
}

/// Writes a header; returns its size.
fn write(path: &Path, index: &Arc<dyn ReadAt>, sections: &IndexSections) -> Result<u64, BuildError> {
    let mut file = io::BufWriter::new(File::create(path)?);
    file.write_all(&MAGIC.to_be_bytes())?;
    file.write_all(&[FORMAT_VERSION, if sections.version == IndexVersion::V1 { 1 } else { 2 }])?;
    file.write_all(&sections.postings_table.start.to_be_bytes())?;
    let table_at = SYMBOLS_AT + (sections.symbols.end - sections.symbols.start);
    let pieces: Vec<Range<u64>> = pieces(&sections.symbols).chain(pieces(&sections.postings_table)).collect();
    for at_once in pieces.chunks(COPIES_AT_ONCE) {
        for bytes in index.read_many(at_once).map_err(BuildError::Index)? {
            file.write_all(&bytes)?;
        }
    }
    let mut trailer = [0; 16];
    trailer[..8].copy_from_slice(&SYMBOLS_AT.to_be_bytes());
    trailer[8..].copy_from_slice(&table_at.to_be_bytes());
    file.write_all(&trailer)?;
    file.write_all(&crc32c::crc32c(&trailer).to_be_bytes())?;
    file.flush()?;
    Ok(table_at + (sections.postings_table.end - sections.postings_table.start) + TRAILER_BYTES)
}

fn pieces(range: &Range<u64>) -> impl Iterator<Item = Range<u64>> + use<> {
    let end = range.end;
    range.clone().step_by(COPY_BYTES as usize).map(move |start| start..(start + COPY_BYTES).min(end))
}

/// An index in a bucket with a header on disk.
struct HeaderedIndex {
    index: Arc<dyn ReadAt>,
    file: LocalFile,
    start: [u8; INDEX_SYMBOLS_AT as usize],
    /// The ranges of the index that the header has, each with its offset in the header.
    copies: [(Range<u64>, u64); 2],
}

impl HeaderedIndex {
    fn open(path: &Path, index: &Arc<dyn ReadAt>) -> io::Result<Self> {
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

#[cfg(test)]
mod tests {
    use tsdb::{BlockOptions, Index, IndexMemory, Workload};

    use super::*;

    /// An index that counts the bytes that are read of it.
    struct Counted(Bytes, AtomicU64);

    impl ReadAt for Counted {
        fn size_bytes(&self) -> u64 {
            self.0.size_bytes()
        }

        fn read_at(&self, range: Range<u64>) -> io::Result<Bytes> {
            self.1.fetch_add(range.end - range.start, Ordering::Relaxed);
            self.0.read_at(range)
        }
    }

    fn index_of(series: u64, number: u64) -> (Ulid, Arc<dyn ReadAt>, Arc<Counted>) {
        let dir = tempfile::tempdir().unwrap();
        let workload =
            Workload { series, interval: std::time::Duration::from_secs(3600), ..Workload::default() };
        let id = Ulid::from_parts(number, 1);
        let meta = workload.write(dir.path(), BlockOptions::new(id), &mut |_| {}).unwrap();
        let bytes = fs::read(dir.path().join(meta.ulid.to_string()).join("index")).unwrap();
        let counted = Arc::new(Counted(Bytes::from(bytes), AtomicU64::new(0)));
        (id, Arc::clone(&counted) as Arc<dyn ReadAt>, counted)
    }

    fn values(block: Ulid, index: Arc<dyn ReadAt>) -> Vec<String> {
        let index = Index::open(block, index, IndexMemory::SAMPLED).unwrap();
        index.label_values("pod").unwrap()
    }

    #[test]
    fn lookups_read_the_header_and_not_the_bucket_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (block, index, counted) = index_of(2_000, 1);
        let expected = values(block, Arc::clone(&index));
        let folder = HeaderFolder::open(dir.path(), 1 << 30).unwrap();
        counted.1.store(0, Ordering::Relaxed);
        let headered = folder.index(block, Arc::clone(&index), &index).unwrap();
        let built = counted.1.swap(0, Ordering::Relaxed);
        assert!(built < index.size_bytes() / 2, "{built} of {} bytes were read", index.size_bytes());
        assert_eq!(values(block, headered), expected);
        let folder = HeaderFolder::open(dir.path(), 1 << 30).unwrap();
        assert_eq!(values(block, folder.index(block, Arc::clone(&index), &index).unwrap()), expected);
        assert_eq!(counted.1.load(Ordering::Relaxed), 0, "bytes of the bucket");
        let header = folder.index(block, Arc::clone(&index), &index).unwrap();
        for range in [0..5, 0..100, 3..9, index.size_bytes() - 60..index.size_bytes(), 5..6] {
            assert_eq!(
                header.read_at(range.clone()).unwrap(),
                index.read_at(range.clone()).unwrap(),
                "{range:?}"
            );
        }
        let ranges = [0..3, 200..300, index.size_bytes() - 9..index.size_bytes()];
        assert_eq!(header.read_many(&ranges).unwrap(), index.read_many(&ranges).unwrap());
    }

    #[test]
    fn a_header_that_is_not_whole_is_built_again() {
        let dir = tempfile::tempdir().unwrap();
        let (block, index, _) = index_of(500, 1);
        let (_, other, _) = index_of(700, 1);
        let expected = values(block, Arc::clone(&index));
        let folder = HeaderFolder::open(dir.path(), 1 << 30).unwrap();
        let read = || values(block, folder.index(block, Arc::clone(&index), &index).unwrap());
        assert_eq!(read(), expected);
        let path = folder.path(block);
        let sound = fs::read(&path).unwrap();
        let mut damaged: Vec<Vec<u8>> = [0, 3, 14, 33, sound.len() - 1].map(|n| sound[..n].to_vec()).to_vec();
        for at in [0, 4, 5, 7, sound.len() - 20, sound.len() - 9, sound.len() - 1] {
            let mut bytes = sound.clone();
            bytes[at] ^= 1;
            damaged.push(bytes);
        }
        for bytes in damaged {
            fs::write(&path, bytes).unwrap();
            assert_eq!(read(), expected);
            assert!(fs::read(&path).unwrap() == sound, "the header was not built again");
        }
        // The header of another index with the same name.
        let elsewhere = tempfile::tempdir().unwrap();
        let folder_of_other = HeaderFolder::open(elsewhere.path(), 1 << 30).unwrap();
        folder_of_other.index(block, Arc::clone(&other), &other).unwrap();
        fs::copy(folder_of_other.path(block), &path).unwrap();
        assert_eq!(read(), expected);
    }

    #[test]
    fn headers_that_were_not_used_for_long_make_room() {
        let dir = tempfile::tempdir().unwrap();
        let indexes: Vec<_> = (1..=4).map(|number| index_of(300, number)).collect();
        let folder = HeaderFolder::open(dir.path(), u64::MAX).unwrap();
        let used = |folder: &HeaderFolder, at: usize| {
            let (block, index, _) = &indexes[at];
            folder.index(*block, Arc::clone(index), index).unwrap();
        };
        used(&folder, 0);
        let one = folder.size_bytes();
        let folder = HeaderFolder::open(dir.path(), one * 5 / 2).unwrap();
        for at in [0, 1, 0, 2] {
            used(&folder, at);
        }
        let present = |at: usize| folder.path(indexes[at].0).exists();
        assert_eq!([present(0), present(1), present(2)], [true, false, true]);
        folder.keep_only(|block| block == indexes[2].0);
        assert_eq!([present(0), present(2)], [false, true]);
        assert_eq!(folder.size_bytes(), fs::metadata(folder.path(indexes[2].0)).unwrap().len());
    }
}
