//! A cache of metas on disk, so that a restart does not fetch all of them again.
//!
//! Best effort: a meta that cannot be read is fetched, and one that cannot be written is fetched again after a restart.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use model::Timestamp;
use tsdb::{BlockMeta, Ulid};
use xxhash_rust::xxh64::xxh64;

use crate::layout::META_FILE;

/// The folder below a role's data folder, as in Thanos.
const FOLDER: &str = "meta-syncer";

/// What precedes the checksum in the last line of a file, after the content of the object.
const CHECKSUM: &[u8] = b"\n# xxh64 ";

/// Metas in `<data-dir>/meta-syncer/<ULID>/meta.json`. Each file has the time of its object, and a last line with the checksum of what is
/// before it: a flipped bit in a time or a label would otherwise go unnoticed. A file of Thanos has none and is fetched again.
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
        match verified(&content).map(BlockMeta::parse) {
            Some(Ok(meta)) if meta.ulid == block => Some(meta),
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
            std::fs::write(&partial, sealed(content))?;
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

/// Content with its checksum.
fn sealed(content: &[u8]) -> Vec<u8> {
    let checksum = format!("{:016x}\n", xxh64(content, 0));
    [content, CHECKSUM, checksum.as_bytes()].concat()
}

/// The content, if its checksum is right.
fn verified(sealed_content: &[u8]) -> Option<&[u8]> {
    let length = sealed_content.len().checked_sub(CHECKSUM.len() + 17)?;
    let content = &sealed_content[..length];
    (sealed(content) == sealed_content).then_some(content)
}

fn to_system(at: Timestamp) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(at.as_millis()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use tsdb::{BlockMeta, Ulid};

    use super::*;

    #[test]
    fn a_file_of_which_any_bit_was_flipped_or_any_end_was_cut_off_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let cache = DiskCache::open(dir.path()).unwrap();
        let block = Ulid::from_parts(1, 1);
        let content = format!(
            r#"{{"ulid":"{block}","minTime":100,"maxTime":7300,"version":1,"thanos":{{"labels":{{"cluster":"a"}}}}}}"#
        );
        let written = Timestamp::from_millis(1_700_000_000_000);
        let restored = |bytes: &[u8]| {
            cache.write(block, content.as_bytes(), Some(written));
            std::fs::write(cache.file(block), bytes).unwrap();
            let file = std::fs::File::options().write(true).open(cache.file(block)).unwrap();
            file.set_modified(to_system(written)).unwrap();
            cache.read(block, Some(written))
        };
        cache.write(block, content.as_bytes(), Some(written));
        let sound = std::fs::read(cache.file(block)).unwrap();
        let expected = BlockMeta::parse(content.as_bytes()).unwrap();
        assert_eq!(restored(&sound), Some(expected));
        for at in 0..sound.len() {
            let mut flipped = sound.clone();
            flipped[at] ^= 1 << (at % 8);
            assert_eq!(restored(&flipped), None, "byte {at}");
            assert_eq!(restored(&sound[..at]), None, "cut at {at}");
        }
        assert_eq!(restored(content.as_bytes()), None, "without a checksum");
    }
}
