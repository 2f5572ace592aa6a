//! A cache of metas on disk, so that a restart does not fetch all of them again.
//!
//! Best effort: a meta that cannot be read is fetched, and one that cannot be written is fetched again after a restart.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use model::Timestamp;
use tsdb::{BlockMeta, Ulid};

use crate::layout::META_FILE;

/// The folder below a role's data folder, as in Thanos.
const FOLDER: &str = "meta-syncer";

/// Metas in `<data-dir>/meta-syncer/<ULID>/meta.json`. Each file has the time of its object.
#[derive(Debug)]
pub(super) struct DiskCache {
    folder: PathBuf,
}

impl DiskCache {
    pub(super) fn open(data_dir: &Path) -> io::Result<Self> {
        let folder = data_dir.join(FOLDER);
        std::fs::create_dir_all(&folder).map_err(|error| crate::manifest::named(&folder, error))?;
        Ok(Self { folder })
    }

    fn file(&self, block: Ulid) -> PathBuf {
        self.folder.join(block.to_string()).join(META_FILE)
    }

    /// The meta of a block, unless `written` shows that its object has changed.
    pub(super) fn read(&self, block: Ulid, written: Option<Timestamp>) -> Option<BlockMeta> {
        let file = self.file(block);
        let content = std::fs::read(&file).ok()?;
        if let Some(written) = written
            && std::fs::metadata(&file).ok()?.modified().ok()? != to_system(written)
        {
            return None;
        }
        match BlockMeta::parse(&content) {
            Ok(meta) if meta.ulid == block => Some(meta),
            _ => {
                tracing::warn!(file = %file.display(), "cached meta is damaged and is fetched again");
                self.remove(block);
                None
            }
        }
    }

    pub(super) fn write(&self, block: Ulid, content: &[u8], written: Option<Timestamp>) {
        let file = self.file(block);
        let write = || {
            let folder = self.folder.join(block.to_string());
            std::fs::create_dir_all(&folder)?;
            let partial = folder.join("meta.json.tmp");
            std::fs::write(&partial, content)?;
            if let Some(written) = written {
                std::fs::File::options().write(true).open(&partial)?.set_modified(to_system(written))?;
            }
            std::fs::rename(&partial, &file)
        };
        if let Err(error) = write() {
            tracing::warn!(file = %file.display(), %error, "meta could not be cached");
        }
    }

    pub(super) fn remove(&self, block: Ulid) {
        let folder = self.folder.join(block.to_string());
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(folder = %folder.display(), %error, "cached meta could not be removed");
            }
            _ => {}
        }
    }

    /// Removes the metas of all other blocks.
    pub(super) fn keep_only(&self, blocks: &BTreeSet<Ulid>) {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return };
        for entry in entries.flatten() {
            if let Some(block) = entry.file_name().to_str().and_then(tsdb::parse_block_id)
                && !blocks.contains(&block)
            {
                self.remove(block);
            }
        }
    }
}

fn to_system(at: Timestamp) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(at.as_millis()).unwrap_or(0))
}
