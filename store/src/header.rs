//! Index headers: copies of the parts of an index that lookups need, in the data folder.
//!
//! [`file`] draws their bytes.
//!
//! Headers are a cache: one that is damaged, or was deleted, is built again, from ranges of the index.

mod file;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tsdb::{BlockError, IndexSections, ReadAt, Ulid};

use crate::header::file::{HeaderedIndex, INDEX_SYMBOLS_AT, WriteError, size_bytes, write};

/// The name of the file in the folder of a block.
const FILE: &str = "index-header";
/// The name of one that is not complete.
const UNFINISHED: &str = "index-header.tmp";

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
    /// Whether it is being written.
    is_unfinished: bool,
}

impl HeaderFolder {
    /// The headers in `root`, of which at most `limit_bytes` are kept, also while further ones are written. Those of an earlier run are
    /// found.
    ///
    /// # Errors
    /// When the folder cannot be created or listed.
    pub(crate) fn open(root: &Path, limit_bytes: u64) -> io::Result<Self> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", root.display()));
        fs::create_dir_all(root).map_err(named)?;
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(root).map_err(named)? {
            let entry = entry.map_err(named)?;
            let Some(block) = entry.file_name().to_str().and_then(tsdb::parse_block_id) else { continue };
            let folder = entry.path();
            // Left by a process that was killed. An empty folder goes with it.
            if fs::remove_file(folder.join(UNFINISHED)).is_ok() {
                let _ = fs::remove_dir(&folder);
            }
            if let Ok(metadata) = fs::metadata(folder.join(FILE)) {
                let size_bytes = metadata.len();
                files.insert(block, HeaderUse { size_bytes, last: 0, is_unfinished: false });
            }
        }
        let folder = Self {
            root: root.to_owned(),
            limit_bytes,
            files: Mutex::new(files),
            uses: AtomicU64::new(1),
            is_failing: AtomicBool::new(false),
        };
        folder.make_room(&mut folder.files());
        Ok(folder)
    }

    /// The index of a block, whose lookups read the header on disk; it is built if there is none. `index` is the file in the
    /// bucket, and `direct` is the same file without a cache.
    ///
    /// Where no header can be written, such as on a full disk or without room within the limit, it is `index` itself.
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
            Err(WriteError::Index(error)) => Err(tsdb_error(block, error)),
            Err(WriteError::Disk(error)) if error.kind() == io::ErrorKind::QuotaExceeded => {
                tracing::debug!(%block, %error, "index is read from the bucket");
                Ok(index)
            }
            Err(WriteError::Disk(error)) => {
                if !self.is_failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%block, %error, "index headers cannot be written and indexes are read from the bucket");
                }
                Ok(index)
            }
        }
    }

    /// Removes the header of a block, because it is damaged or its block is gone.
    pub(crate) fn discard(&self, block: Ulid) {
        self.files().remove(&block);
        self.remove(block);
    }

    /// Removes the headers of all blocks but those that `is_known`.
    pub(crate) fn keep_only(&self, is_known: impl Fn(Ulid) -> bool) {
        let gone: Vec<Ulid> = {
            let files = self.files();
            files.keys().copied().filter(|block| !is_known(*block)).collect()
        };
        gone.into_iter().for_each(|block| self.discard(block));
    }

    /// Bytes of all headers.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.files().values().map(|file| file.size_bytes).sum()
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<Ulid, HeaderUse>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
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
                self.note(block, header.header_bytes(), false);
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
    ) -> Result<(), WriteError> {
        let path = self.path(block);
        let size_bytes = size_bytes(sections);
        if !self.note(block, size_bytes, true) {
            let text = format!(
                "no room for {size_bytes} bytes within --store.index-header-disk-limit={}",
                self.limit_bytes
            );
            return Err(WriteError::Disk(io::Error::new(io::ErrorKind::QuotaExceeded, text)));
        }
        let unfinished = path.with_file_name(UNFINISHED);
        let create = || {
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            write(&unfinished, index, sections)?;
            Ok(fs::rename(&unfinished, &path)?)
        };
        create().inspect_err(|_: &WriteError| {
            let _ = fs::remove_file(&unfinished);
            self.discard(block);
        })?;
        self.note(block, size_bytes, false);
        Ok(())
    }

    /// Notes that a header is used, or that one will be written, and makes room for it. Returns whether there is enough.
    fn note(&self, block: Ulid, size_bytes: u64, is_unfinished: bool) -> bool {
        let last = self.uses.fetch_add(1, Ordering::Relaxed);
        let mut files = self.files();
        files.insert(block, HeaderUse { size_bytes, last, is_unfinished });
        let has_room = self.make_room(&mut files);
        if !has_room && is_unfinished {
            files.remove(&block);
        }
        has_room
    }

    /// Removes the headers that were not used for the longest time until there is not too much. Returns whether that was enough: those
    /// that are being written stay.
    fn make_room(&self, files: &mut BTreeMap<Ulid, HeaderUse>) -> bool {
        let mut total: u64 = files.values().map(|file| file.size_bytes).sum();
        while total > self.limit_bytes {
            let removable = files.iter().filter(|(_, file)| !file.is_unfinished);
            let oldest = removable.min_by_key(|(_, file)| file.last);
            let Some((oldest, file)) = oldest.map(|(oldest, file)| (*oldest, *file)) else { return false };
            files.remove(&oldest);
            total -= file.size_bytes;
            // A block that is open has the file open, and keeps it.
            self.remove(oldest);
        }
        true
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

#[cfg(test)]
mod tests;
