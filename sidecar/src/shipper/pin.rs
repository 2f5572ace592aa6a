//! Pins: second names for a block's files, so that Prometheus may remove the block while it is still needed.
//!
//! ```text
//! <tsdb.path>/thanos/upload/<ULID>/chunks/000001 ...   hard links; never inside Prometheus' own block
//! <tsdb.path>/thanos/upload/<ULID>/index
//! <tsdb.path>/thanos/upload/<ULID>/meta.json
//! <tsdb.path>/thanos/upload/<ULID>.tmp/                a pin in the making; removed when found
//! ```
//!
//! A pin appears whole or not at all. Tombstones are left out: no bucket has them.

use std::fs;
use std::path::{Path, PathBuf};

use tsdb::{META_FILE, Ulid};

use crate::shipper::disk::{self, DiskError};

/// Ending of a pin in the making.
const UNFINISHED: &str = "tmp";

/// The folder of all pins.
#[derive(Clone, Debug)]
pub(super) struct Pins {
    dir: PathBuf,
}

/// How the files of a pin come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Means {
    /// Costs no space.
    Link,
    /// Where links cannot be made: another file system, or files of another user.
    Copy,
}

impl Pins {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    pub(super) fn dir(&self, block: Ulid) -> PathBuf {
        self.dir.join(block.to_string())
    }

    pub(super) fn contains(&self, block: Ulid) -> bool {
        self.dir(block).is_dir()
    }

    /// The blocks that are pinned.
    pub(super) fn blocks(&self) -> Result<Vec<Ulid>, DiskError> {
        let entries = disk::entries(&self.dir)?;
        let folders = entries.into_iter().filter(|(_, kind)| kind.is_dir());
        Ok(folders.filter_map(|(name, _)| tsdb::parse_block_id(&name)).collect())
    }

    /// Makes the folder and removes pins that were never finished, as after a kill.
    pub(super) fn tidy(&self) -> Result<(), DiskError> {
        disk::create_folder(&self.dir)?;
        for (name, _) in disk::entries(&self.dir)? {
            let path = self.dir.join(&name);
            if path.extension().is_some_and(|end| end == UNFINISHED) {
                disk::remove_folder(&path)?;
            }
        }
        Ok(())
    }

    /// Pins the block in `dir`; nothing happens where it is pinned already.
    ///
    /// # Errors
    /// `is_missing` when Prometheus removes the block meanwhile; `is_no_place_for_links` when a copy could do.
    pub(super) fn pin(&self, block: Ulid, dir: &Path, means: Means) -> Result<(), DiskError> {
        let target = self.dir(block);
        if target.is_dir() {
            return Ok(());
        }
        let unfinished = target.with_extension(UNFINISHED);
        disk::remove_folder(&unfinished)?;
        let filled = fill(dir, &unfinished, means).and_then(|()| disk::rename_folder(&unfinished, &target));
        if filled.is_err() {
            drop(fs::remove_dir_all(&unfinished));
        }
        filled
    }

    /// Gives a block's files up; nothing happens where it is not pinned.
    pub(super) fn release(&self, block: Ulid) -> Result<(), DiskError> {
        let target = self.dir(block);
        if !target.is_dir() {
            return Ok(());
        }
        // Renamed first: half a pin must not look like a whole one.
        let unfinished = target.with_extension(UNFINISHED);
        disk::remove_folder(&unfinished)?;
        disk::rename_folder(&target, &unfinished)?;
        disk::remove_folder(&unfinished)
    }
}

fn fill(from: &Path, to: &Path, means: Means) -> Result<(), DiskError> {
    let take = |name: &str| match means {
        Means::Link => disk::link(&from.join(name), &to.join(name)),
        Means::Copy => disk::copy(&from.join(name), &to.join(name)),
    };
    disk::create_folder(&to.join("chunks"))?;
    for (name, kind) in disk::entries(&from.join("chunks"))? {
        if kind.is_file() {
            take(&format!("chunks/{name}"))?;
        }
    }
    disk::sync_folder(&to.join("chunks"))?;
    take("index")?;
    take(META_FILE)
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
    fn a_pin_outlives_the_block() {
        for means in [Means::Link, Means::Copy] {
            let dir = TempDir::new().unwrap();
            let (block, id) = (block(dir.path()), Ulid(7));
            let pins = Pins::new(dir.path().join("thanos/upload"));
            pins.tidy().unwrap();
            pins.pin(id, &block, means).unwrap();
            pins.pin(id, &block, means).unwrap();
            let links = fs::metadata(block.join("index")).unwrap().nlink();
            assert_eq!(links, if means == Means::Link { 2 } else { 1 });
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
    fn half_a_pin_is_none() {
        let dir = TempDir::new().unwrap();
        let (block, id) = (block(dir.path()), Ulid(7));
        let pins = Pins::new(dir.path().join("upload"));
        pins.tidy().unwrap();
        fs::remove_file(block.join(META_FILE)).unwrap();
        let error = pins.pin(id, &block, Means::Link).unwrap_err();
        assert!(error.is_missing() && error.to_string().contains("meta.json"), "{error}");
        assert!(!pins.contains(id));
        fs::create_dir_all(dir.path().join(format!("upload/{id}.tmp/chunks"))).unwrap();
        pins.tidy().unwrap();
        assert_eq!(fs::read_dir(dir.path().join("upload")).unwrap().count(), 0);
    }
}
