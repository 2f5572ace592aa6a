//! Pins: hard links to the files of a block, so that Prometheus may remove the block while it is still
//! needed.
//!
//! ```text
//! <tsdb.path>/thanos/upload/<ULID>/chunks/000001 ...   hard links; the blocks of Prometheus are never changed
//! <tsdb.path>/thanos/upload/<ULID>/index
//! <tsdb.path>/thanos/upload/<ULID>/meta.json
//! <tsdb.path>/thanos/upload/<ULID>.tmp/                an incomplete pin; removed when found
//! ```
//!
//! A pin appears completely or not at all. It has no tombstones, because buckets do not store them.

use std::fs;
use std::path::{Path, PathBuf};

use tsdb::{META_FILE, Ulid};

use crate::disk::{self, DiskError};

/// Extension of an incomplete pin.
const UNFINISHED: &str = "tmp";

/// The directory of all pins.
#[derive(Clone, Debug)]
pub(crate) struct Pins {
    dir: PathBuf,
}

/// How the files of a pin are created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PinMethod {
    /// Hard links, which take no space.
    Link,
    /// Copies, where links are impossible: on another file system, or for files of another user.
    Copy,
}

impl Pins {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    pub(crate) fn dir(&self, block: Ulid) -> PathBuf {
        self.dir.join(block.to_string())
    }

    pub(crate) fn contains(&self, block: Ulid) -> bool {
        self.dir(block).is_dir()
    }

    /// The pinned blocks.
    pub(crate) fn blocks(&self) -> Result<Vec<Ulid>, DiskError> {
        let entries = disk::entries(&self.dir)?;
        let folders = entries.into_iter().filter(|(_, kind)| kind.is_dir());
        Ok(folders.filter_map(|(name, _)| tsdb::parse_block_id(&name)).collect())
    }

    /// Creates the directory, and removes incomplete pins, for example after a kill.
    pub(crate) fn remove_unfinished(&self) -> Result<(), DiskError> {
        disk::create_folder(&self.dir)?;
        for (name, _) in disk::entries(&self.dir)? {
            let path = self.dir.join(&name);
            if path.extension().is_some_and(|end| end == UNFINISHED) {
                disk::remove_folder(&path)?;
            }
        }
        Ok(())
    }

    /// Pins the block in `dir`, unless it is pinned already.
    ///
    /// # Errors
    /// `is_missing` if Prometheus has removed the block meanwhile; `is_link_unsupported` if only a copy is
    /// possible.
    pub(crate) fn pin(&self, block: Ulid, dir: &Path, method: PinMethod) -> Result<(), DiskError> {
        let target = self.dir(block);
        if target.is_dir() {
            return Ok(());
        }
        let unfinished = target.with_extension(UNFINISHED);
        disk::remove_folder(&unfinished)?;
        let filled =
            fill_folder(dir, &unfinished, method).and_then(|()| disk::rename_folder(&unfinished, &target));
        if filled.is_err() {
            drop(fs::remove_dir_all(&unfinished));
        }
        filled
    }

    /// Removes the pin of a block, if there is one.
    pub(crate) fn release(&self, block: Ulid) -> Result<(), DiskError> {
        let target = self.dir(block);
        if !target.is_dir() {
            return Ok(());
        }
        // The pin is renamed first, so that a partly removed pin is not taken for a complete one.
        let unfinished = target.with_extension(UNFINISHED);
        disk::remove_folder(&unfinished)?;
        disk::rename_folder(&target, &unfinished)?;
        disk::remove_folder(&unfinished)
    }
}

fn fill_folder(from: &Path, to: &Path, method: PinMethod) -> Result<(), DiskError> {
    let add = |name: &str| match method {
        PinMethod::Link => disk::link(&from.join(name), &to.join(name)),
        PinMethod::Copy => disk::copy(&from.join(name), &to.join(name)),
    };
    disk::create_folder(&to.join("chunks"))?;
    for (name, kind) in disk::entries(&from.join("chunks"))? {
        if kind.is_file() {
            add(&format!("chunks/{name}"))?;
        }
    }
    disk::sync_folder(&to.join("chunks"))?;
    add("index")?;
    add(META_FILE)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use tempfile::TempDir;

    use super::*;

    fn block(dir: &Path) -> PathBuf {
        let block = dir.join("block");
        fs::create_dir_all(block.join("chunks")).unwrap();
        for name in ["chunks/000001", "chunks/000002", "index", META_FILE, "tombstones"] {
            fs::write(block.join(name), name).unwrap();
        }
        block
    }

    #[test]
    fn pin_keeps_the_files_of_a_removed_block() {
        for method in [PinMethod::Link, PinMethod::Copy] {
            let dir = TempDir::new().unwrap();
            let (block, id) = (block(dir.path()), Ulid(7));
            let pins = Pins::new(dir.path().join("thanos/upload"));
            pins.remove_unfinished().unwrap();
            pins.pin(id, &block, method).unwrap();
            pins.pin(id, &block, method).unwrap();
            let links = fs::metadata(block.join("index")).unwrap().nlink();
            assert_eq!(links, if method == PinMethod::Link { 2 } else { 1 });
            fs::remove_dir_all(&block).unwrap();
            assert_eq!(fs::read_to_string(pins.dir(id).join("chunks/000002")).unwrap(), "chunks/000002");
            assert!(!pins.dir(id).join("tombstones").exists());
            assert_eq!(pins.blocks().unwrap(), [id]);
            pins.release(id).unwrap();
            pins.release(id).unwrap();
            assert!(pins.blocks().unwrap().is_empty() && !pins.contains(id));
            assert_eq!(fs::read_dir(dir.path().join("thanos/upload")).unwrap().count(), 0);
        }
    }

    #[test]
    fn incomplete_pin_is_removed() {
        let dir = TempDir::new().unwrap();
        let (block, id) = (block(dir.path()), Ulid(7));
        let pins = Pins::new(dir.path().join("upload"));
        pins.remove_unfinished().unwrap();
        fs::remove_file(block.join(META_FILE)).unwrap();
        let error = pins.pin(id, &block, PinMethod::Link).unwrap_err();
        assert!(error.is_missing() && error.to_string().contains("meta.json"), "{error}");
        assert!(!pins.contains(id));
        fs::create_dir_all(dir.path().join(format!("upload/{id}.tmp/chunks"))).unwrap();
        pins.remove_unfinished().unwrap();
        assert_eq!(fs::read_dir(dir.path().join("upload")).unwrap().count(), 0);
    }
}
